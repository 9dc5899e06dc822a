"""Jobs on a real machine: the solution passes, what is wrong does not, and the verdict comes from the sandbox."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from openk2.core import Limits, Message, Task, ToolCall, Trajectory, UserError, Verdict
from openk2.core.messages import compact_json
from openk2.policy.scripted import ScriptedPolicy
from openk2.rollout import rollout
from openk2.sandbox import Sandbox, resolve, resolve_sandbox
from openk2.synth import real
from openk2.synth.jobs import KINDS, Job
from openk2.synth.jobs.job import Call
from openk2.synth.planner import Planner
from openk2.synth.real import PlannedWorld, RealTask, RealWorld, as_task, checked, is_real, make_real
from openk2.synth.verify import difference
from openk2.worlds.apps.world import Apps
from openk2.worlds.families.scratch import write_folder
from openk2.worlds.inline import InlineMachine

LIMITS = Limits(60, 1024, 600)
FEW = sorted(KINDS)[::10]
APPS = Apps({}.__getitem__)
"""No domain: what is real needs none."""


@pytest.fixture(scope="module", autouse=True)
def box() -> Sandbox:
    return resolve_sandbox(consent=True)


def job(kind: str, seed: int = 0) -> Job:
    return KINDS[kind](random.Random(f"test {kind} {seed}"))


def task(made: RealTask) -> Task:
    return Task("t/1", real.FAMILY, made.job, 1, made.say, made.model_dump(mode="json"))


async def planned(made: RealTask) -> Trajectory:
    trajectory = await rollout(Planner(made.plan), PlannedWorld(made), task(made), LIMITS)
    trajectory.seconds = 0.0
    return trajectory


async def after(made: RealTask, calls: tuple[Call, ...], folder: Path, box: Sandbox) -> str:
    """What the checks say of a folder in which these calls were made."""
    folder.mkdir()
    write_folder(folder, made.files, ())
    machine = InlineMachine(folder)
    for name, arguments in calls:
        machine.call(ToolCall("c", name, compact_json(arguments)))
    return (await checked(made, folder, box))[1]


async def right_and_wrong(kind: str, seed: int, folder: Path, box: Sandbox) -> None:
    one = job(kind, seed)
    made = as_task(kind, one, "You help.")
    trajectory = await planned(made)
    assert trajectory.verdict == Verdict(True), (kind, seed, trajectory.verdict.reason, trajectory.messages)
    assert len(one.wrong) >= 3 and one.wrong[0] == ()
    for number, calls in enumerate(one.wrong):
        assert await after(made, calls, folder / f"{seed}-{number}", box), (kind, seed, calls)


def test_there_are_many_kinds_and_each_varies() -> None:
    assert len(KINDS) >= 40
    for kind in KINDS:
        jobs = [job(kind, seed) for seed in range(6)]
        assert job(kind) == jobs[0]
        assert len({str(one.files) + one.ask for one in jobs}) >= 4, kind
        modules = {path.removesuffix(".py") for one in jobs for path in one.files if path.endswith(".py")}
        assert not (modules | {name.removeprefix("test_") for name in modules}) & sys.stdlib_module_names
        assert all(one.checks and one.answer and one.solution for one in jobs)


@pytest.mark.parametrize("kind", FEW)
async def test_the_solution_passes_and_mistakes_do_not(kind: str, tmp_path: Path, box: Sandbox) -> None:
    await right_and_wrong(kind, 0, tmp_path, box)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_all_kinds(kind: str, tmp_path: Path, box: Sandbox) -> None:
    for seed in range(1, 5):
        await right_and_wrong(kind, seed, tmp_path, box)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", sorted(kind for kind in KINDS if kind.startswith(("write", "fix"))))
def test_the_visible_tests_find_the_first_bug(kind: str, tmp_path: Path) -> None:
    for seed in range(4):
        one = job(kind, seed)
        (folder := tmp_path / str(seed)).mkdir()
        write_folder(folder, one.files, ())
        machine = InlineMachine(folder)
        slip = one.wrong[1] if kind.startswith("write") else ()
        for name, arguments in slip:
            machine.call(ToolCall("c", name, compact_json(arguments)))
        test = next(path for path in one.files if path.startswith("test_"))
        assert machine.shell(f"python3 {test}").error


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_the_sandbox_gives_what_the_fast_machine_gave(kind: str) -> None:
    for seed in range(2):
        trajectory = await planned(as_task(kind, job(kind, seed), "You help."))
        assert await difference(trajectory, APPS) is None


async def test_a_changed_trajectory_is_found() -> None:
    made = as_task("fix_price", job("fix_price"), "You help.")
    trajectory = await planned(made)
    assert await difference(trajectory, APPS) is None
    messages = trajectory.messages
    at = next(number for number, message in enumerate(messages) if message.role == "tool")
    changed = replace(messages[at], content=messages[at].content + "!")
    trajectory.messages = [*messages[:at], changed, *messages[at + 1 :]]
    assert "gave" in str(await difference(trajectory, APPS))
    trajectory.messages = messages
    trajectory.verdict = Verdict(False, "x")
    assert "the verdict was False, and is True" in str(await difference(trajectory, APPS))
    trajectory.task = replace(trajectory.task, data={})
    assert "cannot be set up again" in str(await difference(trajectory, APPS))


def said(*turns: str | Call) -> ScriptedPolicy:
    return ScriptedPolicy(
        Message("assistant", turn)
        if isinstance(turn, str)
        else Message("assistant", "", (ToolCall("", turn[0], json.dumps(turn[1])),))
        for turn in turns
    )


async def attempt(made: RealTask, *turns: str | Call) -> tuple[Verdict, float]:
    world = RealWorld(made)
    return (await rollout(said(*turns), world, task(made), LIMITS)).verdict, world.score


async def test_who_ends_the_checks_does_not_pass() -> None:
    made = as_task("write_price", job("write_price"), "You help.")
    module = next(path for path in made.files).removeprefix("test_")
    for code in ("import os\nos._exit(0)\n", "raise SystemExit(0)\n", "print('[]')\n"):
        verdict, score = await attempt(made, ("write_file", {"path": module, "content": code}), "Done.")
        assert not verdict.passed and "checks failed" in verdict.reason and score < 0.5


async def test_a_part_of_the_checks_gives_a_part_of_the_points() -> None:
    one = job("write_price")
    verdict, score = await attempt(as_task("write_price", one, "You help."), *one.wrong[1], "Done.")
    assert not verdict.passed and 0.5 < score < 1 and "load(" in verdict.reason


@pytest.mark.parametrize(
    "command",
    ["pwd", "ls -l", "python3 -c 'print(object())'", "date +%T.%N", "echo Ran 3 tests in 0.001s"],
)
async def test_what_cannot_be_repeated_is_no_data(command: str) -> None:
    one = job("write_price")
    turns = (*one.solution, ("shell", {"command": command}), "Done.")
    verdict, _ = await attempt(as_task("write_price", one, "You help."), *turns)
    assert not verdict.passed and "cannot be repeated" in verdict.reason


def test_which_tasks_are_real() -> None:
    few = [number for number in range(3000) if is_real(0.02, 5, number)]
    many = [number for number in range(3000) if is_real(0.3, 5, number)]
    assert 30 < len(few) < 90 and set(few) < set(many) and 800 < len(many) < 1000
    assert not any(is_real(0.0, 5, number) for number in range(100))
    assert make_real(4) == make_real(4) != make_real(5)


def test_there_must_be_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_usable", lambda: (None, "bubblewrap: not installed"))
    monkeypatch.setattr(resolve, "_consented", [])
    with pytest.raises(UserError, match=r"no sandbox works here .*--set real.share=0"):
        asyncio.run(planned(make_real(1)))
