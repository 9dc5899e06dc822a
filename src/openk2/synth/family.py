"""Simulated apps as a family of tasks: small agents that fit into nano's context, domains of the test held out.

A domain belongs to the test or to training by its name, so that no noun, no tool and no row of a test domain is ever in
a training task.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import cache

from openk2.core import Demonstration, Limits, Split, Task, UserError, World
from openk2.rollout import rollout
from openk2.synth.agents import agents_of
from openk2.synth.evolve import evolve
from openk2.synth.lexicon import Sketch, sketches, split_of_domain
from openk2.synth.planner import Planner
from openk2.synth.tasks import TaskMaker
from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.world import Apps, AppTask, AppWorld

NAME = "apps"
_TOOLS = (2, 4)
_TURNS = 2
_KINDS = ("plain", "change", "recovery", "forbidden", "impossible")
_LENGTHS = ((0, 2, "0 to 2 calls"), (3, 4, "3 or 4 calls"), (5, 99, "5 calls and more"))
_SEED = 0


@cache
def _sketches(split: Split) -> tuple[Sketch, ...]:
    return tuple(sketch for sketch in sketches() if split_of_domain(sketch.name) == split)


@cache
def _domain(name: str) -> Domain:
    return evolve(next(sketch for sketch in sketches() if sketch.name == name), _SEED)


class AppsFamily:
    """Tasks of small agents in simulated apps. The user has at most `_TURNS` turns; with `single` it is one.

    Raises UserError for another option.
    """

    name = NAME
    option = "single"
    skills: Sequence[str] = tuple(f"{kind}, {words}" for kind in _KINDS for _, _, words in _LENGTHS)

    def __init__(self, option: str = "") -> None:
        if option not in ("", "single"):
            raise UserError(f"{NAME}:{option} cannot be: use {NAME}, or {NAME}:single for tasks of one turn")
        self._turns = 1 if option else _TURNS
        self.name = f"{NAME}:{option}" if option else NAME
        self._apps = Apps(_domain)

    def sample(self, split: Split, seed: int) -> Task:
        """The task of a seed. Raises UserError if none is found, which does not happen."""
        rng = random.Random(f"{self.name} {split} {seed}")
        for attempt in range(20):
            domain = _domain(rng.choice(_sketches(split)).name)
            (agent,) = agents_of(domain, 1, seed * 20 + attempt, {}, tools=_TOOLS)
            maker = TaskMaker(self._apps, agent, seed, most_turns=self._turns)
            made = maker.make()
            if made is not None:
                return Task(
                    f"{self.name}/{split}/{seed}", self.name, _skill(maker.kinds, made), seed, made.turns[0].say,
                    made.model_dump(mode="json"), split,
                )  # fmt: skip
        raise UserError(f"no task of {self.name} was found for the seed {seed}")

    def world(self, task: Task) -> World:
        return AppWorld(self._apps)

    def demonstrate(self, task: Task) -> Demonstration:
        """How the planner does it."""
        made = AppTask.model_validate(task.data)
        trajectory = asyncio.run(rollout(Planner(made.plan), AppWorld(self._apps, made), task, Limits(steps=60)))
        if not trajectory.verdict.passed:
            raise UserError(f"the planner failed at {task.id}: {trajectory.verdict.reason}")
        return Demonstration(task, trajectory.tools, tuple(trajectory.messages))


def _skill(kinds: Sequence[str], made: AppTask) -> str:
    special = next((kind for kind in kinds if kind in _KINDS), "plain")
    calls = sum(len(wave) for turn in made.plan for wave in turn.waves)
    words = next(words for low, high, words in _LENGTHS if low <= calls <= high)
    return f"{special}, {words}"
