"""What a long run says where there is no terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from openk2.core import progress
from openk2.core.progress import ConsoleReporter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_is_that_of_the_steps_alone(clock: list[float]) -> None:
    said = io.StringIO()
    with ConsoleReporter(Console(file=said, width=80)).stage("rl") as bar:
        bar(0, 10)
        # A quarter of an hour of preparation, then a minute for each step.
        for done, at in enumerate((900, 960, 1020, 1080)):
            clock[0] = 1000.0 + at
            bar(done, 10, "reward 0.5")
    assert said.getvalue().splitlines() == [
        "rl: 0/10 reward 0.5",
        "rl: 1/10 reward 0.5",
        "rl: 2/10, 8 min left reward 0.5",
        "rl: 3/10, 7 min left reward 0.5",
    ]


def test_a_run_that_goes_on_counts_what_it_does_itself(clock: list[float]) -> None:
    said = io.StringIO()
    with ConsoleReporter(Console(file=said, width=80)).stage("sft") as bar:
        for done in (50, 51, 52):
            bar(done, 54)
            clock[0] += 120.0
        # Not more often than every half minute.
        bar(53, 54)
        clock[0] += 1.0
        bar(54, 54)
    assert said.getvalue().splitlines() == ["sft: 51/54", "sft: 52/54, 4 min left", "sft: 53/54, 2 min left"]
