"""The hidden program: how good a report on a table is in truth.

It measures critics and trains nothing: no reward, no rubric and no request has anything of it. It reads the claims of a
report (numbers, names, ranks, comparisons), holds each against the table, and counts which of the focus's key facts are
told. It reads plain sentences such as the gold reports have; a claim in another form may count as none, so it is a
measure over many reports and no judge of a single one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from openk2.core import Task
from openk2.rl.rubrics import sentences

WORDS = 30
"""A report may have so many words for each sentence that was asked for, and ten more."""
_MOST_LETTERS = 12
"""In a word, on average."""

Kind = Literal["value", "most", "least", "second", "third", "more", "total", "other"]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a table says. `row` has more than `other` in a `more`; `other` kinds are what is true beside."""

    kind: Kind
    column: str
    row: str = ""
    other: str = ""
    value: float = 0


@dataclass(frozen=True, slots=True)
class Hidden:
    """`faithfulness`: the share of claims that the table supports. `coverage`: the share of key facts told, less where
    far more is told than them. Both are in [0, 1]."""

    faithfulness: float
    coverage: float

    @property
    def quality(self) -> float:
        return self.faithfulness * self.coverage


def cells(data: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """The table by row and column."""
    return {
        (name, thing): data["values"][i][j]
        for i, name in enumerate(data["names"])
        for j, thing in enumerate(data["things"])
    }


def ranked(data: Mapping[str, Any], thing: str) -> list[str]:
    """The rows by a column, the most first."""
    table = cells(data)
    return sorted(data["names"], key=lambda name: -table[name, thing])


def key_facts(data: Mapping[str, Any]) -> list[Fact]:
    """What a good report tells: of each row in turn, its rank and its number."""
    table, thing, order = cells(data), data["thing"], ranked(data, data["thing"])

    def of(name: str, kind: Kind) -> list[Fact]:
        return [Fact(kind, thing, name), Fact("value", thing, name, value=table[name, thing])]

    focus = data["focus"]
    if focus == "row":
        name = data["one"]
        return [Fact("value", column, name, value=table[name, column]) for column in data["things"]]
    if focus == "compare":
        one, other = sorted((data["one"], data["other"]), key=order.index)
        return [Fact("more", thing, one, other), of(one, "most")[1], of(other, "most")[1]]
    return {
        "highest": of(order[0], "most"),
        "lowest": of(order[-1], "least"),
        "range": of(order[0], "most") + of(order[-1], "least"),
        "total": [
            Fact("total", thing, value=sum(table[name, thing] for name in order)),
            *of(order[0], "most"),
        ],
        "ranking": of(order[0], "most") + of(order[1], "second"),
    }[focus]


def over_long(data: Mapping[str, Any], answer: str) -> bool:
    """Whether an answer is far longer than what was asked for."""
    most: int = WORDS * data["sentences"] + 10
    return len(answer) > most * _MOST_LETTERS or len(answer.split()) > most


def hidden(task: Task, answer: str) -> Hidden:
    """How faithful a report is to the table of a task, and how much of the focus it covers. It measures critics, and
    trains nothing. Any text may come; one that is no report has nothing of either."""
    data = task.data
    if not answer.strip() or over_long(data, answer):
        return Hidden(0.0, 0.0)
    reader = _Reader(data)
    supported: set[Fact] = set()
    unsupported = 0
    for sentence in sentences(answer):
        for fact in reader.claims(sentence):
            if fact is None:
                unsupported += 1
            else:
                supported.add(fact)
    key = set(key_facts(data))
    if not supported:
        return Hidden(0.0, 0.0)
    # A report selects: who tells the whole table has told the key facts as well, and has reported nothing.
    selection = min(1.0, (len(key) + 1) / len(supported))
    return Hidden(len(supported) / (len(supported) + unsupported), len(supported & key) / len(key) * selection)


_NUMBER_WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_NUMBER = re.compile(r"(?<![\w.,-])\d{1,9}(?:,\d{3})*(?:\.\d{1,6})?(?![\w-])")
_MOST = r"most(?! of (?:the|them)\b)|highest|largest|biggest|greatest|maximum|best|top|leads?|leading"
_LEAST = r"fewest|least|lowest|smallest|minimum|worst"
_RANK = re.compile(
    rf"\b(?<!at )(?:(?P<nth>second|third|followed by)(?:[- ](?:place|(?P<nth_most>{_MOST})|(?P<nth_least>{_LEAST})))?|"
    rf"(?P<most>{_MOST}|first(?: place)?)|(?P<least>{_LEAST}|last place|comes last|is last))\b",
    re.I,
)
_THAN = re.compile(
    r"\b(?P<up>more|higher|larger|greater|bigger)\b[^.;]*?\bthan\b|"
    r"\b(?P<down>fewer|less|lower|smaller)\b[^.;]*?\bthan\b|"
    r"\b(?P<beats>beats|exceeds|outnumbers|ahead of|above)\b|\b(?P<trails>behind|below|trails)\b",
    re.I,
)
_ALL_OTHERS = re.compile(r"\s*(?:all|any|every|each|the) (?:the )?(?:others?|rest)\b", re.I)
_SUM = re.compile(r"\b(?:total|sum|altogether|together|combined|overall|in all|adds? up)\b", re.I)
_GAP = re.compile(r"\b(?:by|more|fewer|less|difference|gap|ahead|behind|apart|margin|range)\b", re.I)
_MEAN = re.compile(r"\b(?:average|mean)\b", re.I)
_SHARE = re.compile(r"\s*(?:%|percent\b|per cent\b)", re.I)
_NOT = re.compile(r"\b(?:not|never|neither|nor|no longer)\b|n't\b", re.I)
_CLAUSE = re.compile(r"[,;:()]|\b(?:and|but|while|whereas)\b", re.I)
_BEYOND = re.compile(
    r"\b(?:because|due to|thanks to|as a result|caused|therefore|(?:next|last) (?:year|week|month)|will|gr(?:o|e)w\w*|"
    r"ris(?:e|es|ing)|rose|fell|fall\w*|increas\w*|decreas\w*|probably|likely|reasons?|weather|hard|expected?|plans?)\b",
    re.I,
)
"""Causes, times and forecasts: no table of this family says any of it."""
_GREETING = re.compile(r"(?:dear|hello|hi|good (?:morning|day))\b", re.I)
_PRONOUN = re.compile(r"\b(?:it|they|he|she|its|their)\b", re.I)
_PLACED = re.compile(r"\s+(?:\w+\s+){0,2}?(?:in|at|for|from|of|by)\s+|\s*\(", re.I)

_SIGNS = (_RANK, _THAN, _SUM, _GAP, _MEAN, _NOT, _CLAUSE, _BEYOND, _GREETING, _PRONOUN)
_COMMON = frozenset(
    ["the", "has", "have", "with", "who", "which", "how", "for", "from", "report", "than", "percent", "in", "of"]
)


def means_something(word: str) -> bool:
    """Whether a word has a meaning in a report, so that it can be neither a name nor a thing."""
    return (
        word.lower() in _COMMON
        or word.lower().rstrip("s") in _NUMBER_WORDS
        or any(sign.search(form) for sign in _SIGNS for form in (word, word.rstrip("s"), f"{word} than"))
    )


@dataclass(frozen=True, slots=True)
class _Found:
    start: int
    end: int
    what: str


class _Reader:
    """Reads the claims of a report, sentence by sentence; it remembers whom the last one was about."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data, self._table = data, cells(data)
        self._names = {name.lower(): name for name in data["names"]}
        self._things = {form: thing for thing in data["things"] for form in (thing.lower(), thing.lower().rstrip("s"))}
        self._subject = ""
        self._known = {word.lower() for word in re.findall(r"\w+", f"{data['reader']} I")}

    def claims(self, sentence: str) -> Iterator[Fact | None]:
        """What a sentence claims: the fact, or None for what the table does not support."""
        self._text = sentence
        self._rows = self._find(self._names)
        self._columns = self._find(self._things)
        found = [*self._ranks(), *self._comparisons(), *self._numbers(), *self._strangers()]
        if any(self._signs(_BEYOND)):
            found.append(None)
        if self._rows:
            self._subject = self._rows[0].what
        if not found and not (_GREETING.match(sentence) and len(sentence.split()) <= 6):
            # Praise, talk about itself, what nobody can see: nothing of it is in the table.
            found.append(None)
        yield from found

    def _find(self, words: Mapping[str, str]) -> list[_Found]:
        pattern = rf"\b(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})\b"
        return [
            _Found(match.start(), match.end(), words[match[0].lower()])
            for match in re.finditer(pattern, self._text, re.I)
            if match[0].lower() in words
        ]

    def _signs(self, sign: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Where a sign begins that is no part of a name or of a thing."""
        for match in sign.finditer(self._text):
            if not any(one.start <= match.start() < one.end for one in (*self._rows, *self._columns)):
                yield match

    def _clause(self, at: int) -> tuple[int, int]:
        """Where the clause around a place starts and ends."""
        start, end = 0, len(self._text)
        for match in _CLAUSE.finditer(self._text):
            if match.end() <= at:
                start = match.end()
            elif match.start() >= at:
                return start, match.start()
        return start, end

    def _row(self, start: int, end: int) -> str:
        """The row that something is said of; empty if there is none."""
        left, right = self._clause(start)
        before = [row for row in self._rows if row.end <= start]
        after = [row for row in self._rows if row.start >= end]
        if before and before[-1].start >= left:
            return before[-1].what
        if after and self._text[start].isdigit():
            here = _PLACED.fullmatch(self._text[end : after[0].start]) is not None
        else:
            here = bool(after) and after[0].end <= right
        if after and (here or not before):
            return after[0].what
        return before[-1].what if before else self._subject if _PRONOUN.search(self._text) else ""

    def _column(self, start: int, end: int) -> str:
        """The column that something is said of: what follows at once, else what was named before, else after."""
        after = [column for column in self._columns if column.start >= end]
        if after and re.fullmatch(r"\W+(?:[a-z]+\W+){0,2}", self._text[end : after[0].start], re.I):
            return after[0].what
        before = [column for column in self._columns if column.end <= start]
        near = before[-1:] or after[:1]
        return near[0].what if near else ""

    def _holds(self, kind: Kind, row: str, column: str) -> bool:
        order = ranked(self._data, column)
        return order[{"most": 0, "least": -1, "second": 1, "third": 2}[kind]] == row

    def _ranks(self) -> Iterator[Fact | None]:
        for match in self._signs(_RANK):
            row = self._row(match.start(), match.end())
            if not row:
                continue
            column = self._column(match.start(), match.end()) or self._data["thing"]
            if match["nth_least"]:
                place = {"second": -2, "third": -3}[match["nth"].lower()]
                yield Fact("other", column, row, "low") if ranked(self._data, column)[place] == row else None
                continue
            kind: Kind = "most" if match["most"] else "least" if match["least"] else "second"
            if match["nth"] and match["nth"].lower() == "third":
                kind = "third"
            denied = _NOT.search(self._text[self._clause(match.start())[0] : match.start()]) is not None
            if denied == self._holds(kind, row, column):
                yield None
            else:
                yield Fact("other", column, row, f"not {kind}") if denied else Fact(kind, column, row)

    def _comparisons(self) -> Iterator[Fact | None]:
        for match in self._signs(_THAN):
            before = [row for row in self._rows if row.end <= match.start()]
            row = before[-1].what if before else self._subject
            after = [one for one in self._rows if one.start >= match.end()]
            if not row:
                continue
            column = self._column(match.start(), match.start()) or self._data["thing"]
            up = match["up"] or match["beats"]
            if _ALL_OTHERS.match(self._text, match.end()):
                kind: Kind = "most" if up else "least"
                yield Fact(kind, column, row) if self._holds(kind, row, column) else None
            elif after and after[0].what != row:
                one, other = (row, after[0].what) if up else (after[0].what, row)
                true = self._table[one, column] > self._table[other, column]
                if _NOT.search(self._text[: match.start()]):
                    yield None if true else Fact("more", column, other, one)
                else:
                    yield Fact("more", column, one, other) if true else None

    def _numbers(self) -> Iterator[Fact | None]:
        found = [
            _Found(match.start(), match.end(), match[0].replace(",", "")) for match in _NUMBER.finditer(self._text)
        ]
        for count, word in enumerate(_NUMBER_WORDS, 2):
            # Only where a thing is counted: "the two towns" is no claim.
            for match in re.finditer(rf"\b{word}(?= +(\w+))", self._text, re.I):
                if match[1].lower() in self._things or match[1].lower() == self._data["rows"]:
                    found.append(_Found(match.start(), match.end(), str(count)))
        in_order = len({row.what for row in self._rows}) == len(self._rows) == len(found) > 1
        in_order = in_order and self._rows[-1].end <= min(number.start for number in found)
        for place, number in enumerate(found):
            row = self._rows[place].what if in_order else self._row(number.start, number.end)
            yield self._number(number, row)

    def _number(self, number: _Found, row: str) -> Fact | None:
        value = float(number.what)
        column = self._column(number.start, number.end)
        columns = [column] if column else self._data["things"]
        for one in columns:
            if row and self._table[row, one] == value:
                return Fact("value", one, row, value=value)
        named = list(dict.fromkeys(found.what for found in self._rows))
        return self._derived(number, value, column or self._data["thing"], named)

    def _derived(self, number: _Found, value: float, column: str, named: list[str]) -> Fact | None:
        """A number that is computed from the table, and said to be."""
        numbers = [self._table[name, column] for name in self._data["names"]]
        told = [self._table[name, column] for name in named]
        total = sum(numbers)
        after = self._text[number.end :]
        if _SUM.search(self._text) and value == total:
            return Fact("total", column, value=total)
        counted = re.match(rf"\s+(?:\w+ )?{self._data['rows']}\b", after, re.I) is not None and value == len(numbers)
        pair = len(told) == 2 and value == abs(told[0] - told[1])
        true = (
            counted
            or (_SUM.search(self._text) is not None and len(told) > 1 and value == sum(told))
            or (_GAP.search(self._text) is not None and (pair or value == max(numbers) - min(numbers)))
            or (_MEAN.search(self._text) is not None and abs(value - total / len(numbers)) <= 0.5)
            or (_SHARE.match(after) is not None and any(abs(100 * one / total - value) <= 0.5 for one in told))
            or (not named and not self._subject and value in numbers)
        )
        return Fact("other", column, "", "computed", value) if true else None

    def _strangers(self) -> Iterator[None]:
        """Names that are neither in the table nor the reader's."""
        for match in re.finditer(r"(?<=[\w,;:] )[A-Z][a-z]+\b", self._text):
            word = match[0].lower()
            if not any(row.start <= match.start() < row.end for row in self._rows) and not (
                word in self._known or word in self._things or word in (self._data["row"], self._data["rows"])
            ):
                yield None
