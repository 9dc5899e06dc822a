"""What can be done with things of any kind: to find and show them, and to change fields that one domain has."""

from __future__ import annotations

import random
from collections.abc import Iterator

from openk2.synth.entities import Thing, Things
from openk2.synth.patterns.drafts import Draft, guard, of, q
from openk2.synth.wording import is_plural, label
from openk2.worlds.apps.declaration import Effect, Parameter, Returns


def reads(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n, row = t.name, t.name
    yield Draft(f"get_{n}", f"Look up one {t.words} by its id.", f"show me {{{n}_id}}", {f"{n}_id": of(t)},
                returns=Returns(row=row))  # fmt: skip
    called = t.entity.label
    if called is not None:
        verb = rng.choice(["search", "find", "look_up"])
        yield Draft(
            f"{verb}_{t.plural}", f"Find {t.many} whose {called} contains a text.", f"find the {t.words} called {{query}}",
            {"query": Parameter(description=f"Part of the {called}.")},
            returns=Returns(rows=t.plural, name="x", where=f"lower(query) in lower(x.{called})"),
        )  # fmt: skip
    for ref, noun in t.refs:
        other = things.by_noun[noun]
        param = f"{noun}_id" if ref == noun else f"{ref}_id"
        shown = some_fields(t, rng)
        where = f"x.{ref} == {param}"
        parameters = {param: of(other)}
        description = f"The {t.many} of a {other.words}"
        if t.states and rng.random() < 0.5:
            parameters["status"] = Parameter(values=t.states, optional=True, description="Only those in this state.")
            where += " and (status is None or x.status == status)"
            description += ", of one status if wished"
        sort = rng.choice([f for f in ("date", "due", "start", "title", "name") if f in t.entity.fields] or ["id"])
        yield Draft(f"list_{t.plural}_of_{ref}", description + ".", f"list the {t.many} of {{{param}}}" + ("[ with the status {status}]" if len(parameters) > 1 else ""), parameters,
                    returns=Returns(rows=t.plural, name="x", where=where, sort=sort, descending=rng.random() < 0.3,
                                    fields=shown))  # fmt: skip
        total = next((f for f in ("total", "quantity", "value", "spent", "balance") if f in t.entity.fields), None)
        rows = f"x in {t.plural} if x.{ref} == {param}"
        if total is not None and rng.random() < 0.7:
            yield Draft(f"total_{total}_of_{ref}_{t.plural}", f"How much {total} the {t.many} of a {other.words} have together.",
                        f"add up the {total} of all {t.many} of {{{param}}} and count them", {param: of(other)},
                        returns=Returns(values={"total": f"sum(x.{total} for {rows})", "count": f"count(x for {rows})"}))  # fmt: skip
        elif rng.random() < 0.6:
            state = rng.choice(t.states) if t.states else ""
            only = f" and x.status == {q(state)}" if state else ""
            yield Draft(f"count_{(state + '_') if state else ''}{t.plural}_of_{ref}",
                        f"How many {state.replace('_', ' ')} {t.many} a {other.words} has.".replace("  ", " "),
                        f"count the {state.replace('_', ' ')} {t.many} of {{{param}}}".replace("  ", " "), {param: of(other)},
                        returns=Returns(values={"count": f"count(x for {rows}{only})"}))  # fmt: skip
    if t.states:
        yield Draft(f"list_{t.plural}_by_status", f"All {t.many} in one state.", f"list the {t.many} that are {{status}}",
                    {"status": Parameter(values=t.states)},
                    returns=Returns(rows=t.plural, name="x", where="x.status == status", fields=some_fields(t, rng)))  # fmt: skip
    for name, declared in t.entity.fields.items():
        if declared.values and name not in ("status",) and rng.random() < 0.6:
            yield Draft(f"filter_{t.plural}_by_{name}", f"All {t.many} with one {name.replace('_', ' ')}.",
                        f"tell me which {t.many} have the {label(name)} {{{name}}}",
                        {name: Parameter(values=declared.values)},
                        returns=Returns(rows=t.plural, name="x", where=f"x.{name} == {name}"))  # fmt: skip
        elif declared.type in ("integer", "number") and rng.random() < 0.45:
            up = rng.random() < 0.5
            how, sign = ("at_least", ">=") if up else ("at_most", "<=")
            bound = f"{how.replace('_', ' ')} {{bound}}"
            counted = label(name, declared.type).removeprefix("number of ")
            has = (
                f"{bound} {counted}" if declared.type == "integer" and is_plural(counted) else f"a {counted} of {bound}"
            )
            yield Draft(f"{t.plural}_with_{name}_{how}", f"All {t.many} whose {name.replace('_', ' ')} is {how.replace('_', ' ')} a number.",
                        f"tell me which {t.many} have {has}",
                        {"bound": Parameter(type=declared.type)},
                        returns=Returns(rows=t.plural, name="x", where=f"x.{name} {sign} bound", sort=name, descending=up,
                                        limit=rng.choice([None, 5, 10])))  # fmt: skip
        elif declared.type == "date" and rng.random() < 0.5:
            yield Draft(f"{t.plural}_by_{name}_range", f"The {t.many} whose {name.replace('_', ' ')} is between two days.",
                        f"list the {t.many} with a {label(name, declared.type)} between {{first}} and {{last}}",
                        {"first": Parameter(type="date"), "last": Parameter(type="date")},
                        [guard("first <= last", "The first day {first} is behind the last one {last}.")],
                        returns=Returns(rows=t.plural, name="x", where=f"first <= x.{name} and x.{name} <= last", sort=name))  # fmt: skip


def some_fields(t: Thing, rng: random.Random) -> tuple[str, ...] | None:
    if rng.random() < 0.5:
        return None
    names = list(t.entity.fields)
    chosen = sorted(rng.sample(names, min(len(names), rng.randrange(2, 5))), key=names.index)
    return ("id", *chosen)


def edits(t: Thing, rng: random.Random) -> Iterator[Draft]:
    """Other values in fields that only this domain has."""
    n = t.name
    for own in t.noun.fields:
        declared = t.entity.fields[own.name]
        words = label(own.name, declared.type)
        if declared.type == "boolean":
            yield Draft(f"toggle_{n}_{own.name}", f"Switch {words} of a {t.words} on or off.", f'toggle "{words}" for {{{n}_id}}',
                        {f"{n}_id": of(t)}, [],
                        [Effect(update=n, values={own.name: f"not {n}.{own.name}"})], Returns(row=n), t, n)  # fmt: skip
            continue
        new = f"new_{own.name}"
        parameter = Parameter.model_validate(
            {"type": declared.type, "values": declared.values, "minimum": declared.minimum, "maximum": declared.maximum}
        )
        requires = []
        if rng.random() < 0.5:
            requires.append(
                guard(f"{new} != {n}.{own.name}", f"The {words} of {{{n}.id}} is {{{n}.{own.name}}} already.")
            )
        if declared.type in ("integer", "number") and rng.random() < 0.4:
            most = round((own.high - own.low) / 2 + 1, 1)
            requires.append(guard(f"most({new}, {n}.{own.name}) - least({new}, {n}.{own.name}) <= {most}",
                                  f"The {words} may change by at most {most:g} at once."))  # fmt: skip
        verb = rng.choice(["set", "change", "update", "correct"])
        yield Draft(f"{verb}_{n}_{own.name}", f"Give a {t.words} another {words}.", f"change the {words} of {{{n}_id}}[ to {{{new}}}]",
                    {f"{n}_id": of(t), new: parameter}, requires,
                    [Effect(update=n, values={own.name: new})], Returns(row=n), t, n)  # fmt: skip
