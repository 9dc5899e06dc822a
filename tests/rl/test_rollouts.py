"""Groups are sampled on one machine, whose size is no fault of an episode."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from openk2.core import Message, Policy, Task, UserError, Verdict
from openk2.engine import Engine
from openk2.policy.local import LocalPolicy
from openk2.policy.resolve import resolve_policy
from openk2.policy.scripted import ScriptedPolicy
from openk2.rl import rollouts
from openk2.rl.gym import runner
from openk2.rl.gym.code import CodeFamily
from openk2.rl.gym.instructions import InstructionsFamily
from openk2.rl.recipe import FamilyConfig, RolloutConfig
from openk2.rl.rollouts import Rollouts, new_group
from openk2.sandbox import Ended, Sandbox


class _Sampler:
    """Runs rollouts whose answers are written down."""

    answer = ""

    def __init__(self, engine: Engine) -> None:
        self.circles = 0

    def run(self, jobs: Sequence[Callable[[Any], Any]], at_once: int) -> list[Any]:
        async def together() -> list[Any]:
            return await asyncio.gather(*(job(self) for job in jobs))

        return asyncio.run(together())

    def policy(self, **settings: Any) -> Policy:
        return ScriptedPolicy([Message("assistant", self.answer)])


def test_who_waits_for_a_sandbox_is_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six programs on a machine with the memory of one: the last would have waited longer than a world may take."""
    family = CodeFamily()
    task = family.sample("train", 0)

    async def slow(self: runner.Runner, source: str, folder: Path) -> Ended:
        await asyncio.sleep(0.3)
        return Ended(b"", 0)

    monkeypatch.setattr(os, "sysconf", lambda name: 1)
    monkeypatch.setattr(runner, "resolve_sandbox", lambda: Sandbox("sandlock"))
    monkeypatch.setattr(runner.Runner, "_run", slow)
    monkeypatch.setattr(_Sampler, "answer", family.gold(task))
    monkeypatch.setattr(rollouts, "Sampler", _Sampler)
    monkeypatch.setattr(rollouts, "get_family", lambda name: family)
    group = new_group(0, "code", task, 6)
    config = {"code": FamilyConfig(prompts=1)}
    Rollouts(cast(Engine, None), RolloutConfig(world_seconds=1.0), 0).go_on([group], 1.0, config)
    assert [(episode.ended, episode.excluded) for episode in group.episodes] == [(True, "")] * 6


class _Hangs(InstructionsFamily):
    """Some of its tasks are judged, others never."""

    hangs: Sequence[int] = ()
    judged = 0

    def check(self, task: Task, answer: str) -> Verdict:
        self.judged += 1
        if task.seed in self.hangs:
            time.sleep(60)
        return super().check(task, answer)


@pytest.mark.parametrize(("hangs", "stops"), [(range(22), True), (range(0, 22, 2), False)])
def test_a_family_that_always_hangs_ends_the_run(hangs: Sequence[int], stops: bool) -> None:
    """Left out one by one, twenty episodes would cost as many times the limit, and hundreds of them hours."""
    family = _Hangs()
    family.hangs = hangs
    groups = [new_group(n, "mine", family.sample("train", n), 1) for n in range(22)]
    policy = resolve_policy("nano", grammar=False)
    assert isinstance(policy, LocalPolicy)
    found = Rollouts(policy.engine, RolloutConfig(world_seconds=0.6), 0)
    config = {"mine": FamilyConfig(prompts=1, budget=2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollouts, "get_family", lambda name: family)
        if not stops:
            found.go_on(groups, 1.0, config)
            assert [n for n, group in enumerate(groups) if not group.episodes[0].excluded] == list(range(1, 22, 2))
            return
        with pytest.raises(UserError, match=r"^mine hung 10 times in a row, 0\.6 s each, .*not within 0\.6 s"):
            found.go_on(groups, 1.0, config)
    assert family.judged < 16
