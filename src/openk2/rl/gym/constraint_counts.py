"""Constraints on how much there is of something: words, sentences, lines, letters, questions and so on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Self

from openk2.core import Split
from openk2.rl.gym.constraint_base import (
    Constraint,
    Counted,
    Subject,
    bare,
    lines,
    paragraphs,
    sentences,
    times,
    unmarked,
    words,
)
from openk2.rl.gym.constraint_draft import Draft
from openk2.worlds.families import lexicon
from openk2.worlds.families.lexicon import Rng

PALINDROMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("level", "noon", "radar", "mum", "pop", "wow", "civic", "refer", "eye"),
    "test": ("kayak", "dad", "madam", "rotor", "stats", "gag"),
}


class WordCount(Counted):
    kind = "words"
    unit = "words"
    settles = frozenset({"words"})
    number_draws = (8, 30)
    ways = ("exactly", "least", "between", "most")
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Use {amount} words.", "Answer in {amount} words.", "The answer must have {amount} words."),
        "test": ("Let the length be {amount} words.", "Keep to {amount} words."),
    }
    claim = r"\bwords?(?: long)?\b(?! in (?:capital|upper))"

    def count(self, answer: str) -> int:
        return len(words(answer))


class SentenceCount(Counted):
    kind = "sentences"
    unit = "sentences"
    settles = frozenset({"sentences"})
    number_draws = (1, 5)
    ways = ("exactly", "least", "between", "most")
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Use {amount} sentences.", "Write {amount} sentences.", "Answer in {amount} sentences."),
        "test": ("The number of sentences is to be {amount}.", "Make it {amount} sentences long."),
    }
    claim = r"\bsentences?\b"

    def count(self, answer: str) -> int:
        return len(sentences(answer))


class LineCount(Counted):
    kind = "lines"
    unit = "lines"
    settles = frozenset({"layout"})
    number_draws = (2, 5)
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Use {amount} lines.", "Write {amount} lines.", "Put the answer on {amount} lines."),
        "test": ("Spread it over {amount} lines.", "Lines in the answer: {amount}."),
    }
    claim = r"\blines?\b"

    def count(self, answer: str) -> int:
        return len(lines(answer))

    def satisfy(self, draft: Draft) -> None:
        super().satisfy(draft)
        draft.layout = "lines"


class ParagraphCount(Counted):
    kind = "paragraphs"
    unit = "paragraphs"
    settles = frozenset({"layout"})
    number_draws = (2, 3)
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Write {amount} paragraphs, with a blank line between them.", "Use {amount} paragraphs."),
        "test": ("Split it into {amount} paragraphs (blank lines part them).",),
    }
    claim = r"\bparagraphs?\b"

    def count(self, answer: str) -> int:
        return len(paragraphs(answer))

    def satisfy(self, draft: Draft) -> None:
        super().satisfy(draft)
        draft.layout = "paragraphs"


class BulletCount(Counted):
    kind = "bullets"
    unit = "bullets"
    settles = frozenset({"layout"})
    number_draws = (2, 5)
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Use {amount} bullets.", "Make a list of {amount} bullet points.", "Write {amount} bullets."),
        "test": ("As bullets, please, {amount} of them.", "Give {amount} bulleted points."),
    }
    claim = r"\b(?:bullets?(?: points?)?|bullet(?:ed)? (?:points?|items?))\b"

    def count(self, answer: str) -> int:
        return len(re.findall(r"^[ \t]*[-*•][ \t]+\S", answer, re.M))

    def satisfy(self, draft: Draft) -> None:
        super().satisfy(draft)
        draft.layout = "bullets"


class NumberedCount(Counted):
    """The items of a list that is numbered 1, 2, 3 and so on; a list with a number out of place has none."""

    kind = "numbered"
    unit = "numbered"
    settles = frozenset({"layout", "digits"})
    number_draws = (2, 5)
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Make a numbered list (1. 2. 3.) of {amount} items.", "Number your points: {amount} of them."),
        "test": ("Answer as a list with 1. 2. 3. in front and {amount} entries.",),
    }
    claim = (
        r"\bnumbered (?:items?|points?|lines?|entries)\b|"
        r"\bnumbered list(?: (?:of|with) (?:exactly )?\w+(?= (?:items?|points?|entries)))?"
    )

    def count(self, answer: str) -> int:
        found = [int(n) for n in re.findall(r"^[ \t]*([0-9]{1,3})[.)][ \t]+\S", answer, re.M)]
        return len(found) if found == list(range(1, len(found) + 1)) else 0

    def satisfy(self, draft: Draft) -> None:
        super().satisfy(draft)
        draft.layout = "numbered"

    def claimed(self, match: re.Match[str]) -> Constraint | None:
        inner = re.search(r"(?:of|with) (.*)$", match[0])
        if inner is None and match[0].endswith("list"):
            return self
        return Counted.claimed(self, match if inner is None else re.search(".*$", inner[1]) or match)


class KeywordCount(Counted):
    kind = "keyword"
    unit = "keyword"
    settles = frozenset({"keyword"})
    number_draws = (1, 3)
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": (
            *(f"{verb} {{word}} {{amount}} times." for verb in ("Use", "Mention", "Write", "Say", "Include", "Name")),
            *(f"{verb} the word {{word}} {{amount}} times." for verb in ("Use", "Bring in", "Repeat", "Put down")),
            *(f"Make {{word}} {verb} {{amount}} times." for verb in ("appear", "come up", "show up", "turn up")),
            *(f"The word {{word}} {verb} {{amount}} times." for verb in ("should appear", "must come", "has to be")),
            *(f"Number of times {verb} {{word}}: {{amount}}." for verb in ("for", "that you use", "that I read")),
            *(f"{verb}: {{word}}, {{amount}} times." for verb in ("Needed", "A word to use", "Say this")),
            *(f'{verb} "{{word}}" in it, {{amount}} times.' for verb in ("I want to see", "I look for", "Have")),
            'The word "{word}" must be there {amount} times.',
            "Put {word} into it {amount} times.",
            "Have the word {word} in your text {amount} times.",
            "{amount} times it has to say {word}.",
            "As for {word}, it has to be found {amount} times.",
            "How many times {word} has to come: {amount}.",
            "I count how many times you say {word}: {amount} is right.",
        ),
        "test": ("Let {word} occur {amount} times.", "How often {word} stands in it: {amount}."),
    }
    word: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(word=rng.choice(lexicon.nouns(split)), **cls.drawn_amount(rng))

    def count(self, answer: str) -> int:
        return times(answer, self.word)

    def satisfy(self, draft: Draft) -> None:
        draft.must += [self.word] * self.least
        draft.avoid.add(self.word)

    def claim_pattern(self) -> str:
        # The amount comes behind the word, or not at all.
        word = re.escape(self.word)
        return rf"(?:\bword |\busing |\bused ){word}\b(?:[\w ]{{0,20}}?\b(?:[\w ]+ times|twice|once)\b)?"

    def claimed(self, match: re.Match[str]) -> Constraint | None:
        behind = re.sub(rf"^.*?\b{re.escape(self.word)}\b", "", match[0])
        behind = re.sub(r"\bonce$", "1 times", re.sub(r"\btwice$", "2 times", behind))
        spoken = re.search(r" times$", behind)
        return self if spoken is None else Counted.claimed(self, spoken)


class LetterCount(Counted):
    kind = "letter"
    unit = "letter"
    settles = frozenset({"letter"})
    number_draws = (3, 8)
    ways = ("least", "most")
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("The letter {letter} must occur {amount} times.", "Use the letter {letter} {amount} times."),
        "test": ("Have {amount} of the letter {letter} in it.",),
    }
    letter: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        amount = cls.drawn_amount(rng)
        least = 0 if amount["most"] is not None else amount["least"]
        return cls(letter=rng.choice("aeionst"), least=least, most=amount["most"])

    def count(self, answer: str) -> int:
        return answer.lower().count(self.letter)

    def satisfy(self, draft: Draft) -> None:
        draft.letter = (self.letter, self.least)

    def claim_pattern(self) -> str:
        return rf"\bletter {self.letter}\b(?:[\w ]{{0,20}}?\b[\w ]+ times\b)?"

    def claimed(self, match: re.Match[str]) -> Constraint | None:
        spoken = re.search(r" times$", match[0])
        return self if spoken is None else Counted.claimed(self, spoken)


class QuestionCount(Counted):
    kind = "questions"
    unit = "questions"
    settles = frozenset({"questions"})
    number_draws = (1, 2)
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Ask {amount} questions in it.", "There must be {amount} questions in the answer."),
        "test": ("Put in {amount} sentences that end with a question mark.",),
    }
    claim = r"\bquestions?\b"

    def count(self, answer: str) -> int:
        return sum(bool(re.search(r"\?[\"'”’)\]*]*$", said)) for said in sentences(answer))

    def satisfy(self, draft: Draft) -> None:
        draft.questions = self.least


class PalindromeCount(Counted):
    """Different words of three letters or more that read the same backwards."""

    kind = "palindromes"
    unit = "palindromes"
    settles = frozenset({"palindromes", "free letters"})
    number_draws = (1, 2)
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": (
            "Use {amount} words that read the same backwards.",
            "Have {amount} palindromes in it, such as level.",
        ),
        "test": ("Work in {amount} palindromes (words like kayak).",),
    }
    claim = r"\b(?:palindromes?|words? that reads? the same)\b"
    stock: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        amount = cls.drawn_amount(rng)
        return cls(stock=tuple(rng.sample(PALINDROMES[split], amount["least"])), **amount)

    def count(self, answer: str) -> int:
        found = {bare(word) for word in words(answer)}
        return sum(len(word) > 2 and word.isalpha() and word == word[::-1] != word[0] * len(word) for word in found)

    def satisfy(self, draft: Draft) -> None:
        draft.must += self.stock


class PlaceholderCount(Counted):
    kind = "placeholders"
    unit = "placeholders"
    settles = frozenset({"placeholders"})
    number_draws = (1, 3)
    ways = ("exactly", "least")
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": (
            "Use {amount} placeholders in square brackets, such as [{example}].",
            "Have {amount} placeholders like [{example}] in it.",
        ),
        "test": ("Leave {amount} blanks to fill in, written like [{example}].",),
    }
    claim = r"\b(?:placeholders?|words? in (?:square )?brackets|blanks)\b"
    example: str

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        return cls(example=rng.choice(("name", "day", "place") if split == "train" else ("town", "colour")),
                   **cls.drawn_amount(rng))  # fmt: skip

    def count(self, answer: str) -> int:
        return len(set(map(bare, re.findall(r"\[([^\[\]\n]+)\]", answer))) - {""})

    def satisfy(self, draft: Draft) -> None:
        draft.must += [f"[{name}]" for name in dict.fromkeys((self.example, "kind", "size", "shop"))][: self.least]


class HighlightCount(Counted):
    kind = "highlights"
    unit = "highlights"
    settles = frozenset({"stars"})
    number_draws = (1, 3)
    ways = ("exactly", "least")
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Highlight {amount} words with stars, *like this*.", "Put {amount} words between stars, *so*."),
        "test": ("Emphasise {amount} parts by asterisks, as in *here*.",),
    }
    claim = r"\b(?:highlights?|(?:highlighted|emphasi[sz]ed) (?:words?|parts?)|(?:words?|parts?) between stars)\b"
    stock: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        amount = cls.drawn_amount(rng)
        return cls(stock=tuple(rng.sample(lexicon.nouns(split), amount["least"])), **amount)

    def count(self, answer: str) -> int:
        found = re.findall(r"(?<![*\w])\*(?!\s)([^*\n]+)(?<!\s)\*(?![*\w])", unmarked(answer))
        return sum(bare(part) != "" for part in found)

    def satisfy(self, draft: Draft) -> None:
        draft.must += [f"*{word}*" for word in self.stock]


class CapitalCount(Counted):
    """Words of two letters or more that are all capitals."""

    kind = "capitals"
    unit = "capitals"
    settles = frozenset({"casing"})
    number_draws = (1, 3)
    ways = ("exactly", "least")
    said: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("Write {amount} words in CAPITALS.", "Have {amount} words in capital letters."),
        "test": ("Let {amount} words be all UPPER CASE.",),
    }
    claim = r"\b(?:words? in (?:capitals|capital letters|upper case)|capitali[sz]ed words?)\b"
    stock: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Rng, split: Split, subject: Subject) -> Self:
        amount = cls.drawn_amount(rng)
        return cls(stock=tuple(rng.sample(lexicon.nouns(split), amount["least"])), **amount)

    def count(self, answer: str) -> int:
        found = [re.sub(r"\W", "", word) for word in words(answer)]
        return sum(len(word) > 1 and word.isalpha() and word.isupper() for word in found)

    def satisfy(self, draft: Draft) -> None:
        draft.must += [word.upper() for word in self.stock]


COUNTS: tuple[type[Counted], ...] = (
    WordCount, SentenceCount, LineCount, ParagraphCount, BulletCount, NumberedCount, KeywordCount, LetterCount,
    QuestionCount, PalindromeCount, PlaceholderCount, HighlightCount, CapitalCount,
)  # fmt: skip
