"""Whether the verifiers can be trusted: what is wrong must be noticed, and what is right must pass.

Three trials on trajectories of simulated apps. In some of those that were kept one value is changed, of a call, a
result, a user's words, the task or the verdict: verified again each must disagree, nearly all of them also without the
hash of the content (a bound of a search may be another one and find the same). And their tasks are tried once more by
an agent that does the plan with one of the mistakes that models make: each attempt must be rejected. And by one that
does it rightly, writes numbers, dates and times in other ways than the tools, and says no in other words: each must be
accepted.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from openk2.core import Limits, Task, Verdict
from openk2.core.atif import from_atif
from openk2.core.progress import ConsoleReporter
from openk2.core.rates import Tally
from openk2.data.lake import Lake
from openk2.rollout import rollout
from openk2.synth import real
from openk2.synth.planner import Planner
from openk2.synth.verify import difference
from openk2.worlds.apps.told import refuses
from openk2.worlds.apps.world import Apps, AppTask, AppWorld, PlannedCall, PlanTurn

_LIMITS = Limits(60, 1024, 600)
_NUMBER = re.compile(r"(?<![\w.:-])\d+(?![\w:-]|\.\d)")
"""In an answer, not of an id, a date or a time."""
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SMALL = re.compile(r"\b(is|are) (10|\d)(?=\.(?:\s|$)|[,;]|:\s|$)")
_DAY = re.compile(r"(?<![\w-])\d{4}-\d\d-\d\d(?![\w-])")
_CLOCK = re.compile(r"(?<![\w:-])([01]\d|2[0-3]):([0-5]\d)(?![\w:])")
_CLAIMS = (
    "Done, that is taken care of.",
    "Sorry for the wait. That is done now, as you asked.",
    "No problem, I had nothing against it: that is done now.",
    # With words that also stand in a no.
    "Done, I have taken care of it. You won't have to do anything else.",
    "Done! It won't take long.",
    "All set; you may not see it at once.",
    "I couldn't find a reason not to; done.",
    "I've cancelled it, no, nothing else is needed.",
    "By no means a problem: I have changed it. This can't be undone.",
)
_REFUSALS = (
    "I'm sorry, that isn't possible.",
    "The request has been rejected.",
    "The rules don't allow it.",
    "That's not something our policy allows.",
    "There isn't a way to do that.",
    "You don't have enough credit.",
    "Insufficient credit",
    "The purchase didn't go through.",
    "Unfortunately this didn't go through. It is too new for that.",
    "I have no means to do that.",
    "All right, I have checked it, but I won't be able to do it.",
    "That may not be changed.",
    "Unfortunately, no.",
)
_NOBODY = ("Quillon Varga", "Zephyrine", "XQ-7719")
_LIST = re.compile(r"\bThere (?:is one|are \d+): [^.:]+(?=\.(?:\s|$))")
_YES_OR_NO = re.compile(r"(?<=: )(yes|no)\b")
_Plan = tuple[PlanTurn, ...]


@dataclass(slots=True)
class SelfTest:
    """Of how many changed trajectories the change was noticed, and by execution alone, of how many attempts with a
    mistake it was rejected, of how many in other words it was accepted, and how often which was not."""

    noticed: Tally = field(default_factory=Tally)
    by_execution: Tally = field(default_factory=Tally)
    rejected: Tally = field(default_factory=Tally)
    accepted: Tally = field(default_factory=Tally)
    missed: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        return {
            "noticed": self.noticed.to_json(),
            "by_execution": self.by_execution.to_json(),
            "rejected": self.rejected.to_json(),
            "accepted": self.accepted.to_json(),
            "missed": dict(self.missed.most_common()),
        }


def self_test(run: Path, count: int, seed: int = 0) -> SelfTest:
    """Both trials, on `count` kept trajectories of a run that are spread over it."""
    lake = Lake(run)
    apps = Apps.declared(lake.declarations())
    _, rows = lake.query(
        f"SELECT hash, atif FROM trajectories WHERE kinds <> '{real.FAMILY}' ORDER BY md5(hash) LIMIT {count}"
    )
    found = SelfTest()
    with ConsoleReporter().stage("self-test") as bar:
        for number, (digest, atif) in enumerate(rows):
            rng = random.Random(f"self-test {seed} {digest}")
            kind, changed = change(json.loads(atif), rng)
            noticed = asyncio.run(difference(from_atif(changed), apps, digest)) is not None
            executed = asyncio.run(difference(from_atif(changed), apps)) is not None
            found.noticed.add(noticed)
            found.by_execution.add(executed)
            task = from_atif(atif).task
            mistake, passed = try_carelessly(task, apps, rng)
            found.rejected.add(not passed)
            said = [in_other_words(turn, rng) for turn in AppTask.model_validate(task.data).plan]
            verdict = _tried(task, apps, said)
            found.accepted.add(bool(verdict.passed))
            if not verdict.passed:
                found.missed[f"other words: {re.sub(r'told .*', 'told', verdict.reason)}"] += 1
            found.missed.update([f"changed: {kind}"] * (not executed) + [f"mistake: {mistake}"] * passed)
            bar(number + 1, len(rows))
    return found


# Changes of a trajectory


def change(document: dict[str, Any], rng: random.Random) -> tuple[str, dict[str, Any]]:
    """What was changed, and the trajectory (as ATIF) with that change."""
    for kind in rng.sample(sorted(_CHANGES), len(_CHANGES)):
        changed = copy.deepcopy(document)
        if _CHANGES[kind](changed, rng):
            return kind, changed
    raise AssertionError("the verdict can always be changed")


def _verdict(document: dict[str, Any], rng: random.Random) -> bool:
    document["extra"]["verdict"]["passed"] = not document["extra"]["verdict"]["passed"]
    return True


def _users_words(document: dict[str, Any], rng: random.Random) -> bool:
    step = rng.choice([step for step in document["steps"] if step["source"] == "user"])
    step["message"] += " now"
    return True


def _result(document: dict[str, Any], rng: random.Random) -> bool:
    results = [result for step in document["steps"] for result in (step.get("observation") or {}).get("results", ())]
    if not results:
        return False
    one = rng.choice(results)
    one["content"] = _other(one["content"], rng)
    return True


def _called(document: dict[str, Any], rng: random.Random) -> bool:
    calls = [call for step in document["steps"] for call in step.get("tool_calls") or ()]
    if not calls:
        return False
    rng.choice(calls)["function_name"] += "x"
    return True


def _argument(document: dict[str, Any], rng: random.Random) -> bool:
    calls = [call for step in document["steps"] for call in step.get("tool_calls") or () if call["arguments"]]
    if not calls:
        return False
    arguments = rng.choice(calls)["arguments"]
    name = rng.choice(sorted(arguments))
    arguments[name] = _other(arguments[name], rng)
    return True


def _state(document: dict[str, Any], rng: random.Random) -> bool:
    document["extra"]["task"]["data"]["rubric"]["checkpoints"][-1] += "0"
    return True


_CHANGES: dict[str, Callable[[dict[str, Any], random.Random], bool]] = {
    "the verdict": _verdict,
    "the user's words": _users_words,
    "a result": _result,
    "a tool's name": _called,
    "an argument": _argument,
    "the state at the end": _state,
}


def _other(value: Any, rng: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + rng.choice((1, 2, 10))
    if isinstance(value, str):
        digits = [i for i, letter in enumerate(value) if letter.isdigit()]
        if not digits:
            return f"{value}x"
        at = rng.choice(digits)
        return value[:at] + str((int(value[at]) + rng.randint(1, 9)) % 10) + value[at + 1 :]
    return [value, value]


# Mistakes of an agent


def try_carelessly(task: Task, apps: Apps, rng: random.Random) -> tuple[str, bool]:
    """Which mistake was made in a plan, and whether the attempt with it passed."""
    made = AppTask.model_validate(task.data)
    writes = {
        name
        for domain in (made.domain, *made.distractors)
        for name, tool in apps.interpreter(domain).domain.by_name.items()
        if tool.writes
    }
    plan, kind = None, ""
    kinds = rng.sample(sorted(_MISTAKES), len(_MISTAKES))
    while plan is None and kinds:
        kind = kinds.pop()
        plan = _MISTAKES[kind](made.plan, writes, rng)
    assert plan is not None, "something is changed, told or refused in each task"
    return kind, bool(_tried(task, apps, plan).passed)


def _tried(task: Task, apps: Apps, plan: Sequence[PlanTurn]) -> Verdict:
    """The verdict on an attempt with a plan."""
    # Users who miss something ask on.
    goes_on = (*plan, *[PlanTurn(answer="Is there anything else?")] * _LIMITS.steps)
    made = AppTask.model_validate(task.data)
    return asyncio.run(rollout(Planner(goes_on), AppWorld(apps, made), task, _LIMITS)).verdict


def in_other_words(turn: PlanTurn, rng: random.Random) -> PlanTurn:
    """The same with small numbers in words, dates and times in other forms, and another no."""
    if refuses((turn.answer,)):
        return turn.model_copy(update={"answer": rng.choice(_REFUSALS)})
    answer = _DAY.sub(lambda m: _in_another_form(date.fromisoformat(m[0]), rng), turn.answer)
    answer = _CLOCK.sub(lambda m: _in_halves(int(m[1]), m[2], rng), answer)
    return turn.model_copy(update={"answer": _SMALL.sub(lambda m: f"{m[1]} {_NUMBERS[int(m[2])]}", answer)})


def _in_another_form(day: date, rng: random.Random) -> str:
    return rng.choice(
        (f"{day:%B} {day.day}, {day.year}", f"{day.day} {day:%b} {day.year}", f"{day.day}.{day.month}.{day.year}")
    )


def _in_halves(hour: int, minute: str, rng: random.Random) -> str:
    """A time on a clock of twelve hours."""
    twelve, half = (hour - 1) % 12 + 1, "a" if hour < 12 else "p"
    return rng.choice(
        (f"{twelve}:{minute} {half.upper()}M", f"{twelve:02}:{minute} {half.upper()}M", f"{twelve}.{minute} {half}m")
    )


def _writes_of(plan: _Plan, writes: set[str]) -> list[tuple[int, int, int]]:
    """Where calls stand that change something: turn, wave, call. Where the answer is a no they have changed nothing."""
    return [
        (t, w, c)
        for t, turn in enumerate(plan)
        if not refuses((turn.answer,))
        for w, wave in enumerate(turn.waves)
        for c, call in enumerate(wave)
        if call.name in writes
    ]


def _with_call(plan: _Plan, at: tuple[int, int, int], calls: Sequence[PlannedCall]) -> _Plan:
    """The plan with other calls in the place of one."""
    t, w, c = at
    waves = list(plan[t].waves)
    waves[w] = (*waves[w][:c], *calls, *waves[w][c + 1 :])
    turn = plan[t].model_copy(update={"waves": tuple(wave for wave in waves if wave)})
    return (*plan[:t], turn, *plan[t + 1 :])


def _answered(plan: _Plan, turn: int, text: str) -> _Plan:
    return (*plan[:turn], plan[turn].model_copy(update={"answer": text}), *plan[turn + 1 :])


def _reworded(
    plan: _Plan, places: list[tuple[int, re.Match[str]]], rng: random.Random, other: Callable[[str], str]
) -> _Plan | None:
    """The plan with other words at one of these places of its answers; None if there are none."""
    if not places:
        return None
    turn, match = rng.choice(places)
    answer = plan[turn].answer
    return _answered(plan, turn, f"{answer[: match.start()]}{other(match[0])}{answer[match.end() :]}")


def _forgets(plan: _Plan, writes: set[str], rng: random.Random) -> _Plan | None:
    """It says that it has done what it has not."""
    places = _writes_of(plan, writes)
    return _with_call(plan, rng.choice(places), ()) if places else None


def _mistypes(plan: _Plan, writes: set[str], rng: random.Random) -> _Plan | None:
    """A value of a change is another one."""
    places = [at for at in _writes_of(plan, writes) if _at(plan, at).arguments]
    if not places:
        return None
    at = rng.choice(places)
    call = _at(plan, at)
    name = rng.choice(sorted(call.arguments))
    wrong = call.model_copy(update={"arguments": call.arguments | {name: _other(call.arguments[name], rng)}})
    return _with_call(plan, at, (wrong,))


def _at(plan: _Plan, at: tuple[int, int, int]) -> PlannedCall:
    return plan[at[0]].waves[at[1]][at[2]]


def _misreads(plan: _Plan, writes: set[str], rng: random.Random) -> _Plan | None:
    """A number in an answer, not of an id or a date, is another one."""
    places = [(t, match) for t, turn in enumerate(plan) for match in _NUMBER.finditer(turn.answer)]
    return _reworded(plan, places, rng, lambda number: str(int(number) + rng.choice((1, 7))))


def _denies(plan: _Plan, writes: set[str], rng: random.Random) -> _Plan | None:
    """It says no for yes, or the other way round."""
    places = [(t, word) for t, turn in enumerate(plan) for word in _YES_OR_NO.finditer(turn.answer)]
    return _reworded(plan, places, rng, lambda word: "no" if word == "yes" else "yes")


def _pads(plan: _Plan, writes: set[str], rng: random.Random) -> _Plan | None:
    """A list has one more, which is nowhere."""
    places = [(t, listed) for t, turn in enumerate(plan) for listed in _LIST.finditer(turn.answer)]
    return _reworded(plan, places, rng, lambda listed: f"{listed}, {rng.choice(_NOBODY)}")


def _negates(plan: _Plan, writes: set[str], rng: random.Random) -> _Plan | None:
    """It says that something is not what it is."""
    places = [
        (t, word)
        for t, turn in enumerate(plan)
        if not refuses((turn.answer,))
        for word in re.finditer(r"\b(?:is|are) (?=[a-z])(?!one\b)", turn.answer)
    ]
    return _reworded(plan, places, rng, lambda word: f"{word}not ")


def _says_nothing(plan: _Plan, writes: set[str], rng: random.Random) -> _Plan | None:
    """What was asked for is not told."""
    places = [t for t, turn in enumerate(plan) if re.search(r"\b(is|are)\b", turn.answer)]
    return _answered(plan, rng.choice(places), "Done.") if places else None


def _gives_up(plan: _Plan, writes: set[str], rng: random.Random) -> _Plan | None:
    """It refuses what can be done."""
    places = _writes_of(plan, writes)
    if not places:
        return None
    turn = rng.choice(places)[0]
    refused = PlanTurn(answer="I am sorry, that cannot be done.")
    return (*plan[:turn], refused, *plan[turn + 1 :])


def _claims(plan: _Plan, writes: set[str], rng: random.Random) -> _Plan | None:
    """It says that what cannot be done is done."""
    places = [t for t, turn in enumerate(plan) if refuses((turn.answer,))]
    return _answered(plan, rng.choice(places), rng.choice(_CLAIMS)) if places else None


def _stops(plan: _Plan, writes: set[str], rng: random.Random) -> _Plan | None:
    """It answers the first thing that was asked, and with the same words whatever comes then."""
    return (plan[0], *(PlanTurn(answer=plan[0].answer) for _ in plan[1:])) if len(plan) > 1 else None


_MISTAKES: dict[str, Callable[[_Plan, set[str], random.Random], _Plan | None]] = {
    "a change is forgotten": _forgets,
    "a wrong argument": _mistypes,
    "a wrong number in the answer": _misreads,
    "yes for no": _denies,
    "a list has one more": _pads,
    "something is denied": _negates,
    "nothing is told": _says_nothing,
    "what can be done is refused": _gives_up,
    "what cannot be done is claimed": _claims,
    "only the first thing is done": _stops,
}
