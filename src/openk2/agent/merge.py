"""What two versions of a text differ in, and three of them into one, line by line (as diff3 does it)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True, slots=True)
class Hunk:
    """`lines` in place of the base's lines from `start` up to `end`."""

    start: int
    end: int
    lines: tuple[str, ...]


def merge_texts(base: str, ours: str, theirs: str) -> str | None:
    """`base` with what both have changed. None where they changed the same lines, or neighbours, differently."""
    if ours == theirs or base == theirs:
        return ours
    if base == ours:
        return theirs
    lines = base.splitlines(keepends=True)
    agreed: list[Hunk] = []
    both = [hunk for side in (ours, theirs) for hunk in hunks(lines, side.splitlines(keepends=True))]
    for hunk in sorted(both, key=lambda hunk: (hunk.start, hunk.end)):
        if agreed and hunk == agreed[-1]:
            continue
        # A line that was put in touches the lines at both of its sides: nobody can say which comes first.
        if agreed and hunk.start <= agreed[-1].end:
            return None
        agreed.append(hunk)
    merged: list[str] = []
    at = 0
    for hunk in agreed:
        merged += [*lines[at : hunk.start], *hunk.lines]
        at = hunk.end
    return "".join(merged + lines[at:])


_MOST_COMPARED = 4_000_000
"""Lines of one side times those of the other: what is more, and differs, counts as one change."""
_CONTEXT = 3


def hunks(base: Sequence[str], lines: Sequence[str]) -> list[Hunk]:
    """What was changed. Equal ends are taken off first: the comparison is quadratic in what is left."""
    head = 0
    while head < min(len(base), len(lines)) and base[head] == lines[head]:
        head += 1
    tail = 0
    while tail < min(len(base), len(lines)) - head and base[-1 - tail] == lines[-1 - tail]:
        tail += 1
    old, new = base[head : len(base) - tail], lines[head : len(lines) - tail]
    if len(old) * len(new) > _MOST_COMPARED:
        if len(old) == len(new):
            # Most edits of a long text leave its other lines where they are.
            return _in_place(old, new, head)
        return [Hunk(head, head + len(old), tuple(new))]
    opcodes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [Hunk(head + i, head + j, tuple(new[k:m])) for operation, i, j, k, m in opcodes if operation != "equal"]


def _in_place(old: Sequence[str], new: Sequence[str], at: int) -> list[Hunk]:
    """Line n of one side against line n of the other."""
    found: list[Hunk] = []
    start: int | None = None
    for number in range(len(old) + 1):
        differs = number < len(old) and old[number] != new[number]
        if differs and start is None:
            start = number
        elif not differs and start is not None:
            found.append(Hunk(at + start, at + number, tuple(new[start:number])))
            start = None
    return found


def unified(before: str, after: str) -> Iterator[str]:
    """The lines of a unified difference, without its head; changes that are near each other are not joined."""
    base = before.splitlines(keepends=True)
    shift = 0
    for hunk in hunks(base, after.splitlines(keepends=True)):
        first, last = max(0, hunk.start - _CONTEXT), min(len(base), hunk.end + _CONTEXT)
        old, new = last - first, last - first + len(hunk.lines) - (hunk.end - hunk.start)
        yield f"@@ -{first + 1},{old} +{first + 1 + shift},{new} @@\n"
        shift += new - old
        for mark, lines in (
            (" ", base[first : hunk.start]), ("-", base[hunk.start : hunk.end]), ("+", hunk.lines),
            (" ", base[hunk.end : last]),
        ):  # fmt: skip
            yield from (f"{mark}{line}" if line.endswith("\n") else f"{mark}{line}\n" for line in lines)
