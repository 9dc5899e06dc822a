"""Groups of samples, sampled: what the loop, its measures and the gym's rates have in common."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openk2.core import Task, UserError
from openk2.core.families import get_family
from openk2.engine import Engine
from openk2.rl.episodes import Episode, Group, play
from openk2.rl.gym.runner import programs_at_once
from openk2.rl.recipe import FamilyConfig, RolloutConfig
from openk2.rl.sampler import Sampler, Seat

Configs = Mapping[str, FamilyConfig]
OnShare = Callable[[float], None]
PATIENCE = 10
"""When so many episodes of a family have hung one after the other, it is the family that hangs, for hours if it may."""


def new_group(number: int, family: str, task: Task, samples: int, iteration: int = 0) -> Group:
    """A group of which nothing is sampled yet."""
    return Group(number, task, iteration, [Episode(family, number, i) for i in range(samples)])


class Rollouts:
    """Samples episodes on one engine; `seed` is that of the run. Raises UserError for a family that always hangs."""

    def __init__(self, engine: Engine, config: RolloutConfig, seed: int) -> None:
        self.engine, self.config, self.seed = engine, config, seed
        self._hung: Counter[str] = Counter()

    def go_on(
        self, groups: Sequence[Group], temperature: float, configs: Configs, on_share: OnShare = lambda _: None
    ) -> None:
        """Let every episode that has not ended go on until it ends or pauses; `on_share` is told the share of them
        that has."""
        todo = [(episode, group.task) for group in groups for episode in group.episodes if not episode.ended]
        if todo:
            # More worlds at work would only wait for cores or for a sandbox while their clocks run.
            turns = asyncio.Semaphore(programs_at_once())
            count = itertools.count(1)
            jobs = [
                self._job(*one, temperature, configs, turns, lambda: on_share(next(count) / len(todo))) for one in todo
            ]
            Sampler(self.engine).run(jobs, self.config.at_once)

    def finish(
        self, groups: Sequence[Group], temperature: float, configs: Configs, on_share: OnShare = lambda _: None
    ) -> None:
        """Until every episode has ended, however often it pauses."""
        while any(not group.ended for group in groups):
            self.go_on(groups, temperature, configs, on_share)

    def _job(
        self, episode: Episode, task: Task, temperature: float, configs: Configs, turns: asyncio.Semaphore,
        on_end: Callable[[], None],
    ) -> Callable[[Seat], Any]:  # fmt: skip
        family, config = get_family(episode.family), configs[episode.family]

        async def job(seat: Seat) -> None:
            await play(
                episode, task, family, seat, config, self.config, temperature=temperature, seed=self.seed, turns=turns
            )
            on_end()
            self._hung[episode.family] = self._hung[episode.family] + 1 if episode.hung else 0
            if self._hung[episode.family] == PATIENCE:
                raise UserError(
                    f"{episode.family} hung {PATIENCE} times in a row, {self.config.world_seconds:g} s each, at last "
                    f"here: {episode.excluded}; correct the family, or raise rollout.world_seconds"
                )

        return job
