"""A reward of your own: what the verifier of `math` says of an answer, less a hundredth for every word of it.

    ./k2 rl gym sample examples/reward.py:Brief -n 3
    ./k2 rl run recipes/nano-rl.toml --run runs/brief --set 'families."examples/reward.py:Brief".prompts=8'

A reward is what a family's `check` gives: `passed` is counted, `score` in [0, 1] is rewarded, and penalties are taken
off and reported by their names.
"""

from __future__ import annotations

from dataclasses import replace

from openk2.core import Task, Verdict
from openk2.rl.gym.word_problems import WordProblemsFamily

MOST = 0.5
"""A right answer of any length is worth more than a wrong one."""


class Brief(WordProblemsFamily):
    """Word problems, answered in few words."""

    name = "brief"

    def check(self, task: Task, answer: str) -> Verdict:
        verdict = super().check(task, answer)
        return (
            replace(verdict, penalties={"words": min(MOST, 0.01 * len(answer.split()))}) if verdict.passed else verdict
        )
