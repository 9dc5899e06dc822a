"""The benchmark against TRL: its reward, our side of it, and what it refuses. TRL itself is not here."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def test_the_reward_is_the_share_that_was_said_as_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from _trl import reward

    assert reward([1, 2, 3], [1, 2, 3]) == 1
    assert reward([1, 2, 9], [1, 2, 3, 4]) == 0.5
    assert reward([1, 2, 3, 4], [1, 2]) == 0.5
    assert reward([], [1]) == 0


def test_our_side_samples_rewards_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    import rl

    options = argparse.Namespace(samples=2, most=8)
    tasks = rl.tasks_of(2)
    ours = rl.Ours(options, tasks, "float32")
    episodes, _ = ours.rollouts(0)
    assert [one.group for one in episodes] == [0, 0, 1, 1]
    assert all(0 < len(one.said) <= 8 and len(one.said) == len(one.logprobs) for one in episodes)
    assert rl.spread(options, 4) == [0, 1, 0, 1]
    assert ours.step(episodes) > 0
    assert [one.said for one in ours.rollouts(0)[0]] == [one.said for one in episodes], "the start weights remain"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--trl /no/python", "/no/python cannot be run"),
        (f"--trl {sys.executable} --rounds 1", "samples and rounds must be at least 2"),
        ("", "--trl"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: str, words: str) -> None:
    command = [sys.executable, str(BENCH / "rl.py"), *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
