"""A staged copy of a person's folder: tools act on the copy, and what is accepted of it goes into the folder.

    workspace ──refresh──► stage ──changes──► shown, and accepted ──merge──► workspace

Programs may go on changing the stage, so what is shown is a copy of it, and that is what is merged. What the person
does meanwhile is never overwritten: where both have changed a text, it is merged line by line, and where that cannot be
done it is a conflict and stays as the person has it. Before anything is written, what was there is in the folder of the
turn (`undo.py`).

A path is relative to the workspace, with `/`. Links are copied as links and never followed. What is large and in no
version control (`SHARED_BYTES`, `SHARED_ENTRIES`), and all of git's own, is not copied: in the stage it is a link into
the workspace, which programs in the sandbox can read and not write.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from openk2.agent.merge import merge_texts
from openk2.agent.tree import MOST_DEPTH, State, Tree
from openk2.agent.undo import Put, Turn, place
from openk2.core import UserError
from openk2.core.errors import DISK_FULL
from openk2.core.messages import is_unicode
from openk2.core.progress import Bar

SHARED_BYTES, SHARED_ENTRIES = 64 << 20, 2_000
"""A folder that version control ignores, and has more than that in it, is shared."""
SHARED_FILE_BYTES = 256 << 20
"""So is a file of more than that."""
# Git executes what it finds there, for whoever runs it next.
GIT = ".git"
_ALWAYS_IGNORED = GitIgnoreSpec.from_lines(["node_modules/", ".venv/", "venv/", ".tox/"])


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
    """The staged copy of `workspace`, in the new folder `folder`; `leave_out` are folders that are not part of it."""

    def __init__(self, workspace: Path, folder: Path, leave_out: Sequence[Path] = ()) -> None:
        self.workspace = workspace.resolve()
        self.folder = folder
        self.shared: dict[str, Path] = {}
        """What is a link into the workspace, by path."""
        self._leave_out = {path.resolve() for path in leave_out}
        self._there, self._here = Tree(self.workspace), Tree(folder, ours=True)
        self._shown = Tree(folder.with_name(f"{folder.name}.shown"), ours=True)
        self._base: dict[str, _Base] = {}
        # One file for all texts, which would fill the memory, or be as many files once more.
        self._texts = folder.with_name(f"{folder.name}.texts")

    def refresh(self, bar: Bar | None = None) -> list[str]:
        """Take over what the person has changed since; the paths. The stage must have no changes of its own.

        Raises UserError if the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        shared: dict[str, Path] = {}
        now = dict(self._walk_workspace(shared))
        for path in set(self.shared) - set(shared):
            self._here.remove(path)
        changed = [path for path in self._base if path not in now]
        for path in sorted(changed, reverse=True):
            self._drop(path)
        todo = [path for path, state in now.items() if path not in self._base or self._base[path].there != state]
        for number, path in enumerate(todo):
            if bar is not None and number % 64 == 0:
                bar(number, len(todo))
            self._take(path, now[path])
        for path, target in shared.items():
            if path not in self.shared and self._here.look(path) is None:
                with suppress(OSError):
                    self._here.link(path, str(target))
        self.shared = shared
        return changed + todo

    def changes(self) -> list[Change]:
        """What tools have made of the stage, in the order of paths; a copy of it is what `after` and `merge` know."""
        now = dict(self._walk_stage())
        root = self._shown.root
        Tree(root.parent, ours=True).remove(root.name)
        root.mkdir()
        found: list[Change] = []
        shown: set[str] = set()
        for path in sorted(now.keys() | self._base.keys()):
            base, state = self._base.get(path), now.get(path)
            if base is not None and state is not None and self._unchanged(path, base, state):
                continue
            if state is not None:
                way = [path[:at] for at, letter in enumerate(path) if letter == "/" and path[:at] not in shown]
                shown.update((*way, path))
                if not all(self._show(place, now[place]) for place in (*way, path)):
                    # It is gone again, or something else.
                    continue
            found.append(Change(path, base.there if base else None, self._shown.look(path) if state else None))
        return found

    def before(self, path: str) -> str | None:
        """The text that a path had, where it is kept; empty if there was nothing."""
        base = self._base.get(path)
        return "" if base is None else self._text(base)

    def after(self, path: str) -> str | None:
        """The text that tools have made of it, if it is text and not too long; empty if nothing is there."""
        return self._shown.text(path)

    def merge(self, changes: Sequence[Change], turn: Turn) -> list[Conflict]:
        """Take changes over into the workspace, and begin anew from what is there. `turn` can put all of them back.

        Raises UserError if what was there cannot be kept, before anything is written.
        """
        conflicts: list[Conflict] = []
        puts: list[Put] = []
        by_path = {change.path: change for change in changes}
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
                try:
                    if not place(self.workspace, put):
                        conflicts.append(Conflict(by_path[put.path], "something else lies in its way"))
                except UserError as e:
                    conflicts.append(Conflict(by_path[put.path], str(e)))
        finally:
            self.reset(changes)
        return conflicts

    def reset(self, changes: Sequence[Change]) -> None:
        """Make the stage what the workspace is, wherever tools have changed it."""
        paths = sorted(change.path for change in changes)
        for path in reversed(paths):
            there, here = self._there.look(path), self._here.look(path)
            # What is in a folder that stays one has not changed with it.
            if not (there and here and there.kind == here.kind == "folder"):
                self._drop(path)
        for path in paths:
            there = self._there.look(path)
            if there is not None:
                self._take(path, there)

    def _merged(self, change: Change) -> Put | str | None:
        """What is to be put into the workspace; why that cannot be; None if the person has done the same."""
        path = change.path
        if not is_unicode(path + (change.after.target if change.after else "")):
            return "its name has bytes that are not UTF-8"
        if GIT in path.split("/"):
            return "what is there is git's: change it yourself"
        if change.after is not None and change.after.kind == "link" and _leads_out(path, change.after.target):
            return f"a link to {change.after.target} may lead out of the folder"
        source = self._shown.root / path
        there = self._there.look(path)
        if there == change.before:
            return Put(path, None if change.after is None else source)
        if change.after is None:
            return None if there is None else "you have changed what was deleted"
        if there is None:
            return "you have deleted what was changed"
        if there.kind == change.after.kind and self._alike(path, there, change.after):
            return None
        texts = self.before(path), self._there.text(path), self.after(path)
        if there.kind != "file" or change.after.kind != "file" or change.before is None:
            return "you have put something else there"
        if texts[0] is None or texts[1] is None or texts[2] is None:
            return "you have changed it too, and it is no text or too long to be merged"
        merged = merge_texts(texts[0], texts[1], texts[2])
        return "you have changed the same lines" if merged is None else Put(path, text=merged, mode=there.mode)

    def _alike(self, path: str, there: State, shown: State) -> bool:
        if there.kind == "file":
            return self._there.digest(path) == self._shown.digest(path) != ""
        return there.kind == "folder" or there.target == shown.target

    def _unchanged(self, path: str, base: _Base, state: State) -> bool:
        if state == base.here:
            return True
        if (state.kind, state.mode) != (base.here.kind, base.here.mode):
            return False
        if state.kind != "file":
            return state.kind == "folder"
        if base.text is not None:
            return self._here.text(path) == self._text(base)
        # Written anew, and perhaps with the same content.
        there = self._there.look(path)
        return there == base.there and self._there.digest(path) == self._here.digest(path) != ""

    def _show(self, path: str, state: State) -> bool:
        """Copy it to where no program can reach it; whether it was still there."""
        try:
            self._here.copy(path, self._shown, state)
        except OSError as e:
            if e.errno in DISK_FULL:
                raise UserError("there is no room for a copy of what was changed: free some space") from e
            return False
        return True

    def _take(self, path: str, state: State) -> None:
        """Copy a path from the workspace. One that is gone meanwhile is seen the next time; what the person cannot
        read, nobody here needs."""
        here = self._here.look(path)
        if here is not None and not (here.kind == "folder" == state.kind):
            self._drop(path)
            here = None
        try:
            if here is None:
                self._there.copy(path, self._here, state)
            else:
                self._here.chmod(path, state.mode | stat.S_IRWXU)
        except OSError as e:
            if e.errno in DISK_FULL:
                raise UserError("there is no room for a copy of the folder: free some space") from e
            self._drop(path)
            return
        here = self._here.look(path)
        if here is not None:
            self._base[path] = _Base(state, here, self._keep(path) if state.kind == "file" else None)

    def _keep(self, path: str) -> tuple[int, int] | None:
        text = self._here.text(path)
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
        self._here.remove(path)
        self._base.pop(path, None)

    def _walk_workspace(self, shared: dict[str, Path]) -> Iterator[tuple[str, State]]:
        waiting: list[tuple[str, tuple[tuple[str, GitIgnoreSpec], ...]]] = [("", (("", _ALWAYS_IGNORED),))]
        while waiting:
            folder, rules = waiting.pop()
            rules = (*rules, *self._rules_of(folder))
            for name, state in self._there.entries(folder.rstrip("/")):
                path, place = f"{folder}{name}", self.workspace / folder / name
                if state.kind == "other" or place in self._leave_out:
                    continue
                if name == GIT or (state.kind == "file" and state.mark[0] > SHARED_FILE_BYTES):
                    shared[path] = place
                    continue
                if state.kind == "folder":
                    if _ignored(f"{path}/", rules) and self._is_large(path):
                        shared[path] = place
                        continue
                    if path.count("/") < MOST_DEPTH:
                        waiting.append((f"{path}/", rules))
                yield path, state

    def _walk_stage(self) -> Iterator[tuple[str, State]]:
        for path, state in self._here.walk():
            ours = state.kind == "link" and state.target == str(self.shared.get(path))
            if not ours and state.kind != "other":
                yield path, state

    def _rules_of(self, folder: str) -> list[tuple[str, GitIgnoreSpec]]:
        text = self._there.text(f"{folder}.gitignore")
        return [(folder, GitIgnoreSpec.from_lines(text.splitlines()))] if text else []

    def _is_large(self, path: str) -> bool:
        size = 0
        for entries, (_, state) in enumerate(self._there.walk(path), 1):
            size += state.mark[0] if state.mark else 0
            if entries > SHARED_ENTRIES or size > SHARED_BYTES:
                return True
        return False


def _leads_out(path: str, target: str) -> bool:
    """Whether a link at `path` could lead to something that is not in the workspace. Upwards it may only go at first:
    behind a name, which may be a link as well, nobody can say where `..` is."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    return target.startswith("/") or up > path.count("/") or ".." in parts[up:]


def _ignored(path: str, rules: Sequence[tuple[str, GitIgnoreSpec]]) -> bool:
    return any(spec.match_file(path.removeprefix(place)) for place, spec in rules)
