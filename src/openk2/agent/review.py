"""What a person sees of the changes that tools have made, and what they take over of it.

    changes 1 a.txt      +1 -1
            2 new/b.txt  +3 -0     new

Lines are counted where it is a text that is not too long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from openk2.agent.merge import hunks, unified
from openk2.agent.staging import Change, Conflict, Stage
from openk2.agent.view import ConsoleView
from openk2.core.errors import printable
from openk2.worlds.text import clean

Accept = Callable[["Review"], Sequence["Entry"]]
"""What of a review is taken over."""

LISTED = 40
"""Of more changes the first are listed."""
DIFF_LINES = 400
"""Of a longer difference the beginning is shown."""


@dataclass(slots=True)
class Entry:
    """A file, a link or an empty folder. `added` and `removed` count lines of a text."""

    path: str
    change: Change
    added: int | None = None
    removed: int | None = None

    def to_json(self) -> dict[str, object]:
        return {"path": self.path, "change": self.change.word, "added": self.added, "removed": self.removed}


def _around(changes: Sequence[Change]) -> set[str]:
    """The folders that something of it lies in."""
    found: set[str] = set()
    for change in changes:
        folder = change.path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


class Review:
    """The changes of a turn. Folders come and go with what is in them, and are entries only where they are empty."""

    def __init__(self, stage: Stage, changes: Sequence[Change]) -> None:
        self.stage = stage
        self._folders: list[Change] = []
        self.entries: list[Entry] = []
        full = _around(changes)
        for change in changes:
            if change.path in full and self._is_folder(change):
                self._folders.append(change)
            else:
                self.entries.append(Entry(change.path, change))
        for entry in self.entries:
            self._count(entry)

    def changes_of(self, entries: Sequence[Entry]) -> list[Change]:
        """The changes of these entries, with the folders around them."""
        chosen = [entry.change for entry in entries]
        paths = {change.path for change in chosen}
        made = _around(chosen)
        # What is left out of a folder that was deleted keeps it.
        kept = _around([entry.change for entry in self.entries if entry.path not in paths])
        around = [
            folder for folder in self._folders if (folder.path in made if folder.after else folder.path not in kept)
        ]
        return around + chosen

    def diff(self, entry: Entry) -> str:
        """A unified difference, or a sentence about what is no text."""
        change = entry.change
        states = (change.before, change.after)
        kinds = [state.kind for state in states if state is not None]
        if "link" in kinds or "folder" in kinds:
            target = change.after.target if change.after else ""
            return f"{change.word} {kinds[-1]} {change.path}{f' -> {target}' if target else ''}\n"
        texts = self._texts(change)
        if texts is None:
            sizes = [str(state.mark[0]) for state in states if state is not None]
            return f"{change.word} {change.path}: no text, or a long one ({' to '.join(sizes)} bytes)\n"
        lines = [f"--- {'a/' + change.path if change.before else '/dev/null'}\n"]
        lines += [f"+++ {'b/' + change.path if change.after else '/dev/null'}\n", *unified(*texts)]
        if change.before and change.after and change.before.mode != change.after.mode:
            lines.insert(0, f"mode {change.before.mode:o} to {change.after.mode:o}\n")
        left_out = len(lines) - DIFF_LINES
        return "".join(lines[:DIFF_LINES]) + (f"... {left_out} more lines ...\n" if left_out > 0 else "")

    def _count(self, entry: Entry) -> None:
        texts = self._texts(entry.change)
        if texts is not None:
            found = hunks(texts[0].splitlines(keepends=True), texts[1].splitlines(keepends=True))
            entry.added = sum(len(hunk.lines) for hunk in found)
            entry.removed = sum(hunk.end - hunk.start for hunk in found)

    def _texts(self, change: Change) -> tuple[str, str] | None:
        if any(state is not None and state.kind != "file" for state in (change.before, change.after)):
            return None
        before, after = self.stage.before(change.path), self.stage.after(change.path)
        return None if before is None or after is None else (before, after)

    def _is_folder(self, change: Change) -> bool:
        return all(state is None or state.kind == "folder" for state in (change.before, change.after))


def take_all(review: Review) -> Sequence[Entry]:
    return review.entries


def take_none(review: Review) -> Sequence[Entry]:
    return ()


def show(view: ConsoleView, review: Review) -> None:
    """The list of what was changed."""
    names = [printable(entry.path) for entry in review.entries]
    width = min(max(map(len, names[:LISTED]), default=0), 40)
    marks = {"added": "new", "deleted": "deleted", "changed": ""}
    lines = []
    for number, (name, entry) in enumerate(zip(names, review.entries, strict=True), 1):
        counted = f"+{entry.added} -{entry.removed}" if entry.added is not None else ""
        if number > LISTED:
            lines.append(f"... {len(names) - LISTED} more ...")
            break
        lines.append(f"{number} {name:{width}}  {counted:9} {marks[entry.change.word]}".rstrip())
    view.entry("changes", "bold yellow", Text("\n".join(lines)))


def show_diff(view: ConsoleView, review: Review, entries: Sequence[Entry]) -> None:
    """What was changed, line by line."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for entry in entries:
        text = Text()
        for line in clean(review.diff(entry)).splitlines():
            text.append(f"{line}\n", styles.get(line[:1], ""))
        text.rstrip()
        view.entry("diff", "dim", text)


def show_conflicts(view: ConsoleView, conflicts: Sequence[Conflict]) -> None:
    """What was not taken over although it was wanted."""
    for conflict in conflicts:
        view.entry("kept", "red", Text(f"{printable(conflict.change.path)} as it is: {clean(conflict.reason)}"))


def ask(view: ConsoleView, listen: Callable[[str], str | None]) -> Accept:
    """Let the person choose. `listen` asks something and returns what was typed; None at the end of input."""

    def accept(review: Review) -> Sequence[Entry]:
        show(view, review)
        while True:
            said = listen("take over? [y]es, [n]o, [d]iff, or numbers: ")
            if said is None:
                return ()
            word = said.strip().lower()
            if word in ("y", "yes"):
                return review.entries
            if word in ("n", "no"):
                return ()
            if word in ("d", "diff"):
                show_diff(view, review, review.entries)
                continue
            chosen = _numbers(word, len(review.entries))
            if chosen:
                return [review.entries[number - 1] for number in chosen]
            view.note(f"Say y, n, d, or which of 1 to {len(review.entries)}, such as 1 3.")

    return accept


def _numbers(said: str, most: int) -> list[int]:
    words = said.replace(",", " ").split()
    if not words or not all(word.isdecimal() and 1 <= int(word) <= most for word in words):
        return []
    return sorted({int(word) for word in words})
