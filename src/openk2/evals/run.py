"""Success rates: roll a policy out on held-out tasks, let the worlds judge, count with intervals."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from openk2.agent.setup import acquire_policy, acquire_sandbox, warn
from openk2.agent.view import print_object
from openk2.core import Family, Limits, Policy, Task, Trajectory, UserError
from openk2.core.errors import Interrupted, first_alone
from openk2.core.families import FIXED, get_family, is_verified, needs_sandbox, sample_task
from openk2.core.progress import new_console
from openk2.core.rates import Tally
from openk2.rl.watched import WatchedWorld, WorldFailed
from openk2.worlds.text import clean

EVALUATED = ("functions", "notebook", "shell", "apps", *FIXED)
"""What is evaluated if no family is named."""
LIMITS = Limits(steps=12, tokens=384, seconds=300.0)
# Far apart, so that the tasks of two evaluation seeds never overlap.
SEED_STRIDE = 1_000_000
SHOWN_FAILURES = 5


@dataclass(slots=True)
class Report:
    """The verdicts of one family. `stops` counts how rollouts ended, `failures` says why."""

    family: str
    total: Tally = field(default_factory=Tally)
    by_skill: dict[str, Tally] = field(default_factory=dict)
    stops: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, trajectory: Trajectory, rows: Sequence[str]) -> None:
        passed = bool(trajectory.verdict.passed)
        self.total.add(passed)
        for row in rows:
            self.by_skill.setdefault(row, Tally()).add(passed)
        self.stops[trajectory.stop] = self.stops.get(trajectory.stop, 0) + 1
        if not passed:
            self.failures.append((trajectory.task.id, trajectory.verdict.reason))

    def to_json(self) -> dict[str, Any]:
        return {
            "family": self.family,
            **self.total.to_json(),
            "by_skill": {skill: tally.to_json() for skill, tally in sorted(self.by_skill.items())},
            "stops": dict(sorted(self.stops.items())),
        }


def rows_of(task: Task) -> list[str]:
    """The rows of the table that a task counts in: its skill, and 'opaque' where the tool's name gives nothing away."""
    return [task.skill, *(["opaque"] if task.data.get("opaque") else [])]


async def evaluate(
    policy: Policy,
    family: Family,
    tasks: Iterable[Task],
    *,
    concurrency: int,
    limits: Limits = LIMITS,
    save: Path | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Report:
    """Roll out every task (at most `concurrency` at a time) and count the verdicts in `report`, by default a new one.

    A rollout is counted as soon as it has ended. With `save`, each finished trajectory is written to a file of its
    family's folder there. Raises what a rollout raises.
    """
    from openk2.core.atif import write_atif
    from openk2.rollout import rollout

    counted = Report(family.name) if report is None else report
    todo = list(tasks)
    bar = progress.add_task(family.name, total=len(todo)) if progress else None
    gate = asyncio.Semaphore(concurrency)

    async def one(task: Task, file: str) -> None:
        async with gate:
            try:
                trajectory = await rollout(policy, WatchedWorld(family, task, limits.seconds), task, limits)
            except WorldFailed as e:
                raise UserError(str(e)) from e
        counted.add(trajectory, rows_of(task))
        if save is not None:
            write_atif(save / _file_name(counted.family) / f"{file}.json", trajectory)
        if progress is not None and bar is not None:
            progress.advance(bar)

    with first_alone():
        async with asyncio.TaskGroup() as group:
            for task, file in zip(todo, _file_names([task.id for task in todo]), strict=True):
                group.create_task(one(task, file))
    # In the order of the tasks and not of their ends.
    place = {task.id: i for i, task in enumerate(todo)}
    counted.failures.sort(key=lambda failure: place[failure[0]])
    return counted


_LONGEST_NAME = 60
"""In letters, of up to four bytes each; a file's name may have 255 bytes."""


def _file_name(name: str) -> str:
    """A name as that of a file in the folder where it is to be, whatever it was."""
    return re.sub(r"[^\w.,=-]", "_", name).lstrip(".")[:_LONGEST_NAME] or "_"


def _file_names(ids: Sequence[str]) -> list[str]:
    """A file name for each, all different even where the ids are not, also for a disk that folds case."""
    names: list[str] = []
    taken: set[str] = set()
    for name in map(_file_name, ids):
        free = next(one for n in count(1) if (one := name if n == 1 else f"{name}~{n}").casefold() not in taken)
        taken.add(free.casefold())
        names.append(free)
    return names


def held_out_tasks(name: str, n: int, seed: int) -> list[Task]:
    """The held-out tasks of an evaluation seed: `n` fresh draws, or the whole set of a family with a fixed one."""
    fixed = getattr(get_family(name), "tasks", None)
    if fixed is not None:
        return list(fixed())
    return [sample_task(name, "test", seed * SEED_STRIDE + i) for i in range(n)]


def evaluate_families(
    model: str,
    families: Sequence[str],
    *,
    n: int,
    seed: int,
    grammar: bool,
    concurrency: int,
    save: Path | None,
    device: str,
    assume_yes: bool,
    as_json: bool,
) -> None:
    """Evaluate and print: a table for people, one JSON object per family for machines.

    Raises UserError for an unknown family or model and a folder that cannot be written, Interrupted on Ctrl-C.
    """
    names = list(dict.fromkeys(families)) or list(EVALUATED)
    for name in names:
        if not is_verified(name):
            raise UserError(f"{name} can only be compared, and has no rate of success: leave it out")
    if save is not None:
        try:
            save.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=save).close()
        except OSError as e:
            raise UserError(f"no trajectories can be written to {save} ({e.strerror}): choose another folder") from e
    if any(needs_sandbox(name) for name in names):
        acquire_sandbox(assume_yes)
    policy = _policy(model, device, grammar)
    try:
        asyncio.run(_evaluate_all(policy, names, n, seed, concurrency, save, as_json))
    except KeyboardInterrupt as e:
        kept = f"; the trajectories of the finished tasks are in {save}" if save else ""
        raise Interrupted(f"interrupted: the last table counts only what was finished{kept}") from e


async def _evaluate_all(
    policy: Policy, names: Sequence[str], n: int, seed: int, concurrency: int, save: Path | None, as_json: bool
) -> None:
    progress_console = new_console(stderr=True)
    try:
        for name in names:
            family = get_family(name)
            for sentence in getattr(family, "skipped", list)():
                warn(sentence)
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(
                *columns, console=progress_console, transient=True, disable=not progress_console.is_terminal
            ) as progress:
                report, tasks = Report(name), held_out_tasks(name, n, seed)
                try:
                    await evaluate(
                        policy, family, tasks, concurrency=concurrency, save=save, progress=progress, report=report
                    )
                except asyncio.CancelledError:
                    progress.stop()
                    if report.total.n:
                        _show(report, len(tasks), as_json)
                    raise
            _show(report, None, as_json)
    finally:
        await policy.close()


def _show(report: Report, of: int | None, as_json: bool) -> None:
    """Print a report; `of` says of how many tasks, where it was cut off."""
    if as_json:
        print_object(report.to_json() | ({} if of is None else {"interrupted": True, "of": of}))
    else:
        print_report(new_console(), report)
        if of is not None:
            new_console().print(f"cut off: {report.total.n} of {of} tasks were finished, the short ones first")


def _policy(model: str, device: str, grammar: bool) -> Policy:
    if model == "baseline":
        from openk2.evals.baseline import BaselinePolicy

        return BaselinePolicy()
    return acquire_policy(model, device=device, grammar=grammar)


def print_report(console: Console, report: Report) -> None:
    """The family's table: a row per skill, the whole last."""
    table = Table(title=report.family, title_justify="left", box=None, pad_edge=False)
    for heading in ("skill", "n", "passed", "rate", "95 % CI"):
        table.add_column(heading, justify="left" if heading == "skill" else "right")
    for skill, tally in [*sorted(report.by_skill.items()), ("all", report.total)]:
        row = tally.to_json()
        low, high = row["ci95"]
        style = "bold" if skill == "all" else ""
        table.add_row(
            Text(skill), str(tally.n), str(tally.passed), f"{row['rate']:.1%}", f"{low:.1%} - {high:.1%}", style=style
        )
    console.print(table)
    for task_id, reason in report.failures[:SHOWN_FAILURES]:
        console.print(Text(f"failed {task_id}: {clean(reason)}", style="dim"))
    left = len(report.failures) - SHOWN_FAILURES
    if left > 0:
        console.print(Text(f"... and {left} more; --save DIR keeps every trajectory", style="dim"))
    console.print()
