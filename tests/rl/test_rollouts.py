"""Groups are sampled on one machine, whose size is no fault of an episode."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from openk2.core import Message, Policy
from openk2.engine import Engine
from openk2.policy.scripted import ScriptedPolicy
from openk2.rl import rollouts
from openk2.rl.gym import runner
from openk2.rl.gym.code import CodeFamily
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
