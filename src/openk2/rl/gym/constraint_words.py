"""Constraints on words and letters: which, of what case, in which place, and which not."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import ClassVar, Self

from openk2.core import Split
from openk2.rl.gym.constraint_base import NOT, Constraint, Subject, bare, times, words
from openk2.rl.gym.constraint_draft import Draft
from openk2.worlds.families import lexicon
from openk2.worlds.families.lexicon import Rng

_USED = r"(?: (?:any|the|using|use|used|uses|contain\w*|have|has|is|are|single|include\w*|of|a|word|words))*"


class Keywords(Constraint):
    kind = "keywords"
    settles = frozenset({"keyword"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Use the words {listed}.", "These words must be in it: {listed}."),
        "test": ("Work in {listed}.", "It has to mention {listed}."),
    }
    claim = r"\b(?:all|both|every|each|the)(?: (?:of|the|your|three|two|given))* (?:key ?)?words?\b"
    needed: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(needed=tuple(rng.sample(lexicon.nouns(split), rng.randint(2, 3))))

    def slots(self, rng: Rng, split: Split) -> dict[str, object]:
        return {"listed": f"{', '.join(self.needed[:-1])} and {self.needed[-1]}"}

    def holds(self, answer: str) -> bool:
        return all(times(answer, word) for word in self.needed)

    def satisfy(self, draft: Draft) -> None:
        draft.must += self.needed


class Forbidden(Constraint):
    kind = "forbidden"
    settles = frozenset({"forbidden"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Do not use the word {word}.", 'The word "{word}" must not be in it.'),
        "test": ("Never say {word}.", "Get by without the word {word}."),
    }
    word: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        common = "people many some old small big see look kinds know" if split == "train" else "like good all last find"
        return cls(word=rng.choice(common.split()))

    def holds(self, answer: str) -> bool:
        return any(map(str.isalnum, answer)) and not times(answer, self.word)

    def satisfy(self, draft: Draft) -> None:
        draft.avoid.add(self.word)

    def claim_pattern(self) -> str:
        return rf"\b{NOT}{_USED}(?: the)?(?: word)? {re.escape(self.word)}\b|\b{NOT}{_USED} forbidden words?\b"


class Lipogram(Constraint):
    kind = "no letter"
    settles = frozenset({"letter", "free letters"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Do not use the letter {letter}.", "The letter {letter} must not occur."),
        "test": ("Manage without any {letter}, the letter.",),
    }
    letter: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(letter=rng.choice([letter for letter in "cdfghjkmpuvwxyz" if letter not in subject.topic]))

    def holds(self, answer: str) -> bool:
        return any(map(str.isalnum, answer)) and self.letter not in answer.lower()

    def satisfy(self, draft: Draft) -> None:
        draft.without += self.letter

    def claim_pattern(self) -> str:
        return rf"\b{NOT}{_USED} letter {self.letter}\b"


class LowerCase(Constraint):
    kind = "lower case"
    settles = frozenset({"casing"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Write all in lower case.", "Use small letters only.", "No capital letters."),
        "test": ("Leave every letter uncapitalised.",),
    }
    claim = rf"\blower ?-?case\b|\bsmall letters\b|\b{NOT}{_USED} capital(?:s| letters?)\b"

    def holds(self, answer: str) -> bool:
        return any(map(str.isalpha, answer)) and answer == answer.lower()

    def satisfy(self, draft: Draft) -> None:
        draft.casing = str.lower


class UpperCase(Constraint):
    kind = "upper case"
    settles = frozenset({"casing"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Write all in capital letters.", "Use upper case only."),
        "test": ("Everything is to be in BLOCK CAPITALS.",),
    }
    claim = r"\bupper ?-?case\b|\b(?:all |block )?(?:capitals|caps|capital letters)\b"

    def holds(self, answer: str) -> bool:
        return any(map(str.isalpha, answer)) and answer == answer.upper()

    def satisfy(self, draft: Draft) -> None:
        draft.casing = str.upper


class TitleCase(Constraint):
    kind = "title case"
    settles = frozenset({"casing"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Start Every Word With A Capital.", "Write in title case: each word with a capital first."),
        "test": ("Capitalise the first letter of all words.",),
    }
    claim = r"\btitle ?-?case\b|\b(?:every|each) word (?:starts|begins|has|is) (?:with )?(?:a )?capital\w*"

    def holds(self, answer: str) -> bool:
        first = [re.sub(r"^[\W_]+", "", word)[:1] for word in words(answer)]
        return answer != answer.upper() and all(letter == letter.upper() for letter in first)

    def satisfy(self, draft: Draft) -> None:
        draft.casing = lambda text: re.sub(r"(?<![\w'])[a-z]", lambda m: m[0].upper(), text)


class FirstWord(Constraint):
    kind = "first word"
    settles = frozenset({"first"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Start with the word {word}.", 'The first word must be "{word}".'),
        "test": ("Let {word} be what it begins with.", "Open with {word}."),
    }
    word: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(word=rng.choice(lexicon.nouns(split)))

    def holds(self, answer: str) -> bool:
        found = words(answer)
        return bool(found) and bare(found[0]) == self.word

    def satisfy(self, draft: Draft) -> None:
        draft.first = self.word

    def claim_pattern(self) -> str:
        return (
            rf"\b(?:start\w*|begin\w*|began|begun|open\w*) (?:\w+ ){{0,2}}?"
            rf"(?:with|by|on) (?:the )?(?:word )?{self.word}\b|"
            rf"\bfirst word (?:is|was) {self.word}\b|\b{self.word} is the first"
        )


class LastWord(Constraint):
    kind = "last word"
    settles = frozenset({"last"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("End with the word {word}.", 'The last word must be "{word}".'),
        "test": ("Let {word} be the final word.", "Close with {word}."),
    }
    word: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(word=rng.choice(lexicon.nouns(split)))

    def holds(self, answer: str) -> bool:
        found = words(answer)
        return bool(found) and bare(found[-1]) == self.word

    def satisfy(self, draft: Draft) -> None:
        draft.last = self.word

    def claim_pattern(self) -> str:
        return (
            rf"\b(?:end\w*|clos\w+|finish\w*) (?:\w+ ){{0,2}}?(?:with|by|on) (?:the )?(?:word )?{self.word}\b|"
            rf"\b(?:last|final) word (?:is|was) {self.word}\b|\b{self.word} is the (?:last|final)"
        )


class Ending(Constraint):
    kind = "ending"
    settles = frozenset({"last"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ('End with the sentence "{phrase}"', 'The very last sentence must be "{phrase}"'),
        "test": ('Finish by "{phrase}"',),
    }
    claim = r"\b(?:end\w*|finish\w*|clos\w+|last)\b[\w ]*\b(?:phrase|sentence)\b"
    phrase: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        train = ("That is all.", "Have a nice day.", "Now you know.", "What do you think?", "Ask me for more.")
        return cls(phrase=rng.choice(train if split == "train" else ("So much for today.", "Is there more to it?")))

    def holds(self, answer: str) -> bool:
        said = answer.rstrip(' \t\r\n"”*_').lower()
        before = said.removesuffix(self.phrase.lower())
        return before != said and not before[-1:].isalnum()

    def satisfy(self, draft: Draft) -> None:
        draft.ending = self.phrase


class NoCommas(Constraint):
    kind = "no commas"
    settles = frozenset({"commas"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Use no commas.", "Do not use any commas.", "There must not be a comma in it."),
        "test": ("Get along without commas.",),
    }
    claim = rf"\b{NOT}{_USED} commas?\b|\bcomma-free\b"

    def holds(self, answer: str) -> bool:
        return any(map(str.isalnum, answer)) and not re.search("[,，、،]", answer)

    def satisfy(self, draft: Draft) -> None:
        """Nothing has to be done: no sentence of a draft has a comma."""


class NoDigits(Constraint):
    kind = "no digits"
    settles = frozenset({"digits"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Use no digits.", "Do not use any digits.", "There must not be a digit in it."),
        "test": ("Stay clear of digits.",),
    }
    claim = rf"\b{NOT}{_USED} (?:digits?|numerals)\b"

    def holds(self, answer: str) -> bool:
        return any(map(str.isalpha, answer)) and not any(map(str.isdigit, answer))

    def satisfy(self, draft: Draft) -> None:
        """Nothing has to be done: no sentence of a draft has a digit."""


class ShortWords(Constraint):
    kind = "short words"
    settles = frozenset({"word length"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("No word may have more than {most} letters.", "Use only words of {most} letters or fewer."),
        "test": ("Words longer than {most} letters are out.",),
    }
    claim = r"\b(?:only )?(?:short words|words of)\b|\bno words? (?:is |are |has |have )?(?:longer|over|more)\b"
    most: int

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(most=max(len(subject.topic), rng.randint(5, 9)))

    def holds(self, answer: str) -> bool:
        found = re.findall(r"[^\W\d_]+", answer)
        return bool(found) and max(map(len, found)) <= self.most

    def satisfy(self, draft: Draft) -> None:
        draft.longest = self.most


class DateIn(Constraint):
    """A date that exists, in one format; a date in another does no harm."""

    kind = "date"
    settles = frozenset({"digits"})
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Give a date in the form {shape}.", "There must be a date in it, written {shape}."),
        "test": ("Mention some day as {shape}.",),
    }
    claim = r"\bdates?\b"
    shape: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        train = ("YYYY-MM-DD", "DD.MM.YYYY", "MM/DD/YYYY")
        return cls(shape=rng.choice(train if split == "train" else ("YYYY/MM/DD", "DD-MM-YYYY")))

    def holds(self, answer: str) -> bool:
        pattern = re.escape(self.shape).replace("YYYY", r"(?P<y>\d{4})")
        pattern = pattern.replace("MM", r"(?P<m>\d\d)").replace("DD", r"(?P<d>\d\d)")
        for match in re.finditer(rf"(?a:(?<![\w/.-]){pattern}(?![\w/-]))", answer):
            try:
                datetime.date(int(match["y"]), int(match["m"]), int(match["d"]))
            except ValueError:
                continue
            return True
        return False

    def satisfy(self, draft: Draft) -> None:
        day = lexicon.date(draft.rng).split("-")
        draft.must.append(self.shape.replace("YYYY", day[0]).replace("MM", day[1]).replace("DD", day[2]))


WORDS: tuple[type[Constraint], ...] = (
    Keywords, Forbidden, Lipogram, LowerCase, UpperCase, TitleCase, FirstWord, LastWord, Ending, NoCommas, NoDigits,
    ShortWords, DateIn,
)  # fmt: skip
