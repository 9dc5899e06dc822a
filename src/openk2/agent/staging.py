"""A staged copy of a person's folder: tools act on the copy, and what is accepted of it goes into the folder.

    workspace ──refresh──► stage ──changes──► what a person is shown ──merge──► workspace

What the person does meanwhile is never overwritten: where both have changed a text, it is merged line by line, and
where that cannot be done it is a conflict and stays as the person has it. Before anything is written, what was there
is in the folder of the turn (`undo.py`).

A path is relative to the workspace, with `/`. Links are copied as links and never followed. What is large and in no
version control (`SHARED_BYTES`, `SHARED_ENTRIES`) is not copied: in the stage it is a link into the workspace, which
programs in the sandbox can read and not write.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pathspec import GitIgnoreSpec

from openk2.agent.merge import merge_texts
from openk2.agent.undo import Put, Turn, place, read_text
from openk2.core import UserError
from openk2.core.messages import is_unicode
from openk2.core.progress import Bar

Kind = Literal["file", "link", "folder"]

SHARED_BYTES, SHARED_ENTRIES = 64 << 20, 2_000
"""A folder that version control ignores, and has more than that in it, is shared."""
SHARED_FILE_BYTES = 256 << 20
"""So is a file of more than that."""
# Programs that a person runs later take commands from there.
_NEVER_MERGED = (".git/hooks", ".git/config", ".git/info/attributes", ".git/modules")
_ALWAYS_IGNORED = GitIgnoreSpec.from_lines(["node_modules/", ".venv/", "venv/", ".tox/", ".git/"])


@dataclass(frozen=True, slots=True)
class State:
    """What is at a path. As long as `mark` is the same, so is the content."""

    kind: Kind
    mode: int
    mark: tuple[int, ...]
    target: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What tools have made of a path: from `before` to `after`, None where there was, or is, nothing."""

    path: str
    before: State | None
    after: State | None

    @property
    def word(self) -> str:
        if self.before is None:
            return "added"
        return "deleted" if self.after is None else "changed"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A change that was not taken over, and why."""

    change: Change
    reason: str


@dataclass(slots=True)
class _Base:
    """A path as both sides last had it: its state there and here, and where its text is kept, if it is."""

    there: State
    here: State
    text: tuple[int, int] | None = None


class Stage:
    """The staged copy of `workspace`, in the new folder `folder`."""

    def __init__(self, workspace: Path, folder: Path) -> None:
        self.workspace = workspace.resolve()
        self.folder = folder
        self.shared: dict[str, Path] = {}
        """What is a link into the workspace, by path."""
        self._base: dict[str, _Base] = {}
        # One file for all texts, which would fill the memory, or be as many files once more.
        self._texts = folder.with_name(f"{folder.name}.texts")

    def refresh(self, bar: Bar | None = None) -> list[str]:
        """Take over what the person has changed since; the paths. The stage must have no changes of its own.

        Raises UserError if the workspace cannot be read or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        shared: dict[str, Path] = {}
        now = dict(self._walk_workspace(shared))
        for path in set(self.shared) - set(shared):
            (self.folder / path).unlink(missing_ok=True)
        changed = [path for path in self._base if path not in now]
        for path in sorted(changed, reverse=True):
            self._drop(path)
        todo = [path for path, state in now.items() if path not in self._base or self._base[path].there != state]
        for number, path in enumerate(todo):
            if bar is not None and number % 64 == 0:
                bar(number, len(todo))
            self._take(path, now[path])
        for path, target in shared.items():
            link = self.folder / path
            if path not in self.shared and not link.is_symlink():
                link.symlink_to(target)
        self.shared = shared
        return changed + todo

    def changes(self) -> list[Change]:
        """What tools have made of the stage, in the order of paths."""
        now = dict(self._walk_stage())
        found: list[Change] = []
        for path in sorted(now.keys() | self._base.keys()):
            base, state = self._base.get(path), now.get(path)
            if base is not None and state is not None and self._unchanged(path, base, state):
                continue
            found.append(Change(path, base.there if base else None, state))
        return found

    def before(self, path: str) -> str | None:
        """The text that a path had, where it is kept; empty if there was nothing."""
        base = self._base.get(path)
        return "" if base is None else self._text(base)

    def after(self, path: str) -> str | None:
        """The text that tools have made of it, if it is text and not too long; empty if nothing is there."""
        return read_text(self.folder / path)

    def merge(self, changes: Sequence[Change], turn: Turn) -> list[Conflict]:
        """Take changes over into the workspace, and begin anew from what is there. `turn` can put all of them back.

        Raises UserError if the disk is full or a folder cannot be written; what was done until then is in `turn`.
        """
        conflicts: list[Conflict] = []
        puts: list[Put] = []
        # Folders before what lies in them, and the other way around when they go.
        in_order = sorted(changes, key=lambda change: change.path)
        gone = [change for change in reversed(in_order) if change.after is None]
        for change in [*gone, *(change for change in in_order if change.after is not None)]:
            put = self._merged(change)
            if isinstance(put, str):
                conflicts.append(Conflict(change, put))
            elif put is not None:
                puts.append(put)
        turn.begin(self.workspace, puts)
        try:
            for put in puts:
                if not place(self.workspace, put):
                    change = next(change for change in changes if change.path == put.path)
                    conflicts.append(Conflict(change, "its folder is no folder any more"))
        finally:
            self.reset(changes)
        return conflicts

    def reset(self, changes: Sequence[Change]) -> None:
        """Make the stage what the workspace is, wherever tools have changed it."""
        for change in sorted(changes, key=lambda change: change.path, reverse=True):
            self._drop(change.path)
        for change in sorted(changes, key=lambda change: change.path):
            state = look(self.workspace / change.path)
            if state is not None and (self.folder / change.path).parent.is_dir():
                self._take(change.path, state)

    def _merged(self, change: Change) -> Put | str | None:
        """What is to be put into the workspace; why that cannot be; None if the person has done the same."""
        path = change.path
        if not is_unicode(path + (change.after.target if change.after else "")):
            return "its name has bytes that are not UTF-8"
        if any(path == never or path.startswith(f"{never}/") for never in _NEVER_MERGED):
            return "what is there is run by git: change it yourself"
        if change.after is not None and change.after.kind == "link" and _leads_out(path, change.after.target):
            return f"a link to {change.after.target} leads out of the folder"
        source = self.folder / path
        there = look(self.workspace / path)
        if there == change.before:
            return Put(path, None if change.after is None else source)
        if change.after is None:
            return None if there is None else "you have changed what was deleted"
        if there is not None and there.kind == change.after.kind and _alike(self.workspace / path, source, there.kind):
            return None
        if there is None:
            return "you have deleted what was changed"
        texts = self.before(path), read_text(self.workspace / path), read_text(source)
        if there.kind != "file" or change.after.kind != "file" or change.before is None:
            return "you have put something else there"
        if texts[0] is None or texts[1] is None or texts[2] is None:
            return "you have changed it too, and it is no text or too long to be merged"
        merged = merge_texts(texts[0], texts[1], texts[2])
        return "you have changed the same lines" if merged is None else Put(path, text=merged, mode=there.mode)

    def _unchanged(self, path: str, base: _Base, state: State) -> bool:
        if state == base.here:
            return True
        if (state.kind, state.mode) != (base.here.kind, base.here.mode):
            return False
        if state.kind == "folder":
            return True
        if base.text is not None:
            return self.after(path) == self._text(base)
        # Written anew, and perhaps with the same content.
        there = look(self.workspace / path)
        return there == base.there and _alike(self.workspace / path, self.folder / path, state.kind)

    def _take(self, path: str, state: State) -> None:
        """Copy a path from the workspace. One that is gone meanwhile is seen the next time."""
        source, target = self.workspace / path, self.folder / path
        here = look(target)
        if here is not None and (here.kind != "folder" or state.kind != "folder"):
            self._drop(path)
        with suppress(FileNotFoundError):
            if state.kind == "folder":
                target.mkdir(exist_ok=True)
                target.chmod(state.mode | stat.S_IRWXU)
            elif state.kind == "link":
                target.symlink_to(state.target)
            else:
                copy_file(source, target)
            here = look(target)
            if here is not None:
                self._base[path] = _Base(state, here, self._keep(target) if state.kind == "file" else None)

    def _keep(self, path: Path) -> tuple[int, int] | None:
        text = read_text(path)
        if text is None:
            return None
        with open(self._texts, "ab") as file:
            return file.tell(), file.write(text.encode())

    def _text(self, base: _Base) -> str | None:
        if base.text is None:
            return None
        with open(self._texts, "rb") as file:
            file.seek(base.text[0])
            return file.read(base.text[1]).decode()

    def _drop(self, path: str) -> None:
        """Remove a path, with what is in it, from the stage."""
        target = self.folder / path
        if target.is_dir() and not target.is_symlink():
            _remove_tree(target)
        else:
            target.unlink(missing_ok=True)
        self._base.pop(path, None)

    def _walk_workspace(self, shared: dict[str, Path]) -> Iterator[tuple[str, State]]:
        waiting: list[tuple[str, tuple[tuple[str, GitIgnoreSpec], ...]]] = [("", (("", _ALWAYS_IGNORED),))]
        while waiting:
            folder, rules = waiting.pop()
            rules = (*rules, *_rules_of(self.workspace / folder, folder))
            for entry in _entries(self.workspace / folder):
                path = f"{folder}{entry.name}"
                state = look(Path(entry.path))
                if state is None:
                    continue
                if state.kind == "file" and state.mark[0] > SHARED_FILE_BYTES:
                    shared[path] = Path(entry.path)
                    continue
                if state.kind == "folder":
                    if _ignored(f"{path}/", rules) and _is_large(Path(entry.path)):
                        shared[path] = Path(entry.path)
                        continue
                    waiting.append((f"{path}/", rules))
                yield path, state

    def _walk_stage(self) -> Iterator[tuple[str, State]]:
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            for entry in _entries(self.folder / folder):
                path = f"{folder}{entry.name}"
                state = look(Path(entry.path))
                if state is None or (state.kind == "link" and state.target == str(self.shared.get(path))):
                    continue
                if state.kind == "folder":
                    waiting.append(f"{path}/")
                yield path, state


def look(path: Path) -> State | None:
    """What is at a path, without following links. None for nothing, and for what is no file, link or folder."""
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            return State("link", 0, (), str(path.readlink()))
    except OSError:
        return None
    mode = stat.S_IMODE(found.st_mode) & 0o777
    if stat.S_ISDIR(found.st_mode):
        return State("folder", mode, ())
    if stat.S_ISREG(found.st_mode):
        return State("file", mode, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
    return None


_FICLONE = 0x40049409


def copy_file(source: Path, target: Path) -> None:
    """Copy content, permissions and times; on a file system that can, without taking any room."""
    if os.name == "posix" and hasattr(os, "copy_file_range"):
        import fcntl

        with open(source, "rb") as read, open(target, "xb") as write:
            try:
                fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
            except OSError:
                shutil.copyfileobj(read, write, 1 << 20)
    else:
        shutil.copyfile(source, target, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)


def _leads_out(path: str, target: str) -> bool:
    """Whether a link at `path` leads to something that is not in the workspace."""
    depth = path.count("/")
    for part in target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return target.startswith("/")


def _alike(a: Path, b: Path, kind: Kind) -> bool:
    if kind == "file":
        with suppress(OSError):
            return filecmp.cmp(a, b, shallow=False)
        return False
    return kind == "folder" or a.readlink() == b.readlink()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except PermissionError:
        # What the person cannot read, nobody here needs.
        return []
    except OSError as e:
        raise UserError(f"the folder {folder} cannot be read: {e.strerror or e}") from e


def _rules_of(folder: Path, path: str) -> list[tuple[str, GitIgnoreSpec]]:
    text = read_text(folder / ".gitignore")
    return [(path, GitIgnoreSpec.from_lines(text.splitlines()))] if text else []


def _ignored(path: str, rules: Sequence[tuple[str, GitIgnoreSpec]]) -> bool:
    return any(spec.match_file(path.removeprefix(place)) for place, spec in rules)


def _is_large(folder: Path) -> bool:
    entries = size = 0
    waiting = [folder]
    while waiting:
        for entry in _entries(waiting.pop()):
            entries += 1
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                with suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_size
            if entries > SHARED_ENTRIES or size > SHARED_BYTES:
                return True
    return False


def _remove_tree(folder: Path) -> None:
    """Also what a program has made unwritable."""

    folder.chmod(stat.S_IRWXU)
    for parent, folders, _ in os.walk(folder):
        for path in (Path(parent, name) for name in folders):
            if not path.is_symlink():
                path.chmod(stat.S_IRWXU)
    shutil.rmtree(folder)
