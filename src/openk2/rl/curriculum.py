"""Which tasks come next: some that were never tried, the others by how much there is to learn from them.

A known task is drawn with a probability proportional to the variance of its reward, p (1 - p) where that is 0 or 1: the
gradient of a group grows with it, and a task that nearly always fails, which 1 - p (Kimi k1.5, section 2.3.4) would
bring most often, gives a small model groups without any difference (Foster and Foerster, "Learning to Reason at the
Frontier of Learnability", 2025). One whose reward was the same in many samples, being never or always solved, is
dropped. All is a function of (seed, iteration) and of what was observed, so it needs no state of a random generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from openk2.rl.recipe import FamilyConfig

Moments = tuple[int, float, float]
"""Of rewards: how many, their sum, and that of their squares."""
_SAME = 1e-9
_BEFORE = 0.25
"""The variance that one sample before all others stands for: of a task that is solved half the time."""


@dataclass(slots=True)
class Curriculum:
    """The tasks of one family. `seen` is seed of the task -> the moments of its rewards; of those `out` it is not yet
    known what becomes of them, and none from `following` on was ever tried."""

    family: str
    config: FamilyConfig
    seen: dict[int, Moments] = field(default_factory=dict)
    out: set[int] = field(default_factory=set)
    following: int = 0

    def choose(self, seed: int, iteration: int, fresh: Callable[[int, int], Sequence[int]] | None = None) -> list[int]:
        """The seeds of this iteration's tasks, each once, and none that is still out. `fresh(first, count)` gives those
        that were never tried, from `first` on; by default each seed is one."""
        rng = random.Random(f"curriculum {seed} {self.family} {iteration}")
        known = {task: self._weight(moments) for task, moments in sorted(self.seen.items())}
        known = {task: weight for task, weight in known.items() if weight > 0 and task not in self.out}
        old = min(len(known), round(self.config.prompts * (1 - self.config.fresh)))
        chosen = _without_replacement(rng, known, old)
        count = self.config.prompts - len(chosen)
        new = fresh(self.following, count) if fresh else range(self.following, self.following + count)
        chosen += new
        self.following = max([self.following - 1, *new]) + 1
        self.out |= set(chosen)
        return chosen

    def observe(self, task: int, rewards: Sequence[float]) -> None:
        """Count what became of a task that was out."""
        self.out.discard(task)
        count, total, squares = self.seen.get(task, (0, 0.0, 0.0))
        self.seen[task] = (count + len(rewards), total + sum(rewards), squares + sum(r * r for r in rewards))

    @property
    def dropped(self) -> int:
        """Of how many tasks there is nothing to learn."""
        return sum(self._weight(moments) == 0 for moments in self.seen.values())

    def to_json(self) -> dict[str, Any]:
        """The state, for a checkpoint."""
        seen = [[task, *moments] for task, moments in sorted(self.seen.items())]
        return {"seen": seen, "out": sorted(self.out), "following": self.following}

    def load_json(self, raw: dict[str, Any]) -> None:
        """Go on from what `to_json` said."""
        self.seen = {task: (count, total, squares) for task, count, total, squares in raw["seen"]}
        self.out, self.following = set(raw["out"]), raw["following"]

    def _weight(self, moments: Moments) -> float:
        count, total, squares = moments
        spread = max(0.0, squares - total * total / max(1, count))
        if count >= self.config.drop_after and spread < _SAME:
            return 0.0
        return (spread + _BEFORE) / (count + 1)


def _without_replacement(rng: random.Random, weights: dict[int, float], count: int) -> list[int]:
    """`count` keys, each draw proportional to the weights that are left (Efraimidis and Spirakis, 2006)."""
    keyed: Sequence[tuple[float, int]] = [(rng.random() ** (1 / weight), key) for key, weight in weights.items()]
    return [key for _, key in sorted(keyed, reverse=True)[:count]]
