"""The demo: the model acts on real input with real tools, and code says whether it was right.

The tasks were fixed before the model was trained: questions about a real CSV, two jobs on files, two function-calling
tasks in steps. They are not a selection of what works; the rates are in the model card.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from openk2.agent.session import ask_consent
from openk2.agent.view import ConsoleView, print_json
from openk2.core import Event, Limits, Task, UserError, World
from openk2.evals.families import eval_family
from openk2.sandbox import resolve_sandbox

# Family and seed; the test split. The seeds of `real` are positions in its list (all three about penguins.csv).
TASKS = (("real", 0), ("real", 1), ("real", 2), ("shell", 101), ("shell", 102), ("functions", 101), ("functions", 103))
LIMITS = Limits(steps=10, tokens=384, seconds=60.0)

WHAT_NANO_IS_NOT = (
    "openk2-nano has 8.8 million parameters and was trained from scratch on two CPU cores. It is not a chat model: it "
    "calls declared functions, answers plain questions about a CSV and does small jobs on files, in English; outside "
    "of that it is wrong with confidence. Its measured rates: ./k2 eval nano"
)


def demo_tasks(csv: Path | None) -> list[tuple[Task, Callable[[Task], World]]]:
    """The tasks in the order they are shown, each with what makes its world. Raises UserError for a bad CSV."""
    from openk2.evals.own_csv import csv_tasks, csv_world

    own = [(task, csv_world) for task in csv_tasks(csv)] if csv is not None else []
    fixed = []
    for name, seed in TASKS:
        family = eval_family(name)
        fixed.append((family.sample("test", seed), family.world))
    return [*own, *fixed]


async def run_demo(*, csv: Path | None, model: str, assume_yes: bool, strict: bool, device: str, as_json: bool) -> int:
    """Show every task; the exit status: 0, or 1 under `strict` when a verdict is 'failed'.

    Raises UserError for a bad CSV, an unknown model, or no sandbox and no consent.
    """
    tasks = demo_tasks(csv)
    console = Console(highlight=False)
    sandbox = resolve_sandbox(True if assume_yes else ask_consent)
    if sandbox.notice:
        Console(stderr=True).print(f"[yellow]{sandbox.notice}[/]")

    from openk2.policy import resolve_policy
    from openk2.rollout import rollout

    policy = resolve_policy(model, device=device)
    view: Callable[[Event], None] = print_json if as_json else ConsoleView(console, total=len(tasks))
    if not as_json:
        console.print(f"[dim]{WHAT_NANO_IS_NOT}[/]\n")
    passed = failed = 0
    try:
        for task, make_world in tasks:
            trajectory = await rollout(policy, make_world(task), task, LIMITS, on_event=view)
            if trajectory.verdict.passed is None:
                raise UserError(f"the task {task.id} came to no verdict: {trajectory.verdict.reason or 'no verifier'}")
            passed += trajectory.verdict.passed
            failed += not trajectory.verdict.passed
    finally:
        await policy.close()
    if as_json:
        print(json.dumps({"event": "summary", "passed": passed, "failed": failed}), flush=True)
    else:
        console.print(f"[bold]{passed} passed, {failed} failed[/], judged by code that never looks at the model.")
        console.print('[dim]Your own folder: ./k2 agent "how many rows are in data.csv?" --workspace DIR[/]')
    return int(strict and failed > 0)
