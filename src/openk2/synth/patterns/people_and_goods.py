"""People, places, and what is sold, rented and lent."""

from __future__ import annotations

import random
from collections.abc import Iterator

from openk2.synth.entities import Thing, Things
from openk2.synth.patterns.drafts import Draft, guard, in_state, move, of, one_of, own_values, q
from openk2.worlds.apps.declaration import Effect, Parameter, Returns


def registered(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    own, values, ask = own_values(t)
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
                [guard(in_state(n, [t.states[0]]), f"{{{n}.name}} is {{{n}.status}}.")],
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


def staff(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
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
                    [guard("from_id != to_id", "Both are the same."), guard(in_state("to", [t.states[0]]), "{to.name} is {to.status}.")],
                    [Effect(each=other.plural, update="x", where=f"x.{ref} == from_id and x.date >= today", values={ref: "to_id"})],
                    Returns(values={other.plural: f"count(x for x in {other.plural} if x.{ref} == to_id)"}))  # fmt: skip
    for other in things.of_kind("case"):
        if other.staff_field:
            yield Draft(f"release_{n}_{other.plural}", f"Take all open {other.many} from a {t.words}.",
                        f"take all open {other.many} from {{{n}_id}}", {f"{n}_id": of(t)}, [],
                        [Effect(each=other.plural, update="x", where=f"x.assignee == {n}.id and x.status in {one_of(other.states[:2])}",
                                values={"assignee": "None"})],
                        Returns(values={other.plural: f"count(x for x in {other.plural} if x.assignee == {n}.id)"}), t, n)  # fmt: skip


def place(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
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
                    [guard(in_state(n, [t.states[0]]), f"{{{n}.name}} is {{{n}.status}}."),
                     guard(f"count(x for x in {other.plural} if x.{ref} == {n}.id) < {n}.capacity", f"{{{n}.name}} is full.")],
                    [Effect(update=other.name, values={ref: f"{n}.id"})], Returns(row=other.name), other, other.name)  # fmt: skip


def product(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
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


def plan(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    yield Draft(f"change_{n}_price", f"Set the price of a {t.words} for new customers.", f"change the price of {{{n}_id}}[ to {{price}}]",
                {f"{n}_id": of(t), "price": Parameter(type="number", minimum=1)},
                [guard(in_state(n, [t.states[0]]), f"{{{n}.name}} is {{{n}.status}}.")],
                [Effect(update=n, values={"price": "price"})], Returns(row=n), t, n)  # fmt: skip
    requires = [guard(in_state(n, [t.states[0]]), f"{{{n}.name}} is {{{n}.status}}.")]
    for other, ref in things.referring(t, "subscription"):
        requires.append(guard(f"not any(x.{ref} == {n}.id and x.status == {q(other.states[0])} for x in {other.plural})",
                              f"Somebody has {{{n}.name}} still."))  # fmt: skip
    yield Draft(f"retire_{n}", f"Offer a {t.words} no more, once nobody has it.", f"retire {{{n}_id}}", {f"{n}_id": of(t)}, requires,
                [Effect(update=n, values={"status": q(t.states[1])})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"cheapest_{t.plural}", f"The {t.many} on offer, the cheapest first.", f"tell me the three cheapest {t.many} on offer",
                returns=Returns(rows=t.plural, name="x", where=f"x.status == {q(t.states[0])}", sort="price", limit=3))  # fmt: skip


def unit(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    owner = things.by_noun[noun]
    own, values, ask = own_values(t)
    yield Draft(f"{rng.choice(['add', 'record', 'register'])}_{n}", f"Record a new {t.words} of a {owner.words}.",
                f"record a {t.words}[ called {{name}}] for {{{noun}_id}}{ask}",
                {f"{noun}_id": of(owner), "name": Parameter(), **own},
                [guard(f"not any(x.name == name and x.{ref} == {noun}_id for x in {t.plural})", "There is one of that name."),
                 guard(in_state(noun, [owner.states[0]]), f"The {owner.words} is {{{noun}.status}}.")] if owner.states else [],
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
