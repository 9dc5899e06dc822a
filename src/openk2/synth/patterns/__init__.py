"""What can be done with things of a kind: patterns of tools, which a domain fills with its own words, guards and effects.

A pattern is what the tool is for (`book`, `restock`, `escalate`). Which guards stand before it and what else it brings
about is drawn for each domain anew (`twists`), so that two domains with the same pattern need not have the same
semantics.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from openk2.synth.entities import Thing, Things
from openk2.synth.patterns.basics import edits, reads
from openk2.synth.patterns.dealings import account, booking, case, order, shipment, subscription
from openk2.synth.patterns.drafts import Draft
from openk2.synth.patterns.people_and_goods import place, plan, product, registered, staff, unit
from openk2.synth.patterns.records import document, event, link, message, project, reading
from openk2.synth.patterns.twists import twists

__all__ = ["Draft", "patterns", "twists"]

_WRITES: dict[str, tuple[Callable[[Things, Thing, random.Random], Iterator[Draft]], ...]] = {
    "person": (registered,), "staff": (staff,), "place": (place,), "product": (product,), "plan": (plan,),
    "unit": (unit,), "booking": (booking,), "order": (order,), "case": (case,), "document": (document,),
    "account": (account,), "subscription": (subscription,), "reading": (reading,), "shipment": (shipment,),
    "link": (link,), "event": (event,), "message": (message,), "project": (project,),
}  # fmt: skip


def patterns(things: Things, rng: random.Random) -> Iterator[Draft]:
    """All that may be done in a domain."""
    for thing in things.by_noun.values():
        yield from reads(things, thing, rng)
        yield from edits(thing, rng)
        for make in _WRITES.get(thing.kind, ()):
            yield from make(things, thing, rng)
