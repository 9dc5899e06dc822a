"""How often a model solves the tasks of a family: pass@1 and pass@k, by which families and levels are chosen."""

from __future__ import annotations

import statistics
from typing import Any

from openk2.core import Split, UserError
from openk2.core.families import is_verified, sample_task
from openk2.core.rates import Tally, pooled
from openk2.engine import Engine
from openk2.rl.recipe import FamilyConfig, RolloutConfig
from openk2.rl.rollouts import OnShare, Rollouts, new_group

AT_ONCE = 256


def rates(
    engine: Engine, name: str, *, n: int, k: int, temperature: float, seed: int, split: Split, budget: int, steps: int,
    on_share: OnShare = lambda _: None,
) -> dict[str, Any]:  # fmt: skip
    """Sample `k` episodes for each of `n` tasks; greedily `k` times would be the same, so at temperature 0 it is
    once. Rates come with n and 95 % intervals, that of pass@1 over the samples of all tasks (`pooled`); `pass@k` counts
    tasks that were solved at least once. `on_share` is told the share of episodes that have ended.

    Raises UserError for a family that only a critic can judge.
    """
    if not is_verified(name):
        raise UserError(f"{name} can only be compared, and has no rate of success")
    k = k if temperature else 1
    tasks = [sample_task(name, split, seed * 1_000_000 + i) for i in range(n)]
    config = FamilyConfig(prompts=1, budget=budget, turn_tokens=budget, steps=steps)
    groups = [new_group(number, name, task, k) for number, task in enumerate(tasks)]
    Rollouts(engine, RolloutConfig(at_once=AT_ONCE), seed).finish(groups, temperature, {name: config}, on_share)
    episodes = [episode for group in groups for episode in group.episodes]
    once, ever = [Tally() for _ in groups], Tally()
    for group, of_task in zip(groups, once, strict=True):
        judged = [episode for episode in group.episodes if not episode.excluded]
        for episode in judged:
            of_task.add(episode.passed)
        if judged:
            ever.add(any(episode.passed for episode in judged))
    excluded = [episode.excluded for episode in episodes if episode.excluded]
    if len(excluded) == len(episodes):
        raise UserError(excluded[0])
    rewards = [episode.reward for episode in episodes if episode.reward is not None]
    return {
        "family": name,
        "k": k,
        "pass@1": pooled(once),
        f"pass@{k}": ever.to_json(),
        "mean_reward": round(statistics.fmean(rewards), 4) if rewards else None,
        "mean_tokens": round(statistics.fmean(episode.spent for episode in episodes), 1),
        "excluded": len(excluded),
        "why_excluded": excluded[0] if excluded else None,
    }
