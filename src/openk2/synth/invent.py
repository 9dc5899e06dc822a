"""Domains that a model invents: categories -> domains -> applications -> declarations in our format.

Each declaration is checked as all are; what is wrong is told to the model, which may correct it, and what stays wrong
is refused with its reason. Tools that cannot be called in any of some states are left out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from openk2.core import Message, UserError
from openk2.core.errors import first_alone
from openk2.synth.ask import Asker, NoAnswer, fitting
from openk2.synth.goals import Goals
from openk2.worlds.apps.declaration import KINDS, Domain, read_domain
from openk2.worlds.apps.expression import FUNCTIONS, OVER_ROWS
from openk2.worlds.apps.filling import fill, today_of
from openk2.worlds.apps.interpreter import Interpreter

NEVER = "cannot be executed"
"""How the reason begins for which a tool is left out that never works."""
_STATES = 4
_Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=400)]
_SYSTEM = "You design simulated business apps whose tools an assistant calls. Answer in JSON alone."
_LEVELS = (
    ("categories", "Name {count} broad categories of work and life in which people use apps. They must not overlap."),
    ("domains", "Name {count} different domains in the category {above}, each one kind of organisation or activity."),
    ("applications", "Name {count} different applications in the domain {above}, each with a few kinds of records."),
)
_DECLARE = """Declare the app {about}.

The format: `entities` are tables by their plural names in snake_case, each with a `prefix` of its ids (1 to 6 capital \
letters, each its own), a `singular` and `fields`. A field has a `type` (text, integer, number, boolean, date, time), \
or `ref`, the entity whose ids it holds, or `values`, all texts it can be; it may be `optional`. Texts have \
`examples`; what a value looks like otherwise is its `kind`, one of {kinds}. No field is called id: every row has one. \
`label` is the field that people call a row by. `users` is the entity of the \
people who talk to the assistant.

`tools`: each has `name`, `description`, `ask` (how a person asks for it, with parameters in braces, such as "cancel \
{{order_id}}"), `parameters`, `requires`, `effects`, `returns`. A parameter with `ref` is an id and binds the row: \
`order_id` binds `order`. `requires` are conditions `that` must hold, each with an `error` (a text with expressions in \
braces). `effects` are {{"create": entity, "name": n, "values": {{field: expression}}}}, {{"update": row, "values": \
{{...}}}}, {{"delete": row}}, or with "each": entity, "update": n, "where": condition for several rows. `returns` is \
one of {{"row": row}}, {{"rows": entity, "name": n, "where": condition}}, {{"values": {{name: expression}}}}.

Expressions are a small part of Python: names of parameters and rows, row.field, ENTITY[id].field, texts in quotes, \
comparisons, and, or, not, arithmetic, `x if c else y`, {functions}, and {over} over rows such as \
any(b.room == room.id for b in bookings). They know `today` and `user`, the id of the one who talks.

An example of a tool: {{"name": "cancel_order", "description": "Cancel an order that was not sent yet.", "ask": \
"cancel {{order_id}}", "parameters": {{"order_id": {{"ref": "orders"}}}}, "requires": [{{"that": "order.status == \
'open'", "error": "Order {{order.id}} is {{order.status}}."}}], "effects": [{{"update": "order", "values": {{"status": \
"'cancelled'"}}}}], "returns": {{"row": "order"}}}}

Declare 3 to 6 entities and 10 to 20 tools: some that find rows, some that show one, most that change something and \
have preconditions as in real life. Let the category be {category!r}."""


class _Idea(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: _Words
    description: Annotated[str, StringConstraints(max_length=2000)] = ""


class _Ideas(BaseModel):
    model_config = ConfigDict(extra="ignore")

    ideas: Annotated[tuple[_Idea, ...], Field(min_length=1, max_length=1000)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that is no domain: what kind of mistake, and which."""

    name: str
    reason: str
    detail: str


@dataclass(slots=True)
class Invented:
    """Domains, with the reasons for which tools of theirs are left out, and what was refused."""

    domains: list[tuple[Domain, dict[str, str]]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


async def invent(asker: Asker, count: int, seed: int, taken: Collection[str]) -> Invented:
    """At most so many domains. Raises UserError if the model cannot be asked; its answers are kept."""
    invented = Invented()
    breadth = next(n for n in range(1, count + 1) if n**3 >= count)
    levels: list[tuple[str, ...]] = [()]
    for level in range(len(_LEVELS)):
        results = await _gathered([_ideas(asker, level, breadth, above, seed, invented) for above in levels])
        # One of each comes first: so many of the first as are wanted are of all categories.
        levels = [
            (*above, found[at])
            for at in range(breadth)
            for above, found in zip(levels, results, strict=True)
            if at < len(found)
        ]
    chosen = levels[:count]
    domains = await _gathered([_declared(asker, idea, seed, taken, invented) for idea in chosen])
    names = set(taken)
    for idea, domain in zip(chosen, domains, strict=True):
        if domain is None:
            continue
        if domain.name in names:
            invented.refused.append(Refusal(idea[-1], "the name is taken", domain.name))
            continue
        never = refusals(domain, seed)
        if len(never) == len(domain.tools):
            invented.refused.append(Refusal(idea[-1], "none of its tools can be executed", next(iter(never.values()))))
            continue
        names.add(domain.name)
        invented.domains.append((domain, never))
    invented.refused.sort(key=lambda refusal: (refusal.name, refusal.reason, refusal.detail))
    return invented


async def _gathered(questions: list[Any]) -> list[Any]:
    """All results. What ends one question ends all of them, by itself and not in a group."""
    with first_alone():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(question) for question in questions]
    return [task.result() for task in tasks]


async def _ideas(
    asker: Asker, level: int, count: int, above: tuple[str, ...], seed: int, invented: Invented
) -> list[str]:
    """Names of what is below something, each once."""
    kind, words = _LEVELS[level]
    question = words.format(count=count, above=" / ".join(above))
    try:
        ideas = await asker.ask(
            [Message("system", _SYSTEM), Message("user", question)], _Ideas, fitting(_Ideas), seed=seed
        )
    except NoAnswer as e:
        invented.refused.append(Refusal(" / ".join(above), f"no {kind} were named", str(e)))
        return []
    named: dict[str, str] = {}
    for idea in ideas.ideas:
        text = f"{idea.name} ({idea.description})" if idea.description else idea.name
        named.setdefault(idea.name.lower(), idea.name if level < len(_LEVELS) - 1 else text)
    return list(named.values())[:count]


async def _declared(
    asker: Asker, idea: tuple[str, ...], seed: int, taken: Collection[str], invented: Invented
) -> Domain | None:
    def read(raw: dict[str, Any]) -> Domain:
        domain = read_domain(raw | {"category": idea[0]}, "the declaration")
        if domain.name in taken:
            raise UserError(f"the declaration: the name {domain.name!r} is taken, choose another one")
        fill(domain, 0).close()
        return domain

    question = _DECLARE.format(
        about=" / ".join(idea),
        category=idea[0],
        functions=", ".join(FUNCTIONS),
        over=", ".join(OVER_ROWS),
        kinds=", ".join(KINDS),
    )
    try:
        return await asker.ask([Message("system", _SYSTEM), Message("user", question)], Domain, read, seed=seed)
    except NoAnswer as e:
        kind = "the declaration is wrong" if e.readable else "no declaration can be read"
        invented.refused.append(Refusal(idea[-1], kind, str(e)))
        return None


def refusals(domain: Domain, seed: int) -> dict[str, str]:
    """The tools that cannot be called in any of some states, and why not."""
    interpreter, tools = Interpreter(domain), domain.by_name
    left = dict.fromkeys(tools, "")
    for number in range(_STATES):
        rng = random.Random(f"works {seed} {domain.name} {number}")
        state = fill(domain, number)
        users = state.rows(domain.users) if domain.users else []
        given = {"today": today_of(number), "user": str(rng.choice(users)["id"]) if users else ""}
        goals = Goals(interpreter, tools, state, given, rng)
        tried = {name: goals.refusal(tools[name]) for name in left}
        left = {name: why for name, why in tried.items() if why is not None}
        state.close()
    return {name: f"{NEVER}: {why}" for name, why in left.items()}
