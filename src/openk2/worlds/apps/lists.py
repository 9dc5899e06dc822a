"""Names in a list that are nowhere else: what an agent has made up to fill it.

Looked at is only what stands where one of the right values stands: the next member of an enumeration, the beginning of
another item of the same list, the same column of another row, another line by itself. A word of the conversation, of
its tools or of plain English makes no name, so that a summary below a list is none of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from openk2.worlds.apps.told import found, plain

_WORD = r"[^\W_][\w'-]*"
_NAME = re.compile(rf"{_WORD}(?: {_WORD})*")
_MARKER = re.compile(r"(\s*)([-*•+–]|\d+[.)]|[a-z][.)](?= )|)(?:\s*\[[ xX]\])?\s*(?:[^\w\s([|]+\s*)?")
_HEAD_ENDS = re.compile(r"\s[-–—]\s|[:(,;|\[=]|\s(?:is|are|was|has|with|at|for)\b|$")
_AFTER = re.compile(
    r"(?:\s*\([^)]*\)|\s*[^\w\s,;/&+|.!?:()-]+)*"
    r"(?:\s*(?:,|;|/|&|\+)\s*(?:(?:and|or|plus|also|as well as)\s+)?|\s+(?:and|plus|as well as)\s+(?:also\s+)?)"
)
_BEFORE = re.compile(
    rf"(?:[:,;]|\b(?:are|is|includes?|and|namely))\s+({_WORD}(?: {_WORD}){{0,3}})(?: \([^)]*\))?[,;]?(?: and)?\s+$"
)
_BETWEEN = re.compile(r"[\W_]+")
_ID = re.compile(r"[A-Z]{1,6}-\d+")
_LONGEST_NAME = 5
_PLAIN_ENGLISH = frozenset(re.findall(r"\w+", """
    a about above added additional after again all almost also although always an and another any anything april
    are as ask assist at august available back based be because been before below besides best between book both
    but by call can cancel cannot change changed changes check checked checking choose click confirm confirmed
    contact could create current currently date dates day days deal dear december delete details did do does done
    each either else end every everything february fewer final find first for found fourth free friday from full
    further get give glad go good great had happy has have he hello help her here hi him his hope how however i id
    ids if in information is issue it item items its january july june just kind last least less let like list
    listed look lower many march may me middle missing monday more most much my name named namely names need new
    next no none not note notes nothing november now number numbers october of ok okay on once one ones only open
    or order other others our out over per please plus price pull quantity reach regards remaining removed request
    result results same saturday second see september several she should show since sincerely so some soon sorry
    start status still such sum summary sunday sure take taken tell than thank thanks that the their them then
    there these they third this those three through thursday time times to today together tomorrow total totals
    tuesday two type under until up update updated upper us value values very view want was way we wednesday
    welcome well were what when where whether which while who why will wish with within without would year yes
    yesterday yet you your
"""))  # fmt: skip
"""Words that people write around a list, capitalised too."""


def added(text: str, values: Sequence[str], heard: Callable[[], str]) -> str | None:
    """What stands beside values in a list of them though nothing that was `heard` says it; None if nothing does."""
    text = plain(text)
    names = [*_of_lines(text, values), *_of_sentences(text, values)]
    beside = [name for name in names if not any(_begins(name, value) for value in values)]
    if not beside:
        return None
    known = heard().lower()
    words = {*re.split(_BETWEEN, f"{known} {' '.join(values).lower()}"), *_PLAIN_ENGLISH}
    for name in beside:
        own = re.split(_BETWEEN, name.lower())
        if _ID.fullmatch(name):
            if name.lower() not in known:
                return name
        elif _PLAIN_ENGLISH.isdisjoint(own) and any(word not in words and not word.isdigit() for word in own if word):
            return name
    return None


def _begins(text: str, value: str) -> bool:
    return any(match.start() == 0 for match in found(text, plain(value)))


def _of_lines(text: str, values: Sequence[str]) -> Iterator[str]:
    """Beginnings of items, and cells, that stand as those with a value do."""
    lines = [_line(line) for line in text.split("\n") if line.strip()]
    rows = [line.cells for line in lines if line.cells]
    there = [any(_begins(line.content, value) for value in values) for line in lines]
    for at, line in enumerate(lines):
        if line.cells:
            yield from _of_row(rows, line.cells, values)
        elif not there[at]:
            beside = [other for other in range(len(lines)) if there[other] and lines[other].stands == line.stands]
            # Without a mark only a line that says nothing else, next to one with a value.
            alone = any(abs(other - at) == 1 for other in beside) and _NAME.fullmatch(line.content)
            if beside and (line.stands[1] or alone):
                head = _HEAD_ENDS.split(line.content, maxsplit=1)[0].strip()
                if _NAME.fullmatch(head) and len(head.split()) <= _LONGEST_NAME:
                    yield head


@dataclass(frozen=True, slots=True)
class _Line:
    """How far in and behind which kind of mark it stands, what it says, and its cells if it is a table's row."""

    stands: tuple[str, str]
    content: str
    cells: tuple[str, ...]


def _line(text: str) -> _Line:
    match = _MARKER.match(text)
    assert match is not None
    is_row = text.lstrip().startswith("|")
    cells = tuple(cell.strip() for cell in text.strip().strip("|").split("|")) if is_row else ()
    return _Line((match[1], re.sub(r"\w+", "1", match[2])), text[match.end() :].strip(), cells)


def _of_row(rows: Sequence[Sequence[str]], cells: Sequence[str], values: Sequence[str]) -> Iterator[str]:
    """The cells of a table's row, not of its head, that are in a column of values."""
    is_head = cells is rows[0] and len(rows) > 1 and all(re.fullmatch(r"[\s:-]*", cell) for cell in rows[1])
    if is_head or any(_begins(cell, value) for cell in cells for value in values):
        return
    for row in rows:
        for mine, theirs in zip(cells, row, strict=False):
            if _NAME.fullmatch(mine) and any(_begins(theirs, value) for value in values):
                yield mine


def _of_sentences(text: str, values: Sequence[str]) -> Iterator[str]:
    """Capitalised members of an enumeration, next to a value."""
    for value in values:
        for match in found(text, plain(value)):
            if (beside := _AFTER.match(text, match.end())) and (name := _capitalised(text[beside.end() :])):
                yield name
            before = _BEFORE.search(text[: match.start()])
            if before and (name := _capitalised(before[1])) == before[1]:
                yield name


def _capitalised(text: str) -> str:
    """The words at the beginning of a text that have a capital letter or a digit there."""
    words: list[str] = []
    match = _NAME.match(text)
    for word in match[0].split(" ") if match else ():
        if not (word[0].isupper() or word[0].isdigit()):
            break
        words.append(word)
    return " ".join(words)
