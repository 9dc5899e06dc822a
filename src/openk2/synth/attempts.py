"""Tasks of a shard, and attempts at them: made, tried, judged, and written as rows of the lake.

A shard depends on its number and the recipe alone, so any number of workers gives the same bytes. Clocks are left out.
A model's attempts are written down one by one as they come, since they cost something: nothing is asked for twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openk2.core import Limits, Policy, Seeded, Task, ToolCall, Trajectory, UserError, Verdict
from openk2.core.atif import to_atif
from openk2.core.messages import compact_json
from openk2.core.runs import write_text
from openk2.data.lake import attempts_schema, packages, read_rows, rows_in, tasks_schema, write_table
from openk2.rollout import rollout
from openk2.rollout.loop import OUT_OF_TIME
from openk2.synth import real
from openk2.synth.agents import Agent
from openk2.synth.ask import Asker
from openk2.synth.planner import Planner
from openk2.synth.real import PlannedWorld, RealTask, RealWorld
from openk2.synth.recipe import AttemptsConfig, SynthRecipe
from openk2.synth.tasks import TaskMaker
from openk2.synth.users import EXCLUDED, PlayedWorld
from openk2.worlds.apps.world import Apps, AppTask, AppWorld

FAMILY = "apps"
_HOPELESS = 20
"""After so many failures of an endpoint with no answer between them nothing more is asked."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Which tasks there are, and where they and the attempts at them go."""

    first: int
    last: int
    tasks: Path
    attempts: Path

    @property
    def partial(self) -> Path:
        """Where a model's attempts are written down until the shard is whole."""
        return self.attempts.with_suffix(".partial.jsonl")


@dataclass(frozen=True, slots=True)
class Bench:
    """What all shards of a run share."""

    recipe: SynthRecipe
    apps: Apps
    agents: list[Agent]
    categories: dict[str, str]


def make_tasks(shard: Shard, bench: Bench) -> None:
    """Make the tasks of a shard."""
    rows: list[dict[str, Any]] = []
    recipe = bench.recipe
    for number in range(shard.first, shard.last):
        head = {"number": number, "task": f"{recipe.name}/{number}"}
        if real.is_real(recipe.real.share, recipe.seed, number):
            rows.append(head | real.task_row(real.make_real(recipe.seed * 1_000_003 + number)))
            continue
        agent = bench.agents[number // recipe.tasks.in_a_row % len(bench.agents)]
        seed, styles = recipe.seed * 1_000_003 + number, recipe.users.styles
        maker = TaskMaker(bench.apps, agent, seed, most_turns=recipe.tasks.turns, styles=styles)
        made = maker.make()
        rows.append(
            head
            | {
                "domain": agent.domain,
                "category": bench.categories.get(agent.domain, ""),
                "agent": agent.name,
                "kinds": " ".join(sorted(set(maker.kinds))),
                "data": None if made is None else made.model_dump_json(),
            }
        )
    write_table(shard.tasks, rows, tasks_schema())


def run_planner(shard: Shard, bench: Bench) -> None:
    """The planner's attempts at the tasks of a shard: nothing waits for anything, so one after the other."""

    async def all_rows() -> list[dict[str, Any]]:
        rows = []
        for task, made, base in _tasks(shard):
            rows.append(
                base
                | {"attempt": 0}
                | await _attempt(task, made, bench.apps, Planner(made.plan), bench.recipe.attempts)
            )
        return rows

    write_table(shard.attempts, asyncio.run(all_rows()), attempts_schema())


def _tasks(shard: Shard) -> Iterator[tuple[Task, AppTask | RealTask, dict[str, Any]]]:
    """The tasks of a shard with the columns that they give to their attempts."""
    for row in read_rows(shard.tasks):
        if row["data"] is None:
            continue
        made: AppTask | RealTask
        if row["domain"] == real.MACHINE:
            made = RealTask.model_validate_json(row["data"])
            family, skill, say = real.FAMILY, made.job, made.say
        else:
            made = AppTask.model_validate_json(row["data"])
            family, skill, say = FAMILY, row["domain"], made.turns[0].say
        task = Task(row["task"], family, skill, row["number"], say, json.loads(row["data"]))
        yield task, made, {"number": row["number"], "task": row["task"]}


@dataclass(slots=True)
class Spent:
    """What a model's attempts have cost, and how many there were."""

    attempts: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    last_failure: str = ""
    _in_a_row: int = 0

    def add(self, row: dict[str, Any]) -> None:
        self.answered()
        self.prompt_tokens += row["prompt_tokens"]
        self.completion_tokens += row["tokens"]

    def answered(self) -> None:
        self.attempts += 1
        self._in_a_row = 0

    def fail(self, error: UserError) -> None:
        """Note a failure. Raises UserError if there is no hope left."""
        self.failures += 1
        self._in_a_row += 1
        self.last_failure = str(error)
        if self._in_a_row >= _HOPELESS:
            raise UserError(f"{error} ({self._in_a_row} attempts in a row had no answer; what was finished is kept)")

    def text(self, prices: tuple[float, float]) -> str:
        """For the bar: tokens, cost, failures."""
        cost = (self.prompt_tokens * prices[0] + self.completion_tokens * prices[1]) / 1e6
        said = f"{_short(self.prompt_tokens)} in, {_short(self.completion_tokens)} out"
        said += f", ${cost:.2f}" if any(prices) else ""
        return said + (f", {self.failures} failed" if self.failures else "")


def _short(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.0f}k" if count >= 1e4 else str(count)


@dataclass(slots=True)
class _Open:
    """A shard under way: rows by task and attempt, and how many are awaited."""

    shard: Shard
    rows: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    waiting: int = 0
    lost: int = 0

    def put(self, row: dict[str, Any]) -> None:
        self.rows[row["number"], row["attempt"]] = row
        with open(self.shard.partial, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Write the shard if nothing of it is missing."""
        if not self.lost:
            write_table(self.shard.attempts, [self.rows[key] for key in sorted(self.rows)], attempts_schema())
            self.shard.partial.unlink(missing_ok=True)


async def run_model(
    shards: Sequence[Shard],
    bench: Bench,
    policy: Policy | None,
    hear: Callable[[Spent], None],
    users: Asker | None = None,
) -> Spent:
    """A model's attempts at the tasks of all shards, many at a time. Without `policy` the planner acts; `users` plays
    the users.

    An attempt without an answer, or with none in its time, is left out, and its shard is not whole: the next run asks
    again. Raises UserError when nothing is answered any more; what was is kept.
    """
    config, spent = bench.recipe.attempts, Spent()
    gate, machines = asyncio.Semaphore(config.concurrency), asyncio.Semaphore(real.AT_ONCE)

    async def one(task: Task, made: AppTask | RealTask, base: dict[str, Any], held: _Open) -> None:
        # Attempts at one task must differ, and be the same when they are made again.
        seed = bench.recipe.seed * 1_000_003 + task.seed * 101 + base["attempt"]
        own = policy.seeded(seed) if isinstance(policy, Seeded) else policy or Planner(made.plan)
        try:
            # A machine costs a process with a kernel, an app costs next to nothing.
            async with machines if isinstance(made, RealTask) else contextlib.nullcontext():
                row = base | await _attempt(task, made, bench.apps, own, config, users, seed)
            held.put(row)
            spent.add(row)
        except UserError as e:
            held.lost += 1
            spent.fail(e)
        finally:
            gate.release()
            held.waiting -= 1
            hear(spent)
        if not held.waiting:
            held.close()

    async with asyncio.TaskGroup() as group:
        for shard in shards:
            held = _Open(shard, written(shard.partial))
            # One more than there are, so that it is not closed before all of them have begun.
            held.waiting = 1
            for task, made, base in _tasks(shard):
                for attempt in range(config.per_task):
                    if (base["number"], attempt) in held.rows:
                        continue
                    await gate.acquire()
                    held.waiting += 1
                    group.create_task(one(task, made, base | {"attempt": attempt}, held))
                    # It asks at once: while it waits, the next one is made.
                    await asyncio.sleep(0)
            held.waiting -= 1
            if not held.waiting:
                held.close()
    return spent


def written(path: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """What is in a file of attempts; a last line that was cut off is left out. Raises UserError for any other line that
    is no attempt."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    if path.exists():
        whole = path.read_bytes().split(b"\n")[:-1]
        path.write_bytes(b"".join(line + b"\n" for line in whole))
        pa, _ = packages()
        schema = attempts_schema()
        for number, line in enumerate(whole, 1):
            try:
                row = json.loads(line)
                if set(row) != set(schema.names) or not isinstance(row["atif"], str):
                    raise ValueError
                pa.RecordBatch.from_pylist([row], schema=schema)
            except (ValueError, TypeError, RecursionError):
                raise UserError(
                    f"{path}, line {number}, is no attempt of this version: delete that line, and the task is tried "
                    "again"
                ) from None
            rows[row["number"], row["attempt"]] = row
    return rows


def reopen(shard: Shard) -> None:
    """What a model has tried of a shard that was whole goes back to where attempts are written down one by one, so that
    others are added and none is asked for again."""
    if rows_in(shard.attempts) >= 0:
        rows = {(row["number"], row["attempt"]): row for row in read_rows(shard.attempts)} | written(shard.partial)
        write_text(shard.partial, "".join(json.dumps(row) + "\n" for row in rows.values()))


async def _attempt(
    task: Task,
    made: AppTask | RealTask,
    apps: Apps,
    policy: Policy,
    config: AttemptsConfig,
    users: Asker | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    limits = Limits(config.steps, config.tokens, config.seconds)
    if isinstance(made, RealTask):
        # Only what the planner does is this package's own code, and may run outside the sandbox.
        machine = PlannedWorld(made) if isinstance(policy, Planner) else RealWorld(made)
        trajectory = await rollout(policy, machine, task, limits)
        must_answer(policy, trajectory, config.seconds)
        return row_of(trajectory, machine.score)
    world = PlayedWorld(apps, made, users, seed) if users else AppWorld(apps, made)
    trajectory = await rollout(policy, world, task, limits)
    must_answer(policy, trajectory, config.seconds, None if users is None else users.model)
    if isinstance(world, PlayedWorld):
        # With what the user has said the task can be done again without the model that has said it.
        trajectory.task = replace(task, data=world.played.model_dump(mode="json"))
        if world.fault is not None:
            trajectory.verdict = Verdict(None, f"{EXCLUDED}{world.fault.kind} ({world.fault.detail})")
            return row_of(trajectory, None)
    return row_of(trajectory, world.grade.score if world.grade else 0.0)


def must_answer(policy: Policy, trajectory: Trajectory, seconds: float, users: str | None = None) -> None:
    """Raises UserError if the time was over while a model was to speak: that says nothing of what the agent would have
    done. `users` is the model that plays the user, if one does.

    A call that takes all of the time is the agent's own.
    """
    if trajectory.stop != "seconds":
        return
    last = trajectory.messages[-1] if trajectory.messages else None
    if last is None or last.role == "assistant":
        # The user's model was to begin, or to say what it thinks of an answer.
        silent = users
    elif isinstance(policy, Planner) or (last.role == "tool" and last.content == OUT_OF_TIME):
        silent = None
    else:
        silent = policy.name
    if silent is not None:
        raise UserError(f"{silent} did not answer within the {seconds:g} seconds of an attempt")


def row_of(trajectory: Trajectory, score: float | None) -> dict[str, Any]:
    """The columns that follow from a trajectory, whose clocks are set to nothing. What is excluded has no score and
    has neither passed nor failed."""
    trajectory.seconds = 0.0
    for step in trajectory.steps:
        step.seconds = 0.0
    called = [call for message in trajectory.messages for call in message.tool_calls]
    calls = [call.name for call in called]
    sections = sum(step.turn.malformed is not None for step in trajectory.steps)
    usage = [step.turn.usage for step in trajectory.steps if step.turn.usage]
    return {
        "policy": trajectory.policy,
        "hash": content_hash(trajectory),
        "tools": " ".join(tool.name for tool in trajectory.tools),
        "calls": " ".join(calls),
        "stop": trajectory.stop,
        "reason": trajectory.verdict.reason,
        "atif": json.dumps(to_atif(trajectory).to_json_dict(), separators=(",", ":")),
        "steps": len(trajectory.steps),
        "n_calls": len(calls),
        "malformed": sections + sum(map(_is_malformed, called)),
        "user_turns": sum(message.role == "user" for message in trajectory.messages),
        "prompt_tokens": sum(one.prompt_tokens for one in usage),
        "tokens": sum(one.completion_tokens for one in usage),
        "passed": trajectory.verdict.passed,
        "score": score,
    }


def _is_malformed(call: ToolCall) -> bool:
    try:
        call.parsed()
    except (ValueError, RecursionError):
        return True
    return False


def content_hash(trajectory: Trajectory) -> str:
    """Of what was said, called and returned, and of the tools on offer."""
    said = [message.to_openai() for message in trajectory.messages]
    tools = [tool.to_openai() for tool in trajectory.tools]
    return hashlib.sha256(compact_json([tools, said]).encode("utf-8", "replace")).hexdigest()
