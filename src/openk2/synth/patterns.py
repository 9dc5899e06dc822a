"""What can be done with things of a kind: patterns of tools, which a domain fills with its own words, guards and effects.

A pattern is what the tool is for (`book`, `restock`, `escalate`). Which guards stand before it and what else it brings
about is drawn for each domain anew (`twists`), so that two domains with the same pattern need not have the same
semantics.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from openk2.synth.entities import Thing, Things
from openk2.synth.wording import articles, is_plural, label
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


def _in(row: str, states: list[str]) -> str:
    return f"{row}.status == {q(states[0])}" if len(states) == 1 else f"{row}.status in {one_of(states)}"


def patterns(things: Things, rng: random.Random) -> Iterator[Draft]:
    """All that may be done in a domain."""
    for thing in things.by_noun.values():
        yield from _reads(things, thing, rng)
        yield from _edits(thing, rng)
        for make in _WRITES.get(thing.kind, ()):
            yield from make(things, thing, rng)


def _reads(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
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
        shown = _some_fields(t, rng)
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
                    returns=Returns(rows=t.plural, name="x", where="x.status == status", fields=_some_fields(t, rng)))  # fmt: skip
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


def _some_fields(t: Thing, rng: random.Random) -> tuple[str, ...] | None:
    if rng.random() < 0.5:
        return None
    names = list(t.entity.fields)
    chosen = sorted(rng.sample(names, min(len(names), rng.randrange(2, 5))), key=names.index)
    return ("id", *chosen)


def _edits(t: Thing, rng: random.Random) -> Iterator[Draft]:
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


def move(t: Thing, verb: str, before: list[int], after: int, phrase: str, rng: random.Random, **values: str) -> Draft:
    """A step in the life of a thing. `before` and `after` count its states; `values` are other fields that change; in
    `phrase`, {} is where the thing stands if it is not at the end."""
    n = t.name
    phrase = phrase if "{}" in phrase else f"{phrase} {{}}"
    states = [t.states[i] for i in before]
    return Draft(
        f"{verb}_{n}", f"{phrase.capitalize().format(f'a {t.words}')}.", phrase.format(f"{{{n}_id}}"), {f"{n}_id": of(t)},
        [guard(_in(n, states), f"The {t.words} {{{n}.id}} is {{{n}.status}}.")],
        [Effect(update=n, values={"status": q(t.states[after]), **values})],
        Returns(row=n), t, n,
    )  # fmt: skip


def _own_values(t: Thing) -> tuple[dict[str, Parameter], dict[str, str], str]:
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


def _person_of(things: Things, t: Thing, row: str) -> tuple[Thing, str] | None:
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


def _registered(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    own, values, ask = _own_values(t)
    verb = rng.choice(["register", "sign_up", "add"])
    requires = [guard(f"not any(lower(x.email) == lower(email) for x in {t.plural})", "{email} is registered already.")]
    yield Draft(
        f"{verb}_{n}", f"Register a new {t.words}.", f"register[ {{name}}| a new {t.words}][ with the e-mail address {{email}}]{ask}",
        {"name": Parameter(), "email": Parameter(), **own}, requires,
        [Effect(create=t.plural, name="new", values={"name": "name", "email": "email", "credit": "0", "tier": q(t.levels[0]),
                                                      "joined": "today", "status": q(t.states[0]), **values})],
        Returns(row="new"),
    )  # fmt: skip
    yield Draft(f"change_{n}_email", f"Give a {t.words} another e-mail address.", f"change the e-mail address of {{{n}_id}}[ to {{email}}]",
                {f"{n}_id": of(t), "email": Parameter()},
                [guard(f"not any(lower(x.email) == lower(email) and x.id != {n}.id for x in {t.plural})", "{email} belongs to someone else."),
                 *([guard("'@' in email", "{email} is no e-mail address.")] if rng.random() < 0.5 else [])],
                [Effect(update=n, values={"email": "email"})], Returns(row=n), t, n)  # fmt: skip
    yield move(t, rng.choice(["suspend", "block", "deactivate"]), [0], 1, "suspend", rng)
    yield move(t, rng.choice(["reinstate", "reactivate", "unblock"]), [1], 0, "reinstate", rng)
    most = rng.choice([200, 500, 1000])
    yield Draft(f"top_up_{n}_credit", f"Add to the credit of a {t.words}, at most {most} at once.",
                f"top up the credit of {{{n}_id}}[ by {{amount}}]",
                {f"{n}_id": of(t), "amount": Parameter(type="number", minimum=1, maximum=most)},
                [guard(_in(n, [t.states[0]]), f"{{{n}.name}} is {{{n}.status}}.")],
                [Effect(update=n, values={"credit": f"{n}.credit + amount"})], Returns(row=n), t, n)  # fmt: skip
    fee = rng.choice([10, 20, 25, 40])
    low, middle, high = t.levels
    paid = rng.random() < 0.6
    yield Draft(f"upgrade_{n}_tier", f"Move a {t.words} up one tier" + (f" for {fee} of their credit." if paid else "."),
                f"upgrade {{{n}_id}} to the next tier", {f"{n}_id": of(t)},
                [guard(f"{n}.tier != {q(high)}", f"{{{n}.name}} has the highest tier."),
                 *([guard(f"{n}.credit >= {fee}", f"It costs {fee}, and the credit is {{{n}.credit}}.")] if paid else [])],
                [Effect(update=n, values={"tier": f"{q(middle)} if {n}.tier == {q(low)} else {q(high)}",
                                          **({"credit": f"{n}.credit - {fee}"} if paid else {})})],
                Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"send_credit_between_{t.plural}", f"Move credit from one {t.words} to another.",
                "send[ {amount} of| some] credit from {sender_id} to {receiver_id}",
                {"sender_id": of(t), "receiver_id": of(t), "amount": Parameter(type="number", minimum=1)},
                [guard("sender.id != receiver.id", "Sender and receiver are the same."),
                 guard("sender.credit >= amount", "{sender.name} has {sender.credit}.")],
                [Effect(update="sender", values={"credit": "sender.credit - amount"}),
                 Effect(update="receiver", values={"credit": "receiver.credit + amount"})],
                Returns(values={"sender_credit": "sender.credit", "receiver_credit": "receiver.credit"}), t, "sender")  # fmt: skip


def _staff(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    yield move(t, rng.choice(["sign_off", "mark_away"]), [0], 1, "sign {} off", rng)
    yield move(t, rng.choice(["sign_on", "mark_back"]), [1], 0, "sign {} on", rng)
    most = rng.choice([40, 60, 160])
    yield Draft(f"log_{n}_hours", f"Book hours that a {t.words} has worked, at most {most} in all.", f"book[ {{hours}}| some] hours for {{{n}_id}}",
                {f"{n}_id": of(t), "hours": Parameter(type="integer", minimum=1, maximum=12)},
                [guard(f"{n}.hours + hours <= {most}", f"{{{n}.name}} would have more than {most} hours.")],
                [Effect(update=n, values={"hours": f"{n}.hours + hours"})], Returns(row=n), t, n)  # fmt: skip
    for other, ref in things.referring(t, "booking"):
        yield Draft(f"hand_over_{n}_{other.plural}", f"Give all coming {other.many} of a {t.words} to another one.",
                    f"hand all coming {other.many} of {{from_id}} over to {{to_id}}",
                    {"from_id": of(t), "to_id": of(t)},
                    [guard("from_id != to_id", "Both are the same."), guard(_in("to", [t.states[0]]), "{to.name} is {to.status}.")],
                    [Effect(each=other.plural, update="x", where=f"x.{ref} == from_id and x.date >= today", values={ref: "to_id"})],
                    Returns(values={other.plural: f"count(x for x in {other.plural} if x.{ref} == to_id)"}))  # fmt: skip
    for other in things.of_kind("case"):
        if other.staff_field:
            yield Draft(f"release_{n}_{other.plural}", f"Take all open {other.many} from a {t.words}.",
                        f"take all open {other.many} from {{{n}_id}}", {f"{n}_id": of(t)}, [],
                        [Effect(each=other.plural, update="x", where=f"x.assignee == {n}.id and x.status in {one_of(other.states[:2])}",
                                values={"assignee": "None"})],
                        Returns(values={other.plural: f"count(x for x in {other.plural} if x.assignee == {n}.id)"}), t, n)  # fmt: skip


def _place(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    yield move(t, rng.choice(["close", "shut"]), [0], 1, "close", rng)
    yield move(t, rng.choice(["open", "reopen"]), [1], 0, "open", rng)
    requires = []
    for other, ref in things.referring(t, "event"):
        requires.append(guard(f"not any(x.{ref} == {n}.id and x.seats > capacity for x in {other.plural})",
                              f"A {other.words} there has more seats than {{capacity}}."))  # fmt: skip
    yield Draft(f"resize_{n}", f"Give a {t.words} another capacity.", f"change the capacity of {{{n}_id}}[ to {{capacity}}]",
                {f"{n}_id": of(t), "capacity": Parameter(type="integer", minimum=1, maximum=500)}, requires,
                [Effect(update=n, values={"capacity": "capacity"})], Returns(row=n), t, n)  # fmt: skip
    for other, ref in things.referring(t, "unit"):
        yield Draft(f"{n}_occupancy", f"How many {other.many} are at a {t.words}, and how many more fit.",
                    f"tell me how many places of {{{n}_id}} are used and how many are free", {f"{n}_id": of(t)},
                    returns=Returns(values={"used_places": f"count(x for x in {other.plural} if x.{ref} == {n}.id)",
                                            "free_places": f"{n}.capacity - count(x for x in {other.plural} if x.{ref} == {n}.id)"}))  # fmt: skip
        yield Draft(f"move_{other.name}_to_{n}", f"Bring a {other.words} to another {t.words} that has room.",
                    f"move {{{other.name}_id}} to {{{n}_id}}", {f"{other.name}_id": of(other), f"{n}_id": of(t)},
                    [guard(_in(n, [t.states[0]]), f"{{{n}.name}} is {{{n}.status}}."),
                     guard(f"count(x for x in {other.plural} if x.{ref} == {n}.id) < {n}.capacity", f"{{{n}.name}} is full.")],
                    [Effect(update=other.name, values={ref: f"{n}.id"})], Returns(row=other.name), other, other.name)  # fmt: skip


def _product(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    most = rng.choice([50, 100, 200])
    yield Draft(f"restock_{n}", f"Add to the stock of a {t.words}, up to {most} in all.", f"restock {{{n}_id}}[ with {{quantity}} pieces]",
                {f"{n}_id": of(t), "quantity": Parameter(type="integer", minimum=1)},
                [guard(f"{n}.stock + quantity <= {most}", f"There is room for {most}, and {{{n}.stock}} are there.")],
                [Effect(update=n, values={"stock": f"{n}.stock + quantity"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"write_off_{n}", f"Take damaged pieces of a {t.words} out of the stock.", f"write off[ {{quantity}}| some] pieces of {{{n}_id}}",
                {f"{n}_id": of(t), "quantity": Parameter(type="integer", minimum=1)},
                [guard(f"quantity <= {n}.stock", f"Only {{{n}.stock}} are there.")],
                [Effect(update=n, values={"stock": f"{n}.stock - quantity"})], Returns(row=n), t, n)  # fmt: skip
    share = rng.choice([20, 30, 50])
    yield Draft(f"reprice_{n}", f"Set the price of a {t.words}, by at most {share} percent up or down.", f"change the price of {{{n}_id}}[ to {{price}}]",
                {f"{n}_id": of(t), "price": Parameter(type="number", minimum=0.5)},
                [guard(f"price <= {n}.price * {1 + share / 100} and price >= {n}.price * {round(1 - share / 100, 2)}",
                       f"The price is {{{n}.price}}, and may change by {share} percent.")],
                [Effect(update=n, values={"price": "price"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"discount_{n}", f"Lower the price of a {t.words} by a percentage.", f"lower the price of {{{n}_id}}[ by {{percent}} percent]",
                {f"{n}_id": of(t), "percent": Parameter(type="integer", minimum=1, maximum=share)}, [],
                [Effect(update=n, values={"price": f"round({n}.price * (100 - percent) / 100, 2)"})], Returns(row=n), t, n)  # fmt: skip
    yield move(t, rng.choice(["withdraw", "delist"]), [0], 1, "withdraw", rng)
    yield move(t, rng.choice(["relist", "bring_back"]), [1], 0, "bring {} back", rng)
    yield Draft(f"{t.plural}_to_reorder", f"All {t.many} whose stock is not above the point of reordering.", f"tell me which {t.many} must be reordered",
                returns=Returns(rows=t.plural, name="x", where="x.stock <= x.reorder_at", sort="stock"))  # fmt: skip


def _plan(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    yield Draft(f"change_{n}_price", f"Set the price of a {t.words} for new customers.", f"change the price of {{{n}_id}}[ to {{price}}]",
                {f"{n}_id": of(t), "price": Parameter(type="number", minimum=1)},
                [guard(_in(n, [t.states[0]]), f"{{{n}.name}} is {{{n}.status}}.")],
                [Effect(update=n, values={"price": "price"})], Returns(row=n), t, n)  # fmt: skip
    requires = [guard(_in(n, [t.states[0]]), f"{{{n}.name}} is {{{n}.status}}.")]
    for other, ref in things.referring(t, "subscription"):
        requires.append(guard(f"not any(x.{ref} == {n}.id and x.status == {q(other.states[0])} for x in {other.plural})",
                              f"Somebody has {{{n}.name}} still."))  # fmt: skip
    yield Draft(f"retire_{n}", f"Offer a {t.words} no more, once nobody has it.", f"retire {{{n}_id}}", {f"{n}_id": of(t)}, requires,
                [Effect(update=n, values={"status": q(t.states[1])})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"cheapest_{t.plural}", f"The {t.many} on offer, the cheapest first.", f"tell me the three cheapest {t.many} on offer",
                returns=Returns(rows=t.plural, name="x", where=f"x.status == {q(t.states[0])}", sort="price", limit=3))  # fmt: skip


def _unit(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    owner = things.by_noun[noun]
    own, values, ask = _own_values(t)
    yield Draft(f"{rng.choice(['add', 'record', 'register'])}_{n}", f"Record a new {t.words} of a {owner.words}.",
                f"record a {t.words}[ called {{name}}] for {{{noun}_id}}{ask}",
                {f"{noun}_id": of(owner), "name": Parameter(), **own},
                [guard(f"not any(x.name == name and x.{ref} == {noun}_id for x in {t.plural})", "There is one of that name."),
                 guard(_in(noun, [owner.states[0]]), f"The {owner.words} is {{{noun}.status}}.")] if owner.states else [],
                [Effect(create=t.plural, name="new", values={"name": "name", ref: f"{noun}_id", "acquired": "today",
                                                              "status": q(t.states[0]), **values})],
                Returns(row="new"))  # fmt: skip
    yield move(t, rng.choice(["start_using", "check_out"]), [0], 1, "take {} into use", rng)
    yield move(t, rng.choice(["release", "check_in"]), [1], 0, "give {} back", rng)
    yield move(t, rng.choice(["send_to_repair", "pull_for_service"]), [0, 1], 2, "send {} to repair", rng)
    yield move(t, rng.choice(["return_from_repair", "clear"]), [2], 0, "take {} back from repair", rng)
    retired = move(t, rng.choice(["retire", "write_off"]), [0, 2], 3, "retire", rng)
    for other, link in things.referring(t, "booking"):
        retired.requires.append(guard(
            f"not any(x.{link} == {n}.id and x.date >= today and x.status in {one_of(other.states[:2])} for x in {other.plural})",
            f"It has a {other.words} to come."))  # fmt: skip
    yield retired
    yield Draft(f"hand_{n}_over", f"Give a {t.words} to another {owner.words}.", f"hand {{{n}_id}} over to {{{noun}_id}}",
                {f"{n}_id": of(t), f"{noun}_id": of(owner)},
                [guard(f"{n}.{ref} != {noun}_id", "It is there already."),
                 guard(f"{n}.status != {q(t.states[3])}", f"{{{n}.name}} is {{{n}.status}}.")],
                [Effect(update=n, values={ref: f"{noun}_id"})], Returns(row=n), t, n)  # fmt: skip


def _booking(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (who_ref, who_noun), (what_ref, what_noun) = t.refs
    who, what = things.by_noun[who_noun], things.by_noun[what_noun]
    if who_ref == what_ref or who_noun == what_noun:
        return
    requested, confirmed, _completed, _cancelled = t.states
    live = one_of([requested, confirmed])
    own, values, ask = _own_values(t)
    clash = (f"not any(x.{what_ref} == {{what}} and x.date == {{date}} and x.status in {live} and x.start_time < {{end}} "
             f"and {{start}} < x.end_time{{but}} for x in {t.plural})")  # fmt: skip
    requires = [
        guard("start_time < end_time", "It would end before it begins."),
        guard("date >= today", "{date} is over."),
        guard(clash.format(what=f"{what_noun}_id", date="date", end="end_time", start="start_time", but=""),
              f"The {what.words} has another {t.words} at that time."),
    ]  # fmt: skip
    if what.states and rng.random() < 0.6:
        requires.append(
            guard(f"{what_noun}.status == {q(what.states[0])}", f"The {what.words} is {{{what_noun}.status}}.")
        )
    if who.states and rng.random() < 0.4:
        requires.append(guard(f"{who_noun}.status == {q(who.states[0])}", f"The {who.words} is {{{who_noun}.status}}."))
    if rng.random() < 0.4:
        most = rng.choice([2, 3, 4])
        requires.append(guard(f"count(x for x in {t.plural} if x.{who_ref} == {who_noun}_id and x.status in {live}) < {most}",
                              f"A {who.words} may have {most} open {t.many}."))  # fmt: skip
    if rng.random() < 0.3:
        ahead = rng.choice([14, 30, 60, 90])
        requires.append(guard(f"days(today, date) <= {ahead}", f"It may be at most {ahead} days ahead."))
    yield Draft(f"{rng.choice(['book', 'schedule', 'arrange'])}_{n}", f"Book a {t.words} for a {who.words} with a {what.words}.",
                f"book a {t.words} for {{{who_noun}_id}} with {{{what_noun}_id}}[ on {{date}}][ from {{start_time}}][ until {{end_time}}]{ask}",
                {f"{who_noun}_id": of(who), f"{what_noun}_id": of(what), "date": Parameter(type="date"),
                 "start_time": Parameter(type="time"), "end_time": Parameter(type="time"), **own}, requires,
                [Effect(create=t.plural, name="new", values={who_ref: f"{who_noun}_id", what_ref: f"{what_noun}_id", "date": "date",
                        "start_time": "start_time", "end_time": "end_time", "status": q(requested), **values})],
                Returns(row="new"))  # fmt: skip
    notice = rng.choice([0, 1, 2])
    shown = clash.format(
        what=f"{n}.{what_ref}",
        date="new_date",
        end=f"{n}.end_time",
        start=f"{n}.start_time",
        but=f" and x.id != {n}.id",
    )
    yield Draft(f"{rng.choice(['reschedule', 'move', 'postpone'])}_{n}", f"Move a {t.words} to another day, at the same time.",
                f"move {{{n}_id}} to[ {{new_date}}| another day]", {f"{n}_id": of(t), "new_date": Parameter(type="date")},
                [guard(_in(n, [requested, confirmed]), f"It is {{{n}.status}}."), guard("new_date > today", "{new_date} is not in the future."),
                 guard(shown, f"The {what.words} is taken on {{new_date}}.")],
                [Effect(update=n, values={"date": "new_date"})], Returns(row=n), t, n)  # fmt: skip
    yield move(t, rng.choice(["confirm", "accept"]), [0], 1, "confirm", rng)
    yield move(t, rng.choice(["complete", "finish"]), [1], 2, "mark {} as completed", rng)
    cancel = move(t, rng.choice(["cancel", "call_off"]), [0, 1], 3, "cancel", rng)
    if notice:
        cancel.requires.append(
            guard(f"days(today, {n}.date) >= {notice}", f"It may be cancelled until {notice} days before.")
        )
    yield cancel
    yield Draft(f"{rng.choice(['extend', 'prolong'])}_{n}", f"Let a {t.words} end later.", f"extend {{{n}_id}}[ until {{until}}]",
                {f"{n}_id": of(t), "until": Parameter(type="time")},
                [guard(_in(n, [requested, confirmed]), f"It is {{{n}.status}}."), guard(f"until > {n}.end_time", f"It lasts until {{{n}.end_time}}."),
                 guard(clash.format(what=f"{n}.{what_ref}", date=f"{n}.date", end="until", start=f"{n}.start_time", but=f" and x.id != {n}.id"),
                       f"The {what.words} is taken then.")],
                [Effect(update=n, values={"end_time": "until"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"note_on_{n}", f"Write a note on a {t.words}.", f'add[ the note "{{note}}"| a note] to {{{n}_id}}', {f"{n}_id": of(t), "note": Parameter()}, [],
                [Effect(update=n, values={"note": "note"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"{what_noun}_free_on", f"Whether a {what.words} is free at a time.", f"check whether {{{what_noun}_id}} is free on {{date}} from {{start_time}} to {{end_time}}",
                {f"{what_noun}_id": of(what), "date": Parameter(type="date"), "start_time": Parameter(type="time"), "end_time": Parameter(type="time")},
                [guard("start_time < end_time", "It would end before it begins.")],
                returns=Returns(values={"free": clash.format(what=f"{what_noun}_id", date="date", end="end_time", start="start_time", but="")}))  # fmt: skip
    yield Draft(f"switch_{n}_{what_ref}", f"Give a {t.words} to another {what.words} at the same time.", f"switch {{{n}_id}} to {{{what_noun}_id}}",
                {f"{n}_id": of(t), f"{what_noun}_id": of(what)},
                [guard(_in(n, [requested, confirmed]), f"It is {{{n}.status}}."),
                 guard(clash.format(what=f"{what_noun}_id", date=f"{n}.date", end=f"{n}.end_time", start=f"{n}.start_time", but=""),
                       f"The {what.words} is taken then.")],
                [Effect(update=n, values={what_ref: f"{what_noun}_id"})], Returns(row=n), t, n)  # fmt: skip


def _order(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (who_ref, who_noun), (what_ref, what_noun) = t.refs
    who, what = things.by_noun[who_noun], things.by_noun[what_noun]
    if who.kind not in ("person", "staff") or what.kind != "product":
        return
    placed, paid, shipped, _cancelled = t.states
    own, values, ask = _own_values(t)
    on_credit = who.kind == "person" and rng.random() < 0.5
    total = f"round({what_noun}.price * quantity, 2)"
    requires = [
        guard(f"{what_noun}.stock >= quantity", f"Only {{{what_noun}.stock}} of {{{what_noun}.name}} are there.")
    ]
    if rng.random() < 0.5:
        requires.append(guard(_in(what_noun, [what.states[0]]), f"{{{what_noun}.name}} is {{{what_noun}.status}}."))
    if rng.random() < 0.4 and who.states:
        requires.append(guard(_in(who_noun, [who.states[0]]), f"{{{who_noun}.name}} is {{{who_noun}.status}}."))
    effects = [
        Effect(create=t.plural, name="new", values={who_ref: f"{who_noun}_id", what_ref: f"{what_noun}_id", "quantity": "quantity",
               "total": total, "date": "today", "status": q(paid if on_credit else placed), **values}),
        Effect(update=what_noun, values={"stock": f"{what_noun}.stock - quantity"}),
    ]  # fmt: skip
    if on_credit:
        requires.append(guard(f"{who_noun}.credit >= {total}", f"The credit of {{{who_noun}.credit}} is not enough."))
        effects.append(Effect(update=who_noun, values={"credit": f"{who_noun}.credit - {total}"}))
    yield Draft(f"{rng.choice(['place', 'create', 'submit'])}_{n}", f"Order a {what.words} for a {who.words}"
                + (" and pay with their credit." if on_credit else "."),
                f"order[ {{quantity}}| some] pieces of {{{what_noun}_id}} for {{{who_noun}_id}}{ask}",
                {f"{who_noun}_id": of(who), f"{what_noun}_id": of(what), "quantity": Parameter(type="integer", minimum=1, maximum=50), **own},
                requires, effects, Returns(row="new"))  # fmt: skip
    back = [
        Effect(
            each=what.plural, update="x", where=f"x.id == {n}.{what_ref}", values={"stock": f"x.stock + {n}.quantity"}
        )
    ]
    refund = [
        Effect(each=who.plural, update="y", where=f"y.id == {n}.{who_ref}", values={"credit": f"y.credit + {n}.total"})
    ]
    cancel = move(t, rng.choice(["cancel", "revoke", "void"]), [0, 1], 3, "cancel", rng)
    cancel.effects += back + (refund if who.kind == "person" else [])
    yield cancel
    if who.kind == "person":
        yield Draft(f"{rng.choice(['pay', 'settle', 'charge'])}_{n}", f"Pay a {t.words} with the credit of the {who.words}.", f"pay {{{n}_id}}",
                    {f"{n}_id": of(t)},
                    [guard(_in(n, [placed]), f"It is {{{n}.status}}."), guard(f"{who.plural}[{n}.{who_ref}].credit >= {n}.total", "The credit is not enough.")],
                    [Effect(update=n, values={"status": q(paid)}),
                     Effect(each=who.plural, update="y", where=f"y.id == {n}.{who_ref}", values={"credit": f"y.credit - {n}.total"})],
                    Returns(row=n), t, n)  # fmt: skip
    yield move(t, rng.choice(["ship", "dispatch", "hand_out"]), [1], 2, "ship", rng)
    yield Draft(f"change_{n}_quantity", f"Order more or less of the same, as long as the {t.words} is not paid.", f"change the quantity of {{{n}_id}}[ to {{quantity}}]",
                {f"{n}_id": of(t), "quantity": Parameter(type="integer", minimum=1, maximum=50)},
                [guard(_in(n, [placed]), f"It is {{{n}.status}}."),
                 guard(f"{what.plural}[{n}.{what_ref}].stock + {n}.quantity >= quantity", "Not so many are there.")],
                [Effect(each=what.plural, update="x", where=f"x.id == {n}.{what_ref}", values={"stock": f"x.stock + {n}.quantity - quantity"}),
                 Effect(update=n, values={"total": f"round({what.plural}[{n}.{what_ref}].price * quantity, 2)", "quantity": "quantity"})],
                Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"return_part_of_{n}", f"Take back a part of a shipped {t.words} within a number of days.", f"return[ {{quantity}}| some] pieces of {{{n}_id}}",
                {f"{n}_id": of(t), "quantity": Parameter(type="integer", minimum=1)},
                [guard(_in(n, [shipped]), f"It is {{{n}.status}}."), guard(f"quantity < {n}.quantity", f"It has {{{n}.quantity}}."),
                 guard(f"days({n}.date, today) <= {rng.choice([14, 30, 60])}", "It is too old.")],
                [*[Effect(each=what.plural, update="x", where=f"x.id == {n}.{what_ref}", values={"stock": "x.stock + quantity"})],
                 Effect(update=n, values={"total": f"round({n}.total * ({n}.quantity - quantity) / {n}.quantity, 2)", "quantity": f"{n}.quantity - quantity"})],
                Returns(row=n), t, n)  # fmt: skip


def _case(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    about = things.by_noun[noun]
    new, busy, _solved, closed = t.states
    own, values, ask = _own_values(t)
    span = rng.choice([3, 7, 14, 30])
    requires = []
    if rng.random() < 0.5:
        requires.append(guard(f"not any(x.{ref} == {noun}_id and lower(x.title) == lower(title) and x.status in {one_of([new, busy])} for x in {t.plural})",
                              "There is an open one of that title."))  # fmt: skip
    if rng.random() < 0.3:
        most = rng.choice([2, 3, 5])
        requires.append(guard(f"count(x for x in {t.plural} if x.{ref} == {noun}_id and x.status in {one_of([new, busy])}) < {most}",
                              f"{most} are open already."))  # fmt: skip
    yield Draft(f"{rng.choice(['open', 'report', 'file'])}_{n}", f"Open a {t.words} about a {about.words}; it is due in {span} days.",
                f'open a {t.words} about {{{noun}_id}}[ titled "{{title}}"][ with the priority {{priority}}]{ask}',
                {f"{noun}_id": of(about), "title": Parameter(), "priority": Parameter(values=t.levels), **own}, requires,
                [Effect(create=t.plural, name="new", values={ref: f"{noun}_id", "title": "title", "priority": "priority", "opened": "today",
                        "due": f"plus_days(today, {span})", "status": q(new), **values})], Returns(row="new"))  # fmt: skip
    steps = [q(level) for level in t.levels]
    up = f"{steps[1]} if {n}.priority == {steps[0]} else {steps[2]} if {n}.priority == {steps[1]} else {steps[3]}"
    yield Draft(f"escalate_{n}", f"Raise the priority of an open {t.words} by one step.", f"escalate {{{n}_id}}", {f"{n}_id": of(t)},
                [guard(_in(n, [new, busy]), f"It is {{{n}.status}}."), guard(f"{n}.priority != {steps[3]}", "It has the highest priority.")],
                [Effect(update=n, values={"priority": up, **({"due": "plus_days(today, 1)"} if rng.random() < 0.4 else {})})],
                Returns(row=n), t, n)  # fmt: skip
    if t.staff_field:
        staff = next(thing for thing in things.of_kind("staff"))
        s = staff.name
        most = rng.choice([2, 3, 4])
        yield Draft(f"assign_{n}", f"Give an open {t.words} to a {staff.words} who is there.", f"assign {{{n}_id}} to {{{s}_id}}",
                    {f"{n}_id": of(t), f"{s}_id": of(staff)},
                    [guard(_in(n, [new, busy]), f"It is {{{n}.status}}."), guard(_in(s, [staff.states[0]]), f"{{{s}.name}} is {{{s}.status}}."),
                     *([guard(f"count(x for x in {t.plural} if x.assignee == {s}.id and x.status == {q(busy)}) < {most}", f"{{{s}.name}} has {most} already.")] if rng.random() < 0.5 else [])],
                    [Effect(update=n, values={"assignee": f"{s}.id", "status": q(busy)})], Returns(row=n), t, n)  # fmt: skip
        resolved = move(t, rng.choice(["resolve", "solve"]), [1], 2, "resolve", rng)
        resolved.requires.append(guard(f"{n}.assignee is not None", "Nobody works on it."))
        yield resolved
    else:
        yield move(t, rng.choice(["start", "take_up"]), [0], 1, "take up", rng)
        yield move(t, rng.choice(["resolve", "solve"]), [1], 2, "resolve", rng)
    yield move(t, rng.choice(["close", "file_away"]), [2], 3, "close", rng)
    yield move(t, "reopen", [2, 3], 0, "reopen", rng, due=f"plus_days(today, {span})")
    yield Draft(f"postpone_{n}", f"Let a {t.words} be due some days later.", f"postpone {{{n}_id}}[ by {{extra_days}} days]",
                {f"{n}_id": of(t), "extra_days": Parameter(type="integer", minimum=1, maximum=rng.choice([7, 14, 30]))},
                [guard(_in(n, [new, busy]), f"It is {{{n}.status}}."), guard(f"{n}.priority != {steps[3]}", "It cannot wait.")],
                [Effect(update=n, values={"due": f"plus_days({n}.due, extra_days)"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"overdue_{t.plural}", f"The {t.many} that are open and past their day.", f"tell me which {t.many} are overdue",
                returns=Returns(rows=t.plural, name="x", where=f"x.due < today and x.status in {one_of([new, busy])}", sort="due"))  # fmt: skip
    yield Draft(f"merge_{t.plural}", f"Close a {t.words} as a double of another about the same {about.words}.", "merge {double_id} into {kept_id}",
                {"double_id": of(t), "kept_id": of(t)},
                [guard("double.id != kept.id", "They are the same."), guard(f"double.{ref} == kept.{ref}", "They are about different things."),
                 guard(f"double.status in {one_of([new, busy])}", "{double.id} is {double.status}.")],
                [Effect(update="double", values={"status": q(closed)})], Returns(row="kept"), t, "kept")  # fmt: skip


def _document(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    author = things.by_noun[noun]
    draft, review, _approved, archived = t.states
    own, values, ask = _own_values(t)
    yield Draft(f"{rng.choice(['draft', 'create', 'begin'])}_{n}", f"Begin a {t.words} by a {author.words}.", f'begin a {t.words} by {{{noun}_id}}[ called "{{title}}"]{ask}',
                {f"{noun}_id": of(author), "title": Parameter(), **own},
                [guard(f"not any(x.title == title for x in {t.plural})", "There is one of that title.")] if rng.random() < 0.6 else [],
                [Effect(create=t.plural, name="new", values={ref: f"{noun}_id", "title": "title", "version": "1", "updated": "today", "status": q(draft), **values})],
                Returns(row="new"))  # fmt: skip
    yield move(t, rng.choice(["submit", "hand_in"]), [0], 1, "submit", rng, updated="today")
    yield move(t, rng.choice(["approve", "sign"]), [1], 2, "approve", rng, updated="today")
    yield move(t, rng.choice(["reject", "send_back"]), [1], 0, "send {} back", rng, updated="today")
    yield move(t, "archive", [0, 2], 3, "archive", rng)
    yield move(t, "revise", [2], 0, "revise", rng, version=f"{n}.version + 1", updated="today")
    yield Draft(f"rename_{n}", f"Give a {t.words} another title.", f'rename {{{n}_id}}[ to "{{title}}"]', {f"{n}_id": of(t), "title": Parameter()},
                [guard(f"{n}.status != {q(archived)}", f"It is {archived.replace('_', ' ')}."),
                 guard(f"not any(x.title == title for x in {t.plural})", "There is one of that title.")],
                [Effect(update=n, values={"title": "title", "updated": "today"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"pass_{n}_on", f"Give a {t.words} that is not finished to another {author.words}.", f"pass {{{n}_id}} on to {{{noun}_id}}",
                {f"{n}_id": of(t), f"{noun}_id": of(author)},
                [guard(_in(n, [draft, review]), f"It is {{{n}.status}}."), guard(f"{n}.{ref} != {noun}_id", "It is theirs already.")],
                [Effect(update=n, values={ref: f"{noun}_id"})], Returns(row=n), t, n)  # fmt: skip


def _account(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    owner = things.by_noun[noun]
    active, _frozen, closed = t.states
    own, values, ask = _own_values(t)
    amount = Parameter(type="number", minimum=1, maximum=rng.choice([500, 1000, 5000]))
    usable = guard(_in(n, [active]), f"It is {{{n}.status}}.")
    limit = rng.choice([100, 500, 1000])
    yield Draft(f"open_{n}", f"Open a {t.words} for a {owner.words}.", f"open a {t.words} for {{{noun}_id}}{ask}", {f"{noun}_id": of(owner), **own},
                [guard(f"count(x for x in {t.plural} if x.{ref} == {noun}_id and x.status != {q(closed)}) < {rng.choice([2, 3])}", "There are enough of them.")],
                [Effect(create=t.plural, name="new", values={ref: f"{noun}_id", "balance": "0", "limit": str(limit), "opened": "today", "status": q(active), **values})],
                Returns(row="new"))  # fmt: skip
    yield Draft(f"{rng.choice(['deposit_to', 'pay_into', 'add_to'])}_{n}", f"Put money on a {t.words}.", f"put[ {{amount}}| money] on {{{n}_id}}",
                {f"{n}_id": of(t), "amount": amount}, [usable], [Effect(update=n, values={"balance": f"{n}.balance + amount"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"{rng.choice(['withdraw_from', 'take_from', 'draw_on'])}_{n}", f"Take money from a {t.words}, within its limit.", f"take[ {{amount}}| money] from {{{n}_id}}",
                {f"{n}_id": of(t), "amount": amount},
                [usable, guard(f"{n}.balance >= amount", f"The balance is {{{n}.balance}}."), guard(f"amount <= {n}.limit", f"The limit is {{{n}.limit}}.")],
                [Effect(update=n, values={"balance": f"{n}.balance - amount"})], Returns(row=n), t, n)  # fmt: skip
    fee = rng.choice([0, 1, 2.5])
    cost = f"amount + {fee}" if fee else "amount"
    yield Draft(f"transfer_between_{t.plural}", f"Move money from one {t.words} to another" + (f"; {fee:g} is charged." if fee else "."),
                "transfer[ {amount}| money] from {source_id} to {target_id}", {"source_id": of(t), "target_id": of(t), "amount": amount},
                [guard("source.id != target.id", "They are the same."), guard(f"source.status == {q(active)} and target.status == {q(active)}", "One of them cannot be used."),
                 guard(f"source.balance >= {cost}", "The balance is {source.balance}.")],
                [Effect(update="source", values={"balance": f"source.balance - ({cost})"}), Effect(update="target", values={"balance": "target.balance + amount"})],
                Returns(values={"source_balance": "source.balance", "target_balance": "target.balance"}), t, "source")  # fmt: skip
    yield move(t, rng.choice(["freeze", "lock"]), [0], 1, "freeze", rng)
    yield move(t, rng.choice(["unfreeze", "unlock"]), [1], 0, "unfreeze", rng)
    ended = move(t, rng.choice(["close", "terminate"]), [0, 1], 2, "close", rng)
    ended.requires.append(guard(f"{n}.balance == 0", f"{{{n}.balance}} is left on it."))
    yield ended
    yield Draft(f"set_{n}_limit", f"Set what may be taken from a {t.words} at once.", f"change the limit of {{{n}_id}}[ to {{new_limit}}]",
                {f"{n}_id": of(t), "new_limit": Parameter(type="number", minimum=0, maximum=10 * limit)}, [usable],
                [Effect(update=n, values={"limit": "new_limit"})], Returns(row=n), t, n)  # fmt: skip


def _subscription(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (who_ref, who_noun), (plan_ref, plan_noun) = t.refs
    who, plan = things.by_noun[who_noun], things.by_noun[plan_noun]
    if who.kind != "person" or plan.kind != "plan":
        return
    active, _paused, ended = t.states
    own, values, ask = _own_values(t)
    paid = rng.random() < 0.6
    requires = [guard(_in(plan_noun, [plan.states[0]]), f"{{{plan_noun}.name}} is {{{plan_noun}.status}}."),
                guard(f"not any(x.{who_ref} == {who_noun}_id and x.{plan_ref} == {plan_noun}_id and x.status == {q(active)} for x in {t.plural})", "There is one already.")]  # fmt: skip
    effects = [Effect(create=t.plural, name="new", values={who_ref: f"{who_noun}_id", plan_ref: f"{plan_noun}_id", "start": "today",
                      "end": f"plus_days(today, {plan_noun}.duration_days)", "auto_renew": "False", "status": q(active), **values})]  # fmt: skip
    if paid:
        requires.append(guard(f"{who_noun}.credit >= {plan_noun}.price", f"It costs {{{plan_noun}.price}}."))
        effects.append(Effect(update=who_noun, values={"credit": f"{who_noun}.credit - {plan_noun}.price"}))
    yield Draft(f"start_{n}", f"Start a {t.words} of a {who.words} to a {plan.words}" + (", paid from the credit." if paid else "."),
                f"start a {t.words} for {{{who_noun}_id}} to {{{plan_noun}_id}}{ask}", {f"{who_noun}_id": of(who), f"{plan_noun}_id": of(plan), **own},
                requires, effects, Returns(row="new"))  # fmt: skip
    yield move(t, rng.choice(["pause", "hold"]), [0], 1, "pause", rng)
    yield move(t, rng.choice(["resume", "continue"]), [1], 0, "resume", rng)
    yield move(t, rng.choice(["end", "cancel", "quit"]), [0, 1], 2, "end", rng, end="today", auto_renew="False")
    price = f"{plan.plural}[{n}.{plan_ref}].price"
    yield Draft(f"renew_{n}", f"Prolong a {t.words} by the duration of its {plan.words}, paid from the credit.", f"renew {{{n}_id}}", {f"{n}_id": of(t)},
                [guard(f"{n}.status != {q(ended)}", f"It is {{{n}.status}}."), guard(f"{who.plural}[{n}.{who_ref}].credit >= {price}", "The credit is not enough.")],
                [Effect(each=who.plural, update="y", where=f"y.id == {n}.{who_ref}", values={"credit": f"y.credit - {price}"}),
                 Effect(update=n, values={"end": f"plus_days({n}.end, {plan.plural}[{n}.{plan_ref}].duration_days)"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"switch_{n}", f"Move a running {t.words} to another {plan.words}.", f"switch {{{n}_id}} to {{{plan_noun}_id}}",
                {f"{n}_id": of(t), f"{plan_noun}_id": of(plan)},
                [guard(_in(n, [active]), f"It is {{{n}.status}}."), guard(f"{n}.{plan_ref} != {plan_noun}_id", "It has that one."),
                 guard(f"{plan_noun}.price <= {price} + {rng.choice([0, 10, 20])}", "That one costs too much more.") if rng.random() < 0.4
                 else guard(_in(plan_noun, [plan.states[0]]), f"{{{plan_noun}.name}} is {{{plan_noun}.status}}.")],
                [Effect(update=n, values={plan_ref: f"{plan_noun}_id"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"toggle_{n}_renewal", f"Switch the automatic renewal of a {t.words} on or off.", f"toggle the automatic renewal of {{{n}_id}}", {f"{n}_id": of(t)},
                [guard(f"{n}.status != {q(ended)}", f"It is {{{n}.status}}.")], [Effect(update=n, values={"auto_renew": f"not {n}.auto_renew"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"{t.plural}_ending_soon", f"The running {t.many} that end within some days.", f"tell me which {t.many} end within {{day_count}} days",
                {"day_count": Parameter(type="integer", minimum=1, maximum=90)},
                returns=Returns(rows=t.plural, name="x", where=f"x.status == {q(active)} and x.end >= today and days(today, x.end) <= day_count", sort="end"))  # fmt: skip


def _reading(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    of_what = things.by_noun[noun]
    own, values, ask = _own_values(t)
    bound = rng.choice([100, 250, 500, 800])
    yield Draft(f"{rng.choice(['record', 'log', 'enter'])}_{n}", f"Record a {t.words} of a {of_what.words} of today; above {bound} it is flagged.",
                f"record a {t.words}[ of {{value}}] for {{{noun}_id}}{ask}", {f"{noun}_id": of(of_what), "value": Parameter(type="number", minimum=0, maximum=1000), **own},
                [guard(f"not any(x.{ref} == {noun}_id and x.date == today and x.value == value for x in {t.plural})", "It is recorded already.")] if rng.random() < 0.4 else [],
                [Effect(create=t.plural, name="new", values={ref: f"{noun}_id", "value": "value", "date": "today", "flagged": f"value > {bound}", **values})], Returns(row="new"))  # fmt: skip
    yield Draft(f"correct_{n}", f"Correct the value of a {t.words} that is not older than {bound // 50} days.", f"correct the value of {{{n}_id}}[ to {{value}}]",
                {f"{n}_id": of(t), "value": Parameter(type="number", minimum=0, maximum=1000)},
                [guard(f"days({n}.date, today) <= {bound // 50 + 30}", "It is too old.")], [Effect(update=n, values={"value": "value", "flagged": f"value > {bound}"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"flag_{n}", f"Mark a {t.words} as doubtful.", f"flag {{{n}_id}}", {f"{n}_id": of(t)}, [guard(f"not {n}.flagged", "It is flagged already.")],
                [Effect(update=n, values={"flagged": "True"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"clear_{noun}_{n}_flags", f"Take the flags from all {t.many} of a {of_what.words}.", f"clear the flags of all {t.many} of {{{noun}_id}}", {f"{noun}_id": of(of_what)}, [],
                [Effect(each=t.plural, update="x", where=f"x.{ref} == {noun}_id and x.flagged", values={"flagged": "False"})],
                Returns(values={f"flagged_{t.plural}"[:64]: f"count(x for x in {t.plural} if x.{ref} == {noun}_id and x.flagged)"}))  # fmt: skip
    yield Draft(f"delete_{n}", f"Delete a flagged {t.words}.", f"delete {{{n}_id}}", {f"{n}_id": of(t)}, [guard(f"{n}.flagged", "Only flagged ones may be deleted.")],
                [Effect(delete=n)], Returns(values={t.plural: f"count(x for x in {t.plural} if x.{ref} == {n}.{ref})"}), t, n)  # fmt: skip
    yield Draft(f"{noun}_{n}_summary", f"Least, largest and newest {t.words} of a {of_what.words}.", f"tell me the least and the largest value, the newest date and the number of all {t.many} of {{{noun}_id}}", {f"{noun}_id": of(of_what)},
                returns=Returns(values={"least": f"min(x.value for x in {t.plural} if x.{ref} == {noun}_id)", "largest": f"max(x.value for x in {t.plural} if x.{ref} == {noun}_id)",
                                        "newest": f"max(x.date for x in {t.plural} if x.{ref} == {noun}_id)", "count": f"count(x for x in {t.plural} if x.{ref} == {noun}_id)"}))  # fmt: skip


def _shipment(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (what_ref, what_noun), (to_ref, to_noun) = t.refs
    what, to = things.by_noun[what_noun], things.by_noun[to_noun]
    if what.kind != "product" or to.kind != "place":
        return
    planned, moving, _arrived, _lost = t.states
    own, values, ask = _own_values(t)
    requires = [guard(f"{what_noun}.stock >= quantity", f"Only {{{what_noun}.stock}} are there.")]
    if rng.random() < 0.5:
        requires.append(guard(_in(to_noun, [to.states[0]]), f"{{{to_noun}.name}} is {{{to_noun}.status}}."))
    if rng.random() < 0.4:
        requires.append(
            guard(f"quantity <= {to_noun}.capacity", f"{{{to_noun}.name}} has room for {{{to_noun}.capacity}}.")
        )
    yield Draft(f"{rng.choice(['plan', 'prepare', 'request'])}_{n}", f"Plan a {t.words} of a {what.words} to a {to.words}.",
                f"plan a {t.words} of[ {{quantity}} pieces of] {{{what_noun}_id}} to {{{to_noun}_id}}[ on {{date}}]{ask}",
                {f"{what_noun}_id": of(what), f"{to_noun}_id": of(to), "quantity": Parameter(type="integer", minimum=1, maximum=60), "date": Parameter(type="date"), **own},
                [*requires, guard("date >= today", "{date} is over.")],
                [Effect(create=t.plural, name="new", values={what_ref: f"{what_noun}_id", to_ref: f"{to_noun}_id", "quantity": "quantity", "date": "date", "status": q(planned), **values}),
                 Effect(update=what_noun, values={"stock": f"{what_noun}.stock - quantity"})], Returns(row="new"))  # fmt: skip
    yield move(t, rng.choice(["send", "launch"]), [0], 1, "send {} off", rng, date="today")
    yield move(t, rng.choice(["receive", "sign_for"]), [1], 2, "confirm the arrival of", rng)
    yield move(t, rng.choice(["report_lost", "write_down"]), [1], 3, "report the loss of", rng)
    stop = Draft(f"call_back_{n}", f"Call back a {t.words} that was not sent; what it holds goes back into stock.", f"call back {{{n}_id}}", {f"{n}_id": of(t)},
                 [guard(_in(n, [planned]), f"It is {{{n}.status}}.")],
                 [Effect(each=what.plural, update="x", where=f"x.id == {n}.{what_ref}", values={"stock": f"x.stock + {n}.quantity"}), Effect(delete=n)],
                 Returns(values={"stock": f"{what.plural}[{n}.{what_ref}].stock"}), t, n)  # fmt: skip
    yield stop
    yield Draft(f"redirect_{n}", f"Send a {t.words} to another {to.words}.", f"redirect {{{n}_id}} to {{{to_noun}_id}}", {f"{n}_id": of(t), f"{to_noun}_id": of(to)},
                [guard(_in(n, [planned, moving]), f"It is {{{n}.status}}."), guard(f"{n}.{to_ref} != {to_noun}_id", "It goes there already."),
                 *([guard(_in(to_noun, [to.states[0]]), f"{{{to_noun}.name}} is {{{to_noun}.status}}.")] if rng.random() < 0.5 else [])],
                [Effect(update=n, values={to_ref: f"{to_noun}_id"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"split_{n}", f"Send a part of a planned {t.words} as one of its own.", f"split[ {{quantity}}| some] pieces off {{{n}_id}}",
                {f"{n}_id": of(t), "quantity": Parameter(type="integer", minimum=1)},
                [guard(_in(n, [planned]), f"It is {{{n}.status}}."), guard(f"quantity < {n}.quantity", f"It has {{{n}.quantity}}.")],
                [Effect(create=t.plural, name="new", values={what_ref: f"{n}.{what_ref}", to_ref: f"{n}.{to_ref}", "quantity": "quantity", "date": f"{n}.date", "status": q(planned),
                        **{own.name: f"{n}.{own.name}" for own in t.noun.fields}}),
                 Effect(update=n, values={"quantity": f"{n}.quantity - quantity"})], Returns(row="new"), t, n)  # fmt: skip


def _link(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (a_ref, a_noun), (b_ref, b_noun) = t.refs
    a, b = things.by_noun[a_noun], things.by_noun[b_noun]
    if a_noun == b_noun:
        return
    active, ended = t.states
    own, values, ask = _own_values(t)
    requires = [
        guard(
            f"not any(x.{a_ref} == {a_noun}_id and x.{b_ref} == {b_noun}_id and x.status == {q(active)} for x in {t.plural})",
            "They are linked already.",
        )
    ]
    if "capacity" in b.entity.fields and rng.random() < 0.7:
        requires.append(
            guard(
                f"count(x for x in {t.plural} if x.{b_ref} == {b_noun}_id and x.status == {q(active)}) < {b_noun}.capacity",
                f"{{{b_noun}.name}} is full.",
            )
        )
    elif rng.random() < 0.5:
        most = rng.choice([2, 3, 4])
        requires.append(
            guard(
                f"count(x for x in {t.plural} if x.{a_ref} == {a_noun}_id and x.status == {q(active)}) < {most}",
                f"A {a.words} may have {most}.",
            )
        )
    if rng.random() < 0.4:
        requires.append(guard(f"role != {q(t.levels[1])} or not any(x.{b_ref} == {b_noun}_id and x.role == role and x.status == {q(active)} for x in {t.plural})",
                              f"There is a {t.levels[1]} already."))  # fmt: skip
    for thing, noun in ((a, a_noun), (b, b_noun)):
        if thing.states and rng.random() < 0.3:
            requires.append(guard(f"{noun}.status == {q(thing.states[0])}", f"The {thing.words} is {{{noun}.status}}."))
    yield Draft(f"{rng.choice(['add', 'create', 'make'])}_{n}", f"Make a {t.words} between a {a.words} and a {b.words}.",
                f"make a {t.words} between {{{a_noun}_id}} and {{{b_noun}_id}}[ with the role {{role}}]{ask}",
                {f"{a_noun}_id": of(a), f"{b_noun}_id": of(b), "role": Parameter(values=t.levels), **own}, requires,
                [Effect(create=t.plural, name="new", values={a_ref: f"{a_noun}_id", b_ref: f"{b_noun}_id", "role": "role", "since": "today", "status": q(active), **values})],
                Returns(row="new"))  # fmt: skip
    yield move(t, rng.choice(["end", "dissolve"]), [0], 1, "end", rng)
    yield Draft(f"change_{n}_role", f"Give a running {t.words} another role.", f"change the role of {{{n}_id}}[ to {{role}}]", {f"{n}_id": of(t), "role": Parameter(values=t.levels)},
                [guard(_in(n, [active]), f"It is {{{n}.status}}."), guard(f"{n}.role != role", "It has that role.")], [Effect(update=n, values={"role": "role"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"replace_{a_noun}_in_{n}", f"Put another {a.words} into a running {t.words}.", f"put {{{a_noun}_id}} into {{{n}_id}}", {f"{n}_id": of(t), f"{a_noun}_id": of(a)},
                [guard(_in(n, [active]), f"It is {{{n}.status}}."), guard(f"{n}.{a_ref} != {a_noun}_id", "It is the same one.")],
                [Effect(update=n, values={a_ref: f"{a_noun}_id", "since": "today"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"end_all_{t.plural}_of_{b_ref}", f"End all running {t.many} of a {b.words}.", f"end all {t.many} of {{{b_noun}_id}}", {f"{b_noun}_id": of(b)}, [],
                [Effect(each=t.plural, update="x", where=f"x.{b_ref} == {b_noun}_id and x.status == {q(active)}", values={"status": q(ended)})],
                Returns(values={f"running_{t.plural}"[:64]: f"count(x for x in {t.plural} if x.status == {q(active)})"}))  # fmt: skip


def _event(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    place = things.by_noun[noun]
    planned, _held, _cancelled = t.states
    own, values, ask = _own_values(t)
    requires = [guard("date > today", "{date} is not in the future.")]
    if place.kind == "place":
        requires.append(guard(f"seats <= {noun}.capacity", f"{{{noun}.name}} has room for {{{noun}.capacity}}."))
    requires.append(
        guard(
            f"not any(x.{ref} == {noun}_id and x.date == date and x.status == {q(planned)} for x in {t.plural})",
            f"The {place.words} is taken on {{date}}.",
        )
    )
    yield Draft(f"{rng.choice(['announce', 'plan', 'set_up'])}_{n}", f"Plan a {t.words} at a {place.words}.",
                f'plan a {t.words}[ called "{{title}}"] at {{{noun}_id}}[ on {{date}}][ at {{start_time}}][ with {{seats}} seats][ for {{price}} a seat]{ask}',
                {f"{noun}_id": of(place), "title": Parameter(), "date": Parameter(type="date"), "start_time": Parameter(type="time"),
                 "seats": Parameter(type="integer", minimum=1, maximum=500), "price": Parameter(type="number", minimum=0), **own}, requires,
                [Effect(create=t.plural, name="new", values={ref: f"{noun}_id", "title": "title", "date": "date", "start_time": "start_time", "seats": "seats", "seats_taken": "0",
                        "price": "price", "status": q(planned), **values})], Returns(row="new"))  # fmt: skip
    free = f"{n}.seats - {n}.seats_taken"
    people = things.of_kind("person")
    if people:
        p = people[0]
        m = p.name
        yield Draft(f"{rng.choice(['sell', 'reserve', 'book'])}_{n}_seats", f"Sell seats of a {t.words} to a {p.words}, paid from their credit.", f"book[ {{seats}}| some] seats of {{{n}_id}} for {{{m}_id}}",
                    {f"{n}_id": of(t), f"{m}_id": of(p), "seats": Parameter(type="integer", minimum=1, maximum=rng.choice([4, 6, 10]))},
                    [guard(_in(n, [planned]), f"It is {{{n}.status}}."), guard(f"seats <= {free}", f"{{{free}}} seats are free."),
                     guard(f"{m}.credit >= seats * {n}.price", f"The credit is {{{m}.credit}}.")],
                    [Effect(update=n, values={"seats_taken": f"{n}.seats_taken + seats"}), Effect(update=m, values={"credit": f"{m}.credit - seats * {n}.price"})],
                    Returns(values={"free_seats": free, "credit": f"{m}.credit"}), t, n)  # fmt: skip
    yield move(t, rng.choice(["call_off", "cancel"]), [0], 2, "call {} off", rng)
    yield move(t, rng.choice(["mark_held", "conclude"]), [0], 1, "mark {} as held", rng)
    extra = (
        []
        if place.kind != "place"
        else [guard(f"{n}.seats + extra_seats <= {place.plural}[{n}.{ref}].capacity", "The room is too small.")]
    )
    yield Draft(f"add_{n}_seats", f"Add seats to a {t.words}, as far as there is room.", f"add[ {{extra_seats}}| more] seats to {{{n}_id}}",
                {f"{n}_id": of(t), "extra_seats": Parameter(type="integer", minimum=1, maximum=50)}, [guard(_in(n, [planned]), f"It is {{{n}.status}}."), *extra],
                [Effect(update=n, values={"seats": f"{n}.seats + extra_seats"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"move_{n}", f"Move a {t.words} to another day.", f"move {{{n}_id}} to[ {{new_date}}| another day]", {f"{n}_id": of(t), "new_date": Parameter(type="date")},
                [guard(_in(n, [planned]), f"It is {{{n}.status}}."), guard("new_date > today", "{new_date} is not in the future."),
                 guard(f"not any(x.{ref} == {n}.{ref} and x.date == new_date and x.id != {n}.id for x in {t.plural})", f"The {place.words} is taken.")],
                [Effect(update=n, values={"date": "new_date"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"{t.plural}_with_free_seats", f"Coming {t.many} with at least so many free seats.", f"tell me which {t.many} have at least {{seats}} free seats",
                {"seats": Parameter(type="integer", minimum=1)},
                returns=Returns(rows=t.plural, name="x", where=f"x.status == {q(planned)} and x.date >= today and x.seats - x.seats_taken >= seats", sort="date"))  # fmt: skip


def _message(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    to = things.by_noun[noun]
    own, values, ask = _own_values(t)
    requires = (
        [guard(f"{noun}.status == {q(to.states[0])}", f"{{{noun}.name}} is {{{noun}.status}}.")]
        if rng.random() < 0.4 and to.states
        else []
    )
    yield Draft(f"{rng.choice(['send', 'write'])}_{n}", f"Send a {t.words} to a {to.words}.", f'send {{{noun}_id}} a {t.words}[ with the subject "{{subject}}"][ that says "{{body}}"]{ask}',
                {f"{noun}_id": of(to), "subject": Parameter(), "body": Parameter(), **own}, requires,
                [Effect(create=t.plural, name="new", values={ref: f"{noun}_id", "subject": "subject", "body": "body", "date": "today", "read": "False", **values})], Returns(row="new"))  # fmt: skip
    yield Draft(f"mark_{n}_read", f"Mark a {t.words} as read.", f"mark {{{n}_id}} as read", {f"{n}_id": of(t)}, [guard(f"not {n}.read", "It is read already.")],
                [Effect(update=n, values={"read": "True"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"mark_all_{t.plural}_read", f"Mark all {t.many} of a {to.words} as read.", f"mark all {t.many} of {{{noun}_id}} as read", {f"{noun}_id": of(to)}, [],
                [Effect(each=t.plural, update="x", where=f"x.{ref} == {noun}_id and not x.read", values={"read": "True"})],
                Returns(values={f"unread_{t.plural}"[:64]: f"count(x for x in {t.plural} if x.{ref} == {noun}_id and not x.read)"}))  # fmt: skip
    yield Draft(f"delete_{n}", f"Delete a {t.words} that was read.", f"delete {{{n}_id}}", {f"{n}_id": of(t)}, [guard(f"{n}.read", "It was not read yet.")] if rng.random() < 0.5 else [],
                [Effect(delete=n)], Returns(values={t.plural: f"count(x for x in {t.plural} if x.{ref} == {n}.{ref})"}), t, n)  # fmt: skip
    yield Draft(f"unread_{t.plural}", f"What a {to.words} has not read, the oldest first.", f"show me the unread {t.many} of {{{noun}_id}}", {f"{noun}_id": of(to)},
                returns=Returns(rows=t.plural, name="x", where=f"x.{ref} == {noun}_id and not x.read", sort="date"))  # fmt: skip
    yield Draft(f"forward_{n}", f"Send a {t.words} on to another {to.words}.", f"forward {{{n}_id}} to {{{noun}_id}}", {f"{n}_id": of(t), f"{noun}_id": of(to)},
                [guard(f"{n}.{ref} != {noun}_id", "They have it.")],
                [Effect(create=t.plural, name="new", values={ref: f"{noun}_id", "subject": f"'Fwd: ' + {n}.subject", "body": f"{n}.body", "date": "today", "read": "False",
                        **{own.name: f"{n}.{own.name}" for own in t.noun.fields}})], Returns(row="new"), t, n)  # fmt: skip


def _project(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    owner = things.by_noun[noun]
    planned, active, _hold, done = t.states
    own, values, ask = _own_values(t)
    amount = Parameter(type="number", minimum=1)
    most = rng.choice([5000, 20000, 50000])
    yield Draft(f"{rng.choice(['propose', 'create', 'set_up'])}_{n}", f"Set up a {t.words} of a {owner.words} with a budget.",
                f'set up a {t.words}[ called "{{title}}"] for {{{noun}_id}}[ with a budget of {{budget}}][ from {{start}}][ until {{end}}]{ask}',
                {f"{noun}_id": of(owner), "title": Parameter(), "budget": Parameter(type="number", minimum=0, maximum=most), "start": Parameter(type="date"), "end": Parameter(type="date"), **own},
                [guard("start < end", "It would end before it begins."), guard(f"not any(x.title == title for x in {t.plural})", "There is one of that title.")],
                [Effect(create=t.plural, name="new", values={ref: f"{noun}_id", "title": "title", "budget": "budget", "spent": "0", "start": "start", "end": "end", "status": q(planned), **values})],
                Returns(row="new"))  # fmt: skip
    yield move(t, rng.choice(["start", "launch", "kick_off"]), [0], 1, "start", rng)
    yield move(t, rng.choice(["hold", "pause"]), [1], 2, "put {} on hold", rng)
    yield move(t, rng.choice(["continue", "resume"]), [2], 1, "resume", rng)
    yield move(t, rng.choice(["finish", "wrap_up"]), [1], 3, "finish", rng, end="today")
    yield Draft(f"{rng.choice(['book_cost_on', 'charge', 'record_expense_of'])}_{n}", f"Spend from the budget of a running {t.words}.", f"spend[ {{amount}}| something] from the budget of {{{n}_id}}",
                {f"{n}_id": of(t), "amount": amount}, [guard(_in(n, [active]), f"It is {{{n}.status}}."), guard(f"{n}.spent + amount <= {n}.budget", f"{{{n}.budget - {n}.spent}} is left.")],
                [Effect(update=n, values={"spent": f"{n}.spent + amount"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"raise_{n}_budget", f"Raise the budget of a {t.words} that is not done.", f"raise the budget of {{{n}_id}}[ by {{amount}}]", {f"{n}_id": of(t), "amount": amount},
                [guard(f"{n}.status != {q(done)}", f"It is {{{n}.status}}."), guard(f"amount <= {n}.budget * {rng.choice([0.5, 1])}", f"The budget of {{{n}.budget}} may not grow so much.")],
                [Effect(update=n, values={"budget": f"{n}.budget + amount"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"extend_{n}", f"Let a {t.words} end some days later.", f"extend {{{n}_id}}[ by {{extra_days}} days]", {f"{n}_id": of(t), "extra_days": Parameter(type="integer", minimum=1, maximum=180)},
                [guard(f"{n}.status != {q(done)}", f"It is {{{n}.status}}.")], [Effect(update=n, values={"end": f"plus_days({n}.end, extra_days)"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"shift_budget_between_{t.plural}", f"Move what one {t.words} has not spent to another.", "shift[ {amount} of| some] budget from {source_id} to {target_id}",
                {"source_id": of(t), "target_id": of(t), "amount": amount},
                [guard("source.id != target.id", "They are the same."), guard("source.budget - source.spent >= amount", "{source.budget - source.spent} is left there.")],
                [Effect(update="source", values={"budget": "source.budget - amount"}), Effect(update="target", values={"budget": "target.budget + amount"})],
                Returns(values={"source_budget": "source.budget", "target_budget": "target.budget"}), t, "source")  # fmt: skip
    yield Draft(f"{t.plural}_over_share", f"The {t.many} that have spent more than a percentage of their budget.", f"tell me which {t.many} have spent more than {{percent}} percent of their budget",
                {"percent": Parameter(type="integer", minimum=1, maximum=100)},
                returns=Returns(rows=t.plural, name="x", where="x.spent * 100 > x.budget * percent", sort="spent", descending=True))  # fmt: skip


_WRITES: dict[str, tuple[Callable[[Things, Thing, random.Random], Iterator[Draft]], ...]] = {
    "person": (_registered,), "staff": (_staff,), "place": (_place,), "product": (_product,), "plan": (_plan,),
    "unit": (_unit,), "booking": (_booking,), "order": (_order,), "case": (_case,), "document": (_document,),
    "account": (_account,), "subscription": (_subscription,), "reading": (_reading,), "shipment": (_shipment,),
    "link": (_link,), "event": (_event,), "message": (_message,), "project": (_project,),
}  # fmt: skip


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
    found = _person_of(things, t, row)
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
    found = _person_of(things, t, row)
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
