"""How often a model solves the tasks of a family: pass@1 and pass@k, by which families and levels are chosen."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from openk2.core import Split, Task
from openk2.core.rates import Tally
from openk2.engine import Engine
from openk2.rl.episodes import Episode, play
from openk2.rl.gym import gym_family
from openk2.rl.recipe import FamilyConfig, RolloutConfig
from openk2.rl.sampler import Sampler, Seat

AT_ONCE = 256


def rates(
    engine: Engine, name: str, *, n: int, k: int, temperature: float, seed: int, split: Split, budget: int, steps: int
) -> dict[str, Any]:
    """Sample `k` episodes for each of `n` tasks; greedily `k` times would be the same, so at temperature 0 it is
    once. Rates come with n and 95 % intervals; `pass@k` counts tasks that were solved at least once."""
    family = gym_family(name)
    k = k if temperature else 1
    tasks = [family.sample(split, seed * 1_000_000 + i) for i in range(n)]
    config = FamilyConfig(prompts=1, budget=budget, turn_tokens=budget, steps=steps)
    rollouts = RolloutConfig()
    episodes = [(Episode(name, group, i), task) for group, task in enumerate(tasks) for i in range(k)]

    def begin(episode: Episode, task: Task) -> Callable[[Seat], Any]:
        return lambda seat: play(episode, task, family, seat, config, rollouts, temperature=temperature, seed=seed)

    Sampler(engine).run([begin(*one) for one in episodes], AT_ONCE)
    once, ever = Tally(), Tally()
    solved: dict[int, bool] = {}
    for episode, _ in episodes:
        if not episode.excluded:
            once.add(episode.passed)
            solved[episode.group] = solved.get(episode.group, False) or episode.passed
    for passed in solved.values():
        ever.add(passed)
    rewards = [episode.reward for episode, _ in episodes if episode.reward is not None]
    return {
        "family": name,
        "k": k,
        "pass@1": once.to_json(),
        f"pass@{k}": ever.to_json(),
        "mean_reward": round(statistics.fmean(rewards), 4) if rewards else None,
        "mean_tokens": round(statistics.fmean(episode.spent for episode, _ in episodes), 1),
        "excluded": sum(bool(episode.excluded) for episode, _ in episodes),
    }
