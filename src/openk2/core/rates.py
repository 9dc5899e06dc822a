"""Rates with their intervals: no rate is shown without how many there were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def wilson(passed: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a rate (95 % for z = 1.96), rounded to four digits."""
    if n == 0:
        return 0.0, 1.0
    rate = passed / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)


@dataclass(slots=True)
class Tally:
    """How many of how many."""

    n: int = 0
    passed: int = 0

    def add(self, passed: bool) -> None:
        self.n += 1
        self.passed += passed

    def to_json(self) -> dict[str, Any]:
        low, high = wilson(self.passed, self.n)
        return {
            "n": self.n,
            "passed": self.passed,
            "rate": round(self.passed / self.n, 4) if self.n else 0.0,
            "ci95": [low, high],
        }


def pooled(tallies: Sequence[Tally]) -> dict[str, Any]:
    """The rate over the samples of several tasks, as `Tally.to_json`.

    Samples of one task are alike, so the interval is that of as many independent ones as have the variance that is seen
    between `tasks`: no more than there are samples, no fewer than tasks. From few tasks it is not known well; so one
    more is counted whose samples are all the same, and the interval is Student's.
    """
    tallies = [one for one in tallies if one.n]
    whole = Tally(sum(one.n for one in tallies), sum(one.passed for one in tallies))
    count = len(tallies)
    if whole.n == count:
        return whole.to_json() | {"tasks": count}
    rate, alike = whole.passed / whole.n, whole.n / count
    # How many samples tell as much as one: 1 if all are independent, `alike` if those of a task are all the same.
    each = alike
    if count > 1 and 0 < rate < 1:
        spread = sum((one.passed - rate * one.n) ** 2 for one in tallies) * count / (count - 1)
        seen = min(alike, max(1.0, spread / (rate * (1 - rate) * whole.n)))
        each = ((count - 1) * seen + alike) / count
    effective = whole.n / each
    return whole.to_json() | {"ci95": list(wilson(rate * effective, effective, _student(count - 1))), "tasks": count}


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's distribution (Fisher's expansion, two digits from 3 degrees of freedom on)."""
    z = 1.96
    if freedom < 3:
        return (z, 12.71, 4.30)[freedom]
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
