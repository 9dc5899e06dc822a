"""Simulated apps as a family of tasks: small agents that fit into nano's context, domains of the test held out.

A domain belongs to the test or to training by its name, so that no noun, no tool and no row of a test domain is ever in
a training task. Where a declaration of one's own is the only domain, no first request of a test task, with its values,
is one of a training task.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Sequence
from functools import cache

from openk2.core import Demonstration, Limits, Split, Task, UserError, World
from openk2.core.families import located
from openk2.rollout import rollout
from openk2.synth.agents import agents_of
from openk2.synth.catalogue import DECLARATIONS, domain_of
from openk2.synth.evolve import evolve
from openk2.synth.lexicon import Sketch, sketches, split_of_domain
from openk2.synth.planner import Planner
from openk2.synth.tasks import TaskMaker
from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.world import Apps, AppTask, AppWorld

NAME = "apps"
_TOOLS, _OWN_TOOLS = (2, 4), (4, 8)
_TURNS = 2
_KINDS = ("plain", "change", "recovery", "forbidden", "impossible")
_LENGTHS = ((0, 2, "0 to 2 calls"), (3, 4, "3 or 4 calls"), (5, 99, "5 calls and more"))
_SEED = 0
_ATTEMPTS, _OWN_ATTEMPTS = 20, 200
"""So many agents are tried for a task; more where there is one domain and some of the tasks are not of the split."""
_HELD_OUT = 4
"""One in so many requests of a domain of one's own is for the test."""


@cache
def _sketches(split: Split) -> tuple[Sketch, ...]:
    return tuple(sketch for sketch in sketches() if split_of_domain(sketch.name) == split)


@cache
def _domain(name: str) -> Domain:
    return evolve(next(sketch for sketch in sketches() if sketch.name == name), _SEED)


class AppsFamily:
    """Tasks of small agents in simulated apps. The user has at most `_TURNS` turns; with `single` it is one, with a
    declaration file all are in that app.

    Raises UserError for another option, and as `domain_of`.
    """

    name = NAME
    option = "single or FILE"
    skills: Sequence[str] = tuple(f"{kind}, {words}" for kind in _KINDS for _, _, words in _LENGTHS)

    def __init__(self, option: str = "") -> None:
        self._own = domain_of(str(located(option)), _SEED) if option.endswith(DECLARATIONS) else None
        if option not in ("", "single") and self._own is None:
            raise UserError(
                f"{NAME}:{option} cannot be: use {NAME}, {NAME}:single for tasks of one turn, or {NAME}:FILE for those "
                "in an app that a .toml or .json file declares"
            )
        self._turns = 1 if option == "single" else _TURNS
        self.name = f"{NAME}:{option}" if option else NAME
        # The same tasks wherever the file lies.
        self._seeded = f"{NAME}:{self._own.name}" if self._own else self.name
        self._apps = Apps(self._domain)

    def sample(self, split: Split, seed: int) -> Task:
        """The task of a seed. Raises UserError if none is found, as in an app of one's own where little can be done."""
        rng = random.Random(f"{self._seeded} {split} {seed}")
        attempts = _OWN_ATTEMPTS if self._own else _ATTEMPTS
        for attempt in range(attempts):
            domain = self._own or _domain(rng.choice(_sketches(split)).name)
            number = seed * attempts + attempt
            (agent,) = agents_of(domain, 1, number, {}, tools=_OWN_TOOLS if self._own else _TOOLS)
            maker = TaskMaker(self._apps, agent, number if self._own else seed, most_turns=self._turns)
            made = maker.make()
            if made is not None and (self._own is None or split_of_requests(made) == split):
                return Task(
                    f"{self.name}/{split}/{seed}", self.name, _skill(maker.kinds, made), seed, made.turns[0].say,
                    made.model_dump(mode="json"), split,
                )  # fmt: skip
        raise UserError(f"no task of {self.name} was found for the seed {seed}")

    def _domain(self, name: str) -> Domain:
        return _domain(name) if self._own is None else self._own

    def world(self, task: Task) -> World:
        return AppWorld(self._apps)

    def demonstrate(self, task: Task) -> Demonstration:
        """How the planner does it."""
        made = AppTask.model_validate(task.data)
        trajectory = asyncio.run(rollout(Planner(made.plan), AppWorld(self._apps, made), task, Limits(steps=60)))
        if not trajectory.verdict.passed:
            raise UserError(f"the planner failed at {task.id}: {trajectory.verdict.reason}")
        return Demonstration(task, trajectory.tools, tuple(trajectory.messages))


def split_of_requests(made: AppTask) -> Split:
    """Whether a task of a domain that is in both splits is held out: by what the user asks for first."""
    digest = hashlib.sha256(made.turns[0].say.encode()).digest()
    return "test" if digest[0] % _HELD_OUT == 0 else "train"


def _skill(kinds: Sequence[str], made: AppTask) -> str:
    special = next((kind for kind in kinds if kind in _KINDS), "plain")
    calls = sum(len(wave) for turn in made.plan for wave in turn.waves)
    words = next(words for low, high, words in _LENGTHS if low <= calls <= high)
    return f"{special}, {words}"
