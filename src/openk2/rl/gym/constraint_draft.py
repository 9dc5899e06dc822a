"""An answer in the making: constraints say what they need, and a text that has it is written from short sentences.

What comes out is a proposal. Whether it keeps to everything is for the constraints to say; a composition for which no
proposal does is never posed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle

from openk2.worlds.families import lexicon
from openk2.worlds.families.lexicon import Rng

_PLAIN = (
    "I like {t}", "Many people like {t}", "Some {t} are old", "Some {t} look big", "We saw {t}", "I saw small {t}",
    "{t} can be small", "{t} can be big", "Not all {t} look alike", "All of us know {t}", "My aunt has {t}",
    "Many {t} look nice", "You find {t} in a lot of towns", "Good {t} last long", "A boy will talk about {t}",
    "The old man knows {t} well", "There are many kinds of {t}", "Children draw {t}", "We need {t}", "They sell {t}",
    "I think of {t}", "You can see {t} here", "It is fun to look at {t}", "She has told us about {t}",
)  # fmt: skip
_QUESTIONS = (
    "Do you like {t}", "Who has seen {t}", "Can you draw {t}", "What are {t}", "Why do we like {t}", "Do kids know {t}",
)  # fmt: skip
_HOLDING = ("Look at {x}", "Think of {x}", "I also know {x}", "Now say {x}", "We found {x}", "They put down {x}")
_PADS = (
    "too", "now", "again", "today", "as well", "at night", "by day", "all day", "at noon", "in town", "on a walk",
    "in the park", "at our club", "from far away", "with a friend", "in spring and fall", "on a long walk",
    "at all our parks", "as much as you", "on a lot of days",
)  # fmt: skip
_POSTSCRIPTS = ("There is more to say", "That was fun", "Thank you", "Try it out", "It is worth a look")


@dataclass
class Draft:
    """What is wanted of an answer. `limits` are the least and the most of words, sentences and units of a layout."""

    rng: Rng
    topic: str
    """A plural noun."""
    request: str
    limits: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    layout: str = ""
    """`lines`, `paragraphs`, `bullets`, `numbered`, `answers` or `sections`; empty for running text."""
    titles: tuple[str, ...] = ()
    starts: str = ""
    """The letters that the lines begin with."""
    must: list[str] = field(default_factory=list)
    avoid: set[str] = field(default_factory=set)
    without: str = ""
    """Letters that may not occur."""
    longest: int = 99
    letter: tuple[str, int] | None = None
    """A letter and how often it is wanted; seldom if 0 times."""
    questions: int | None = None
    first: str = ""
    last: str = ""
    ending: str = ""
    repeats: bool = False
    postscript: str = ""
    heading: bool = False
    quotes: bool = False
    casing: Callable[[str], str] | None = None
    whole: Callable[[Draft], str] | None = None
    """Writes answers of a form that no sentence fits."""

    def write(self) -> str:
        """A text. Raises LookupError if the words do not suffice for it."""
        text = self.whole(self) if self.whole is not None else self._text()
        if self.casing is not None:
            text = self.casing(text)
        return f'"{text}"' if self.quotes else text

    def sentence(self, frames: tuple[str, ...] = _PLAIN) -> str:
        """A sentence about the topic without its full stop."""
        fit = [said for frame in frames if self.fits(said := _capital(frame.format(t=self.topic, x="")))]
        if self.letter is not None:
            letter, least = self.letter
            fit = sorted(fit, key=lambda said: said.lower().count(letter), reverse=least > 0)[:6]
        return self._choice(fit)

    def _choice(self, options: list[str]) -> str:
        if not options:
            raise LookupError("no sentence fits")
        return self.rng.choice(options)

    def fits(self, text: str) -> bool:
        low = text.lower()
        return not (
            any(letter in low for letter in self.without)
            or any(word in self.avoid or len(word) > self.longest for word in re.findall(r"\w+", low))
        )

    def _number(self, unit: str, least: int, most: int) -> int:
        """How many of a unit, about `least` to `most` where nothing is asked for."""
        if unit not in self.limits:
            return self.rng.randint(least, max(least, most))
        low, high = self.limits[unit]
        high = low + 1 if high is None else high
        if high < least:
            raise LookupError(f"more {unit} are needed")
        return self.rng.randint(max(low, least), max(least, min(high, max(low, most))))

    def _text(self) -> str:
        before = [self.request] if self.repeats else []
        before += [f"<<About {self.topic}>>"] if self.heading else []
        after = []
        if self.postscript:
            after = [f"{self.postscript} {self._choice([said for said in _POSTSCRIPTS if self.fits(said)])}."]
        fixed = " ".join([*before, *after, self.ending, *self.titles]).split()
        units = 1
        if self.titles or self.starts:
            units = len(self.titles or self.starts)
        elif self.layout == "answers":
            units = 2
        elif self.layout:
            units = self._number(self.layout, 2, 3)
            if self.layout in ("lines", "paragraphs"):
                units -= len(before) + len(after)
        wanted = self._number("words", 6, 60) - len(fixed) if "words" in self.limits else None
        taken = len(before) + len(after) + bool(self.ending) + len(self.titles)
        usual = max(units, 1 + (len(self.must) + 1) // 2, (self.questions or 0) + (1 if self.must else 0))
        if self.letter is not None:
            usual = max(usual, 1 + self.letter[1] // 2)
        if wanted is not None:
            usual = max(units, min(usual, wanted // 4), wanted // 8)
        count = self._number("sentences", units + taken, max(usual, 2 * units if units > 1 else 2) + taken) - taken
        if "sentences" not in self.limits:
            count = usual
        if count < max(units, 1):
            raise LookupError("more sentences are needed")
        body = self._body(count, wanted)
        if self.ending:
            body.append(self.ending)
        return self._laid_out(before, body, after, units)

    def _body(self, count: int, wanted: int | None) -> list[str]:
        """So many sentences, of so many words together."""
        asked = self.questions or 0
        said = [self.sentence(_QUESTIONS if i < asked else _PLAIN) for i in range(count)]
        fixed = set(range(asked))
        if self.first:
            said[0] = _capital(f"{self.first} is a good word for {self.topic}")
        for i, letter in enumerate(self.starts):
            said[i] = f"{self._starting(letter)} and {self.topic} go well"
        if self.last:
            said[-1] = f"The last word on {self.topic} is {self.last}"
        free = [i for i in range(count) if i not in fixed and not (i == count - 1 and self.last)]
        if self.must:
            groups: dict[int, list[str]] = {}
            slots = [i for i in free if i > 0 or asked or count == 1] or free
            if not slots:
                raise LookupError("there is no place for a word")
            for token, i in zip(self.must, cycle(slots), strict=False):
                groups.setdefault(i, []).append(token)
            for i, group in groups.items():
                if self.starts or (self.first and i == 0):
                    said[i] += " with " + " and ".join(group)
                else:
                    parts = [self.topic, *group] if count == 1 else group
                    said[i] = self._choice([f for f in _HOLDING if self.fits(f.format(x=""))])
                    said[i] = said[i].format(x=" and ".join(parts))
        if wanted is not None:
            self._stretch(said, wanted, free)
        ends = ["?" if i < asked else "." for i in range(count)]
        return [text + end for text, end in zip(said, ends, strict=True)]

    def _stretch(self, said: list[str], wanted: int, free: list[int]) -> None:
        missing = wanted - sum(len(text.split()) for text in said)
        if missing < 0 or (missing and not free):
            raise LookupError("the words do not come out")
        pads = [pad for pad in _PADS if self.fits(pad)]
        used: set[tuple[int, str]] = set()
        while missing:
            i = self.rng.choice(free)
            fit = [pad for pad in pads if len(pad.split()) <= missing and (i, pad) not in used]
            pad = self._choice(fit)
            used.add((i, pad))
            said[i] += f" {pad}"
            missing -= len(pad.split())

    def _starting(self, letter: str) -> str:
        nouns = [n for n in " ".join(lexicon.NOUNS.values()).split() if n.startswith(letter)]
        return self._choice([name for n in nouns if self.fits(name := lexicon.plural(n).capitalize())])

    def _laid_out(self, before: list[str], body: list[str], after: list[str], units: int) -> str:
        groups = [body[i * len(body) // units : (i + 1) * len(body) // units] for i in range(units)]
        parts = [" ".join(group) for group in groups]
        if self.titles:
            parts = [f"# {title}\n{part}" for title, part in zip(self.titles, parts, strict=True)]
        if self.layout == "bullets":
            parts = [f"- {part}" for part in parts]
        elif self.layout == "numbered":
            parts = [f"{i}. {part}" for i, part in enumerate(parts, 1)]
        between = {"paragraphs": "\n\n", "answers": "\n***\n"}.get(self.layout, "\n")
        around = "\n\n" if self.layout == "paragraphs" else "\n"
        return around.join([*before, between.join(parts), *after])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
