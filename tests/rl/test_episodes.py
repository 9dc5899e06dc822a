"""Episodes: paused ones go on as if they had never stopped, budgets cut, worlds that fail are left out by name."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from openk2.core import Family, Halt, Message, Task, ToolSpec, Turn
from openk2.core.families import get_family
from openk2.engine import Engine
from openk2.policy.local import LocalPolicy
from openk2.policy.resolve import resolve_policy
from openk2.policy.scripted import ScriptedPolicy
from openk2.rl.episodes import OVER_BUDGET, Episode, Group, from_json, play, sequences_of, to_json, told_excluded
from openk2.rl.recipe import FamilyConfig, RolloutConfig
from openk2.rl.sampler import Sampler
from openk2.rl.watched import WatchedWorld
from openk2.rollout import rollout
from shared.toy import Short

FUNCTIONS = get_family("functions")


@pytest.fixture(scope="module")
def engine() -> Engine:
    policy = resolve_policy("nano")
    assert isinstance(policy, LocalPolicy)
    return policy.engine


def run(
    engine: Engine, family: Family, episode: Episode, task: Task, rollouts: dict[str, Any], **config: Any
) -> Episode:
    settings = FamilyConfig(prompts=1, **({"budget": 400, "turn_tokens": 200} | config))
    job = partial(_play, family, episode, task, settings, RolloutConfig(**rollouts))
    (played,) = Sampler(engine).run([job], 1)
    return played


async def _play(
    family: Family, episode: Episode, task: Task, config: FamilyConfig, rollouts: RolloutConfig, seat: Any
) -> Episode:
    return await play(episode, task, family, seat, config, rollouts, temperature=1.0, seed=0)


@pytest.mark.parametrize("seed", [0, 3, 5, 11])
def test_a_paused_episode_goes_on_with_the_same_ids(engine: Engine, seed: int) -> None:
    """It pauses before every turn, through the form that the bank keeps."""
    task = FUNCTIONS.sample("train", seed)
    whole = run(engine, FUNCTIONS, Episode("functions", 0, 0), task, {})
    episode = Episode("functions", 0, 0)
    for _ in range(20):
        episode = run(engine, FUNCTIONS, episode, task, {"iteration_tokens": 1})
        if episode.ended:
            break
        banked = json.loads(json.dumps(to_json(Group(0, task, 0, [episode]))))
        (episode,) = from_json(banked).episodes
    assert episode.ended and whole.trajectory is not None and episode.trajectory is not None
    assert sequences_of(episode.trajectory)[0].ids == sequences_of(whole.trajectory)[0].ids
    ours, theirs = (sequences_of(t)[0].logprobs for t in (episode.trajectory, whole.trajectory))
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, abs=1e-3) or (math.isnan(a) and math.isnan(b))
    assert episode.segments == len(whole.trajectory.steps)
    assert (episode.reward, episode.spent) == (whole.reward, whole.spent)


def test_over_budget_is_cut_and_penalised(engine: Engine) -> None:
    task = FUNCTIONS.sample("train", 0)
    episode = run(engine, FUNCTIONS, Episode("functions", 0, 0), task, {}, budget=5, over_budget=0.3)
    assert episode.spent == 5
    assert episode.penalties == {OVER_BUDGET: 0.3}
    assert episode.reward == -0.3


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("raises", "the world of short/train/0 could not be verified (ZeroDivisionError: no numbers today)"),
        ("no number", "could not be verified (ValueError: a score lies in [0, 1], which nan does not)"),
        ("no verdict", "could not be verified (its verifier gave NoneType and no Verdict)"),
        ("exits", "could not be verified (SystemExit: 3)"),
        ("hangs", "the world of short/train/0 could not be verified (not within 0.5 s)"),
        ("waits", "the world of short/train/0 could not be verified (not within 0.5 s)"),
    ],
)
def test_a_verifier_that_fails_excludes_the_episode(engine: Engine, fault: str, says: str) -> None:
    family = Short(fault)
    episode = run(engine, family, Episode("short", 0, 0), family.sample("train", 0), {"world_seconds": 0.5})
    assert episode.ended and episode.reward is None
    assert says in episode.excluded


async def test_who_waits_for_a_turn_is_not_slow() -> None:
    """Each judge takes a tenth of its time; one after the other they take more than one has."""
    family = Short("slow")
    task = family.sample("train", 0)
    turns = asyncio.Semaphore(1)
    answer = [Message("assistant", "Yes.")]
    worlds = [WatchedWorld(family, task, 1.0, turns) for _ in range(12)]
    verdicts = await asyncio.gather(*(world.verify(answer) for world in worlds))
    assert all(verdict.passed for verdict in verdicts)


async def test_who_is_cancelled_while_it_waits_for_a_turn_has_not_begun() -> None:
    family = Short()
    task = family.sample("train", 0)
    turns = asyncio.Semaphore(1)
    await turns.acquire()
    waiting = asyncio.create_task(WatchedWorld(family, task, 1.0, turns).start(task))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_what_nothing_can_verify_waits_for_the_critic(engine: Engine) -> None:
    family = Short("open")
    episode = run(engine, family, Episode("short", 0, 0), family.sample("train", 0), {})
    assert episode.ended and not episode.excluded
    assert episode.reward is None


def test_advantages_are_of_those_that_have_a_reward() -> None:
    episodes = [Episode("short", 0, i, reward=r) for i, r in enumerate([1.0, 0.0, 0.5])]
    episodes.append(Episode("short", 0, 3, excluded="the world died"))
    group = Group(0, Short().sample("train", 0), 0, episodes)
    assert group.advantages == [0.5, -0.5, 0.0]


class _Pauses:
    """Says what a script says, and pauses before its second turn."""

    name = "pauses"

    def __init__(self, script: ScriptedPolicy) -> None:
        self._script, self._turns = script, 0

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        self._turns += 1
        if self._turns == 2:
            raise Halt("paused")
        return await self._script.act(messages, tools, max_tokens=max_tokens)

    async def close(self) -> None: ...


async def test_a_world_that_is_other_when_it_is_gone_on_with_says_so() -> None:
    task = FUNCTIONS.sample("train", 5)
    shown = FUNCTIONS.demonstrate(task)
    said = [m for m in shown.messages if m.role == "assistant"]
    assert len(said) > 1
    paused = await rollout(_Pauses(ScriptedPolicy(said)), FUNCTIONS.world(task), task)
    assert paused.stop == "paused" and paused.verdict.passed is None
    whole = await rollout(ScriptedPolicy(said), FUNCTIONS.world(task), task, earlier=paused)
    assert whole.verdict.passed, whole.verdict.reason
    other = FUNCTIONS.sample("train", 6)
    with pytest.raises(Exception, match="cannot go on where it was paused"):
        await rollout(ScriptedPolicy(said), FUNCTIONS.world(other), other, earlier=paused)


def test_each_family_that_had_episodes_left_out_is_named_with_its_own_reason() -> None:
    left_out = [("b", "it hangs"), ("a", "it raises"), ("b", "it died")]
    assert list(told_excluded(left_out)) == [
        "episodes left out of a: 1, the first because it raises",
        "episodes left out of b: 2, the first because it hangs",
    ]
    assert not list(told_excluded([]))
