"""Episodes: rollouts of a group of samples for one task, how they are paused, cut and rewarded, and their token ids.

Tokens are the truth: what is trained on are the ids that were sampled, with the log-probs that they were sampled with.
Nothing is rendered or tokenised again between the sampler and the gradient.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from openk2.core import Family, Halt, Limits, Message, Policy, Task, ToolSpec, Trajectory, Turn
from openk2.core.atif import from_atif, to_atif
from openk2.rl.recipe import FamilyConfig, RolloutConfig
from openk2.rl.watched import WatchedWorld, WorldFailed
from openk2.rollout import rollout

OVER_BUDGET = "over budget"
CIRCLE = "circle"
"""Names of penalties."""


class Seat(Protocol):
    """Where an episode's turns come from: the sampler here, or another program's engine."""

    @property
    def circles(self) -> int:
        """How many of its generations were cut short."""
        ...

    def policy(self, *, grammar: bool, temperature: float, seed: int) -> Policy: ...


@dataclass(slots=True)
class Episode:
    """One sample of a group. `spent` counts the tokens that the policy said, over all iterations.

    With `excluded`, its sentence says why nothing can be learned from it. Without a `reward`, one that has ended waits
    for the critic.
    """

    family: str
    group: int
    sample: int
    trajectory: Trajectory | None = None
    spent: int = 0
    segments: int = 0
    circles: int = 0
    reward: float | None = None
    penalties: dict[str, float] = field(default_factory=dict)
    excluded: str = ""
    hung: bool = False

    @property
    def ended(self) -> bool:
        return bool(self.excluded) or (self.trajectory is not None and self.trajectory.stop != "paused")

    @property
    def passed(self) -> bool:
        return self.trajectory is not None and bool(self.trajectory.verdict.passed)

    @property
    def over_budget(self) -> bool:
        return OVER_BUDGET in self.penalties


@dataclass(slots=True)
class Group:
    """All samples of one task. It is learned from when all have ended."""

    number: int
    task: Task
    began: int
    episodes: list[Episode]

    @property
    def ended(self) -> bool:
        return all(episode.ended for episode in self.episodes)

    @property
    def judged(self) -> list[Episode]:
        """The episodes that have a reward."""
        return [episode for episode in self.episodes if not episode.excluded and episode.reward is not None]

    @property
    def advantages(self) -> list[float]:
        """r - mean r of those that have a reward (K2 report, section 3.2.3)."""
        rewards = [episode.reward for episode in self.judged if episode.reward is not None]
        mean = sum(rewards) / max(1, len(rewards))
        return [reward - mean for reward in rewards]


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Ids of a conversation as the model saw them. Of those that it said itself `logprobs` has the sampler's log-prob
    (natural logarithm, temperature 1, no grammar); of the others NaN."""

    ids: tuple[int, ...]
    said: tuple[bool, ...]
    logprobs: tuple[float, ...]


def sequences_of(trajectory: Trajectory) -> list[TokenSequence]:
    """The ids of a trajectory: one sequence while each prompt continues what went before, else a new one begins."""
    found: list[TokenSequence] = []
    ids: list[int] = []
    said: list[bool] = []
    logprobs: list[float] = []

    def close() -> None:
        if ids:
            found.append(TokenSequence(tuple(ids), tuple(said), tuple(logprobs)))

    for step in trajectory.steps:
        prompt = step.turn.prompt_ids
        if list(prompt[: len(ids)]) != ids:
            close()
            ids, said, logprobs = [], [], []
        new = len(prompt) - len(ids)
        ids += [*prompt[len(ids) :], *step.turn.completion_ids]
        said += [False] * new + [True] * len(step.turn.completion_ids)
        logprobs += [float("nan")] * new + list(step.turn.logprobs)
    close()
    return found


class _Budgeted:
    """A policy that stops at its budget, and pauses before a turn when it has said enough for one iteration."""

    def __init__(self, inner: Policy, episode: Episode, budget: int, per_iteration: int) -> None:
        self.name = inner.name
        self._inner, self._episode = inner, episode
        self._budget = budget
        self._pause_at = episode.spent + per_iteration

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        if self._episode.spent >= self._budget:
            raise Halt("budget")
        if self._episode.spent >= self._pause_at:
            raise Halt("paused")
        left = self._budget - self._episode.spent
        turn = await self._inner.act(messages, tools, max_tokens=min(max_tokens, left))
        self._episode.spent += turn.usage.completion_tokens if turn.usage else len(turn.completion_ids)
        return turn

    async def close(self) -> None:
        await self._inner.close()


async def play(
    episode: Episode, task: Task, family: Family, seat: Seat, config: FamilyConfig, rollouts: RolloutConfig, *,
    temperature: float, seed: int, turns: asyncio.Semaphore | None = None,
) -> Episode:  # fmt: skip
    """Let the episode go on until it ends or pauses. A world that fails excludes it; the policy's errors are raised.

    With `turns` its world waits for one of them whenever it does something.
    """
    key = random.Random(f"{seed} {episode.family} {episode.group} {episode.sample}").getrandbits(62)
    policy = seat.policy(grammar=rollouts.grammar, temperature=temperature, seed=key)
    budgeted = _Budgeted(policy, episode, config.budget, rollouts.iteration_tokens)
    limits = Limits(steps=config.steps, tokens=config.turn_tokens, seconds=rollouts.episode_seconds)
    episode.segments += 1
    try:
        world = WatchedWorld(family, task, rollouts.world_seconds, turns)
        episode.trajectory = await rollout(budgeted, world, task, limits, earlier=episode.trajectory)
    except WorldFailed as e:
        episode.excluded, episode.hung = str(e), e.hung
    episode.circles += seat.circles
    if episode.ended and not episode.excluded:
        _settle(episode, config)
    return episode


def _settle(episode: Episode, config: FamilyConfig) -> None:
    """The reward of an episode that has ended. What a limit cut is worth nothing; what only a critic can judge waits.

    A clock is no rule: an episode that its time was over for is left out.
    """
    trajectory = episode.trajectory
    assert trajectory is not None
    if trajectory.stop == "seconds":
        episode.excluded = f"{trajectory.task.id} was cut by the clock: raise rollout.episode_seconds"
        return
    episode.penalties = dict(trajectory.verdict.penalties)
    if episode.spent >= config.budget and not trajectory.finished:
        episode.penalties[OVER_BUDGET] = config.over_budget
    elif episode.circles and not trajectory.finished:
        # It would have come to the budget: to be stopped before must not be the cheaper way to fail.
        episode.penalties[CIRCLE] = config.over_budget
    penalty = sum(episode.penalties.values())
    if not trajectory.finished:
        episode.reward = -penalty
    elif trajectory.verdict.passed is not None:
        reward = trajectory.verdict.reward
        assert reward is not None
        episode.reward = reward


def told_excluded(excluded: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Of pairs of family and reason: a sentence for each family with how many were left out, and why the first was."""
    reasons: dict[str, list[str]] = {}
    for family, reason in excluded:
        reasons.setdefault(family, []).append(reason)
    for family, told in sorted(reasons.items()):
        yield f"episodes left out of {family}: {len(told)}, the first because {told[0]}"


def _without_clocks(trajectory: Trajectory) -> Trajectory:
    """How long something took is not part of the state: it would be other in each run."""
    return replace(trajectory, seconds=0.0, steps=[replace(step, seconds=0.0) for step in trajectory.steps])


def _as_atif(trajectory: Trajectory | None) -> dict[str, Any] | None:
    if trajectory is None:
        return None
    document: dict[str, Any] = to_atif(_without_clocks(trajectory)).model_dump(mode="json", exclude_none=True)
    return document


def to_json(group: Group) -> dict[str, Any]:
    """A group for the bank: episodes that have ended or pause, with all ids and log-probs."""
    return {
        "number": group.number,
        "began": group.began,
        "task": {name: getattr(group.task, name) for name in Task.__slots__},
        "episodes": [
            {
                "family": e.family, "group": e.group, "sample": e.sample, "spent": e.spent, "segments": e.segments,
                "circles": e.circles, "reward": e.reward, "penalties": e.penalties, "excluded": e.excluded,
                "trajectory": _as_atif(e.trajectory),
            }
            for e in group.episodes
        ],
    }  # fmt: skip


def from_json(raw: dict[str, Any]) -> Group:
    """The group that `to_json` wrote."""
    episodes = [Episode(**{**e, "trajectory": e["trajectory"] and from_atif(e["trajectory"])}) for e in raw["episodes"]]
    return Group(raw["number"], Task(**raw["task"]), raw["began"], episodes)
