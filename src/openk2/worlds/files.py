"""The file tools of a machine: read, write and edit text files of one folder, and never anything outside it.

A path may name a link as long as the link ends inside the folder. The checked path is then opened step by step without
following links, so that swapping a link in after the check gains nothing.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from openk2.core import ToolResult
from openk2.worlds import text

READ_BYTES = 1 << 20


class _Refused(Exception):
    """A file operation that cannot be done; the model reads the path and then the message."""


class Files:
    """The three file tools over `folder`. Every outcome, good or bad, is a `ToolResult`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def read(self, path: str) -> ToolResult:
        """The file's text. Of a file above READ_BYTES only the start is read, and that is said."""
        try:
            data, size, _ = self._load(path, READ_BYTES)
        except (_Refused, OSError) as e:
            return _failure(path, e)
        if text.is_binary(data):
            return _failure(path, _Refused(f"is not a text file ({size} bytes)"))
        shown = text.from_bytes(data).rstrip("\n")
        if size > len(data):
            shown = text.cap(shown) + f"\n({path} goes on: {size} bytes in all)"
            return ToolResult(shown)
        return ToolResult(text.cap(shown) or "(empty file)")

    def write(self, path: str, content: str) -> ToolResult:
        """Create or replace a file; missing folders are made."""
        try:
            self._store(path, content.encode("utf-8", "replace"), 0o644)
        except (_Refused, OSError) as e:
            return _failure(path, e)
        return ToolResult(f"wrote {path}")

    def edit(self, path: str, old: str, new: str) -> ToolResult:
        """Replace the one occurrence of `old`. Zero or several occurrences change nothing and are an error."""
        if not old:
            return ToolResult("old is empty: give the text to replace", error=True)
        try:
            data, size, mode = self._load(path, 32 * READ_BYTES)
            if size > len(data):
                raise _Refused(f"is too big to edit ({size} bytes)")
            if text.is_binary(data):
                raise _Refused(f"is not a text file ({size} bytes)")
            before, after = old.encode("utf-8", "replace"), new.encode("utf-8", "replace")
            if before not in data and b"\r\n" in data:
                # The model saw the file with plain line ends; the file keeps the ends it has.
                before, after = (b.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for b in (before, after))
            count = data.count(before)
            if count == 0:
                raise _Refused("does not hold that text")
            if count > 1:
                raise _Refused(f"holds that text {count} times: give a longer piece")
            self._store(path, data.replace(before, after), mode)
        except (_Refused, OSError) as e:
            return _failure(path, e)
        return ToolResult(f"edited {path}")

    def _inside(self, path: str) -> tuple[str, ...]:
        """The steps from the folder to the path with links resolved."""
        if not path or "\0" in path:
            raise _Refused("holds a zero character" if path else "is empty: give the path of a file")
        try:
            real = Path(os.path.realpath(self.folder / path))
        except UnicodeEncodeError as e:
            raise _Refused("is not a path: it holds half a character") from e
        if not real.is_relative_to(self.folder):
            raise _Refused("is outside the workspace")
        return real.relative_to(self.folder).parts

    @contextmanager
    def _parent(self, path: str, make: bool) -> Iterator[tuple[int, str]]:
        """An open descriptor of the folder that holds the path, and the name in it."""
        steps = self._inside(path)
        if not steps:
            raise IsADirectoryError
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        here = os.open(self.folder, flags)
        try:
            for step in steps[:-1]:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(step, 0o755, dir_fd=here)
                there = os.open(step, flags, dir_fd=here)
                os.close(here)
                here = there
            yield here, steps[-1]
        finally:
            os.close(here)

    def _load(self, path: str, limit: int) -> tuple[bytes, int, int]:
        """At most `limit` bytes of a regular file, its whole size, and its permission bits."""
        with self._parent(path, make=False) as (folder, name):
            # Without O_NONBLOCK, opening a named pipe would wait for somebody to write to it.
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            with open(handle, "rb") as f:
                status = os.fstat(handle)
                if stat.S_ISDIR(status.st_mode):
                    raise IsADirectoryError
                if not stat.S_ISREG(status.st_mode):
                    raise _Refused("is not a regular file")
                return f.read(limit), status.st_size, stat.S_IMODE(status.st_mode)

    def _store(self, path: str, data: bytes, mode: int) -> None:
        """Write the whole file or leave the old one: a full disk or a kill loses nothing."""
        with self._parent(path, make=True) as (folder, name):
            status: os.stat_result | None = None
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                pass
            else:
                if stat.S_ISDIR(status.st_mode):
                    raise IsADirectoryError
                if not stat.S_ISREG(status.st_mode):
                    raise _Refused("is not a regular file")
                mode = stat.S_IMODE(status.st_mode)
                if not mode & 0o222:
                    raise PermissionError
            temporary = f".{secrets.token_hex(6)}.tmp"
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=folder)
            try:
                with open(handle, "wb") as f:
                    if status is not None:
                        _take_over(handle, status)
                    f.write(data)
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise


def _take_over(handle: int, status: os.stat_result) -> None:
    """Give a new file the owner, as far as we may, and the permissions of the one that it replaces."""
    with suppress(OSError):
        os.fchown(handle, status.st_uid, status.st_gid)
    # Opening a file with a mode is subject to the umask. Some file systems know no permissions.
    with suppress(OSError):
        os.fchmod(handle, stat.S_IMODE(status.st_mode))


def _failure(path: str, error: Exception) -> ToolResult:
    path = path if len(path) <= 100 else f"{path[:100]}..."
    match error:
        case _Refused():
            message = f"{path or 'the path'} {error}"
        case FileNotFoundError():
            message = f"no such file: {path}"
        case IsADirectoryError():
            message = f"{path} is a folder"
        case NotADirectoryError():
            message = f"{path} runs through something that is not a folder"
        case PermissionError():
            message = f"no permission for {path}"
        case OSError():
            message = f"{path}: {error.strerror or error}"
        case _:
            raise error
    return ToolResult(text.clean(message).replace("\n", " "), error=True)
