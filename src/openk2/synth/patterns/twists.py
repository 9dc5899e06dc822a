"""What makes the same pattern mean something else in another domain: further guards and effects."""

from __future__ import annotations

import random

from openk2.synth.entities import Thing, Things
from openk2.synth.patterns.drafts import Draft, guard, person_of, q
from openk2.worlds.apps.declaration import Effect


def twists(things: Things, draft: Draft, rng: random.Random) -> None:
    """More guards and effects for a tool that changes a row, as this domain has them."""
    if draft.about is None or not draft.effects:
        return
    t, row = draft.about, draft.row
    for add in rng.sample(_TWISTS, len(_TWISTS)):
        if rng.random() < 0.22 and add(things, t, row, draft, rng) and len(draft.requires) + len(draft.effects) >= 5:
            break


def _twist_parent(things: Things, t: Thing, row: str, draft: Draft, rng: random.Random) -> bool:
    """What the thing belongs to must be in its usual state."""
    parents = [(ref, things.by_noun[noun]) for ref, noun in t.refs if things.by_noun[noun].states]
    if not parents:
        return False
    ref, parent = rng.choice(parents)
    draft.requires.append(guard(f"{parent.plural}[{row}.{ref}].status == {q(parent.states[0])}",
                                f"Its {parent.words} is not {parent.states[0].replace('_', ' ')}."))  # fmt: skip
    return True


def _twist_own_number(things: Things, t: Thing, row: str, draft: Draft, rng: random.Random) -> bool:
    numbers = [own for own in t.noun.fields if own.type in ("integer", "number")]
    if not numbers:
        return False
    own = rng.choice(numbers)
    bound = round(own.low + (own.high - own.low) * rng.uniform(0.5, 0.9))
    sign, words = rng.choice([("<=", "at most"), (">=", "at least")])
    if sign == ">=":
        bound = round(own.low + (own.high - own.low) * rng.uniform(0.1, 0.4))
    draft.requires.append(
        guard(f"{row}.{own.name} {sign} {bound}", f"Its {own.name.replace('_', ' ')} must be {words} {bound}.")
    )
    return True


def _twist_own_value(things: Things, t: Thing, row: str, draft: Draft, rng: random.Random) -> bool:
    choices = [own for own in t.noun.fields if len(own.values) > 2]
    if not choices:
        return False
    own = rng.choice(choices)
    value = rng.choice(own.values)
    draft.requires.append(
        guard(f"{row}.{own.name} != {q(value)}", f"Not for the {own.name.replace('_', ' ')} {value}.")
    )
    return True


def _twist_own_switch(things: Things, t: Thing, row: str, draft: Draft, rng: random.Random) -> bool:
    switches = [own for own in t.noun.fields if own.type == "boolean"]
    if not switches:
        return False
    own = rng.choice(switches)
    needed = rng.random() < 0.6
    that = f"{row}.{own.name}" if needed else f"not {row}.{own.name}"
    draft.requires.append(guard(that, f"{own.name.replace('_', ' ').capitalize()} is {'off' if needed else 'on'}."))
    return True


def _twist_no_open_children(things: Things, t: Thing, row: str, draft: Draft, rng: random.Random) -> bool:
    children = [(child, ref) for child, ref in things.referring(t, "case", "order", "booking") if child.states]
    if not children:
        return False
    child, ref = rng.choice(children)
    if rng.random() < 0.5:
        draft.requires.append(guard(f"not any(x.{ref} == {row}.id and x.status == {q(child.states[0])} for x in {child.plural})",
                                    f"It has a {child.words} that is {child.states[0].replace('_', ' ')}."))  # fmt: skip
    else:
        most = rng.choice([2, 3, 4])
        draft.requires.append(guard(f"count(x for x in {child.plural} if x.{ref} == {row}.id) <= {most}",
                                    f"It has more than {most} {child.many}."))  # fmt: skip
    return True


def _twist_fee(things: Things, t: Thing, row: str, draft: Draft, rng: random.Random) -> bool:
    """It costs the person something."""
    found = person_of(things, t, row)
    if found is None or any(effect.values.get("credit") for effect in draft.effects):
        return False
    person, key = found
    fee = rng.choice([1, 2, 3, 5, 8, 12])
    draft.requires.append(
        guard(f"{person.plural}[{key}].credit >= {fee}", f"It costs {fee}, and the credit is not enough.")
    )
    draft.effects.insert(
        0,
        Effect(
            each=person.plural, update="payer", where=f"payer.id == {key}", values={"credit": f"payer.credit - {fee}"}
        ),
    )
    draft.description = draft.description.rstrip(".") + f"; it costs {fee} of the {person.words}'s credit."
    return True


def _twist_message(things: Things, t: Thing, row: str, draft: Draft, rng: random.Random) -> bool:
    """The person is told."""
    found = person_of(things, t, row)
    messages = [(m, ref) for m in things.of_kind("message") for ref, noun in m.refs if found and noun == found[0].name]
    if found is None or not messages or any(own.type != "boolean" for own in messages[0][0].noun.fields):
        return False
    message, ref = messages[0]
    values = {
        ref: found[1],
        "subject": q(draft.name.replace("_", " ")),
        "body": f"{row}.id",
        "date": "today",
        "read": "False",
    }
    draft.effects.insert(
        0, Effect(create=message.plural, values=values | {own.name: "False" for own in message.noun.fields})
    )
    draft.description = draft.description.rstrip(".") + f"; the {found[0].words} gets a {message.words}."
    return True


def _twist_day(things: Things, t: Thing, row: str, draft: Draft, rng: random.Random) -> bool:
    days = [
        name
        for name in ("date", "start", "due", "opened", "acquired", "since", "updated", "joined")
        if name in t.entity.fields
    ]
    if not days:
        return False
    name = rng.choice(days)
    if name in ("date", "due"):
        draft.requires.append(
            guard(f"days({row}.{name}, today) <= {rng.choice([0, 7, 30])}", f"Its {name} is too long ago.")
        )
    else:
        draft.requires.append(guard(f"days({row}.{name}, today) >= {rng.choice([0, 1, 7])}", "It is too new for that."))
    return True


_TWISTS = (
    _twist_parent, _twist_own_number, _twist_own_value, _twist_own_switch, _twist_no_open_children, _twist_fee,
    _twist_message, _twist_day,
)  # fmt: skip
