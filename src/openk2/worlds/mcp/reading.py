"""What a tool's name and parameters say: a verb and a noun, what each parameter is, and which of them names a row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from keyword import iskeyword
from typing import Any

from openk2.worlds.apps.declaration import GIVEN
from openk2.worlds.mcp.specs import Spec
from openk2.worlds.mcp.words import ENDS, FILLERS, MANY, NATURAL, STATE, STORES, WAYS, WRITES, is_verb, singular, tokens

_TAKEN = frozenset({*GIVEN, "true", "false", "none", "made", "chosen", "each_row", "id"})
_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}
_MOST_VALUES = 50


@dataclass(frozen=True, slots=True)
class Argument:
    """A parameter of a spec. `type` is that of a declaration, `json` whether something richer is kept in a text."""

    original: str
    name: str
    type: str
    values: tuple[str, ...]
    required: bool
    json: bool


@dataclass(frozen=True, slots=True)
class Read:
    """A spec whose name has been read."""

    spec: Spec
    verb: str
    way: str
    noun: str
    state: str
    arguments: tuple[Argument, ...]


def read_spec(spec: Spec, prefixes: set[str]) -> Read | None:
    """A spec, read; None if its name is no verb with a noun. `prefixes` are what most names begin with."""
    words = tokens(spec.original)
    if len(words) > 1 and words[0] in prefixes and not is_verb(words[0]):
        del words[0]
    for at, word in enumerate(words):
        way = "state" if word in STATE else next((way for way, verbs in WAYS if word in verbs), None)
        if way is None:
            continue
        behind: list[str] = []
        for other in words[at + 1 :]:
            if other in ENDS:
                break
            behind.append(other)
        nouns = [w for w in behind or words[:at] if w not in FILLERS]
        if not nouns or any(w.isdigit() for w in nouns) or len(nouns) > 4:
            return None
        many = singular(nouns[-1]) != nouns[-1] or "all" in behind
        if MANY.intersection(words) or (many and (way in WRITES)):
            # Lists of rows in one call: a declared tool takes one.
            return None
        noun = "_".join([*nouns[:-1], singular(nouns[-1])])
        if iskeyword(noun) or noun in _TAKEN or noun.startswith("sqlite"):
            noun = f"the_{noun}"
        arguments = tuple(_arguments(spec))
        if way == "get" and many and key_of(noun, arguments) is None:
            way = "list"
        return Read(spec, word, way, noun, STATE.get(word, ""), arguments)
    return None


def _arguments(spec: Spec) -> Iterator[Argument]:
    properties = spec.schema.get("properties", {})
    required = spec.schema.get("required", [])
    taken: set[str] = set()
    for original, schema in properties.items() if isinstance(properties, Mapping) else ():
        name = "_".join(tokens(original))[:60]
        if not re.match(r"[a-z]", name):
            name = f"p_{name}".rstrip("_")
        if name != "id" and (iskeyword(name) or name in _TAKEN):
            name += "_value"
        while name in taken:
            name += "_x"
        taken.add(name)
        kind, values = _type(schema)
        yield Argument(original, name, _TYPES.get(kind, "text"), values, original in required, kind not in _TYPES)


def _type(schema: Any) -> tuple[str, tuple[str, ...]]:
    """The JSON type of a parameter, null left out, and its values if they are texts."""
    if not isinstance(schema, Mapping):
        return "any", ()
    for key in ("anyOf", "oneOf"):
        options = [one for one in schema.get(key, ()) if isinstance(one, Mapping) and one.get("type") != "null"]
        if options:
            return _type(options[0]) if len(options) == 1 else ("any", ())
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [one for one in kind if one != "null"]
        kind = kinds[0] if len(kinds) == 1 else "any"
    values = schema.get("enum")
    if not (isinstance(values, list) and 1 <= len(values) <= _MOST_VALUES and all(isinstance(v, str) for v in values)):
        return str(kind or "any"), ()
    return "string", tuple(dict.fromkeys(values))


def key_of(noun: str, arguments: Sequence[Argument]) -> Argument | None:
    """The parameter that says which row is meant: an id, else what its name is."""
    last = noun.split("_")[-1]
    owners = ("", *(f"{owner}_" for owner in dict.fromkeys((noun, last))))
    ids = [f"{owner}{ending}" for owner in owners for ending in ("id", "uuid", "number", "identifier")]
    natural = [f"{owner}{ending}" for owner in owners for ending in NATURAL]
    by_name = {one.name: one for one in arguments if one.required and not one.json and one.type != "boolean"}
    return next((by_name[name] for name in (*ids, *natural, noun, last) if name in by_name), None)


def is_own_id(noun: str, argument: Argument) -> bool:
    """Whether it is the id of a row of that noun, such as `id` or `note_id`."""
    return is_id(argument) and key_of(noun, (replace(argument, required=True),)) is not None


def is_made_unclearly(one: Read) -> bool:
    """Whether a row may have an id that somebody chooses, and need not, or may be replaced by it."""
    own = [argument for argument in one.arguments if argument.type == "text" and is_own_id(one.noun, argument)]
    return one.way == "create" and any(not argument.required or one.verb in STORES for argument in own)


def is_by_id(one: Read) -> bool:
    """Whether the row that is meant is named by an id."""
    key = key_of(one.noun, one.arguments)
    return key is not None and is_id(key)


def is_id(argument: Argument) -> bool:
    """Whether it is called as ids are."""
    return argument.name.split("_")[-1] in ("id", "uuid", "number", "identifier")
