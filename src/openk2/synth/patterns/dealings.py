"""What people do with each other: bookings, orders, cases, subscriptions, accounts, shipments."""

from __future__ import annotations

import random
from collections.abc import Iterator

from openk2.synth.entities import Thing, Things
from openk2.synth.patterns.drafts import Draft, guard, in_state, move, of, one_of, own_values, q
from openk2.worlds.apps.declaration import Effect, Parameter, Returns


def booking(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (who_ref, who_noun), (what_ref, what_noun) = t.refs
    who, what = things.by_noun[who_noun], things.by_noun[what_noun]
    if who_ref == what_ref or who_noun == what_noun:
        return
    requested, confirmed, _completed, _cancelled = t.states
    live = one_of([requested, confirmed])
    own, values, ask = own_values(t)
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
                [guard(in_state(n, [requested, confirmed]), f"It is {{{n}.status}}."), guard("new_date > today", "{new_date} is not in the future."),
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
                [guard(in_state(n, [requested, confirmed]), f"It is {{{n}.status}}."), guard(f"until > {n}.end_time", f"It lasts until {{{n}.end_time}}."),
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
                [guard(in_state(n, [requested, confirmed]), f"It is {{{n}.status}}."),
                 guard(clash.format(what=f"{what_noun}_id", date=f"{n}.date", end=f"{n}.end_time", start=f"{n}.start_time", but=""),
                       f"The {what.words} is taken then.")],
                [Effect(update=n, values={what_ref: f"{what_noun}_id"})], Returns(row=n), t, n)  # fmt: skip


def order(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (who_ref, who_noun), (what_ref, what_noun) = t.refs
    who, what = things.by_noun[who_noun], things.by_noun[what_noun]
    if who.kind not in ("person", "staff") or what.kind != "product":
        return
    placed, paid, shipped, _cancelled = t.states
    own, values, ask = own_values(t)
    on_credit = who.kind == "person" and rng.random() < 0.5
    total = f"round({what_noun}.price * quantity, 2)"
    requires = [
        guard(f"{what_noun}.stock >= quantity", f"Only {{{what_noun}.stock}} of {{{what_noun}.name}} are there.")
    ]
    if rng.random() < 0.5:
        requires.append(
            guard(in_state(what_noun, [what.states[0]]), f"{{{what_noun}.name}} is {{{what_noun}.status}}.")
        )
    if rng.random() < 0.4 and who.states:
        requires.append(guard(in_state(who_noun, [who.states[0]]), f"{{{who_noun}.name}} is {{{who_noun}.status}}."))
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
                    [guard(in_state(n, [placed]), f"It is {{{n}.status}}."), guard(f"{who.plural}[{n}.{who_ref}].credit >= {n}.total", "The credit is not enough.")],
                    [Effect(update=n, values={"status": q(paid)}),
                     Effect(each=who.plural, update="y", where=f"y.id == {n}.{who_ref}", values={"credit": f"y.credit - {n}.total"})],
                    Returns(row=n), t, n)  # fmt: skip
    yield move(t, rng.choice(["ship", "dispatch", "hand_out"]), [1], 2, "ship", rng)
    yield Draft(f"change_{n}_quantity", f"Order more or less of the same, as long as the {t.words} is not paid.", f"change the quantity of {{{n}_id}}[ to {{quantity}}]",
                {f"{n}_id": of(t), "quantity": Parameter(type="integer", minimum=1, maximum=50)},
                [guard(in_state(n, [placed]), f"It is {{{n}.status}}."),
                 guard(f"{what.plural}[{n}.{what_ref}].stock + {n}.quantity >= quantity", "Not so many are there.")],
                [Effect(each=what.plural, update="x", where=f"x.id == {n}.{what_ref}", values={"stock": f"x.stock + {n}.quantity - quantity"}),
                 Effect(update=n, values={"total": f"round({what.plural}[{n}.{what_ref}].price * quantity, 2)", "quantity": "quantity"})],
                Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"return_part_of_{n}", f"Take back a part of a shipped {t.words} within a number of days.", f"return[ {{quantity}}| some] pieces of {{{n}_id}}",
                {f"{n}_id": of(t), "quantity": Parameter(type="integer", minimum=1)},
                [guard(in_state(n, [shipped]), f"It is {{{n}.status}}."), guard(f"quantity < {n}.quantity", f"It has {{{n}.quantity}}."),
                 guard(f"days({n}.date, today) <= {rng.choice([14, 30, 60])}", "It is too old.")],
                [*[Effect(each=what.plural, update="x", where=f"x.id == {n}.{what_ref}", values={"stock": "x.stock + quantity"})],
                 Effect(update=n, values={"total": f"round({n}.total * ({n}.quantity - quantity) / {n}.quantity, 2)", "quantity": f"{n}.quantity - quantity"})],
                Returns(row=n), t, n)  # fmt: skip


def case(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    about = things.by_noun[noun]
    new, busy, _solved, closed = t.states
    own, values, ask = own_values(t)
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
                [guard(in_state(n, [new, busy]), f"It is {{{n}.status}}."), guard(f"{n}.priority != {steps[3]}", "It has the highest priority.")],
                [Effect(update=n, values={"priority": up, **({"due": "plus_days(today, 1)"} if rng.random() < 0.4 else {})})],
                Returns(row=n), t, n)  # fmt: skip
    if t.staff_field:
        staff = next(thing for thing in things.of_kind("staff"))
        s = staff.name
        most = rng.choice([2, 3, 4])
        yield Draft(f"assign_{n}", f"Give an open {t.words} to a {staff.words} who is there.", f"assign {{{n}_id}} to {{{s}_id}}",
                    {f"{n}_id": of(t), f"{s}_id": of(staff)},
                    [guard(in_state(n, [new, busy]), f"It is {{{n}.status}}."), guard(in_state(s, [staff.states[0]]), f"{{{s}.name}} is {{{s}.status}}."),
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
                [guard(in_state(n, [new, busy]), f"It is {{{n}.status}}."), guard(f"{n}.priority != {steps[3]}", "It cannot wait.")],
                [Effect(update=n, values={"due": f"plus_days({n}.due, extra_days)"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"overdue_{t.plural}", f"The {t.many} that are open and past their day.", f"tell me which {t.many} are overdue",
                returns=Returns(rows=t.plural, name="x", where=f"x.due < today and x.status in {one_of([new, busy])}", sort="due"))  # fmt: skip
    yield Draft(f"merge_{t.plural}", f"Close a {t.words} as a double of another about the same {about.words}.", "merge {double_id} into {kept_id}",
                {"double_id": of(t), "kept_id": of(t)},
                [guard("double.id != kept.id", "They are the same."), guard(f"double.{ref} == kept.{ref}", "They are about different things."),
                 guard(f"double.status in {one_of([new, busy])}", "{double.id} is {double.status}.")],
                [Effect(update="double", values={"status": q(closed)})], Returns(row="kept"), t, "kept")  # fmt: skip


def account(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    owner = things.by_noun[noun]
    active, _frozen, closed = t.states
    own, values, ask = own_values(t)
    amount = Parameter(type="number", minimum=1, maximum=rng.choice([500, 1000, 5000]))
    usable = guard(in_state(n, [active]), f"It is {{{n}.status}}.")
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


def subscription(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (who_ref, who_noun), (plan_ref, plan_noun) = t.refs
    who, plan = things.by_noun[who_noun], things.by_noun[plan_noun]
    if who.kind != "person" or plan.kind != "plan":
        return
    active, _paused, ended = t.states
    own, values, ask = own_values(t)
    paid = rng.random() < 0.6
    requires = [guard(in_state(plan_noun, [plan.states[0]]), f"{{{plan_noun}.name}} is {{{plan_noun}.status}}."),
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
                [guard(in_state(n, [active]), f"It is {{{n}.status}}."), guard(f"{n}.{plan_ref} != {plan_noun}_id", "It has that one."),
                 guard(f"{plan_noun}.price <= {price} + {rng.choice([0, 10, 20])}", "That one costs too much more.") if rng.random() < 0.4
                 else guard(in_state(plan_noun, [plan.states[0]]), f"{{{plan_noun}.name}} is {{{plan_noun}.status}}.")],
                [Effect(update=n, values={plan_ref: f"{plan_noun}_id"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"toggle_{n}_renewal", f"Switch the automatic renewal of a {t.words} on or off.", f"toggle the automatic renewal of {{{n}_id}}", {f"{n}_id": of(t)},
                [guard(f"{n}.status != {q(ended)}", f"It is {{{n}.status}}.")], [Effect(update=n, values={"auto_renew": f"not {n}.auto_renew"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"{t.plural}_ending_soon", f"The running {t.many} that end within some days.", f"tell me which {t.many} end within {{day_count}} days",
                {"day_count": Parameter(type="integer", minimum=1, maximum=90)},
                returns=Returns(rows=t.plural, name="x", where=f"x.status == {q(active)} and x.end >= today and days(today, x.end) <= day_count", sort="end"))  # fmt: skip


def shipment(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (what_ref, what_noun), (to_ref, to_noun) = t.refs
    what, to = things.by_noun[what_noun], things.by_noun[to_noun]
    if what.kind != "product" or to.kind != "place":
        return
    planned, moving, _arrived, _lost = t.states
    own, values, ask = own_values(t)
    requires = [guard(f"{what_noun}.stock >= quantity", f"Only {{{what_noun}.stock}} are there.")]
    if rng.random() < 0.5:
        requires.append(guard(in_state(to_noun, [to.states[0]]), f"{{{to_noun}.name}} is {{{to_noun}.status}}."))
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
                 [guard(in_state(n, [planned]), f"It is {{{n}.status}}.")],
                 [Effect(each=what.plural, update="x", where=f"x.id == {n}.{what_ref}", values={"stock": f"x.stock + {n}.quantity"}), Effect(delete=n)],
                 Returns(values={"stock": f"{what.plural}[{n}.{what_ref}].stock"}), t, n)  # fmt: skip
    yield stop
    yield Draft(f"redirect_{n}", f"Send a {t.words} to another {to.words}.", f"redirect {{{n}_id}} to {{{to_noun}_id}}", {f"{n}_id": of(t), f"{to_noun}_id": of(to)},
                [guard(in_state(n, [planned, moving]), f"It is {{{n}.status}}."), guard(f"{n}.{to_ref} != {to_noun}_id", "It goes there already."),
                 *([guard(in_state(to_noun, [to.states[0]]), f"{{{to_noun}.name}} is {{{to_noun}.status}}.")] if rng.random() < 0.5 else [])],
                [Effect(update=n, values={to_ref: f"{to_noun}_id"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"split_{n}", f"Send a part of a planned {t.words} as one of its own.", f"split[ {{quantity}}| some] pieces off {{{n}_id}}",
                {f"{n}_id": of(t), "quantity": Parameter(type="integer", minimum=1)},
                [guard(in_state(n, [planned]), f"It is {{{n}.status}}."), guard(f"quantity < {n}.quantity", f"It has {{{n}.quantity}}.")],
                [Effect(create=t.plural, name="new", values={what_ref: f"{n}.{what_ref}", to_ref: f"{n}.{to_ref}", "quantity": "quantity", "date": f"{n}.date", "status": q(planned),
                        **{own.name: f"{n}.{own.name}" for own in t.noun.fields}}),
                 Effect(update=n, values={"quantity": f"{n}.quantity - quantity"})], Returns(row="new"), t, n)  # fmt: skip
