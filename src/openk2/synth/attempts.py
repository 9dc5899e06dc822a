"""One shard of tasks: made, tried, judged, and written as rows of the lake.

A shard depends on its number and the recipe alone, so any number of workers gives the same bytes. Clocks are left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openk2.core import Limits, Policy, Task, Trajectory, UserError
from openk2.core.atif import to_atif
from openk2.core.messages import compact_json
from openk2.rollout import rollout
from openk2.synth.agents import Agent
from openk2.synth.lake import attempts_schema, write_table
from openk2.synth.planner import Planner
from openk2.synth.recipe import SynthRecipe
from openk2.synth.tasks import TaskMaker
from openk2.worlds.apps.world import Apps, AppTask, AppWorld

FAMILY = "apps"


@dataclass(frozen=True, slots=True)
class Shard:
    """Which tasks are made, and where they go."""

    index: int
    first: int
    last: int
    path: Path


@dataclass(frozen=True, slots=True)
class Bench:
    """What all shards of a run share. Without a policy the planner acts."""

    recipe: SynthRecipe
    apps: Apps
    agents: list[Agent]
    categories: dict[str, str]
    policy: Policy | None = None


def run_shard(shard: Shard, bench: Bench, hear: Callable[[int], None] = lambda _: None) -> int:
    """Make the tasks of a shard, try them, and write them. How many attempts there were."""
    rows = asyncio.run(_rows(shard, bench, hear))
    write_table(shard.path, rows, attempts_schema())
    return len(rows)


async def _rows(shard: Shard, bench: Bench, hear: Callable[[int], None]) -> list[dict[str, Any]]:
    recipe, apps, agents, policy = bench.recipe, bench.apps, bench.agents, bench.policy
    gate = asyncio.Semaphore(recipe.attempts.concurrency)
    limits = Limits(recipe.attempts.steps, recipe.attempts.tokens, recipe.attempts.seconds)

    async def one(number: int) -> list[dict[str, Any]]:
        agent = agents[number // recipe.tasks.in_a_row % len(agents)]
        maker = TaskMaker(apps, agent, recipe.seed * 1_000_003 + number)
        made = maker.make()
        base = {
            "number": number, "domain": agent.domain, "category": bench.categories.get(agent.domain, ""),
            "agent": agent.name, "kinds": " ".join(sorted(set(maker.kinds))),
            "policy": policy.name if policy else Planner.name,
        }  # fmt: skip
        if made is None:
            return [base | _unsolvable(number)]
        task = Task(
            f"{recipe.name}/{number}", FAMILY, agent.domain, number, made.turns[0].say, made.model_dump(mode="json")
        )
        rows = []
        for attempt in range(recipe.attempts.per_task):
            async with gate:
                rows.append(base | {"attempt": attempt} | await _attempt(task, made, apps, policy, limits))
        return rows

    if policy is None:
        # Nothing waits for anything: one after the other is fastest.
        found = []
        for number in range(shard.first, shard.last):
            found.append(await one(number))
            hear(number - shard.first + 1)
    else:
        done = 0

        async def counted(number: int) -> list[dict[str, Any]]:
            nonlocal done
            rows = await one(number)
            done += 1
            hear(done)
            return rows

        found = await asyncio.gather(*map(counted, range(shard.first, shard.last)))
    return [row for rows in found for row in rows]


async def _attempt(task: Task, made: AppTask, apps: Apps, policy: Policy | None, limits: Limits) -> dict[str, Any]:
    world = AppWorld(apps)
    try:
        trajectory = await rollout(policy or Planner(made.plan), world, task, limits)
    except UserError as e:
        # An endpoint that gave no answer says nothing of the task: the attempt is no sample.
        return _failed(task, f"no answer: {e}")
    return row_of(trajectory, world.grade.score if world.grade else 0.0)


def row_of(trajectory: Trajectory, score: float) -> dict[str, Any]:
    """The columns that follow from a trajectory."""
    trajectory.seconds = 0.0
    for step in trajectory.steps:
        step.seconds = 0.0
    calls = [call.name for message in trajectory.messages for call in message.tool_calls]
    return {
        "hash": content_hash(trajectory),
        "task": trajectory.task.id,
        "tools": " ".join(tool.name for tool in trajectory.tools),
        "calls": " ".join(calls),
        "stop": trajectory.stop,
        "reason": trajectory.verdict.reason,
        "atif": json.dumps(to_atif(trajectory).to_json_dict(), separators=(",", ":")),
        "steps": len(trajectory.steps),
        "n_calls": len(calls),
        "user_turns": sum(message.role == "user" for message in trajectory.messages),
        "tokens": sum(step.turn.usage.completion_tokens for step in trajectory.steps if step.turn.usage),
        "passed": bool(trajectory.verdict.passed),
        "score": score,
        "solvable": True,
    }


def content_hash(trajectory: Trajectory) -> str:
    """Of what was said, called and returned, and of the tools on offer."""
    said = [message.to_openai() for message in trajectory.messages]
    tools = [tool.to_openai() for tool in trajectory.tools]
    return hashlib.sha256(compact_json([tools, said]).encode("utf-8", "replace")).hexdigest()


def _unsolvable(number: int) -> dict[str, Any]:
    return {"attempt": 0, "hash": "", "task": str(number), "stop": "", "reason": "no task was found", "passed": False,
            "solvable": False}  # fmt: skip


def _failed(task: Task, reason: str) -> dict[str, Any]:
    return {"hash": "", "task": task.id, "stop": "", "reason": reason, "passed": False, "solvable": True}
