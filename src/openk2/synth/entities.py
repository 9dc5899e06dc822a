"""From nouns to entities: what things of a kind have, in the words of one domain."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from openk2.synth.lexicon import Noun, Sketch
from openk2.worlds.apps.declaration import Entity, EntityField
from openk2.worlds.families.lexicon import plural

_STATES: dict[str, tuple[tuple[str, ...], ...]] = {
    "person": (("active", "suspended"), ("active", "blocked"), ("verified", "on_hold")),
    "staff": (("available", "away"), ("on_duty", "off_duty"), ("present", "absent")),
    "place": (("open", "closed"), ("in_service", "out_of_service"), ("available", "shut")),
    "product": (("listed", "withdrawn"), ("on_sale", "discontinued"), ("active", "inactive")),
    "plan": (("offered", "retired"), ("open", "closed"), ("current", "legacy")),
    "unit": (("ready", "in_use", "in_repair", "retired"), ("idle", "busy", "maintenance", "decommissioned"),
             ("available", "assigned", "out_of_order", "scrapped")),
    "booking": (("requested", "confirmed", "completed", "cancelled"), ("pending", "booked", "done", "called_off"),
                ("tentative", "fixed", "finished", "dropped")),
    "order": (("placed", "paid", "shipped", "cancelled"), ("new", "settled", "handed_over", "void"),
              ("open", "charged", "fulfilled", "revoked")),
    "case": (("open", "in_progress", "resolved", "closed"), ("new", "assigned", "solved", "archived"),
             ("reported", "under_review", "settled", "filed")),
    "document": (("draft", "in_review", "approved", "archived"), ("draft", "submitted", "published", "withdrawn"),
                 ("working", "proposed", "final", "obsolete")),
    "account": (("active", "frozen", "closed"), ("open", "locked", "ended"), ("usable", "blocked", "terminated")),
    "subscription": (("active", "paused", "ended"), ("running", "on_hold", "cancelled"),
                     ("current", "suspended", "expired")),
    "reading": (),
    "shipment": (("planned", "in_transit", "delivered", "lost"), ("scheduled", "under_way", "arrived", "missing"),
                 ("packed", "sent", "received", "damaged")),
    "link": (("active", "ended"), ("current", "past"), ("valid", "revoked")),
    "event": (("scheduled", "held", "cancelled"), ("announced", "over", "called_off"),
              ("planned", "finished", "dropped")),
    "message": (),
    "project": (("planned", "active", "on_hold", "finished"), ("proposed", "running", "stopped", "done"),
                ("draft", "live", "frozen", "complete")),
}  # fmt: skip
"""Kind -> the states of its life, in their order, in the words of one domain or another."""
_TIERS = (("basic", "plus", "premium"), ("bronze", "silver", "gold"), ("standard", "advanced", "vip"))
_PRIORITIES = (("low", "normal", "high", "urgent"), ("minor", "medium", "major", "critical"), ("p4", "p3", "p2", "p1"))
_ROLES = (("member", "lead", "backup"), ("primary", "secondary", "observer"), ("regular", "deputy", "guest"))


@dataclass(slots=True)
class Thing:
    """An entity of a domain with what patterns of tools need to know: its plural, its states, and its references."""

    noun: Noun
    plural: str
    states: tuple[str, ...]
    refs: tuple[tuple[str, str], ...]
    """Field and noun."""
    entity: Entity
    levels: tuple[str, ...] = ()
    """Tiers, priorities or roles, from the least to the most."""
    staff_field: str = ""

    @property
    def name(self) -> str:
        return self.noun.name

    @property
    def kind(self) -> str:
        return self.noun.kind

    @property
    def words(self) -> str:
        return self.name.replace("_", " ")

    @property
    def many(self) -> str:
        return self.plural.replace("_", " ")


@dataclass(slots=True)
class Things:
    """All of a domain."""

    sketch: Sketch
    by_noun: dict[str, Thing] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[Thing]:
        return [thing for thing in self.by_noun.values() if thing.kind == kind]

    def referring(self, to: Thing, *kinds: str) -> list[tuple[Thing, str]]:
        """Things with a field that refers to one, and the field."""
        return [
            (thing, ref)
            for thing in self.by_noun.values()
            for ref, noun in thing.refs
            if noun == to.name and (not kinds or thing.kind in kinds)
        ]


def things_of(sketch: Sketch, rng: random.Random) -> Things:
    """The entities of a sketch."""
    staff = next((noun.name for noun in sketch.nouns if noun.kind == "staff"), None)
    plurals = {noun.name: plural(noun.name) for noun in sketch.nouns}
    prefixes = _prefixes([noun.name for noun in sketch.nouns])
    things = Things(sketch)
    for noun in sketch.nouns:
        options = _STATES[noun.kind]
        states = rng.choice(options) if options else ()
        refs: list[tuple[str, str]] = []
        for ref in noun.refs:
            refs.append((f"other_{ref}" if any(ref == known for known, _ in refs) else ref, ref))
        fields, levels = _base_fields(noun, states, rng)
        for name, ref in refs:
            fields[name] = EntityField(ref=plurals[ref])
        staff_field = ""
        if noun.kind == "case" and staff is not None:
            staff_field = "assignee"
            fields["assignee"] = EntityField(ref=plurals[staff], optional=True)
        for own in noun.fields:
            if own.name not in fields:
                fields[own.name] = _own(own.type, own.values, own.low, own.high)
        label = next((name for name in ("name", "title", "subject") if name in fields), None)
        entity = Entity(prefix=prefixes[noun.name], singular=noun.name, fields=fields, label=label)
        things.by_noun[noun.name] = Thing(noun, plurals[noun.name], states, tuple(refs), entity, levels, staff_field)
    return things


def _prefixes(nouns: list[str]) -> dict[str, str]:
    """Capitals that stand for the nouns, each other ones."""
    taken: dict[str, str] = {}
    for noun in nouns:
        letters = noun.replace("_", "").upper()
        letters = "".join(char for char in letters if char.isalpha())
        initials = "".join(part[0] for part in noun.upper().split("_") if part[0].isalpha())
        candidates = [letters[:3], initials + letters[1:3], letters[:4], letters[:5], letters[:6]]
        candidates += [letters[:2] + chr(65 + n) for n in range(26)]
        taken[noun] = next(one for one in candidates if one not in taken.values() and 1 <= len(one) <= 6)
    return taken


def _own(kind: str, values: tuple[str, ...], low: float, high: float) -> EntityField:
    if values:
        return EntityField(values=values)
    if kind in ("integer", "number"):
        return EntityField.model_validate({"type": kind, "minimum": low, "maximum": high})
    return EntityField.model_validate({"type": kind})


def _money(least: float = 0) -> EntityField:
    return EntityField(type="number", minimum=least, kind="money")


def _count(kind: str = "count") -> EntityField:
    return EntityField(type="integer", minimum=0, kind=kind)


def _base_fields(
    noun: Noun, states: tuple[str, ...], rng: random.Random
) -> tuple[dict[str, EntityField], tuple[str, ...]]:
    """What all of a kind have."""
    text, day, time = EntityField(), EntityField(type="date"), EntityField(type="time")
    past = EntityField(type="date", kind="past")
    kind = "person" if noun.kind in ("person", "staff") else "name"
    name = EntityField(unique=True, kind=kind, examples=noun.names)
    title = EntityField(kind="title")
    levels: tuple[str, ...] = ()
    fields: dict[str, EntityField]
    match noun.kind:
        case "person":
            levels = rng.choice(_TIERS)
            fields = {
                "name": name,
                "email": EntityField(kind="email"),
                "credit": _money(),
                "tier": EntityField(values=levels),
                "joined": day,
            }
        case "staff":
            fields = {"name": name, "hours": _count("hours")}
        case "place":
            fields = {"name": name, "city": EntityField(kind="city"), "capacity": _count("capacity")}
        case "product":
            fields = {"name": name, "price": _money(), "stock": _count("stock"), "reorder_at": _count("few")}
        case "plan":
            fields = {"name": name, "price": _money(), "duration_days": _count("duration")}
        case "unit":
            fields = {"name": name, "acquired": day}
        case "booking":
            fields = {
                "date": day,
                "start_time": time,
                "end_time": time,
                "note": EntityField(optional=True, kind="note"),
            }
        case "order":
            fields = {"quantity": _count("few"), "total": _money(), "date": past}
        case "case":
            levels = rng.choice(_PRIORITIES)
            fields = {"title": title, "priority": EntityField(values=levels), "opened": day, "due": day}
        case "document":
            fields = {"title": title, "version": EntityField(type="integer", minimum=1, kind="few"), "updated": day}
        case "account":
            fields = {"balance": _money(), "limit": _money(), "opened": day}
        case "subscription":
            fields = {"start": day, "end": day, "auto_renew": EntityField(type="boolean")}
        case "reading":
            fields = {
                "value": EntityField(type="number", minimum=0, maximum=1000, kind="value"),
                "date": past,
                "flagged": EntityField(type="boolean"),
            }
        case "shipment":
            fields = {"quantity": _count("few"), "date": day}
        case "link":
            levels = rng.choice(_ROLES)
            fields = {"role": EntityField(values=levels), "since": day}
        case "event":
            fields = {
                "title": EntityField(unique=True, kind="name", examples=noun.names),
                "date": day,
                "start_time": time,
                "seats": _count("capacity"),
                "seats_taken": _count("few"),
                "price": _money(),
            }
        case "message":
            fields = {
                "subject": EntityField(kind="title"),
                "body": text,
                "date": past,
                "read": EntityField(type="boolean"),
            }
        case _:
            fields = {
                "title": EntityField(unique=True, kind="name", examples=noun.names),
                "budget": _money(),
                "spent": _money(),
                "start": day,
                "end": day,
            }
    if states:
        fields["status"] = EntityField(values=states)
    return fields, levels
