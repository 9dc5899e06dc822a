"""What a schema itself says of how its texts and numbers may end: examples of patterns and formats, and multiples.

Nothing here has to be right: whoever looks for a way out tries what is hinted at, and the grammar says what fits.
"""

from __future__ import annotations

import json
import math
import re

# Python's own reader of expressions, so that none has to be written here. It is undocumented and has no types, and the
# same in 3.11 to 3.13; the tests of examples fail should it change.
import re._constants as op  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

# What Python may one day read in another way is read as it is today: nothing that a user could do about it.
warnings.filterwarnings("ignore", r"Possible (nested )?set", FutureWarning)
_LONGEST = 128
"""Longer examples are of no use."""
_MOST = 64
"""So many patterns give examples, ..."""
_MOST_LETTERS = 1024
"""... and they have so many letters together, short ones first: each is tried from each of its letters on."""
_MOST_MULTIPLES = 16
_MOST_DIGITS = 400
"""A number has fewer, unless it is beyond what a double holds."""
_TRIED = 'aA0 -_.@/:,;+*#!?"'
"""Members of a class of characters that are tried first."""
_PROPERTY = re.compile(r"\\([pP])(?:\{\^?([A-Za-z_]+)[^}]*\}|([A-Z]))")
# Of a uuid long pieces make a shorter text, and one that ends anyway.
_FORMATS = {
    "date-time": ("2000-01-01T00:00:00Z",),
    "date": ("2000-01-01",),
    "time": ("00:00:00Z",),
    "duration": ("P1D",),
    "email": ("a@a.aa", "a@a"),
    "hostname": ("a", "a.aa"),
    "ipv4": ("0.0.0.0",),
    "ipv6": ("::", "::1"),
    "uri": ("a:a", "a://a", "http://a.aa/"),
}


@dataclass(frozen=True, slots=True)
class Multiple:
    """An integer of which numbers are multiples, and the least and largest of them, where there are such."""

    of: int
    least: int | None
    largest: int | None

    def endings(self, begun: str) -> Iterator[str]:
        """Digits that make a multiple of the digits (and sign) of a number, few before many; of nothing, multiples."""
        if not begun:
            ends = [0, *(end for end in (self.least, self.largest) if end is not None), self.of, -self.of]
            yield from sorted({str(end) for end in ends}, key=len)
            return
        digits = begun.removeprefix("-")
        if not digits.isdigit() or digits.startswith("0") or len(digits) > _MOST_DIGITS:
            return
        value = int(digits)
        for count in range(1, len(str(self.of)) + 3):
            # Of several a bound may refuse the first.
            for rest in range(-value * 10**count % self.of, 10**count, self.of):
                yield str(rest).zfill(count)
                if rest > 3 * self.of:
                    break


@dataclass(frozen=True, slots=True)
class Hints:
    """`texts` as they are written in JSON: each example from each of its letters on, short ones first."""

    texts: tuple[bytes, ...] = ()
    multiples: tuple[Multiple, ...] = ()


def hints_of(schema: Any) -> Hints:
    """The hints of all that is in a schema."""
    examples: dict[str, None] = {}
    multiples: dict[Multiple, None] = {}
    for part in _parts(schema):
        named = part.get("patternProperties")
        for pattern in (part.get("pattern"), *(named if isinstance(named, Mapping) else ())):
            if isinstance(pattern, str) and len(examples) < _MOST and (example := example_of(pattern)) is not None:
                examples[example] = None
        known = part.get("format")
        examples.update(dict.fromkeys(_FORMATS.get(known, ()) if isinstance(known, str) else ()))
        if (found := _multiple(part)) is not None and len(multiples) < _MOST_MULTIPLES:
            multiples[found] = None
    short = sorted(examples, key=len)
    letters = accumulate(map(len, short))
    short = [text for text, together in zip(short, letters, strict=True) if together <= _MOST_LETTERS]
    written = (json.dumps(text[at:], ensure_ascii=False)[1:-1] for text in short for at in range(len(text)))
    return Hints(tuple(sorted({text.encode("utf-8", "replace") for text in written}, key=len)), tuple(multiples))


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(schema, Mapping):
        yield schema
    for part in schema.values() if isinstance(schema, Mapping) else schema if isinstance(schema, list) else ():
        yield from _parts(part)


def _multiple(part: Mapping[str, Any]) -> Multiple | None:
    of = part.get("multipleOf")
    if not isinstance(of, int | float) or isinstance(of, bool) or of != of // 1 or not 1 < of < 1 << 53:
        return None
    of = int(of)

    def bound(name: str, inwards: int) -> int | None:
        value = part.get(name)
        if not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return inwards * math.ceil(inwards * value / of) * of

    def first(found: Iterable[int | None]) -> int | None:
        return next((end for end in found if end is not None), None)

    least = first((bound("minimum", 1), bound("exclusiveMinimum", 1)))
    largest = first((bound("maximum", -1), bound("exclusiveMaximum", -1)))
    # A bound that is a multiple itself may be exclusive.
    if least is not None and least == part.get("exclusiveMinimum"):
        least += of
    if largest is not None and largest == part.get("exclusiveMaximum"):
        largest -= of
    return Multiple(of, least, largest)


def example_of(pattern: str) -> str | None:
    """A short text that has the pattern, if one is easily found."""
    # Python's own expressions do not know classes by property; any letter or digit of the kind will do.
    plain = _PROPERTY.sub(_member_by_property, pattern)
    try:
        return _example(parser.parse(plain))
    except (re.error, _TooLong, RecursionError, OverflowError, ValueError):
        return None


def least_length(pattern: str) -> int:
    """Of how many letters a text with the pattern is at least; 0 where that is not known."""
    try:
        return int(parser.parse(_PROPERTY.sub(_member_by_property, pattern)).getwidth()[0])
    except (re.error, RecursionError, OverflowError, ValueError):
        return 0


class _TooLong(Exception):
    pass


def _member_by_property(found: re.Match[str]) -> str:
    name = found[2] or found[3]
    if found[1] == "P":
        return "-"
    return {"Lu": "A", "Lt": "A", "N": "0", "Nd": "0", "Z": " ", "Zs": " ", "P": "-", "Han": "中"}.get(name, "a")


def _example(items: Iterable[tuple[Any, Any]]) -> str:
    out = ""
    for kind, what in items:
        if kind is op.LITERAL:
            out += chr(what)
        elif kind in (op.NOT_LITERAL, op.ANY, op.IN):
            out += _member([(kind, what)] if kind is not op.IN else what)
        elif kind is op.BRANCH:
            out += min((_example(branch) for branch in what[1]), key=len)
        elif kind is op.SUBPATTERN:
            out += _example(what[3])
        elif kind is op.ATOMIC_GROUP:
            out += _example(what)
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT) and what[0]:
            one = _example(what[2])
            if what[0] * len(one) > _LONGEST:
                raise _TooLong
            out += one * what[0]
        if len(out) > _LONGEST:
            raise _TooLong
    return out


def _member(members: list[tuple[Any, Any]]) -> str:
    """A character of a class; "a" if none is found."""
    starts = [chr(what if kind is op.LITERAL else what[0]) for kind, what in members if kind in (op.LITERAL, op.RANGE)]
    return next((char for char in (*_TRIED, *starts) if _is_member(char, members)), "a")


def _is_member(char: str, members: list[tuple[Any, Any]]) -> bool:
    negated = bool(members) and members[0][0] is op.NEGATE
    return any(_has(char, kind, what) for kind, what in members[negated:]) != negated


def _has(char: str, kind: Any, what: Any) -> bool:
    if kind is op.ANY:
        return True
    if kind in (op.LITERAL, op.NOT_LITERAL):
        return bool(ord(char) == what) == (kind is op.LITERAL)
    if kind is op.RANGE:
        return bool(what[0] <= ord(char) <= what[1])
    if kind is op.CATEGORY:
        name = str(what).removeprefix("CATEGORY_").removeprefix("UNI_")
        positive = name.removeprefix("NOT_")
        tests = {"DIGIT": char.isdigit(), "SPACE": char.isspace(), "WORD": char.isalnum() or char == "_"}
        return tests.get(positive, False) == (positive == name)
    return False
