"""The demo: the model acts on real input with real tools, and code says whether it was right.

Questions about a real CSV, jobs on files and function calls in steps. The tasks are held-out ones, picked by their kind
and never by whether a model solves them: of each kind below the first from seed 101 on. The model card has the rates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from openk2.agent.run import WHY
from openk2.agent.setup import acquire_policy, acquire_sandbox, record_name, records_folder, speaker_of
from openk2.agent.view import ConsoleView, print_json, print_object
from openk2.core import Limits, OnEvent, Policy, Task, UserError, World, command
from openk2.core.errors import Interrupted
from openk2.core.families import get_family
from openk2.core.progress import new_console
from openk2.rollout import rollout

# The first questions of the `real` family are about penguins.csv.
QUESTIONS = 3
KINDS = (("shell", "sort"), ("shell", "create"), ("functions", "chain3"), ("functions", "ask"))
FIRST_SEED = 101
LIMITS = Limits(steps=10, tokens=384, seconds=60.0)

WHAT_NANO_IS_NOT = (
    "openk2-nano has 7.6 million parameters and was trained from scratch on two CPU cores. It is not a chat model: it "
    "calls declared functions, answers plain questions about a CSV and does small jobs on files, in English; outside "
    "of that it is wrong with confidence. Its measured rates: {command} eval nano"
)

Job = tuple[Task, Callable[[Task], World]]


def demo_tasks(csv: Path | None) -> list[Job]:
    """The tasks in the order they are shown, each with what makes its world. Raises UserError for a bad CSV."""
    from openk2.evals.own_csv import csv_tasks, csv_world

    own: list[Job] = [(task, csv_world) for task in csv_tasks(csv)] if csv is not None else []
    real = get_family("real")
    jobs: list[Job] = [(real.sample("test", seed), real.world) for seed in range(QUESTIONS)]
    for name, skill in KINDS:
        family = get_family(name)
        drawn = (family.sample("test", seed) for seed in count(FIRST_SEED))
        jobs.append((next(task for task in drawn if task.skill == skill), family.world))
    return [*own, *jobs]


def run_demo(*, csv: Path | None, model: str, assume_yes: bool, strict: bool, device: str, as_json: bool) -> int:
    """Show every task; the exit status: 0, or 1 under `strict` when a verdict is 'failed'.

    Raises UserError for a bad CSV, an unknown model, or no sandbox and no consent; Interrupted on Ctrl-C.
    """
    tasks = demo_tasks(csv)
    acquire_sandbox(assume_yes)
    policy = acquire_policy(model, device=device)
    records = records_folder() / f"demo-{record_name()}"
    view = ConsoleView(new_console(), speaker=speaker_of(model), total=len(tasks))
    if not as_json and model == "nano":
        view.note(f"{WHAT_NANO_IS_NOT.format(command=command.typed)}\n")
    verdicts: list[bool] = []
    try:
        with view:
            asyncio.run(show(policy, tasks, print_json if as_json else view, records, verdicts))
    except KeyboardInterrupt as e:
        kept = f": {len(verdicts)} of {len(tasks)} tasks were finished, the records are in {records}"
        raise Interrupted(f"interrupted{kept if records.exists() else ' before anything was done'}") from e
    finally:
        passed, failed = verdicts.count(True), verdicts.count(False)
        if as_json:
            # Fewer verdicts than tasks: it was cut off, and stderr says by what.
            print_object({"event": "summary", "passed": passed, "failed": failed, "tasks": len(tasks)})
    if not as_json:
        view.console.print(f"[bold]{passed} passed, {failed} failed[/], judged by code that never looks at the model.")
        view.console.print(f"records: {records}", style="dim", markup=False, soft_wrap=True)
        view.note(f'Your own folder: {command.typed} agent "how many rows are in data.csv?" --workspace DIR')
    return int(strict and failed > 0)


async def show(policy: Policy, tasks: Sequence[Job], watch: OnEvent, records: Path, verdicts: list[bool]) -> None:
    """Roll out the tasks one after the other and close the policy; whether each has passed goes to `verdicts`.

    Each leaves an ATIF file in `records`. Raises UserError for a task that nothing can judge.
    """
    try:
        for number, (task, make_world) in enumerate(tasks, start=1):
            record = records / f"{number:02}-{task.family}-{task.skill}.json"
            trajectory = await rollout(policy, make_world(task), task, LIMITS, on_event=watch, record=record)
            if trajectory.verdict.passed is None:
                raise UserError(f"the task {task.id} came to no verdict: {trajectory.verdict.reason or 'no verifier'}")
            verdicts.append(trajectory.verdict.passed)
            if not trajectory.finished and isinstance(watch, ConsoleView):
                watch.note(f"The model gave up: {WHY[trajectory.stop].partition(' (--')[0]}.\n", "yellow")
    finally:
        await policy.close()
