"""Rates over the samples of several tasks."""

from __future__ import annotations

import random

import pytest

from openk2.core.rates import Tally, pooled, wilson


@pytest.mark.parametrize(
    ("tallies", "as_many"),
    [
        ([Tally(8, 8), Tally(8, 0), Tally(8, 8), Tally(8, 0)], 4),  # all samples of a task are the same
        ([Tally(8, 4)] * 4, 32),  # the task makes no difference
        ([Tally(8, 0)] * 5, 5),
        ([Tally(8, 3)], 1),
        ([Tally(1, 1), Tally(1, 0), Tally(1, 0)], 3),
        ([Tally(8, 4), Tally(), Tally(8, 4)], 16),
        ([], 0),
    ],
)
def test_the_interval_is_that_of_so_many_independent_samples(tallies: list[Tally], as_many: int) -> None:
    found = pooled(tallies)
    n, passed = sum(one.n for one in tallies), sum(one.passed for one in tallies)
    assert (found["n"], found["passed"]) == (n, passed)
    assert found["ci95"] == pytest.approx(wilson(found["rate"] * as_many, as_many), abs=1e-3)


def test_it_covers_the_truth_where_tasks_differ() -> None:
    rng = random.Random(0)
    covered = plain = 0
    for _ in range(400):
        tallies = [Tally(8, sum(rng.random() < rate for _ in range(8))) for rate in rng.choices((0.05, 0.9), k=40)]
        low, high = pooled(tallies)["ci95"]
        covered += low <= 0.475 <= high
        whole = Tally(320, sum(one.passed for one in tallies)).to_json()["ci95"]
        plain += whole[0] <= 0.475 <= whole[1]
    assert covered >= 0.92 * 400
    assert plain < 0.7 * 400
