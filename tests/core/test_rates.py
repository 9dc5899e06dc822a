"""Rates over the samples of several tasks."""

from __future__ import annotations

import random

import pytest

from openk2.core.rates import Tally, pooled, wilson


@pytest.mark.parametrize(
    ("tallies", "least", "most"),
    [
        ([Tally(8, 8), Tally(8, 0)] * 20, 35, 40),  # all samples of a task are the same
        ([Tally(8, 4)] * 40, 250, 320),  # the task makes no difference
        ([Tally(8, 0)] * 50, 45, 50),
        ([Tally(8, 3)], 1, 1),
        ([Tally(1, 1), Tally(1, 0), Tally(1, 0)], 3, 3),
    ],
)
def test_the_interval_is_that_of_so_many_independent_samples(tallies: list[Tally], least: float, most: float) -> None:
    found = pooled(tallies)
    n, passed = sum(one.n for one in tallies), sum(one.passed for one in tallies)
    assert (found["n"], found["passed"]) == (n, passed)
    low, high = found["ci95"]
    wide, narrow = (wilson(found["rate"] * as_many, as_many) for as_many in (least, most))
    assert wide[0] - 1e-4 <= low <= narrow[0] + 1e-4 and narrow[1] - 1e-4 <= high <= wide[1] + 1e-4


def test_nothing_has_the_widest_interval() -> None:
    assert pooled([])["ci95"] == [0.0, 1.0] and pooled([Tally(8, 4)] * 2)["ci95"][0] < 0.05


@pytest.mark.parametrize("count", [2, 3, 5, 10, 40])
def test_it_covers_the_truth_where_tasks_differ(count: int) -> None:
    rng = random.Random(count)
    covered = plain = 0
    for _ in range(400):
        tallies = [Tally(8, sum(rng.random() < rate for _ in range(8))) for rate in rng.choices((0.05, 0.9), k=count)]
        low, high = pooled(tallies)["ci95"]
        covered += low <= 0.475 <= high
        whole = Tally(8 * count, sum(one.passed for one in tallies)).to_json()["ci95"]
        plain += whole[0] <= 0.475 <= whole[1]
    assert covered >= 0.92 * 400
    assert plain < 0.75 * 400
