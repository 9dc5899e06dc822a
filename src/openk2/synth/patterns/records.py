"""What is written down and happens: documents, readings, links, events, messages, projects."""

from __future__ import annotations

import random
from collections.abc import Iterator

from openk2.synth.entities import Thing, Things
from openk2.synth.patterns.drafts import Draft, guard, in_state, move, of, own_values, q
from openk2.worlds.apps.declaration import Effect, Parameter, Returns


def document(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    author = things.by_noun[noun]
    draft, review, _approved, archived = t.states
    own, values, ask = own_values(t)
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
                [guard(in_state(n, [draft, review]), f"It is {{{n}.status}}."), guard(f"{n}.{ref} != {noun}_id", "It is theirs already.")],
                [Effect(update=n, values={ref: f"{noun}_id"})], Returns(row=n), t, n)  # fmt: skip


def reading(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    of_what = things.by_noun[noun]
    own, values, ask = own_values(t)
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


def link(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (a_ref, a_noun), (b_ref, b_noun) = t.refs
    a, b = things.by_noun[a_noun], things.by_noun[b_noun]
    if a_noun == b_noun:
        return
    active, ended = t.states
    own, values, ask = own_values(t)
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
                [guard(in_state(n, [active]), f"It is {{{n}.status}}."), guard(f"{n}.role != role", "It has that role.")], [Effect(update=n, values={"role": "role"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"replace_{a_noun}_in_{n}", f"Put another {a.words} into a running {t.words}.", f"put {{{a_noun}_id}} into {{{n}_id}}", {f"{n}_id": of(t), f"{a_noun}_id": of(a)},
                [guard(in_state(n, [active]), f"It is {{{n}.status}}."), guard(f"{n}.{a_ref} != {a_noun}_id", "It is the same one.")],
                [Effect(update=n, values={a_ref: f"{a_noun}_id", "since": "today"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"end_all_{t.plural}_of_{b_ref}", f"End all running {t.many} of a {b.words}.", f"end all {t.many} of {{{b_noun}_id}}", {f"{b_noun}_id": of(b)}, [],
                [Effect(each=t.plural, update="x", where=f"x.{b_ref} == {b_noun}_id and x.status == {q(active)}", values={"status": q(ended)})],
                Returns(values={f"running_{t.plural}"[:64]: f"count(x for x in {t.plural} if x.status == {q(active)})"}))  # fmt: skip


def event(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    place = things.by_noun[noun]
    planned, _held, _cancelled = t.states
    own, values, ask = own_values(t)
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
                    [guard(in_state(n, [planned]), f"It is {{{n}.status}}."), guard(f"seats <= {free}", f"{{{free}}} seats are free."),
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
                {f"{n}_id": of(t), "extra_seats": Parameter(type="integer", minimum=1, maximum=50)}, [guard(in_state(n, [planned]), f"It is {{{n}.status}}."), *extra],
                [Effect(update=n, values={"seats": f"{n}.seats + extra_seats"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"move_{n}", f"Move a {t.words} to another day.", f"move {{{n}_id}} to[ {{new_date}}| another day]", {f"{n}_id": of(t), "new_date": Parameter(type="date")},
                [guard(in_state(n, [planned]), f"It is {{{n}.status}}."), guard("new_date > today", "{new_date} is not in the future."),
                 guard(f"not any(x.{ref} == {n}.{ref} and x.date == new_date and x.id != {n}.id for x in {t.plural})", f"The {place.words} is taken.")],
                [Effect(update=n, values={"date": "new_date"})], Returns(row=n), t, n)  # fmt: skip
    yield Draft(f"{t.plural}_with_free_seats", f"Coming {t.many} with at least so many free seats.", f"tell me which {t.many} have at least {{seats}} free seats",
                {"seats": Parameter(type="integer", minimum=1)},
                returns=Returns(rows=t.plural, name="x", where=f"x.status == {q(planned)} and x.date >= today and x.seats - x.seats_taken >= seats", sort="date"))  # fmt: skip


def message(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    to = things.by_noun[noun]
    own, values, ask = own_values(t)
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


def project(things: Things, t: Thing, rng: random.Random) -> Iterator[Draft]:
    n = t.name
    (ref, noun), *_ = t.refs
    owner = things.by_noun[noun]
    planned, active, _hold, done = t.states
    own, values, ask = own_values(t)
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
                {f"{n}_id": of(t), "amount": amount}, [guard(in_state(n, [active]), f"It is {{{n}.status}}."), guard(f"{n}.spent + amount <= {n}.budget", f"{{{n}.budget - {n}.spent}} is left.")],
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
