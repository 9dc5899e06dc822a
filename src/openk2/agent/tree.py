"""A folder that others change while it is read: programs of a model, or a person.

Every access goes step by step from the folder itself and follows no link, so that nothing outside is ever read, written
or removed, whatever is swapped for a link in the meantime. Paths are relative to it, with `/`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Literal

from openk2.core import UserError

Kind = Literal["file", "link", "folder", "other"]

TEXT_BYTES = 1 << 20
"""Texts up to here are compared and merged; what is longer, or no text, is taken whole or not at all."""
MOST_DEPTH = 100
"""Deeper folders are not looked into."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_THERE = (FileNotFoundError, NotADirectoryError)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_FICLONE = 0x40049409


@dataclass(frozen=True, slots=True)
class State:
    """What is at a path. As long as `mark` is the same, so is the content. `other` is a pipe, a socket, a device."""

    kind: Kind
    mode: int
    mark: tuple[int, ...] = ()
    target: str = ""


class Tree:
    """A folder. `ours`: what its owner may not read, as programs of a model may leave it, is made readable."""

    def __init__(self, root: Path, *, ours: bool = False) -> None:
        self.root = root
        self._ours = ours

    def look(self, path: str) -> State | None:
        """What is there; None for nothing, and where the way leads through something that is no folder."""
        try:
            with self._parent(path) as (folder, name):
                return _state(folder, name)
        except OSError:
            return None

    def walk(self, path: str = "") -> Iterator[tuple[str, State]]:
        """Everything below, folders before what is in them."""
        waiting = [path]
        while waiting:
            folder = waiting.pop()
            for name, state in self.entries(folder):
                inner = f"{folder}/{name}" if folder else name
                yield inner, state
                if state.kind == "folder" and inner.count("/") < MOST_DEPTH:
                    waiting.append(inner)

    def entries(self, path: str = "") -> list[tuple[str, State]]:
        """What is in a folder; nothing where there is none any more, and of others' folders where it cannot be read.

        Raises UserError for one of ours that cannot be read: nothing of it is gone.
        """
        try:
            with self._open_folder(path) as folder:
                found = ((name, _state(folder, name)) for name in _names(folder))
                return [(name, state) for name, state in found if state is not None]
        except OSError as e:
            if self._ours and e.errno not in _GONE:
                raise UserError(f"the copy of the folder cannot be read ({e.strerror or e}): try again") from e
            return []

    @contextmanager
    def open(self, path: str) -> Iterator[BufferedReader]:
        """A regular file. Raises OSError for anything else."""
        with self._parent(path) as (folder, name):
            try:
                handle = os.open(name, _FILE, dir_fd=folder)
            except PermissionError:
                if not self._ours:
                    raise
                _allow(folder, name, stat.S_IRUSR)
                handle = os.open(name, _FILE, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise OSError(errno.EINVAL, "it is no regular file")
                yield file

    def text(self, path: str) -> str | None:
        """The text of a file; empty if there is nothing, None if it is no text, no file, or too long."""
        try:
            with self.open(path) as file:
                data = file.read(TEXT_BYTES + 1)
        except _NOT_THERE:
            return ""
        except OSError:
            return None
        if b"\0" in data or len(data) > TEXT_BYTES:
            return None
        try:
            return data.decode()
        except UnicodeDecodeError:
            return None

    def digest(self, path: str) -> str:
        """The SHA-256 of a file; empty if it cannot be read."""
        try:
            with self.open(path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""

    def copy(self, path: str, other: Tree, state: State) -> None:
        """Copy what is at a path, and not what is in it, to the same path of another tree, where nothing is.

        Raises OSError, also if there is something else here now than `state` says.
        """
        with other._parent(path) as (folder, name):
            if state.kind == "folder":
                os.mkdir(name, 0o700, dir_fd=folder)
                _allow(folder, name, state.mode | stat.S_IRWXU)
            elif state.kind == "link":
                os.symlink(state.target, name, dir_fd=folder)
            elif state.kind == "file":
                with self.open(path) as source:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as target:
                        _fill(source, target)
                        found = os.fstat(source.fileno())
                        os.fchmod(target.fileno(), stat.S_IMODE(found.st_mode) & 0o777)
                        target.flush()
                        os.utime(target.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))

    def remove(self, path: str) -> None:
        """Remove what is at a path, and what is in it."""
        with suppress(OSError, RecursionError), self._parent(path) as (folder, name):
            state = _state(folder, name)
            if state is not None and state.kind == "folder":
                # So that all of it can be read, and removed.
                for _ in self.walk(path) if self._ours else ():
                    pass
                shutil.rmtree(name, dir_fd=folder)
            elif state is not None:
                os.unlink(name, dir_fd=folder)

    def chmod(self, path: str, mode: int) -> None:
        """Set the permissions of a file or a folder. Raises OSError."""
        with self._parent(path) as (folder, name):
            _chmod(folder, name, lambda _: mode)

    def link(self, path: str, target: str) -> None:
        """Put a link where nothing is. Raises OSError."""
        with self._parent(path) as (folder, name):
            os.symlink(target, name, dir_fd=folder)

    @contextmanager
    def _open_folder(self, path: str) -> Iterator[int]:
        if not path:
            handle = os.open(self.root, _FOLDER)
            try:
                yield handle
            finally:
                os.close(handle)
            return
        with self._parent(path) as (parent, name):
            if self._ours:
                _allow(parent, name, stat.S_IRWXU)
            handle = os.open(name, _FOLDER, dir_fd=parent)
            try:
                yield handle
            finally:
                os.close(handle)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """An open descriptor of the folder that holds the path, and the name in it."""
        *steps, name = path.split("/")
        if name in ("", ".", "..") or ".." in steps:
            raise OSError(errno.EINVAL, "it is no path below")
        here = os.open(self.root, _FOLDER)
        try:
            for step in steps:
                there = os.open(step, _FOLDER, dir_fd=here)
                os.close(here)
                here = there
            yield here, name
        finally:
            os.close(here)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _state(folder: int, name: str) -> State | None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return State("link", 0, target=os.readlink(name, dir_fd=folder))
    except _NOT_THERE:
        return None
    mode = stat.S_IMODE(found.st_mode) & 0o777
    if stat.S_ISDIR(found.st_mode):
        return State("folder", mode)
    if stat.S_ISREG(found.st_mode):
        return State("file", mode, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
    return State("other", mode)


def _allow(folder: int, name: str, mode: int) -> None:
    """Give the owner these permissions beside those that are there."""
    _chmod(folder, name, lambda found: found | mode)


def _chmod(folder: int, name: str, wanted: Callable[[int], int]) -> None:
    """Set permissions, from those that are there, and never by way of a link."""
    handle = os.open(name, getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(handle).st_mode
        mode = wanted(stat.S_IMODE(found))
        if not stat.S_ISLNK(found) and mode != stat.S_IMODE(found):
            Path(f"/proc/self/fd/{handle}").chmod(mode)
    finally:
        os.close(handle)


def _fill(source: BufferedReader, target: BufferedWriter) -> None:
    """Copy the content; on a file system that can, without taking any room."""
    try:
        import fcntl

        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        shutil.copyfileobj(source, target, 1 << 20)
