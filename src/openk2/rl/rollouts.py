"""Groups of samples, sampled: what the loop, its measures and the gym's rates have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openk2.core import Task
from openk2.core.families import get_family
from openk2.engine import Engine
from openk2.rl.episodes import Episode, Group, play
from openk2.rl.gym.runner import programs_at_once
from openk2.rl.recipe import FamilyConfig, RolloutConfig
from openk2.rl.sampler import Sampler, Seat

Configs = Mapping[str, FamilyConfig]


def new_group(number: int, family: str, task: Task, samples: int, iteration: int = 0) -> Group:
    """A group of which nothing is sampled yet."""
    return Group(number, task, iteration, [Episode(family, number, i) for i in range(samples)])


class Rollouts:
    """Samples episodes on one engine; `seed` is that of the run."""

    def __init__(self, engine: Engine, config: RolloutConfig, seed: int) -> None:
        self.engine, self.config, self.seed = engine, config, seed

    def go_on(self, groups: Sequence[Group], temperature: float, configs: Configs) -> None:
        """Let every episode that has not ended go on until it ends or pauses."""
        todo = [(episode, group.task) for group in groups for episode in group.episodes if not episode.ended]
        if todo:
            # More worlds at work would only wait for cores or for a sandbox while their clocks run.
            turns = asyncio.Semaphore(programs_at_once())
            jobs = [self._job(*one, temperature, configs, turns) for one in todo]
            Sampler(self.engine).run(jobs, self.config.at_once)

    def finish(self, groups: Sequence[Group], temperature: float, configs: Configs) -> None:
        """Until every episode has ended, however often it pauses."""
        while any(not group.ended for group in groups):
            self.go_on(groups, temperature, configs)

    def _job(
        self, episode: Episode, task: Task, temperature: float, configs: Configs, turns: asyncio.Semaphore
    ) -> Callable[[Seat], Any]:
        family, config = get_family(episode.family), configs[episode.family]
        return lambda seat: play(
            episode, task, family, seat, config, self.config, temperature=temperature, seed=self.seed, turns=turns
        )
