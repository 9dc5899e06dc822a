"""What domains are about: their nouns, in `lexicon/*.toml`, a line for each.

    [veterinary_clinic]
    category = "Animal care"
    title = "Veterinary clinic"
    pet_owner = "person"
    vet = "staff specialty:surgery|dental|general"
    pet = "unit(pet_owner) species:dog|cat|rabbit weight_kg:1-60 vaccinated? = Bella, Max, Luna, Rocky, Coco, Milo"
    checkup = "booking(pet, vet) reason:vaccination|injury|routine"

A noun is of a kind (`KINDS`), which says what such things have and what can be done with them. In parentheses stand the
nouns that it refers to. Behind them are fields of its own: `NAME:a|b` is one of these, `NAME:1-60` a whole number,
`NAME:0.5-9.5` a number, `NAME?` yes or no, `NAME@` a date. Behind ` = ` are names that such things have.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from keyword import iskeyword

from openk2.core import Split, UserError

KINDS = {
    "person": 0, "staff": 0, "place": 0, "product": 0, "plan": 0, "unit": 1, "booking": 2, "order": 2, "case": 1,
    "document": 1, "account": 1, "subscription": 2, "reading": 1, "shipment": 2, "link": 2, "event": 1, "message": 1,
    "project": 1,
}  # fmt: skip
"""Kind -> how many nouns one of it refers to."""
NAMED = ("place", "product", "plan", "unit", "event", "project")
"""Kinds of which each domain says what they are called."""
_LINE = re.compile(r"(?P<kind>[a-z]+)(\((?P<refs>[^()]*)\))?(?P<fields>[^=]*)(=(?P<names>.*))?")
_FIELD = re.compile(
    r"(?P<name>[a-z][a-z0-9_]*)(?P<what>\?|@|:(?P<low>-?\d+(\.\d+)?)-(?P<high>\d+(\.\d+)?)|:(?P<values>[^|\s]+(\|[^|\s]+)+))"
)
_HELD_OUT = 10
"""One in so many domains is for the test."""
_NOUN = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class OwnField:
    """A field of a noun: of a type, one of values, or between bounds."""

    name: str
    type: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, slots=True)
class Noun:
    """What an entity is."""

    name: str
    kind: str
    refs: tuple[str, ...]
    fields: tuple[OwnField, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sketch:
    """A domain before it has tools."""

    name: str
    category: str
    title: str
    nouns: tuple[Noun, ...]


def read_sketches(text: str, where: str) -> list[Sketch]:
    """The sketches in a file. Raises UserError naming the domain and the noun for what is wrong."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise UserError(f"{where} is not TOML: {e}") from None
    sketches = []
    for name, lines in raw.items():
        try:
            sketches.append(_sketch(name, lines))
        except ValueError as e:
            raise UserError(f"{where}, domain {name}: {e}") from None
    return sketches


@cache
def sketches() -> tuple[Sketch, ...]:
    """All that come with this package."""
    folder = resources.files("openk2.synth") / "lexicon"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return tuple(sketch for file in files for sketch in read_sketches(file.read_text(encoding="utf-8"), file.name))


def split_of_domain(name: str) -> Split:
    """Whether a domain is held out."""
    digest = hashlib.sha256(name.encode()).digest()
    return "test" if int.from_bytes(digest[:8]) % _HELD_OUT == 0 else "train"


def _sketch(name: str, lines: object) -> Sketch:
    if not isinstance(lines, dict) or not all(isinstance(line, str) for line in lines.values()):
        raise ValueError("it must be a table of texts")
    lines = dict(lines)
    category, title = lines.pop("category", ""), lines.pop("title", "")
    if not category or not title or not _NOUN.fullmatch(name):
        raise ValueError("it needs a category and a title, and a name in small letters")
    nouns: list[Noun] = []
    for noun, line in lines.items():
        try:
            nouns.append(_noun(noun, line))
        except ValueError as e:
            raise ValueError(f"{noun}: {e}") from None
    known = {noun.name for noun in nouns}
    for one in nouns:
        missing = [ref for ref in one.refs if ref not in known]
        if missing:
            raise ValueError(f"{one.name}: it refers to {missing[0]!r}, and there is no such noun")
    if not any(noun.kind == "person" for noun in nouns):
        raise ValueError("nobody uses it: it needs a noun of the kind person")
    return Sketch(name, category, title, tuple(nouns))


def _noun(name: str, line: str) -> Noun:
    if not _NOUN.fullmatch(name) or iskeyword(name):
        raise ValueError("a noun is written in small letters, with _ between words")
    found = _LINE.fullmatch(line.strip())
    if found is None or found["kind"] not in KINDS:
        raise ValueError(f"{line!r} does not begin with one of {', '.join(KINDS)}")
    kind = found["kind"]
    refs = tuple(ref.strip() for ref in (found["refs"] or "").split(",") if ref.strip())
    if len(refs) != KINDS[kind]:
        raise ValueError(f"a {kind} refers to {KINDS[kind]} nouns, and {len(refs)} are named")
    fields = tuple(_field(text) for text in found["fields"].split())
    if len({field.name for field in fields}) < len(fields):
        raise ValueError("two of its fields have the same name")
    names = tuple(one.strip() for one in (found["names"] or "").split(",") if one.strip())
    if len(set(names)) < len(names):
        raise ValueError("a name is there twice")
    if kind in NAMED and len(names) < 6:
        raise ValueError(f"a {kind} needs at least 6 names behind =")
    return Noun(name, kind, refs, fields, names)


def _field(text: str) -> OwnField:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise ValueError(f"the field {text!r} is not NAME:a|b, NAME:1-9, NAME? or NAME@")
    name = found["name"]
    if iskeyword(name):
        raise ValueError(f"the field {name!r} is a word of expressions: call it something else")
    if found["values"]:
        return OwnField(name, "text", tuple(found["values"].split("|")))
    if found["low"] is not None:
        low, high = float(found["low"]), float(found["high"])
        if low >= high:
            raise ValueError(f"{name}: {found['low']} is not below {found['high']}")
        return OwnField(name, "number" if "." in found["what"] else "integer", (), low, high)
    return OwnField(name, "boolean" if found["what"] == "?" else "date")
