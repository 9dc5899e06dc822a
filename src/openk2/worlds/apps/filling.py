"""A state to begin with: rows that look like those of a real app, the same for the same seed.

Only the declaration is needed, so that a domain that a model wrote is filled like one of ours. Dates lie around
`today`, what has begun has an end behind it, and what is taken of something is not more than there is.
"""

from __future__ import annotations

import math
import random
from datetime import date, timedelta
from typing import Any

from openk2.core import UserError
from openk2.worlds.apps.declaration import Domain, Entity, EntityField
from openk2.worlds.apps.state import State

_FIRST = (
    "Amara", "Bruno", "Chiara", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Keiko", "Liam", "Maya",
    "Nadia", "Omar", "Priya", "Quentin", "Rosa", "Samir", "Tamsin", "Ugo", "Vera", "Wanda", "Xenia", "Yusuf", "Zora",
)  # fmt: skip
_LAST = (
    "Abbott", "Bianchi", "Castro", "Dahl", "Eriksen", "Fontaine", "Gupta", "Haas", "Ivanov", "Jansen", "Kowalski",
    "Lindqvist", "Moreau", "Novak", "Okafor", "Petrov", "Quinn", "Rossi", "Silva", "Tanaka", "Ueda", "Vargas", "Weber",
    "Xu", "Yilmaz", "Zimmer",
)  # fmt: skip
_CITIES = (
    "Arles",
    "Bergen",
    "Coimbra",
    "Delft",
    "Esbjerg",
    "Ghent",
    "Izmir",
    "Kazan",
    "Lugano",
    "Malaga",
    "Oulu",
    "Porto",
)
_ABOUT = (
    "invoice",
    "schedule",
    "access",
    "address",
    "label",
    "seal",
    "report",
    "permit",
    "handover",
    "battery",
    "door",
    "login",
)
_WHAT = (
    "Missing",
    "Wrong",
    "Late",
    "Broken",
    "Second",
    "Unclear",
    "New",
    "Outdated",
    "Damaged",
    "Urgent",
    "Open",
    "Lost",
)
_NOTES = ("bring the papers", "call before", "use the side entrance", "ask for a receipt", "needs help on arrival")
_COUNTS = {"capacity": (4, 40), "stock": (0, 60), "few": (1, 9), "hours": (0, 30), "count": (0, 20)}
_DURATIONS = (7, 14, 30, 90, 180, 365)
_PAST = ("joined", "acquired", "opened", "since", "updated", "start")
_TODAY = date(2026, 3, 2)
_ROWS = (6, 10)


def today_of(seed: int) -> str:
    """The day on which a state begins."""
    return (_TODAY + timedelta(days=random.Random(f"today {seed}").randrange(300))).isoformat()


def fill(domain: Domain, seed: int) -> State:
    """A state with rows of all entities. Raises UserError if an entity refers to itself or round in a circle, and may
    not be without."""
    rng = random.Random(f"fill {seed} {domain.name}")
    today = date.fromisoformat(today_of(seed))
    state = State(domain)
    ids: dict[str, list[str]] = {}
    waiting = dict(domain.entities)
    while waiting:
        ready = [name for name, entity in waiting.items() if not _needed(entity) & waiting.keys()]
        if not ready:
            names = ", ".join(waiting)
            raise UserError(
                f"the domain {domain.name} cannot be filled: {names} refer to each other; make one optional"
            )
        for name in ready:
            ids[name] = _fill_entity(state, name, waiting.pop(name), ids, today, rng)
    return state.begun()


def _needed(entity: Entity) -> set[str]:
    return {declared.ref for declared in entity.fields.values() if declared.ref is not None and not declared.optional}


def _fill_entity(
    state: State, name: str, entity: Entity, ids: dict[str, list[str]], today: date, rng: random.Random
) -> list[str]:
    taken: dict[str, set[Any]] = {field: set() for field in entity.fields}
    keys: list[str] = []
    one_each = {field: declared.ref for field, declared in entity.fields.items() if declared.unique and declared.ref}
    for number in range(rng.randint(*_ROWS)):
        row: dict[str, Any] = {}
        # What nothing has referred to yet; without any there can be no further row that has to refer to one.
        free = {field: [one for one in ids.get(ref, ()) if one not in taken[field]] for field, ref in one_each.items()}
        if not all(found or entity.fields[field].optional for field, found in free.items()):
            break
        for field, declared in entity.fields.items():
            known = ids | {one_each[field]: free[field]} if field in one_each else ids
            value = _value(field, declared, row, known, today, rng)
            for attempt in range(2, 12):
                if not declared.unique or value not in taken[field]:
                    break
                value = _value(field, declared, row, known, today, rng)
                if attempt > 6 and isinstance(value, str):
                    value = f"{value} {number + 1}"
            taken[field].add(value)
            row[field] = value
        keys.append(state.create(name, _sensible(row))["id"])
    return keys


def _value(
    field: str, declared: EntityField, row: dict[str, Any], ids: dict[str, list[str]], today: date, rng: random.Random
) -> Any:
    if declared.optional and rng.random() < 0.5:
        return None
    if declared.ref is not None:
        return rng.choice(ids[declared.ref]) if ids.get(declared.ref) else None
    if declared.values is not None:
        # Most things are at the beginning of their life.
        weights = range(len(declared.values) + 1, 1, -1) if field == "status" else None
        return rng.choices(declared.values, weights)[0]
    match declared.type:
        case "boolean":
            return rng.random() < 0.4
        case "date":
            return _day(field, declared.kind, today, rng)
        case "time":
            return f"{rng.randrange(8, 18):02}:{rng.choice((0, 15, 30, 45)):02}"
        case "integer" | "number":
            return _number(declared, rng)
    if declared.examples:
        return rng.choice(declared.examples)
    match declared.kind:
        case "person":
            return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
        case "email":
            first, _, last = str(row.get("name", rng.choice(_FIRST))).lower().partition(" ")
            return f"{first}.{last or 'office'}@example.org".replace(" ", "")
        case "city":
            return rng.choice(_CITIES)
        case "note":
            return rng.choice(_NOTES)
    return f"{rng.choice(_WHAT)} {rng.choice(_ABOUT)}"


def _day(field: str, kind: str, today: date, rng: random.Random) -> str:
    if field in _PAST or kind == "past":
        offset = -rng.randrange(1, 120)
    elif field in ("due", "end"):
        offset = rng.randrange(-10, 90)
    else:
        offset = rng.randrange(-20, 45)
    return (today + timedelta(days=offset)).isoformat()


def _number(declared: EntityField, rng: random.Random) -> float:
    """One of its kind if that is of its type and within its bounds, or else any that is."""
    whole = declared.type == "integer"
    low, high = declared.minimum, declared.maximum
    value: float | None = None
    if declared.kind == "duration":
        value = rng.choice(_DURATIONS)
    elif declared.kind == "money":
        value = round(rng.uniform(5, 400), None if whole else 2)
    elif declared.kind in _COUNTS:
        value = _between(*_COUNTS[declared.kind], whole, rng)
    if value is not None and (low is None or value >= low) and (high is None or value <= high):
        return value
    low = min(0, math.floor(high or 0)) if low is None else low
    return _between(low, low + 100 if high is None else high, whole, rng)


def _between(low: float, high: float, whole: bool, rng: random.Random) -> float:
    """An integer or a number to one digit that lies there."""
    if whole:
        return rng.randint(math.ceil(low), math.floor(high))
    return min(max(round(rng.uniform(low, high), 1), low), high)


def _sensible(row: dict[str, Any]) -> dict[str, Any]:
    """Ends behind beginnings, and no more taken than there is."""
    for first, last in (("start_time", "end_time"), ("start", "end"), ("opened", "due")):
        # Any declaration is filled: either may be missing, or something else than a day or a time.
        if isinstance(row.get(first), str) and isinstance(row.get(last), str) and row[first] >= row[last]:
            row[first], row[last] = row[last], row[first]
            if row[first] == row[last]:
                row[first], row[last] = (
                    ("09:00", "10:00") if "time" in first else (row[first], f"{row[last][:4]}-12-31")
                )
    for part, whole in (("seats_taken", "seats"), ("spent", "budget")):
        if isinstance(row.get(part), int | float) and isinstance(row.get(whole), int | float):
            row[part] = min(row[part], row[whole])
    return row
