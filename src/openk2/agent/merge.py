"""Three versions of a text into one, line by line (as diff3 does it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True, slots=True)
class _Hunk:
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
    hunks: list[_Hunk] = []
    for hunk in sorted(_hunks(lines, ours) + _hunks(lines, theirs), key=lambda hunk: (hunk.start, hunk.end)):
        if hunks and hunk == hunks[-1]:
            continue
        # A line that was put in touches the lines at both of its sides: nobody can say which comes first.
        if hunks and hunk.start <= hunks[-1].end:
            return None
        hunks.append(hunk)
    merged: list[str] = []
    at = 0
    for hunk in hunks:
        merged += [*lines[at : hunk.start], *hunk.lines]
        at = hunk.end
    return "".join(merged + lines[at:])


def _hunks(base: Sequence[str], text: str) -> list[_Hunk]:
    """What was changed. Equal ends are taken off first: the comparison is quadratic in what is left."""
    lines = text.splitlines(keepends=True)
    head = 0
    while head < min(len(base), len(lines)) and base[head] == lines[head]:
        head += 1
    tail = 0
    while tail < min(len(base), len(lines)) - head and base[-1 - tail] == lines[-1 - tail]:
        tail += 1
    old, new = base[head : len(base) - tail], lines[head : len(lines) - tail]
    opcodes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [_Hunk(head + i, head + j, tuple(new[k:m])) for operation, i, j, k, m in opcodes if operation != "equal"]
