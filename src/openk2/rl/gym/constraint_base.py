"""What all verifiable constraints on an answer share: how a text is measured, and the interface of a kind.

After IFEval (Zhou et al. 2023, arXiv 2311.07911): an instruction is worth posing if a program can tell whether it was
followed. A kind is one small class that says it, judges it, satisfies it, and recognises who claims to have kept it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from openk2.core import Split
from openk2.rl.gym.constraint_draft import Draft
from openk2.worlds.families.lexicon import Rng

_MARKER = re.compile(r"^[ \t]*(?:[-*•]|\d{1,3}[.)])[ \t]+", re.M)
_ABBREVIATION = re.compile(r"\b(?:p\.s|n\.b|e\.g|i\.e|mr|mrs|dr|st|vs)\.", re.I)
_WITHIN = re.compile(r"\b(?:[A-Za-z]\.){2,}(?=\s+[a-z0-9])|\.\.\.(?=\s+[a-z])|[.!?](?=[\"”’')]+\s+[a-z])")
"""Stops within a sentence: U.S., a pause, the end of a quotation in its middle."""
_END = re.compile(r"(?<![.!?])[.!?]+[\"'”’)\]*]*(?=\s|$)|\n")
# fmt: off
_NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
            "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"]
# fmt: on
NUMBER = rf"(?:\d{{1,4}}|{'|'.join(_NUMBERS[1:])}|an?)"
"""A number as people write it, in lower case."""
_AMOUNT = re.compile(
    rf"(?:between (?P<low>{NUMBER}) and (?P<high>{NUMBER})|(?P<from>{NUMBER}) (?:to|or) (?P<to>{NUMBER})"
    r"|(?P<how>exactly|precisely|just|only|at least|at most|no more than|not more than|no fewer than|no less than"
    rf"|up to|fewer than|less than|under|below|over|more than)? ?\b(?P<n>{NUMBER}))$"
)
_THE_RIGHT_NUMBER = re.compile(r"\b(?:number|count|amount|limit|as many|requested|required)\b")
_LEAST = ("at least", "no fewer than", "no less than")
_MOST = ("at most", "no more than", "not more than", "up to")
NOT = r"(?:without|avoid\w*|no|not|never|zero|free of|left out|n't|neither|none of)"
"""How a sentence says that something is absent."""


def unmarked(text: str) -> str:
    """A text without the marks of list items."""
    return _MARKER.sub("", text)


def words(text: str) -> list[str]:
    """The words: what stands between blanks and has a letter or a digit; marks of list items are none."""
    return [word for word in unmarked(text).split() if any(map(str.isalnum, word))]


def bare(word: str) -> str:
    """A word in lower case without the punctuation around it."""
    kept = [i for i, letter in enumerate(word) if letter.isalnum()]
    return word[kept[0] : kept[-1] + 1].lower() if kept else ""


def sentences(text: str) -> list[str]:
    """The sentences: what ends with a full stop, an exclamation mark, a question mark or a line."""
    guarded = _ABBREVIATION.sub(lambda m: m[0].replace(".", "\0"), unmarked(text))
    # Where everything is in small letters, so is the beginning of a sentence.
    within = [] if guarded.islower() else [match.span() for match in _WITHIN.finditer(guarded)]
    found, start = [], 0
    for end in _END.finditer(guarded):
        if any(first <= end.start() < behind for first, behind in within):
            continue
        found.append(guarded[start : end.end()])
        start = end.end()
    found.append(guarded[start:])
    return [part.replace("\0", ".").strip() for part in found if any(map(str.isalnum, part))]


def lines(text: str) -> list[str]:
    """The lines that are not blank."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def paragraphs(text: str) -> list[str]:
    """What blank lines part."""
    return [part.strip() for part in re.split(r"\n[ \t\r]*\n", text) if part.strip()]


def times(text: str, word: str) -> int:
    """How often a word stands in a text as a word of its own, whatever the case."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.I))


def number(text: str) -> int:
    """The value of what `NUMBER` matches."""
    return int(text) if text.isdecimal() else 1 if text in ("a", "an") else _NUMBERS.index(text)


def amount_said(before: str) -> tuple[int, int | None] | None:
    """The amount at the end of a text in lower case, as the least and the most; None if there is none."""
    match = _AMOUNT.search(before.rstrip())
    if match is None:
        return None
    if match["n"] is None:
        return number(match["low"] or match["from"]), number(match["high"] or match["to"])
    n, how = number(match["n"]), match["how"]
    if how in _LEAST or how in ("over", "more than"):
        return n + (how not in _LEAST), None
    if how in _MOST or how in ("fewer than", "less than", "under", "below"):
        return 0, n - (how not in _MOST)
    return n, n


@dataclass(frozen=True, slots=True)
class Subject:
    """What an answer is about: a plural noun, and the request that names it, without constraints."""

    topic: str
    request: str


class Constraint(BaseModel, ABC):
    """One thing that an answer has to keep to.

    `kind` names it. `said` are its phrasings by split, with slots. `settles` are the aspects of an answer that it
    decides: two constraints that share one contradict each other. `claim` matches what a sentence in lower case says
    when it speaks of this constraint as kept; a negation that belongs to it is part of the match.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    said: ClassVar[Mapping[Split, tuple[str, ...]]]
    settles: ClassVar[frozenset[str]]
    claim: ClassVar[str] = ""
    names_topic: ClassVar[bool] = True
    """Whether an answer that keeps to it can name its topic."""

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        """One of the kind, with words of the split; of some kinds there is only one."""
        return cls()

    @abstractmethod
    def holds(self, answer: str) -> bool:
        """Whether an answer keeps to it."""

    @abstractmethod
    def satisfy(self, draft: Draft) -> None:
        """Tell a draft what it needs."""

    def slots(self, rng: Rng, split: Split) -> dict[str, object]:
        """What is filled into a phrasing."""
        return self.model_dump()

    def say(self, rng: Rng, split: Split) -> str:
        """The constraint in words."""
        return rng.choice(self.said[split]).format_map(self.slots(rng, split))

    def claim_pattern(self) -> str:
        """`claim` with the constraint's own words in it."""
        return self.claim

    def claimed(self, match: re.Match[str]) -> Constraint | None:
        """What is claimed where `claim_pattern` matched: a claim may name another number than was asked for."""
        return self

    def contradicts(self, other: Constraint) -> bool:
        """Whether no answer is expected to keep to both."""
        return bool(self.settles & other.settles)

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {"kind": self.kind, **self.model_dump(mode="json")}


class Counted(Constraint):
    """So many of a unit: at least `least`, and at most `most` if there is such a bound."""

    least: int
    most: int | None = None

    unit: ClassVar[str]
    """The key of the draft's limits."""
    number_draws: ClassVar[tuple[int, int]]
    ways: ClassVar[tuple[str, ...]] = ("exactly", "least", "between")

    @abstractmethod
    def count(self, answer: str) -> int:
        """How many there are in an answer."""

    @classmethod
    def drawn_amount(cls, rng: Rng) -> dict[str, Any]:
        """The least and the most."""
        n = rng.randint(*cls.number_draws)
        way = rng.choice(cls.ways)
        if way == "most":
            return {"least": 1, "most": n}
        return {"least": n, "most": {"exactly": n, "least": None, "between": n + rng.randint(1, 2 + n // 4)}[way]}

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(**cls.drawn_amount(rng))

    def holds(self, answer: str) -> bool:
        return self.least <= self.count(answer) and (self.most is None or self.count(answer) <= self.most)

    def satisfy(self, draft: Draft) -> None:
        draft.limits[self.unit] = (self.least, self.most)

    def slots(self, rng: Rng, split: Split) -> dict[str, object]:
        train = split == "train"
        if self.most is None:
            amount = f"{'at least' if train else 'no fewer than'} {self.least}"
        elif self.most == self.least:
            amount = f"{'exactly' if train else 'precisely'} {self.least}"
        elif self.ways[-1] == "most" and self.least <= 1:
            amount = f"{'at most' if train else 'no more than'} {self.most}"
        else:
            amount = f"between {self.least} and {self.most}" if train else f"{self.least} to {self.most}"
        return {**self.model_dump(), "amount": amount}

    def say(self, rng: Rng, split: Split) -> str:
        return re.sub(r"(?<!to )\b1 ((?:bulleted )?)(word|sentence|question|blank|placeholder|part|palindrome|time)s\b",
                      r"1 \1\2", super().say(rng, split))  # fmt: skip

    def claimed(self, match: re.Match[str]) -> Constraint | None:
        said = amount_said(match.string[: match.start()]) or amount_said(match[0])
        if said is not None:
            return self.model_copy(update={"least": said[0], "most": said[1]})
        # Without a number the unit alone says nothing: "in other words".
        return self if _THE_RIGHT_NUMBER.search(match.string) else None
