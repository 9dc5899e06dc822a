"""Constraints on the form of an answer: JSON, a CSV line, sections, quotes, two answers and the like."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

from openk2.core import Split
from openk2.rl.gym.constraint_base import NOT, Constraint, Subject, bare, lines, words
from openk2.rl.gym.constraint_draft import Draft
from openk2.worlds.families import lexicon
from openk2.worlds.families.lexicon import Rng

_ALL = frozenset(
    {"layout", "words", "sentences", "first", "last", "wrap", "commas", "questions", "keyword", "stars", "heading",
     "placeholders", "palindromes", "letter", "digits"}
)  # fmt: skip
"""What a form settles that is no text."""

ValueType = Literal["text", "number", "list", "true or false"]
_TYPES: dict[ValueType, tuple[type, ...]] = {
    "text": (str,), "number": (int, float), "list": (list,), "true or false": (bool,),
}  # fmt: skip


class JsonObject(Constraint):
    """An object with these keys and no others, each with a value of its type; a fence around it is allowed."""

    kind = "json"
    settles = _ALL | {"casing"}
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Answer with a JSON object that has the keys {listed}.", "Give JSON alone, with the keys {listed}."),
        "test": ("Make it one object in JSON; its keys are {listed}.",),
    }
    claim = r"\bjson\b"
    keys: dict[str, ValueType]

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        names = rng.sample(lexicon.nouns(split), rng.randint(1, 3))
        return cls(keys={name: "text" if i == 0 else rng.choice(list(_TYPES)) for i, name in enumerate(names)})

    def slots(self, rng: Rng, split: Split) -> dict[str, object]:
        return {"listed": ", ".join(f"{name} ({kind})" for name, kind in self.keys.items())}

    def holds(self, answer: str) -> bool:
        text = answer.strip()
        if text.startswith("```") and text.endswith("```"):
            text = text.strip("`").removeprefix("json")
        try:
            found = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and found.keys() == self.keys.keys() and all(
            isinstance(found[name], _TYPES[kind])
            and (kind != "number" or not isinstance(found[name], bool))
            and found[name] not in ("", [])
            for name, kind in self.keys.items()
        )  # fmt: skip

    def satisfy(self, draft: Draft) -> None:
        def written(draft: Draft) -> str:
            made: dict[str, Any] = {}
            for name, kind in self.keys.items():
                if kind == "text":
                    made[name] = f"{draft.sentence()}."
                elif kind == "list":
                    made[name] = draft.rng.sample(("red", "blue", "white", "grey"), 2)
                else:
                    made[name] = draft.rng.randint(1, 9) if kind == "number" else draft.rng.random() < 0.5
            return json.dumps(made)

        draft.whole = written


class CsvLine(Constraint):
    kind = "csv"
    settles = _ALL
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Answer with one line of CSV that has {fields} values.", "Give {fields} values as one CSV line."),
        "test": ("Make it a single comma-separated line of {fields} values.",),
    }
    claim = r"\bcsv\b|\bcomma[- ]separated\b"
    fields: int

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(fields=rng.randint(2, 6))

    def holds(self, answer: str) -> bool:
        if len(lines(answer)) != 1:
            return False
        try:
            row = next(csv.reader([answer.strip()], strict=True))
        except (csv.Error, StopIteration):
            return False
        return len(row) == self.fields and all(any(map(str.isalnum, value)) for value in row)

    def satisfy(self, draft: Draft) -> None:
        def written(draft: Draft) -> str:
            stock = [noun for noun in _PLAIN_WORDS if draft.fits(noun)]
            if len(stock) < self.fields:
                raise LookupError("no values fit")
            return ",".join([draft.topic, *draft.rng.sample(stock, self.fields - 1)])

        draft.whole = written


_PLAIN_WORDS = (
    "air", "all", "boat", "cold", "day", "dry", "east", "far", "gold", "hill", "ink", "join", "land", "mild", "north",
    "oil", "plain", "red", "sea", "tall", "thin", "view", "wet", "wild",
)  # fmt: skip


class Alphabetical(Constraint):
    """So many different words, or more, each behind the one before it in the alphabet."""

    kind = "alphabetical"
    settles = _ALL - {"commas", "digits", "wrap"}
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Write {least} or more words in alphabetical order.", "Give {least} words or more, from A to Z."),
        "test": ("Only words sorted by the alphabet, {least} at the fewest.",),
    }  # fmt: skip
    claim = r"\balphabetical\w*(?: order)?\b|\b(?:order of|by) the alphabet\b|\bfrom a to z\b"
    least: int

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(least=rng.randint(3, 8))

    def holds(self, answer: str) -> bool:
        found = [bare(word) for word in re.split(r"[\s,;]+", answer)]
        found = [word for word in found if word]
        return len(found) >= self.least and all(a < b for a, b in pairwise(found))

    def satisfy(self, draft: Draft) -> None:
        def written(draft: Draft) -> str:
            stock = [word for word in _PLAIN_WORDS if draft.fits(word) and word != draft.topic]
            if len(stock) < self.least:
                raise LookupError("no words fit")
            return " ".join(sorted([draft.topic, *draft.rng.sample(stock, self.least - 1)]))

        draft.whole = written


class OnlyDigits(Constraint):
    kind = "only digits"
    settles = _ALL | {"casing", "free letters", "word length", "forbidden"}
    names_topic = False
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("But answer with digits only: {length} of them.", "No words: the answer is {length} digits."),
        "test": ("Instead of words give a number of {length} digits.",),
    }
    claim = rf"\bonly (?:digits|numbers)\b|\b(?:digits|numbers) only\b|\b{NOT} words\b"
    length: int

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(length=rng.randint(2, 6))

    def holds(self, answer: str) -> bool:
        return re.fullmatch(rf"\s*[0-9]{{{self.length}}}\s*", answer) is not None

    def satisfy(self, draft: Draft) -> None:
        draft.whole = lambda draft: str(draft.rng.randint(10 ** (self.length - 1), 10**self.length - 1))


class Quoted(Constraint):
    kind = "quotes"
    settles = frozenset({"wrap"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Put the whole answer in quotation marks.", "Wrap all of it in double quotes."),
        "test": ("Quotation marks go around the entire text.",),
    }
    claim = r"\bquotation marks\b|\b(?:double )?quotes\b"

    def holds(self, answer: str) -> bool:
        text = answer.strip()
        # Two quotations with something between them are not one.
        inside = text[1:-1].strip()
        apart = re.match(r'[^"“”]*["”][^"“”]*["“]', inside) is not None
        return len(text) > 2 and text[0] in '"“' and text[-1] in '"”' and bare(text) != "" and not apart

    def satisfy(self, draft: Draft) -> None:
        draft.quotes = True


class Sections(Constraint):
    kind = "sections"
    settles = frozenset({"layout", "first"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Make sections with the titles {listed}, each title on a line that starts with #.",),
        "test": ("Part it under these headings, every one on a line with # in front: {listed}.",),
    }
    claim = r"\b(?:sections?|headings?)\b"
    titles: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(titles=tuple(noun.capitalize() for noun in rng.sample(lexicon.nouns(split), rng.randint(2, 3))))

    def slots(self, rng: Rng, split: Split) -> dict[str, object]:
        return {"listed": " and ".join((", ".join(self.titles[:-1]), self.titles[-1]))}

    def holds(self, answer: str) -> bool:
        found: list[list[str]] = []
        for line in lines(answer.strip('"')):
            if line.startswith("#"):
                found.append([line.lstrip("#").rstrip(":").strip().lower()])
            elif found:
                found[-1].append(line)
        return [part[0] for part in found] == [t.lower() for t in self.titles] and all(len(part) > 1 for part in found)

    def satisfy(self, draft: Draft) -> None:
        draft.titles, draft.layout = self.titles, "sections"


def _refuse(name: str) -> None:
    """NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(name)


class Heading(Constraint):
    kind = "heading"
    settles = frozenset({"heading", "first"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Give it a title in double angle brackets, like <<title>>.", "Put a title in << and >> on top."),
        "test": ("It needs a heading, written <<so>>.",),
    }
    claim = r"\btitle\b(?! case)|\bangle brackets\b"

    def holds(self, answer: str) -> bool:
        first = re.match(r"[\s#*]*<<([^<>\n]+)>>", answer)
        return first is not None and bare(first[1]) != ""

    def satisfy(self, draft: Draft) -> None:
        draft.heading = True


class TwoAnswers(Constraint):
    kind = "two answers"
    settles = frozenset({"layout", "stars", "sentences"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Give two different answers with *** between them.", "Answer twice, the answers parted by ***."),
        "test": ("I want two versions; put *** in the middle.",),
    }
    claim = r"\b(?:two|2|both) (?:different )?(?:answers|versions)\b"

    def holds(self, answer: str) -> bool:
        parts = [" ".join(map(bare, words(part))) for part in re.split(r"(?<!\*)\*\*\*(?!\*)", answer)]
        return len(parts) == 2 and all(parts) and parts[0] != parts[1]

    def satisfy(self, draft: Draft) -> None:
        draft.layout = "answers"


class Repeats(Constraint):
    kind = "repeat"
    settles = frozenset({"first", "words", "sentences", "letter", "free letters", "word length", "questions"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ('First repeat "{sentence}" word for word, then answer.', 'Begin by repeating "{sentence}"'),
        "test": ('Say "{sentence}" again before you answer.',),
    }
    claim = r"\brepeat\w*\b"
    sentence: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(sentence=subject.request)

    def holds(self, answer: str) -> bool:
        said = answer.strip().lstrip("\"“'").lower()
        rest = said[len(self.sentence) :]
        return said.startswith(self.sentence.lower()) and len(words(rest)) > 1

    def satisfy(self, draft: Draft) -> None:
        draft.repeats = True


class Postscript(Constraint):
    kind = "postscript"
    settles = frozenset({"last"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Add a postscript at the end that starts with {mark}", "Close with a line that begins with {mark}"),
        "test": ("Let the last line be a note with {mark} in front",),
    }
    claim = r"\bpostscript\b|\bp\.s\b|\blast line\b"
    mark: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(mark=rng.choice(("P.S.", "Note:") if split == "train" else ("N.B.", "PS:")))

    def holds(self, answer: str) -> bool:
        last = (lines(answer) or [""])[-1].lower()
        return last.startswith(self.mark.lower()) and len(words(last)) > 1 and len(lines(answer)) > 1

    def satisfy(self, draft: Draft) -> None:
        draft.postscript = self.mark


class Acrostic(Constraint):
    kind = "acrostic"
    settles = frozenset({"layout", "first"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("The first letters of the lines must spell {word}.", "Begin the lines with the letters of {word}."),
        "test": ("Read downwards, the lines' first letters are to give {word}.",),
    }
    claim = r"\bacrostic\b|\bfirst letters\b|\bspells?\b"
    word: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        starts = {noun[0] for noun in " ".join(lexicon.NOUNS.values()).split()}
        short = [noun for noun in lexicon.nouns(split) if 3 <= len(noun) <= 4 and set(noun) <= starts]
        return cls(word=rng.choice(short))

    def holds(self, answer: str) -> bool:
        return "".join(bare(line)[:1] for line in lines(answer)) == self.word

    def satisfy(self, draft: Draft) -> None:
        draft.starts, draft.layout = self.word, "lines"


FORMS: tuple[type[Constraint], ...] = (
    JsonObject, CsvLine, Alphabetical, OnlyDigits, Quoted, Sections, Heading, TwoAnswers, Repeats, Postscript, Acrostic,
)  # fmt: skip
