"""Tasks can be done in the way that is planned, and not in the ways in which agents typically fail."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from openk2.core import Limits, Task, Trajectory
from openk2.rollout import rollout
from openk2.synth.goals import Goals
from openk2.synth.planner import Planner
from openk2.synth.tasks import TaskMaker
from openk2.worlds.apps.filling import today_of
from openk2.worlds.apps.interpreter import Refused
from openk2.worlds.apps.world import AppTask, AppWorld, PlannedCall, PlanTurn
from synth.made import agents, apps, domains, tasks

Plan = list[PlanTurn]
_ID = re.compile(r"\b[A-Z]+-\d{4}\b")


async def run(task: AppTask, plan: Sequence[PlanTurn] | None = None) -> Trajectory:
    raw = Task("t", "apps", "", 0, task.turns[0].say, task.model_dump())
    return await rollout(Planner(plan or task.plan), AppWorld(apps()), raw, Limits(steps=60))


async def test_plans_pass() -> None:
    for task, _ in tasks():
        trajectory = await run(task)
        assert trajectory.verdict.passed, (trajectory.verdict, task)


async def test_calls_side_by_side_may_be_in_any_order() -> None:
    """So that one which a fault has stopped can be tried again behind the others."""
    tried = 0
    for number in range(600):
        task = TaskMaker(apps(), agents()[number % len(agents())], number).make()
        if task is None or not any(len(wave) > 1 for turn in task.plan for wave in turn.waves):
            continue
        plan = [turn.model_copy(update={"waves": tuple(wave[::-1] for wave in turn.waves)}) for turn in task.plan]
        verdict = (await run(task, plan)).verdict
        assert verdict.passed, (number, verdict)
        tried += 1
    assert tried > 100


async def test_plans_are_grounded() -> None:
    """Whatever id a call has was said or shown before."""
    used = 0
    for task, _ in tasks():
        said = ""
        for message in (await run(task)).messages:
            for call in message.tool_calls:
                for key in _ID.findall(call.arguments):
                    assert re.search(rf"\b{key}\b", said), (key, task.plan)
                    used += 1
            if message.role != "assistant":
                said += message.content + "\n"
    assert used > 100


def test_all_kinds_of_turns_occur() -> None:
    kinds = {kind for _, some in tasks() for kind in some}
    assert kinds == {"goals", "change", "recovery", "recovered", "impossible", "forbidden"}
    assert any(turn.facts for task, _ in tasks() for turn in task.turns)
    assert any(task.distractors for task, _ in tasks())
    assert {len(task.turns) for task, _ in tasks()} >= {1, 2, 3, 4}


def test_a_seed_makes_one_task() -> None:
    def made(seed: int) -> AppTask | None:
        return TaskMaker(apps(), agents()[3], seed).make()

    assert made(5) == made(5) != made(6)


def test_tasks_are_json() -> None:
    for task, _ in tasks()[:10]:
        assert AppTask.model_validate_json(task.model_dump_json()) == task


def test_texts_read_well() -> None:
    for task, _ in tasks():
        for turn in task.turns:
            asked = [part for part in re.split(r"(?<=[.?!]) (?=[A-Z])", turn.say) if len(part) > 30]
            assert len(set(asked)) == len(asked), turn.say
        texts = [task.system, *(turn.say for turn in task.turns), *(turn.answer for turn in task.plan)]
        texts += [fact.answer for turn in task.turns for fact in turn.facts]
        for text in texts:
            assert not re.search(r"[{}\[\]|]|  |\(\)|\.\.|\bof me\b|\b[Aa] [aeio]|\bNone\b", text), text
            assert text[0].isupper() or text[0].isdigit(), text


def test_what_is_held_back_is_not_said() -> None:
    for task, _ in tasks():
        for turn, plan in zip(task.turns, task.plan, strict=True):
            assert bool(turn.facts) == bool(plan.question)
            for fact in turn.facts:
                assert set(fact.words) & set(re.findall(r"[a-z]+", plan.question.lower()))


async def test_a_change_of_mind_sets_a_value_again() -> None:
    """What was done first makes no difference to the end, and the user was told that it was done."""
    tried = 0
    for task, kinds in tasks():
        if "change" in kinds:
            plan, at = list(task.plan), kinds.index("change")
            plan[at - 1] = plan[at - 1].model_copy(update={"waves": plan[at - 1].waves[:-1]})
            verdict = (await run(task, plan)).verdict
            assert not verdict.passed and verdict.reason == f"behind turn {at} the state was another one"
            tried += 1
    assert tried > 2


# What agents do wrong.


def writes(task: AppTask, call: PlannedCall) -> bool:
    return domains()[task.domain].by_name[call.name].writes


def last_write(task: AppTask) -> tuple[int, int, int] | None:
    """Where the last call stands that changes something."""
    found = None
    for at, (turn, plan) in enumerate(zip(task.turns, task.plan, strict=True)):
        for wave, calls in enumerate(plan.waves):
            for number, call in enumerate(calls):
                if writes(task, call) and not turn.refuse:
                    found = at, wave, number
    return found


def with_call(task: AppTask, change: Callable[[PlannedCall], PlannedCall | None]) -> Plan | None:
    """The plan with another call for the last one that changes something."""
    place = last_write(task)
    if place is None:
        return None
    at, wave, number = place
    plan = list(task.plan)
    waves = [list(calls) for calls in plan[at].waves]
    other = change(waves[wave][number])
    if other == waves[wave][number]:
        return None
    waves[wave][number : number + 1] = [] if other is None else [other]
    plan[at] = plan[at].model_copy(update={"waves": tuple(tuple(calls) for calls in waves if calls)})
    return plan


def with_extra(task: AppTask, domain: str, names: Sequence[str], *, first: bool = False) -> Plan | None:
    """The plan with one more call that changes something, at its end or its beginning."""
    state = apps().state(domain, task.state_seed)
    given = {"today": today_of(task.state_seed), "user": task.user}
    done = (
        [] if first or domain != task.domain else [call for plan in task.plan for wave in plan.waves for call in wave]
    )
    for call in done:
        with suppress(Refused):
            apps().interpreter(domain).run(state, domains()[domain].by_name[call.name], call.arguments, given)
    tools = {name: domains()[domain].by_name[name] for name in names}
    goal = Goals(apps().interpreter(domain), tools, state, given, random.Random(1)).find(state, reads=0.0)
    if goal is None:
        return None
    call = PlannedCall(name=goal.tool.name, arguments=goal.arguments)
    plan = list(task.plan)
    at = 0 if first else -1
    plan[at] = plan[at].model_copy(update={"waves": (*plan[at].waves, (call,))})
    return plan


def wrong_argument(task: AppTask) -> Plan | None:
    def change(call: PlannedCall) -> PlannedCall:
        for name, parameter in domains()[task.domain].by_name[call.name].parameters.items():
            if parameter.ref is not None and name in call.arguments:
                keys = [row["id"] for row in apps().state(task.domain, task.state_seed).rows(parameter.ref)]
                other = next(key for key in keys if key not in call.arguments.values())
                return call.model_copy(update={"arguments": call.arguments | {name: other}})
        return call

    return with_call(task, change)


def missing_call(task: AppTask) -> Plan | None:
    return with_call(task, lambda call: None)


def extra_call(task: AppTask) -> Plan | None:
    return with_extra(task, task.domain, [name for name in task.tools if name not in task.rubric.forbidden])


def call_elsewhere(task: AppTask) -> Plan | None:
    for domain, names in task.distractors.items():
        if domain in domains():
            return with_extra(task, domain, names)
    return None


def forbidden_call(task: AppTask) -> Plan | None:
    names = task.rubric.forbidden
    return with_extra(task, task.domain, names, first=True) if names else None


def untold(task: AppTask) -> Plan | None:
    if not any(turn.tell for turn in task.turns):
        return None
    return [
        plan.model_copy(update={"answer": "Done."}) if turn.tell else plan
        for turn, plan in zip(task.turns, task.plan, strict=True)
    ]


def no_refusal(task: AppTask) -> Plan | None:
    if not any(turn.refuse for turn in task.turns):
        return None
    return [
        plan.model_copy(update={"answer": "Done."}) if turn.refuse else plan
        for turn, plan in zip(task.turns, task.plan, strict=True)
    ]


def early_end(task: AppTask) -> Plan | None:
    if last_write(task) is None:
        return None
    return [PlanTurn(answer=plan.answer) for plan in task.plan]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (wrong_argument, "the state at the end is another one"),
        (missing_call, "the state at the end is another one"),
        (extra_call, "the state at the end is another one"),
        (call_elsewhere, "which was not asked for"),
        (forbidden_call, "which must not be"),
        (untold, "the user was not told"),
        (no_refusal, "the user was not told that it cannot be"),
        (early_end, "the state at the end is another one"),
    ],
)
async def test_mistakes_fail(mistake: Callable[[AppTask], Plan | None], words: str) -> None:
    tried = 0
    for task, _ in tasks():
        plan = mistake(task)
        if plan is None:
            continue
        tried += 1
        verdict = (await run(task, plan)).verdict
        assert not verdict.passed and words in verdict.reason, (verdict, task, plan)
    assert tried >= 2
