"""How requests are worded: frames that belong to a split, and the noise of real writing around them.

A `Book` holds the frames of one thing to say. A frame is text with slots `{name}`, optional parts `[...]` and choices
`(a|b|c)`, `<` and `>` standing for real parentheses; it belongs to a split by the hash of its text, so the wordings of
the test split never occur in training. What is filled into a slot is protected: typos and changes of case touch the
words of frames only, never a value.

    ASK = Book("price", "ask: (what is|what's) the price of {thing}", "do: (get|look up) the price of {thing} [for me]")
    phrase = ASK.say(rng, split, thing="Brosta kettle")
    text = request(rng, split, phrase)          # "hi, could you look up the pirce of Brosta kettle?"

A frame starts with its kind: `ask:` a question, `do:` an imperative, `frag:` a fragment, `say:` a statement; without
one it is a part of something larger. A star before it marks the most common wordings, which nobody could do without:
they always belong to training. A plus marks wordings that came when the test split was frozen: they belong to training
and do not count where it is drawn. `request` adds what fits the kind (politeness, greetings, punctuation) and noise.

A model that has only seen a dozen wordings of a thing learns them by heart. In training a book therefore makes up new
ones: small words of a frame are left out, exchanged for others or for coined ones; in a `loose` book, whose meaning is
in its slots, that may happen to all words, and slots may stand in quotes or brackets. What comes out is never a wording
of the test split.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from openk2.core import Split
from openk2.worlds.families.lexicon import TEST_SHARE, coined

Rng = random.Random

OPEN, CLOSE = "\x02", "\x03"
"""Around a protected value while a request is being built."""

KINDS = ("ask", "do", "frag", "say")
LOOSE_SHARE = 0.25
"""The share of wordings in training that are made up."""
_SLOT = re.compile(r"(\{\w+\})")
_MINOR = frozenset(["the", "a", "an", "of", "this", "my", "me", "our", "is", "are", "it", "please", "that", "there"])
# fmt: off
_FILLERS = ("the", "a", "of", "for", "this", "my", "our", "with", "in", "is", "it", "to", "so", "now", "one", "as",
            "at", "on", "just", "which", "please", "and", "by")
# fmt: on
_AROUND = (('"', '"'), ("'", "'"), ("(", ")"), ("", ","), (", ", ","), ("", ":"), ("- ", ""), ("", " -"), ("[", "]"))


class Phrase(str):
    """Text made from frames, values still marked as protected; `kind` tells what kind of sentence it is."""

    kind: str

    def __new__(cls, text: str, kind: str = "") -> Phrase:
        phrase = super().__new__(cls, text)
        phrase.kind = kind
        return phrase


def protect(value: object) -> str:
    """Mark a value that noise must not touch."""
    text = str(value).replace(OPEN, "").replace(CLOSE, "")
    return f"{OPEN}{text}{CLOSE}"


def plain(text: str) -> str:
    """The text without marks."""
    return text.replace(OPEN, "").replace(CLOSE, "")


# A parsed frame is a list of parts: text, ("slot", name) or ("any", [alternatives, each a list of parts]).
Part = Any


def _parse(text: str) -> list[Part]:
    tokens = re.findall(r"\{\w+\}|[\[\]()|]|[^\[\](){}|]+", text)
    if "".join(tokens) != text:
        raise ValueError(f"frame with an unmatched brace: {text!r}")
    parts, end = _sequence(tokens, 0, "")
    if end != len(tokens):
        raise ValueError(f"frame with an unmatched bracket: {text!r}")
    return parts


def _sequence(tokens: list[str], i: int, closer: str) -> tuple[list[Part], int]:
    alternatives: list[list[Part]] = [[]]
    while i < len(tokens) and tokens[i] not in ("]", ")"):
        token = tokens[i]
        if token == "|" and closer:
            alternatives.append([])
        elif token in ("[", "("):
            closing = "]" if token == "[" else ")"
            inner, i = _sequence(tokens, i + 1, closing)
            if i >= len(tokens) or tokens[i] != closing:
                raise ValueError(f"frame with an unmatched bracket: {''.join(tokens)!r}")
            choices = inner[0][1] if len(inner) == 1 and inner[0][0] == "any" else [inner]
            alternatives[-1].append(("any", [*choices, []] if token == "[" else choices))
        elif token.startswith("{"):
            alternatives[-1].append(("slot", token[1:-1]))
        else:
            alternatives[-1].append(("text", token.replace("<", "(").replace(">", ")")))
        i += 1
    return ([("any", alternatives)] if len(alternatives) > 1 else alternatives[0]), i


def _expand(parts: list[Part], rng: Rng, slots: dict[str, object], out: list[str]) -> None:
    for kind, value in parts:
        if kind == "text":
            out.append(value)
        elif kind == "slot":
            filled = slots[value]
            out.append(str(filled) if isinstance(filled, Phrase) else protect(filled))
        else:
            _expand(value[int(rng.random() * len(value))], rng, slots, out)


def _outside(text: str, change: Callable[[str], str]) -> str:
    """Change only what is outside the protected values."""
    pieces = re.split(f"({OPEN}[^{CLOSE}]*{CLOSE})", text)
    return "".join(piece if piece.startswith(OPEN) else change(piece) for piece in pieces)


def _tidy(text: str) -> str:
    return _outside(text, lambda piece: re.sub(r" ([,.?!;])", r"\1", re.sub(r" {2,}", " ", piece))).strip()


def _expansions(parts: list[Part]) -> list[str]:
    choices: list[list[str]] = []
    for kind, value in parts:
        if kind == "any":
            choices.append([text for alternative in value for text in _expansions(alternative)])
        else:
            choices.append(["{" + value + "}" if kind == "slot" else value])
    return [" ".join("".join(combination).split()) for combination in itertools.product(*choices)]


def _loosened(text: str, rng: Rng, loose: bool, swap: bool) -> str:
    """Another wording: `text` has slots by name; they keep their order unless `swap` allows two to change places."""
    pieces = _SLOT.split(text)
    slots = range(1, len(pieces), 2)
    if swap and len(slots) > 1 and rng.random() < 0.25:
        i, j = rng.sample(slots, 2)
        pieces[i], pieces[j] = pieces[j], pieces[i]
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            pieces[i] = _other_words(piece, rng, loose)
        elif loose and rng.random() < 0.2:
            before, after = rng.choice(_AROUND)
            pieces[i] = f"{before}{piece}{after}"
    # A word must not grow together with a slot beside it.
    return _tidy(re.sub(r"(?<=\})(?=\w)|(?<=\w)(?=\{)", " ", "".join(pieces)))


def _other_words(piece: str, rng: Rng, loose: bool) -> str:
    """What stands between two slots, with words left out, exchanged and added."""
    words: list[str] = []
    for word in piece.split():
        roll = rng.random()
        other = coined(rng) if rng.random() < 0.4 else rng.choice(_FILLERS)
        if roll < 0.2 and (loose or word in _MINOR):
            words += [other] if roll < 0.1 else []
        else:
            words += [other, word] if roll > 0.96 else [word]
    between = " ".join(words) or " "
    return f"{' ' if piece[:1] == ' ' else ''}{between}{' ' if piece[-1:] == ' ' else ''}" if piece else ""


@dataclass(eq=False)
class Frame:
    """One wording."""

    kind: str
    text: str
    parts: list[Part]
    common: bool = False
    added: bool = False

    @classmethod
    def read(cls, text: str) -> Frame:
        """A frame as a book writes it. Raises ValueError for a brace or bracket without its other half."""
        common, added = text.startswith("*"), text.startswith("+")
        text = text.removeprefix("*").removeprefix("+")
        head, colon, rest = text.partition(": ")
        kind, text = (head, rest) if colon and head in KINDS else ("", text)
        return cls(kind, text, _parse(text), common, added)

    @cached_property
    def texts(self) -> list[str]:
        """All that it can say, slots by name."""
        return _expansions(self.parts)

    def fill(self, rng: Rng, slots: dict[str, object]) -> Phrase:
        out: list[str] = []
        _expand(self.parts, rng, slots, out)
        return Phrase(_tidy("".join(out)), self.kind)


BOOKS: dict[str, Book] = {}
"""Every book that was made, by name (for the tests and the digest of the test mix)."""


class Book:
    """All wordings of one thing, two at least.

    Of each kind one frame in five (at least one when there are two), by the order of their hashes, is kept for the test
    split. With `loose` all words of a frame may change in training, with `swap` slots may change places as well.
    """

    def __init__(self, name: str, *frames: str, loose: bool = False, swap: bool = False) -> None:
        if name in BOOKS or len(frames) < 2 or len(set(frames)) < len(frames):
            raise ValueError(f"book {name!r} must be new and have two frames or more, all different")
        self.name = name
        self.loose = loose or swap
        self.swap = swap
        self.frames = [Frame.read(text) for text in frames]
        self.by_split: dict[Split, list[Frame]] = {"test": [], "train": []}
        for kind in ("", *KINDS):
            group = [frame for frame in self.frames if frame.kind == kind and not frame.added]
            group.sort(key=lambda frame: (frame.common, hashlib.sha256(frame.text.encode()).digest()))
            rare = sum(not frame.common for frame in group)
            held_out = min(rare, max(1, round(len(group) / TEST_SHARE))) if len(group) > 1 else 0
            self.by_split["test"] += group[:held_out]
            self.by_split["train"] += group[held_out:]
        self.by_split["train"] += [frame for frame in self.frames if frame.added]
        if not self.by_split["test"]:
            raise ValueError(f"book {name!r} needs two frames of one kind")
        BOOKS[name] = self

    def say(self, rng: Rng, split: Split, *, kind: str | None = None, **slots: object) -> Phrase:
        """One wording of the split (of a kind, if asked for), filled; values are protected, but a `Phrase` is not."""
        frames = self.by_split[split]
        if kind is not None:
            frames = [frame for frame in frames if frame.kind == kind]
        frame = frames[int(rng.random() * len(frames))]
        if split == "train" and rng.random() < LOOSE_SHARE:
            frame = self.another(rng, frame)
        return frame.fill(rng, slots)

    def another(self, rng: Rng, frame: Frame) -> Frame:
        """A wording of the same kind that is made up; `frame` itself where that gives a held-out one."""
        text = _loosened(rng.choice(frame.texts), rng, self.loose, self.swap)
        if text.lower() in self._held_out:
            return frame
        # Not read: brackets in it are what is said.
        parts = [("slot", piece[1:-1]) if i % 2 else ("text", piece) for i, piece in enumerate(_SLOT.split(text))]
        return Frame(frame.kind, text, parts)

    @cached_property
    def _held_out(self) -> frozenset[str]:
        return frozenset(text.lower() for frame in self.by_split["test"] for text in frame.texts)


_WRAP = {
    "do": Book(
        "wrap.do",
        "*(please|pls|kindly) {x}",
        "*{x}[,] (please|pls)",
        "*(could|can|would|will) you [please] {x}?",
        "(could|can) you {x} for me[, please]?",
        "*(hi|hey|hello)[ there], [please] {x}",
        "(hi|hey|hello), (could|can) you {x}?",
        "{x}, (thanks|thank you|cheers)",
        "i (need|want) you to {x}",
        "*i'd like you to {x}",
        "i would love it if you could {x}",
        "(ok|okay|so|now|right), {x}",
        "go ahead and {x}",
        "be so kind as to {x}",
        "whenever you can, {x}",
        "if possible, {x}",
        "when you have a minute, {x}",
        "{x} as soon as you can",
        "would you mind helping me? {x}",
        "(next|first) thing: {x}",
        "quick one: {x}",
        "a favour: {x}",
        "your task: {x}",
        "(help me out|help me) and {x}",
        "make sure to {x}",
        "do this for me: {x}",
        "may i ask you to {x}?",
        "is it possible to {x}?",
        "it would be great if you could {x}",
        "+(could|would) you be able to {x}?",
        "+i was hoping you could {x}",
        "+i have a small job: {x}",
        "+new task: {x}",
        "+{x}, that's all",
        "+{x} when there is time",
        "+(hello|hi), i need some help: {x}",
        "+it is important to {x}",
        "+before anything else, {x}",
        "+{x} today if it works for you",
        "+one more thing, {x}",
        "+(let us|let's) {x}",
        "+the job is to {x}",
        "+we were asked to {x}",
        loose=True,
    ),
    "ask": Book(
        "wrap.ask",
        "*(hi|hey|hello)[ there], {x}?",
        "(quick|short|small|simple) question: {x}?",
        "*{x}? (thanks|thank you|cheers)",
        "(ok|okay|so|now|well), {x}?",
        "tell me, {x}?",
        "(could|can) you tell me: {x}?",
        "please tell me, {x}?",
        "i wonder, {x}?",
        "i'm curious: {x}?",
        "{x}, please?",
        "one thing i want to know: {x}?",
        "just checking, {x}?",
        "help me out: {x}?",
        "my question: {x}?",
        "any idea, {x}?",
        "remind me, {x}?",
        "sorry to bother you, {x}?",
        "+{x}? i need it soon",
        "+(hello|hi), a question: {x}?",
        "+could somebody say {x}?",
        "+here's what i'd like to know: {x}?",
        "+{x}? that's all i need",
        "+what i want to ask: {x}?",
        "+by the way, {x}?",
        loose=True,
    ),
    "frag": Book(
        "wrap.frag",
        "*{x} (please|pls)",
        "*(hi|hey|hello), {x}",
        "{x}, (thanks|thank you)",
        "need: {x}",
        "i need {x}",
        "(just|only) {x}",
        "{x}, asap",
        "{x} if you can",
        "looking for {x}",
        "wanted: {x}",
        "{x}, quick",
        "once more: {x}",
        "+(hello|hi), looking for {x}",
        "+next: {x}",
        "+{x}, that's it",
        "+one more: {x}",
        "+{x} today",
        "+to do: {x}",
        "+{x} - nothing else",
        loose=True,
    ),
    "say": Book(
        "wrap.say",
        "*(hi|hey|hello)[ there], {x}",
        "(please note|fyi|listen): {x}",
        "{x}, (thanks|thank you)",
        "(ok|okay|so|well), {x}",
        "{x}, if you don't mind",
        "you see, {x}",
        "here is the thing: {x}",
        "{x}, please",
        "+(hello|hi), so {x}",
        "+{x}, that's the thing",
        "+as i said, {x}",
        "+now {x}",
        "+to begin with, {x}",
        "+the situation: {x}",
        "+{x} and that's it",
        loose=True,
    ),
}

_ASIDE = Book(
    "aside",
    "i'm in a hurry",
    "i am on the phone right now",
    "no rush",
    "this is for my boss",
    "it's for a report",
    "sorry for the late message",
    "my screen is broken",
    "i forgot to do it yesterday",
    "we talked about it this morning",
    "i am new here",
    "it has been a long day",
    "everybody is waiting for this",
    "keep it short",
    "i hope you are well",
    "i asked before but got no reply",
    "nobody else could help",
    "this matters a lot to us",
    "you helped me last time too",
    loose=True,
)

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def number_word(n: int) -> str:
    """A whole number from 0 to 99 in words."""
    if not 0 <= n <= 99:
        raise ValueError(f"{n} is not between 0 and 99")
    if n < 20:
        return _SMALL.split()[n]
    tens = _TENS.split()[n // 10 - 2]
    return f"{tens}-{_SMALL.split()[n % 10]}" if n % 10 else tens


def listing(rng: Rng, items: Sequence[str]) -> Phrase:
    """Items in one phrase: `a`, `a and b`, `a, b and c`."""
    marked = [item if isinstance(item, Phrase) else protect(item) for item in items]
    if len(marked) == 1:
        return Phrase(marked[0])
    comma = "," if len(marked) > 2 and rng.random() < 0.3 else ""
    return Phrase(", ".join(marked[:-1]) + f"{comma} and {marked[-1]}")


def typo(rng: Rng, word: str) -> str:
    """The word with one slip of the finger: two letters swapped, one lost, or one doubled."""
    i = rng.randrange(1, len(word) - 1)
    roll = rng.random()
    if roll < 0.4:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return word[:i] + word[i + 1 :] if roll < 0.7 else word[:i] + word[i] + word[i:]


def _typos(rng: Rng, text: str, count: int) -> str:
    """Slips in `count` longer words outside the protected values."""
    for _ in range(count):
        free = re.sub(f"{OPEN}[^{CLOSE}]*{CLOSE}", lambda m: OPEN * len(m[0]), text)
        spots = list(re.finditer(r"(?<![\w'])[a-z]{4,}(?![\w'])", free))
        if not spots:
            return text
        spot = rng.choice(spots)
        text = text[: spot.start()] + typo(rng, spot[0]) + text[spot.end() :]
    return text


def _capital(text: str) -> str:
    """First letters of sentences and the word I in capitals."""
    text = _outside(text, lambda piece: re.sub(r"\bi\b(?=[ ']|$)", "I", piece))
    text = _outside(text, lambda piece: re.sub(r"([.?!] )([a-z])", lambda m: m[1] + m[2].upper(), piece))
    return text[0].upper() + text[1:]


def request(rng: Rng, split: Split, phrase: Phrase, *, noise: float = 1.0, aside: bool = True) -> str:
    """The whole request: the phrase wrapped by what suits its kind, then noise; `noise` scales the chance of typos.

    Values stay exactly as they were filled in.
    """
    kind = phrase.kind or "say"
    text: str = phrase
    if rng.random() < 0.55:
        text = _WRAP[kind].say(rng, split, x=phrase)
    if not text.endswith(("?", ".", "!")):
        asked = "?" in re.sub(f"{OPEN}[^{CLOSE}]*{CLOSE}", "", text)
        text += "" if asked or kind == "frag" else "?" if kind == "ask" else "."
    if aside and rng.random() < 0.08:
        other = _ASIDE.say(rng, split)
        text = f"{other}. {text}" if rng.random() < 0.5 else f"{text if text[-1] in '.?!' else text + '.'} {other}."
    if rng.random() < 0.12 * noise:
        text = _typos(rng, text, 1 if rng.random() < 0.75 else 2)
    if rng.random() < 0.15:
        text = _outside(text, lambda piece: re.sub(r"(?<=\w)'", "", piece))
    if rng.random() < 0.7:
        text = _capital(text)
    text = _outside(text, lambda piece: re.sub(r",(?=[?.!;:,])", "", piece))
    if text[-1] in ".?" and rng.random() < (0.3 if text[-1] == "." else 0.15):
        text = text[:-1]
    return plain(text)
