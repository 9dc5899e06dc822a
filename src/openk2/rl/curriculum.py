"""Which tasks come next: some that were never tried, the others by how much there is to learn from them.

A known task is drawn with a probability proportional to the variance of its reward, p (1 - p): the gradient of a group
grows with it, and a task that nearly always fails, which 1 - p (Kimi k1.5, section 2.3.4) would bring most often, gives
a small model groups without any difference (Foster and Foerster, "Learning to Reason at the Frontier of Learnability",
2025). One that was always solved, or never in many samples, is dropped. All is a function of (seed, iteration) and of
what was observed, so it needs no state of a random generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from openk2.rl.recipe import FamilyConfig


@dataclass(slots=True)
class Curriculum:
    """The tasks of one family. `seen` is seed of the task -> (samples, passed)."""

    family: str
    config: FamilyConfig
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)

    def choose(self, seed: int, iteration: int, fresh: Callable[[int, int], Sequence[int]] | None = None) -> list[int]:
        """The seeds of this iteration's tasks, each once. `fresh(first, count)` gives those that were never tried, from
        `first` on; by default each seed is one."""
        rng = random.Random(f"curriculum {seed} {self.family} {iteration}")
        known = {task: self._weight(*counts) for task, counts in sorted(self.seen.items())}
        known = {task: weight for task, weight in known.items() if weight > 0}
        old = min(len(known), round(self.config.prompts * (1 - self.config.fresh)))
        chosen = _without_replacement(rng, known, old)
        first = max(self.seen, default=-1) + 1
        count = self.config.prompts - len(chosen)
        return [*chosen, *(fresh(first, count) if fresh else range(first, first + count))]

    def observe(self, task: int, samples: int, passed: int) -> None:
        """Count what became of a task."""
        before = self.seen.get(task, (0, 0))
        self.seen[task] = (before[0] + samples, before[1] + passed)

    @property
    def dropped(self) -> int:
        """Of how many tasks there is nothing to learn."""
        return sum(self._weight(*counts) == 0 for counts in self.seen.values())

    def _weight(self, samples: int, passed: int) -> float:
        if samples and passed == samples:
            return 0.0
        if passed == 0 and samples >= self.config.drop_after:
            return 0.0
        # The mean of p (1 - p) when p was anything in [0, 1] before it was tried.
        return (passed + 1) * (samples - passed + 1) / ((samples + 2) * (samples + 3))


def _without_replacement(rng: random.Random, weights: dict[int, float], count: int) -> list[int]:
    """`count` keys, each draw proportional to the weights that are left (Efraimidis and Spirakis, 2006)."""
    keyed: Sequence[tuple[float, int]] = [(rng.random() ** (1 / weight), key) for key, weight in weights.items()]
    return [key for _, key in sorted(keyed, reverse=True)[:count]]
