"""Categories -> domains -> tools, by program: nouns become entities, patterns become tools, doubles are dropped."""

from __future__ import annotations

import random

from openk2.core import UserError
from openk2.synth.entities import things_of
from openk2.synth.lexicon import Sketch
from openk2.synth.patterns import patterns, twists
from openk2.worlds.apps.declaration import Domain, Tool, read_domain


def evolve(sketch: Sketch, seed: int) -> Domain:
    """The domain of a sketch: the same for the same seed. Raises UserError if a pattern makes what may not be."""
    try:
        return read_domain(made(sketch, seed).model_dump())
    except UserError as e:
        raise UserError(f"the domain {sketch.name} cannot be made: {e}") from e


def made(sketch: Sketch, seed: int) -> Domain:
    """The domain before it is checked, which takes most of the time."""
    rng = random.Random(f"{seed} {sketch.name}")
    things = things_of(sketch, rng)
    tools: dict[str, Tool] = {}
    for draft in patterns(things, rng):
        twists(things, draft, rng)
        tools.setdefault(draft.name[:64], draft.tool())
    users = next(thing for thing in things.by_noun.values() if thing.kind == "person")
    return Domain.model_construct(
        name=sketch.name,
        category=sketch.category,
        title=sketch.title,
        users=users.plural,
        entities={thing.plural: thing.entity for thing in things.by_noun.values()},
        tools=tuple(tools.values()),
    )
