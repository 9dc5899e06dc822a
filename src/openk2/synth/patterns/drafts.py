"""Tools in the making, and what all patterns share."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from openk2.synth.entities import Thing, Things
from openk2.synth.wording import articles, label
from openk2.worlds.apps.declaration import Effect, Guard, Parameter, Returns, Tool


@dataclass(slots=True)
class Draft:
    """A tool in the making. `row` is the row that it is about."""

    name: str
    description: str
    ask: str
    parameters: dict[str, Parameter] = field(default_factory=dict)
    requires: list[Guard] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    returns: Returns | None = None
    about: Thing | None = None
    row: str = ""

    def tool(self) -> Tool:
        assert self.returns is not None
        return Tool(
            name=self.name[:64],
            description=articles(self.description),
            ask=articles(self.ask),
            parameters=self.parameters,
            requires=tuple(guard(one.that, articles(one.error)) for one in self.requires),
            effects=tuple(self.effects),
            returns=self.returns,
        )


def guard(that: str, error: str) -> Guard:
    return Guard(that=that, error=error)


def of(thing: Thing, description: str = "") -> Parameter:
    """The id of a row."""
    return Parameter(ref=thing.plural, description=description or f"Id of the {thing.words}.")


def q(text: str) -> str:
    """A text in an expression."""
    return f"'{text}'"


def one_of(states: tuple[str, ...] | list[str]) -> str:
    return "(" + ", ".join(map(q, states)) + ",)"


def in_state(row: str, states: list[str]) -> str:
    return f"{row}.status == {q(states[0])}" if len(states) == 1 else f"{row}.status in {one_of(states)}"


def move(t: Thing, verb: str, before: list[int], after: int, phrase: str, rng: random.Random, **values: str) -> Draft:
    """A step in the life of a thing. `before` and `after` count its states; `values` are other fields that change; in
    `phrase`, {} is where the thing stands if it is not at the end."""
    n = t.name
    phrase = phrase if "{}" in phrase else f"{phrase} {{}}"
    states = [t.states[i] for i in before]
    return Draft(
        f"{verb}_{n}", f"{phrase.capitalize().format(f'a {t.words}')}.", phrase.format(f"{{{n}_id}}"), {f"{n}_id": of(t)},
        [guard(in_state(n, states), f"The {t.words} {{{n}.id}} is {{{n}.status}}.")],
        [Effect(update=n, values={"status": q(t.states[after]), **values})],
        Returns(row=n), t, n,
    )  # fmt: skip


def own_values(t: Thing) -> tuple[dict[str, Parameter], dict[str, str], str]:
    """Parameters, values and words for a new row's own fields."""
    parameters, values, ask = {}, {}, ""
    for own in t.noun.fields:
        declared = t.entity.fields[own.name]
        parameters[own.name] = Parameter.model_validate(
            {"type": declared.type, "values": declared.values, "minimum": declared.minimum, "maximum": declared.maximum}
        )
        values[own.name] = own.name
        ask += f"[{label(own.name, declared.type)}: {{{own.name}}}; ]"
    return parameters, values, f" ({ask})" if ask else ""


def person_of(things: Things, t: Thing, row: str) -> tuple[Thing, str] | None:
    """The person whom a thing is about, and an expression for their id."""
    for ref, noun in t.refs:
        other = things.by_noun[noun]
        if other.kind == "person":
            return other, f"{row}.{ref}"
    for ref, noun in t.refs:
        other = things.by_noun[noun]
        for inner, further in other.refs:
            if things.by_noun[further].kind == "person":
                return things.by_noun[further], f"{other.plural}[{row}.{ref}].{inner}"
    return None
