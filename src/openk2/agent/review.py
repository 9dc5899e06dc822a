"""What a person sees of the changes that tools have made, and what they take over of it.

changes 1 a.txt        +1 -1
        2 new/b.txt    +3        new
        3 .git         14 files
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import unified_diff

from rich.text import Text

from openk2.agent.staging import Change, Conflict, Stage
from openk2.agent.view import ConsoleView
from openk2.worlds.text import clean

Accept = Callable[["Review"], Sequence["Entry"]]
"""What of a review is taken over."""

DIFF_LINES = 400
"""Of a longer difference the beginning is shown."""


@dataclass(slots=True)
class Entry:
    """Changes that belong together: a file, or all that is in .git. `added` and `removed` count lines of a text."""

    path: str
    changes: list[Change] = field(default_factory=list)
    added: int | None = None
    removed: int | None = None

    @property
    def word(self) -> str:
        words = {change.word for change in self.changes}
        return words.pop() if len(words) == 1 else "changed"

    def to_json(self) -> dict[str, object]:
        return {"path": self.path, "change": self.word, "added": self.added, "removed": self.removed}


class Review:
    """The changes of a turn. Folders come and go with what is in them, and are entries only where they are empty."""

    def __init__(self, stage: Stage, changes: Sequence[Change]) -> None:
        self.stage = stage
        self._folders: list[Change] = []
        entries: dict[str, Entry] = {}
        for change in changes:
            if self._is_folder(change) and any(other.path.startswith(f"{change.path}/") for other in changes):
                self._folders.append(change)
                continue
            name = ".git" if change.path.startswith(".git/") else change.path
            entries.setdefault(name, Entry(name)).changes.append(change)
        self.entries = list(entries.values())
        for entry in self.entries:
            if entry.path != ".git":
                self._count(entry)

    def changes_of(self, entries: Sequence[Entry]) -> list[Change]:
        """The changes of these entries, with the folders around them."""
        chosen = [change for entry in entries for change in entry.changes]
        rest = [change for entry in self.entries if entry not in entries for change in entry.changes]

        def is_around(folder: Change) -> bool:
            # What is left out of a folder that was deleted keeps it.
            of_it = rest if folder.after is None else chosen
            return any(change.path.startswith(f"{folder.path}/") for change in of_it) == (folder.after is not None)

        return [folder for folder in self._folders if is_around(folder)] + chosen

    def diff(self, entry: Entry) -> str:
        """A unified difference, or a sentence about what is no text."""
        if entry.path == ".git":
            return "".join(f"{change.word} {change.path}\n" for change in entry.changes)
        change = entry.changes[0]
        states = (change.before, change.after)
        kinds = [state.kind for state in states if state is not None]
        if "link" in kinds or "folder" in kinds:
            target = change.after.target if change.after else ""
            return f"{change.word} {kinds[-1]} {change.path}{f' -> {target}' if target else ''}\n"
        texts = self._texts(change)
        if texts is None:
            sizes = [str(state.mark[0]) for state in states if state is not None]
            return f"{change.word} {change.path}: no text, or a long one ({' to '.join(sizes)} bytes)\n"
        before, after = (text.splitlines(keepends=True) for text in texts)
        old, new = (f"{side}/{change.path}" if state else "/dev/null" for side, state in zip("ab", states, strict=True))
        lines = [line if line.endswith("\n") else f"{line}\n" for line in unified_diff(before, after, old, new)]
        if change.before and change.after and change.before.mode != change.after.mode:
            lines.insert(0, f"mode {change.before.mode:o} to {change.after.mode:o}\n")
        left_out = len(lines) - DIFF_LINES
        return "".join(lines[:DIFF_LINES]) + (f"... {left_out} more lines ...\n" if left_out > 0 else "")

    def _count(self, entry: Entry) -> None:
        texts = self._texts(entry.changes[0])
        if texts is not None:
            lines = list(unified_diff(texts[0].splitlines(), texts[1].splitlines(), n=0))[2:]
            entry.added = sum(line.startswith("+") for line in lines)
            entry.removed = sum(line.startswith("-") for line in lines)

    def _texts(self, change: Change) -> tuple[str, str] | None:
        if any(state is not None and state.kind != "file" for state in (change.before, change.after)):
            return None
        before, after = self.stage.before(change.path), self.stage.after(change.path)
        return None if before is None or after is None else (before, after)

    def _is_folder(self, change: Change) -> bool:
        return all(state is None or state.kind == "folder" for state in (change.before, change.after))


def shown_path(path: str) -> str:
    """A path on one line, whatever is in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in path)


def take_all(review: Review) -> Sequence[Entry]:
    return review.entries


def take_none(review: Review) -> Sequence[Entry]:
    return ()


def show(view: ConsoleView, review: Review) -> None:
    """The list of what was changed."""
    names = [shown_path(entry.path) for entry in review.entries]
    width = max(map(len, names), default=0)
    marks = {"added": "new", "deleted": "deleted", "changed": ""}
    lines = []
    for number, (name, entry) in enumerate(zip(names, review.entries, strict=True), 1):
        counted = f"+{entry.added} -{entry.removed}" if entry.added is not None else ""
        if entry.path == ".git":
            counted = f"{len(entry.changes)} files"
        lines.append(f"{number} {name:{width}}  {counted:9} {marks[entry.word]}".rstrip())
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
        view.entry("kept", "red", Text(f"{shown_path(conflict.change.path)} as it is: {clean(conflict.reason)}"))


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
