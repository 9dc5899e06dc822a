"""Which tasks come next: some that were never tried, the others by how often the policy fails at them.

A known task is drawn with a probability proportional to 1 - its success rate (Kimi k1.5, section 2.3.4); one that was
always solved, or never in many samples, teaches nothing and is dropped. All is a function of (seed, iteration) and of
what was observed, so it needs no state of a random generator.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from openk2.rl.recipe import FamilyConfig


@dataclass(slots=True)
class Curriculum:
    """The tasks of one family. `seen` is seed of the task -> (samples, passed)."""

    family: str
    config: FamilyConfig
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)

    def choose(self, seed: int, iteration: int) -> list[int]:
        """The seeds of this iteration's tasks, each once."""
        rng = random.Random(f"curriculum {seed} {self.family} {iteration}")
        known = {task: self._weight(*counts) for task, counts in sorted(self.seen.items())}
        known = {task: weight for task, weight in known.items() if weight > 0}
        old = min(len(known), round(self.config.prompts * (1 - self.config.fresh)))
        chosen = _without_replacement(rng, known, old)
        first = max(self.seen, default=-1) + 1
        return [*chosen, *range(first, first + self.config.prompts - len(chosen))]

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
        return 1 - (passed + 1) / (samples + 2)


def _without_replacement(rng: random.Random, weights: dict[int, float], count: int) -> list[int]:
    """`count` keys, each draw proportional to the weights that are left (Efraimidis and Spirakis, 2006)."""
    keyed: Sequence[tuple[float, int]] = [(rng.random() ** (1 / weight), key) for key, weight in weights.items()]
    return [key for _, key in sorted(keyed, reverse=True)[:count]]
