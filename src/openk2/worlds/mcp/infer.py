"""A simulated app from nothing but tool specs: what `create_contact`, `get_contact` and `contact_id` say of each other.

A name is read as a verb and a noun. Nouns that something can be done to in at least two ways, one of which changes
something, become entities; what their creation and change take become fields; an id, or a field that tells rows apart,
says which row is meant. Then creating, getting, listing, updating and deleting are declared for the interpreter. A tool
of which a required parameter has no such meaning is left alone: a simulation that ignores what it is told is none.

Paging and sorting may be left out of account, but for a limit; lists and objects are kept as they are given.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any

from openk2.core import UserError
from openk2.worlds.apps.declaration import GIVEN, Domain, read_domain, row_name
from openk2.worlds.apps.filling import fill
from openk2.worlds.mcp.simulated import Bridge, Simulation
from openk2.worlds.mcp.specs import Spec

_CREATE = frozenset({"create", "add", "new", "insert", "post", "register", "save", "make", "store"})
_GET = frozenset({"get", "read", "fetch", "retrieve", "show", "describe", "view", "load", "lookup"})
_LIST = frozenset({"list", "search", "find", "query", "browse", "filter"})
_UPDATE = frozenset({"update", "edit", "modify", "set", "rename", "change", "patch"})
_DELETE = frozenset({"delete", "remove", "destroy", "drop", "erase"})
_STATE = {
    "complete": "completed", "close": "closed", "reopen": "open", "open": "open", "archive": "archived",
    "unarchive": "active", "cancel": "cancelled", "approve": "approved", "reject": "rejected", "enable": "enabled",
    "disable": "disabled", "activate": "active", "deactivate": "inactive", "pause": "paused", "resume": "active",
    "publish": "published", "unpublish": "unpublished", "lock": "locked", "unlock": "unlocked", "pin": "pinned",
    "unpin": "unpinned", "start": "started", "stop": "stopped", "finish": "finished", "mute": "muted",
    "unmute": "unmuted", "ban": "banned", "unban": "active", "accept": "accepted", "decline": "declined",
    "restore": "active", "suspend": "suspended", "star": "starred", "unstar": "unstarred",
}  # fmt: skip
_WAYS = (("create", _CREATE), ("list", _LIST), ("update", _UPDATE), ("delete", _DELETE), ("get", _GET))
_WRITES = frozenset({"create", "update", "delete", "state"})
_MANY = frozenset({"batch", "bulk", "many", "multi", "multiple"})
_ENDS = frozenset({"by", "for", "from", "with", "in", "of", "to", "on", "at", "and", "using", "as", "via"})
_FILLERS = frozenset({
    "a", "an", "the", "all", "new", "my", "details", "detail", "info", "information", "data", "list", "single",
    "specific", "existing"
})  # fmt: skip
_PAGING = frozenset({
    "limit", "page", "offset", "cursor", "per_page", "page_size", "page_token", "max_results", "max", "count",
    "top", "skip", "sort", "sort_by", "order", "order_by", "sort_order", "direction", "fields", "format", "verbose",
    "include", "api_key", "apikey", "token", "access_token", "auth", "page_number", "size", "start_cursor",
    "starting_after", "next_token", "pagination", "results_per_page", "num_results"
})  # fmt: skip
_SECRETS = frozenset({"api_key", "apikey", "token", "access_token", "auth"})
_LIMITS = ("limit", "max_results", "page_size", "per_page", "max", "top", "count", "size", "num_results")
_SEARCH = frozenset({"query", "q", "search", "keyword", "keywords", "text", "term", "search_term", "search_query"})
_NATURAL = ("name", "path", "file_path", "filepath", "filename", "slug", "title", "key", "url", "username", "email")
_TAKEN = frozenset({*GIVEN, "true", "false", "none", "made", "chosen", "each_row", "id"})
_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}
_MOST_VALUES = 50


@dataclass(frozen=True, slots=True)
class _Argument:
    """A parameter of a spec. `type` is that of a declaration, `json` whether something richer is kept in a text."""

    original: str
    name: str
    type: str
    values: tuple[str, ...]
    required: bool
    json: bool


@dataclass(frozen=True, slots=True)
class _Read:
    """A spec whose name has been read."""

    spec: Spec
    verb: str
    way: str
    noun: str
    state: str
    arguments: tuple[_Argument, ...]


@dataclass(slots=True)
class _Entity:
    """What is known of a noun."""

    noun: str
    plural: str
    tools: list[_Read]
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    number: str = ""
    """A whole number that rows are known by."""


def tokens(name: str) -> list[str]:
    """The words of a name: snake_case, kebab-case or camelCase."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]


def singular(word: str) -> str:
    """English, as far as names of tools need it."""
    if len(word) < 4 or word.endswith(("ss", "us", "is", "news", "series")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") else word


def infer(name: str, category: str, title: str, specs: Sequence[Spec]) -> Simulation | None:
    """A simulation of those tools that have a plain meaning, or None if there are none."""
    firsts = Counter(tokens(spec.original)[:1][0] for spec in specs if tokens(spec.original))
    # What most names begin with is the server's name and no noun.
    prefixes = {word for word, count in firsts.items() if count > max(2, len(specs) / 2)}
    read = [one for spec in specs if (one := _read(spec, prefixes)) is not None]
    while True:
        entities = _entities(read)
        drafts: dict[str, tuple[dict[str, Any], Bridge]] = {}
        for entity in entities.values():
            for one in entity.tools:
                draft = _draft(one, entity, entities)
                if draft is not None:
                    drafts[one.spec.name] = draft
        kept = [one for one in read if one.spec.name in drafts]
        # Without a tool that meant nothing, an entity may be none any more.
        if len(kept) == len(read):
            break
        read = kept
    while drafts:
        raw = _domain(name, category, title, entities, [tool for tool, _ in drafts.values()])
        wrong = _wrong(raw)
        if wrong is None:
            encoded = {
                one for entity in entities.values() for one, f in entity.fields.items() if f.get("kind") == "json"
            }
            return Simulation(
                declaration=raw,
                bridges={spec: bridge for spec, (_, bridge) in drafts.items()},
                names=_names(read),
                encoded=tuple(sorted(encoded)),
            )
        drafts = {spec: draft for spec, draft in drafts.items() if draft[0]["name"] not in wrong}
        if not wrong:
            return None
    return None


def _read(spec: Spec, prefixes: set[str]) -> _Read | None:
    words = tokens(spec.original)
    if len(words) > 1 and words[0] in prefixes and not _is_verb(words[0]):
        del words[0]
    for at, word in enumerate(words):
        way = "state" if word in _STATE else next((way for way, verbs in _WAYS if word in verbs), None)
        if way is None:
            continue
        behind: list[str] = []
        for other in words[at + 1 :]:
            if other in _ENDS:
                break
            behind.append(other)
        nouns = [w for w in behind or words[:at] if w not in _FILLERS]
        if not nouns or any(w.isdigit() for w in nouns) or len(nouns) > 4:
            return None
        many = singular(nouns[-1]) != nouns[-1] or "all" in behind
        if _MANY.intersection(words) or (many and (way in _WRITES)):
            # Lists of rows in one call: a declared tool takes one.
            return None
        noun = "_".join([*nouns[:-1], singular(nouns[-1])])
        if iskeyword(noun) or noun in _TAKEN or noun.startswith("sqlite"):
            noun = f"the_{noun}"
        arguments = tuple(_arguments(spec))
        if way == "get" and many and _key(noun, arguments) is None:
            way = "list"
        return _Read(spec, word, way, noun, _STATE.get(word, ""), arguments)
    return None


def _is_verb(word: str) -> bool:
    return word in _STATE or any(word in verbs for _, verbs in _WAYS)


def _arguments(spec: Spec) -> Iterator[_Argument]:
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
        yield _Argument(original, name, _TYPES.get(kind, "text"), values, original in required, kind not in _TYPES)


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


def _key(noun: str, arguments: Sequence[_Argument]) -> _Argument | None:
    """The parameter that says which row is meant: an id, else what its name is."""
    last = noun.split("_")[-1]
    owners = ("", *(f"{owner}_" for owner in dict.fromkeys((noun, last))))
    ids = [f"{owner}{ending}" for owner in owners for ending in ("id", "uuid", "number", "identifier")]
    natural = [f"{owner}{ending}" for owner in owners for ending in _NATURAL]
    by_name = {one.name: one for one in arguments if one.required and not one.json and one.type != "boolean"}
    return next((by_name[name] for name in (*ids, *natural, noun, last) if name in by_name), None)


def _by_id(one: _Read) -> bool:
    key = _key(one.noun, one.arguments)
    return key is not None and _is_id(key)


def _is_id(argument: _Argument) -> bool:
    return argument.name.split("_")[-1] in ("id", "uuid", "number", "identifier")


def _entities(read: Sequence[_Read]) -> dict[str, _Entity]:
    """Nouns that something is done to in two ways, one of which changes something."""
    by_noun: dict[str, list[_Read]] = defaultdict(list)
    for one in read:
        by_noun[one.noun].append(one)
    entities = {}
    for noun, tools in by_noun.items():
        if not any(one.way == "create" for one in tools):
            # Where nothing else makes rows, these may: what they do then is not known.
            tools = [one for one in tools if one.verb != "set" and not (one.way == "state" and not _by_id(one))]
        ways = {one.way for one in tools}
        if len(ways) >= 2 and ways & _WRITES:
            entities[noun] = _Entity(noun, f"{noun}_rows"[:64] if len(noun) > 55 else _plural(noun), tools)
    for entity in entities.values():
        _find_fields(entity, entities)
    # A thing of which nothing is known but its id is none.
    return {noun: entity for noun, entity in entities.items() if entity.fields}


def _plural(noun: str) -> str:
    from openk2.synth.entities import plural

    many = plural(noun)
    return many if many != noun else f"{noun}_rows"


def _find_fields(entity: _Entity, entities: Mapping[str, _Entity]) -> None:
    creates = [one for one in entity.tools if one.way == "create"]
    for one in entity.tools:
        if one.way not in ("create", "update", "get", "delete", "state"):
            continue
        key = None if one.way == "create" else _key(entity.noun, one.arguments)
        for argument in one.arguments:
            if argument is key:
                if argument.type == "integer":
                    entity.number = argument.name
                    entity.fields[argument.name] = {"type": "integer", "minimum": 1, "unique": True}
                elif not _is_id(argument):
                    entity.fields.setdefault(argument.name, {"type": argument.type, "unique": True})
            elif one.way in ("create", "update") and argument.name not in _SECRETS:
                _add_field(entity, argument, entities, set_by_all=bool(creates) and one.way == "create")
    needed = [{a.name for a in one.arguments if a.required} for one in creates]
    for name, declared in entity.fields.items():
        required = bool(needed) and all(name in names for names in needed)
        declared["optional"] = (not required and name != entity.number) or "ref" in declared
    if any(one.way == "state" for one in entity.tools):
        entity.fields.setdefault("status", {"type": "text", "optional": True, "values": None})


def _add_field(entity: _Entity, argument: _Argument, entities: Mapping[str, _Entity], *, set_by_all: bool) -> None:
    name = argument.name
    if name == "id":
        # Of a row to be made it is one that the caller chooses, and ids are given here.
        name = f"{entity.noun}_key"
    other = _referred(argument, entities, entity)
    if other is not None:
        entity.fields.setdefault(name, {"ref": other.plural})
        return
    declared = entity.fields.setdefault(name, {"type": argument.type})
    if argument.json:
        declared["kind"] = "json"
    elif argument.values and declared.get("type") == "text" and "ref" not in declared:
        declared["values"] = tuple(dict.fromkeys((*(declared.get("values") or ()), *argument.values)))
    elif declared.get("values"):
        # What one tool restricts and another does not is free.
        declared["values"] = None
    if name in ("email", "city"):
        declared["kind"] = name


def _referred(argument: _Argument, entities: Mapping[str, _Entity], own: _Entity) -> _Entity | None:
    """The entity whose id a parameter is."""
    if argument.type != "text" or argument.json or argument.values or not argument.name.endswith("_id"):
        return None
    noun = argument.name.removesuffix("_id")
    other = entities.get(noun) or (own if noun.startswith("parent") else None)
    return None if other is None or other.number else other


@dataclass(slots=True)
class _Draft:
    """A declared tool in the making."""

    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    requires: list[dict[str, str]] = field(default_factory=list)
    effects: list[dict[str, Any]] = field(default_factory=list)
    returns: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    encoded: list[str] = field(default_factory=list)
    limit: str = ""

    def take(self, argument: _Argument, ref: str | None = None, name: str = "") -> str:
        """A parameter like the argument; the name that expressions know it by."""
        name = name or (f"{argument.name}_value" if argument.name == "id" and ref is None else argument.name)
        declared: dict[str, Any] = {"optional": not argument.required}
        if ref is not None:
            declared["ref"] = ref
        else:
            declared["type"] = argument.type
        self.parameters[name] = declared
        self.arguments[argument.original] = name
        if argument.json:
            self.encoded.append(name)
        return name


def _draft(one: _Read, entity: _Entity, entities: Mapping[str, _Entity]) -> tuple[dict[str, Any], Bridge] | None:
    """The declaration of a tool, or None if it says more than a declaration can mean."""
    draft = _Draft()
    built = _create(draft, one, entity) if one.way == "create" else _other(draft, one, entity)
    if not built:
        return None
    name = "_".join(tokens(one.spec.name))[:60]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or iskeyword(name):
        name = f"t_{name}"
    raw = {
        "name": name,
        "description": (one.spec.description or one.spec.original)[:4000],
        "parameters": draft.parameters,
        "requires": draft.requires,
        "effects": draft.effects,
        "returns": draft.returns,
    }
    bridge = Bridge(tool=name, arguments=draft.arguments, encoded=tuple(draft.encoded), limit=draft.limit)
    return raw, bridge


def _create(draft: _Draft, one: _Read, entity: _Entity) -> bool:
    values: dict[str, str] = {}
    for argument in one.arguments:
        if argument.name in _SECRETS:
            if argument.required:
                return False
            continue
        name = f"{entity.noun}_key" if argument.name == "id" else argument.name
        ref = entity.fields[name].get("ref")
        values[name] = draft.take(argument, ref, name)
    if entity.number and entity.number not in values:
        rows = f"each_row in {entity.plural}"
        highest = f"max(each_row.{entity.number} for {rows})"
        values[entity.number] = f"({highest} if count(each_row for {rows}) > 0 else 0) + 1"
    if not values:
        return False
    draft.effects.append({"create": entity.plural, "name": "made", "values": values})
    draft.returns = {"row": "made"}
    return True


def _other(draft: _Draft, one: _Read, entity: _Entity) -> bool:
    """Everything that is about rows that there are."""
    key = None if one.way == "list" else _key(entity.noun, one.arguments)
    if one.way != "list" and key is None:
        return False
    row = ""
    conditions: list[str] = []
    if key is not None:
        creates = {a.name for t in entity.tools if t.way == "create" for a in t.arguments}
        if _is_id(key) and key.type == "text" and key.name not in creates - {"id"}:
            row = row_name(draft.take(key, entity.plural, f"{entity.noun}_id"))
        else:
            column = key.name if key.name in entity.fields else f"{entity.noun}_key"
            if column not in entity.fields:
                return False
            conditions.append(f"chosen.{column} == {draft.take(key, None, f'which_{column}'[:60])}")
    values: dict[str, str] = {}
    for argument in one.arguments:
        if argument is key:
            continue
        # What says nothing of rows is left out, and may not be needed.
        known = argument.name in entity.fields and not argument.json
        if one.way == "update" and argument.name in entity.fields:
            name = draft.take(argument, entity.fields[argument.name].get("ref"))
            held = f"{row or 'chosen'}.{argument.name}"
            values[argument.name] = name if argument.required else f"{name} if {name} is not None else {held}"
        elif one.way == "list" and argument.name in _LIMITS and argument.type in ("integer", "number"):
            draft.limit = draft.limit or argument.original
        elif argument.name in _PAGING and not argument.required:
            continue
        elif known and argument.name != entity.number:
            name = draft.take(argument)
            held = f"{row or 'chosen'}.{argument.name}"
            same = f"{held} == {name}"
            if one.way == "list" or not row:
                conditions.append(same if argument.required else f"({name} is None or {same})")
            elif argument.required:
                error = f"no {entity.noun.replace('_', ' ')} has that {argument.name.replace('_', ' ')}"
                draft.requires.append({"that": same, "error": error})
        elif one.way == "list" and argument.name in _SEARCH and argument.type == "text" and not argument.json:
            texts = [n for n, f in entity.fields.items() if f.get("type") == "text" and f.get("kind") != "json"]
            if not texts:
                return False
            name = draft.take(argument)
            found = " or ".join(f"lower({name}) in lower(chosen.{text})" for text in texts)
            conditions.append(f"({found})" if argument.required else f"({name} is None or {found})")
        elif argument.required:
            return False
    where = " and ".join(conditions)
    rows: dict[str, Any] = {"rows": entity.plural, "name": "chosen"} | ({"where": where} if where else {})
    if one.way == "list":
        draft.returns = rows
        return True
    if not row:
        called = entity.noun.replace("_", " ")
        some = f"any({where.replace('chosen.', 'each_row.')} for each_row in {entity.plural})"
        draft.requires.append({"that": some, "error": f"there is no such {called}"})
    if one.way == "get":
        draft.returns = {"row": row} if row else rows
        return True
    if one.way == "state":
        values = {"status": f"'{_status(one, entity)}'"}
    if one.way != "delete" and not values:
        return False
    effect: dict[str, Any] = {"delete" if one.way == "delete" else "update": row or "chosen"}
    if not row:
        effect |= {"each": entity.plural, "where": where}
    if one.way != "delete":
        effect["values"] = values
    draft.effects.append(effect)
    draft.returns = {"values": {"done": "True"}} if one.way == "delete" or not row else {"row": row}
    return True


def _status(one: _Read, entity: _Entity) -> str:
    """What a row is after a tool such as `close_issue`: the nearest of the values that there are."""
    values = entity.fields["status"].get("values")
    if values:
        near = next((value for value in values if value.lower()[:4] == one.state[:4]), None)
        return (near or one.state).replace("'", "")
    return one.state


def _domain(
    name: str, category: str, title: str, entities: Mapping[str, _Entity], tools: list[dict[str, Any]]
) -> dict[str, Any]:
    prefixes: set[str] = set()
    declared = {}
    for entity in entities.values():
        letters = "".join(char for char in entity.noun.upper() if "A" <= char <= "Z")
        options = (
            [letters[:n] for n in range(3, 7)]
            + [letters[:2] + chr(65 + n) for n in range(26)]
            + [chr(65 + a) + chr(65 + b) for a in range(26) for b in range(26)]
        )
        prefix = next(option for option in options if option and option not in prefixes)
        prefixes.add(prefix)
        fields = {
            field: {key: value for key, value in one.items() if value is not None and value is not False}
            for field, one in entity.fields.items()
        }
        label = next((f for f in ("name", "title", "subject") if f in fields), None)
        declared[entity.plural] = {"prefix": prefix, "singular": entity.noun, "fields": fields} | (
            {"label": label} if label else {}
        )
    return {"name": name, "category": category, "title": title, "entities": declared, "tools": tools}


def _wrong(raw: dict[str, Any]) -> set[str] | None:
    """Names of the tools that make a declaration wrong, empty if it is none of them alone; None if it is right."""
    try:
        _try(raw)
        return None
    except UserError:
        pass
    wrong: set[str] = set()
    seen: set[str] = set()
    for tool in raw["tools"]:
        if tool["name"] in seen:
            wrong.add(tool["name"])
            continue
        seen.add(tool["name"])
        try:
            _try(raw | {"tools": [tool]})
        except UserError:
            wrong.add(tool["name"])
    return wrong


def _try(raw: dict[str, Any]) -> Domain:
    domain = read_domain(raw)
    fill(domain, 0).close()
    return domain


def _names(read: Sequence[_Read]) -> dict[str, str]:
    """Fields whose names were written another way."""
    return {
        argument.name: argument.original
        for one in read
        for argument in one.arguments
        if argument.name != argument.original and argument.name != "id"
    }
