"""A simulated app from nothing but tool specs: what `create_contact`, `get_contact` and `contact_id` say of each other.

A name is read as a verb and a noun. Nouns that something can be done to in at least two ways, one of which changes
something, become entities; what their creation and change take become fields; an id, or a field that tells rows apart,
says which row is meant. Then creating, getting, listing, updating and deleting are declared for the interpreter. A tool
of which a required parameter, or any filter of a list, has no such meaning is left alone: a simulation that ignores
what it is told is none.

Paging and sorting may be left out of account, but for a limit; lists and objects are kept as they are given.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any

from openk2.core import UserError
from openk2.worlds.apps.declaration import Domain, read_domain, row_name
from openk2.worlds.apps.filling import fill
from openk2.worlds.families.lexicon import plural
from openk2.worlds.mcp.reading import Argument, Read, is_by_id, is_id, is_made_unclearly, is_own_id, key_of, read_spec
from openk2.worlds.mcp.simulated import Bridge, Simulation
from openk2.worlds.mcp.specs import Spec
from openk2.worlds.mcp.words import (
    FROM,
    LIMITS,
    MOMENTS,
    NATURAL,
    PAGING,
    SEARCH,
    TO,
    WRITES,
    is_secret,
    tokens,
)

_DAYS = tuple(f"2026-{month:02}-{3 * month - 2:02}" for month in range(1, 10))


@dataclass(slots=True)
class _Entity:
    """What is known of a noun."""

    noun: str
    plural: str
    tools: list[Read]
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    number: str = ""
    """A whole number that rows are known by."""
    key: str = ""
    """A text that rows are known by, which those who make them choose."""


def infer(name: str, category: str, title: str, specs: Sequence[Spec]) -> Simulation | None:
    """A simulation of those tools that have a plain meaning, or None if there are none."""
    firsts = Counter(tokens(spec.original)[:1][0] for spec in specs if tokens(spec.original))
    # What most names begin with is the server's name and no noun.
    prefixes = {word for word, count in firsts.items() if count > max(2, len(specs) / 2)}
    read = [one for spec in specs if (one := read_spec(spec, prefixes)) is not None]
    # What is made as nothing here could make it would not be found by the others.
    unclear = {one.noun for one in read if is_made_unclearly(one)}
    read = [one for one in read if one.noun not in unclear]
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


def _entities(read: Sequence[Read]) -> dict[str, _Entity]:
    """Nouns that something is done to in two ways, one of which changes something."""
    by_noun: dict[str, list[Read]] = defaultdict(list)
    for one in read:
        by_noun[one.noun].append(one)
    entities = {}
    for noun, tools in by_noun.items():
        if not any(one.way == "create" for one in tools):
            # Where nothing else makes rows, these may: what they do then is not known.
            tools = [one for one in tools if one.verb != "set" and not (one.way == "state" and not is_by_id(one))]
        ways = {one.way for one in tools}
        if len(ways) >= 2 and ways & WRITES:
            entities[noun] = _Entity(noun, f"{noun}_rows"[:64] if len(noun) > 55 else _plural(noun), tools)
    for entity in entities.values():
        _find_fields(entity, entities)
    # A thing of which nothing is known but its id is none.
    return {noun: entity for noun, entity in entities.items() if entity.fields}


def _plural(noun: str) -> str:
    many = plural(noun)
    return many if many != noun else f"{noun}_rows"


def _find_fields(entity: _Entity, entities: Mapping[str, _Entity]) -> None:
    creates = [one for one in entity.tools if one.way == "create"]
    for one in creates:
        for argument in one.arguments:
            if argument.required and argument.type == "text" and is_own_id(entity.noun, argument):
                entity.key = f"{entity.noun}_key" if argument.name == "id" else argument.name
                entity.fields[entity.key] = {"type": "text", "unique": True}
    for one in entity.tools:
        if one.way not in ("create", "update", "get", "delete", "state"):
            continue
        key = None if one.way == "create" else key_of(entity.noun, one.arguments)
        for argument in one.arguments:
            if argument is key:
                if argument.type == "integer":
                    entity.number = argument.name
                    entity.fields[argument.name] = {"type": "integer", "minimum": 1, "unique": True}
                elif not is_id(argument):
                    entity.fields.setdefault(argument.name, {"type": argument.type, "unique": True})
            elif one.way in ("create", "update") and not is_secret(argument.name):
                if one.way == "update" and argument.name.startswith("new_"):
                    # What another field is to become.
                    continue
                _add_field(entity, argument, entities, set_by_all=bool(creates) and one.way == "create")
    needed = [{a.name for a in one.arguments if a.required} for one in creates]
    for name, declared in entity.fields.items():
        required = bool(needed) and all(name in names for names in needed)
        declared["optional"] = (not required and name not in (entity.number, entity.key)) or "ref" in declared
    for one in entity.tools:
        for argument in one.arguments if one.way == "list" else ():
            column, _ = _bound(argument, entity) or ("", "")
            if column and argument.type == "text":
                # Rows that a state begins with can be compared, too.
                entity.fields[column]["examples"] = _DAYS
        if one.way == "state":
            status = entity.fields.setdefault("status", {"type": "text", "optional": True, "values": None})
            if status.get("values") and _near(one, status["values"]) is None:
                status["values"] = (*status["values"], one.state)


def _add_field(entity: _Entity, argument: Argument, entities: Mapping[str, _Entity], *, set_by_all: bool) -> None:
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


def _referred(argument: Argument, entities: Mapping[str, _Entity], own: _Entity) -> _Entity | None:
    """The entity whose id a parameter is."""
    if argument.type != "text" or argument.json or argument.values or not argument.name.endswith("_id"):
        return None
    noun = argument.name.removesuffix("_id")
    other = entities.get(noun) or (own if noun.startswith("parent") else None)
    if other is own and not noun.startswith("parent"):
        return None
    # Rows that are known by what somebody has chosen have an id of their own that nobody knows.
    return None if other is None or other.number or other.key else other


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

    def take(self, argument: Argument, ref: str | None = None, name: str = "") -> str:
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


def _draft(one: Read, entity: _Entity, entities: Mapping[str, _Entity]) -> tuple[dict[str, Any], Bridge] | None:
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


def _create(draft: _Draft, one: Read, entity: _Entity) -> bool:
    values: dict[str, str] = {}
    for argument in one.arguments:
        if is_secret(argument.name):
            if argument.required:
                return False
            continue
        own = is_own_id(entity.noun, argument) and argument.type == "text"
        name = entity.key if own else f"{entity.noun}_key" if argument.name == "id" else argument.name
        ref = entity.fields[name].get("ref")
        values[name] = draft.take(argument, ref, name)
        if name in (entity.key, entity.number):
            taken = f"any(each_row.{name} == {values[name]} for each_row in {entity.plural})"
            called = entity.noun.replace("_", " ")
            draft.requires.append({"that": f"not {taken}", "error": f"there is such a {called} already"})
    if entity.number and entity.number not in values:
        rows = f"each_row in {entity.plural}"
        highest = f"max(each_row.{entity.number} for {rows})"
        values[entity.number] = f"({highest} if count(each_row for {rows}) > 0 else 0) + 1"
    if not values:
        return False
    draft.effects.append({"create": entity.plural, "name": "made", "values": values})
    draft.returns = {"row": "made"}
    return True


def _other(draft: _Draft, one: Read, entity: _Entity) -> bool:
    """Everything that is about rows that there are."""
    key = None if one.way == "list" else key_of(entity.noun, one.arguments)
    if one.way != "list" and key is None:
        return False
    row = ""
    conditions: list[str] = []
    if key is not None:
        creates = {a.name for t in entity.tools if t.way == "create" for a in t.arguments}
        if entity.key and key.type == "text" and is_id(key):
            conditions.append(f"chosen.{entity.key} == {draft.take(key, None, f'which_{entity.key}'[:60])}")
        elif is_id(key) and key.type == "text" and key.name not in creates:
            row = row_name(draft.take(key, entity.plural, f"{entity.noun}_id"))
        else:
            if key.name not in entity.fields:
                return False
            conditions.append(f"chosen.{key.name} == {draft.take(key, None, f'which_{key.name}'[:60])}")
    values: dict[str, str] = {}
    parts = _parts_of_key(one, entity, ("get", "delete") if row else ("get", "delete", "list"))
    for argument in one.arguments:
        if argument is key:
            continue
        # What says nothing of rows is left out, and may not be needed.
        known = argument.name in entity.fields and not argument.json
        if is_secret(argument.name):
            if argument.required:
                return False
        elif one.way == "update" and argument.name.startswith(("new_", "old_")):
            column = _renamed(one, entity, argument, key)
            if column is None:
                return False
            name = draft.take(argument)
            values[column] = (
                name if argument.required else f"{name} if {name} is not None else {row or 'chosen'}.{column}"
            )
        elif one.way == "update" and argument.name in entity.fields and argument.name not in parts:
            name = draft.take(argument, entity.fields[argument.name].get("ref"))
            held = f"{row or 'chosen'}.{argument.name}"
            values[argument.name] = name if argument.required else f"{name} if {name} is not None else {held}"
        elif one.way == "list" and argument.name in LIMITS and argument.type in ("integer", "number"):
            draft.limit = draft.limit or argument.original
        elif argument.name in PAGING and not argument.required:
            continue
        elif one.way == "list" and (bound := _bound(argument, entity)) is not None:
            column, relation = bound
            if not column:
                return False
            name = draft.take(argument)
            within = f"chosen.{column} {relation} {name}"
            conditions.append(within if argument.required else f"({name} is None or {within})")
        elif known and argument.name != entity.number:
            name = draft.take(argument)
            held = f"{row or 'chosen'}.{argument.name}"
            same = f"{held} == {name}"
            if one.way == "list" or not row:
                conditions.append(same if argument.required else f"({name} is None or {same})")
            elif argument.required:
                error = f"no {entity.noun.replace('_', ' ')} has that {argument.name.replace('_', ' ')}"
                draft.requires.append({"that": same, "error": error})
        elif one.way == "list" and argument.name in SEARCH and argument.type == "text" and not argument.json:
            texts = [n for n, f in entity.fields.items() if f.get("type") == "text" and f.get("kind") != "json"]
            if not texts:
                return False
            name = draft.take(argument)
            found = " or ".join(f"lower({name}) in lower(chosen.{text})" for text in texts)
            conditions.append(f"({found})" if argument.required else f"({name} is None or {found})")
        elif argument.required or one.way == "list":
            return False
    if one.verb == "rename" and not row and _column(key, entity) not in values:
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


def _status(one: Read, entity: _Entity) -> str:
    """What a row is after a tool such as `close_issue`: the nearest of the values that there are."""
    return (_near(one, entity.fields["status"].get("values") or ()) or one.state).replace("'", "")


def _near(one: Read, values: Sequence[str]) -> str | None:
    return next((value for value in values if value.lower()[:4] == one.state[:4]), None)


def _column(key: Argument | None, entity: _Entity) -> str:
    """The field behind a key that is no id of the simulation's own."""
    assert key is not None
    return entity.key if entity.key and key.type == "text" and is_id(key) else key.name


def _parts_of_key(one: Read, entity: _Entity, ways: Sequence[str]) -> set[str]:
    """What other tools need to say which rows are meant: it is no new value of an update."""
    others = (tool for tool in entity.tools if tool.way in ways and tool is not one)
    return {argument.name for tool in others for argument in tool.arguments if argument.required}


def _renamed(one: Read, entity: _Entity, argument: Argument, key: Argument | None) -> str | None:
    """The field that a parameter such as `new_name` changes."""
    if argument.json or not argument.name.startswith("new_"):
        return None
    name = argument.name.removeprefix("new_")
    if name in entity.fields:
        return name if "ref" not in entity.fields[name] else None
    natural = key is not None and not is_id(key) and name in (*NATURAL, entity.noun)
    return key.name if key is not None and natural and one.verb == "rename" else None


def _bound(argument: Argument, entity: _Entity) -> tuple[str, str] | None:
    """The field that a parameter such as `min_price` or `end_date` bounds and the relation; no field where it is not
    known which, and None if it is no bound."""
    words = argument.name.split("_")
    side = next((side for side in (FROM, TO) for word in (words[0], words[-1]) if word in side), None)
    if side is None or argument.type == "boolean" or argument.values:
        return None
    rest = words[1:] if words[0] in side else words[:-1]
    names = ("_".join(rest), *("_".join([*rest, ending]) for ending in ("at", "date", "time")), argument.name)
    column = next((name for name in names if name in entity.fields), "")
    field = entity.fields.get(column, {})
    number = field.get("type") in ("integer", "number") and argument.type in ("integer", "number")
    moment = field.get("type") == argument.type == "text" and not MOMENTS.isdisjoint(words)
    plain = not {"kind", "values", "ref"} & {key for key, value in field.items() if value}
    return (column if column and plain and (number or moment) else "", ">=" if side is FROM else "<=")


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


def _names(read: Sequence[Read]) -> dict[str, str]:
    """Fields whose names were written another way."""
    return {
        argument.name: argument.original
        for one in read
        for argument in one.arguments
        if argument.name != argument.original and argument.name != "id"
    }
