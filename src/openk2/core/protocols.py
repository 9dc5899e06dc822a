"""The three things that meet in every rollout: a task, a policy that answers, a world that is acted on.

    rollout(policy, world, task, limits) -> trajectory

A world is a few dozen lines: see `examples/world.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal, Protocol, runtime_checkable

from openk2.core.messages import Message, ToolCall, ToolSpec, compact_json

FinishReason = Literal["stop", "tool_calls", "length"]
Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to be done. `data` is JSON: all that the world needs to set itself up and to verify the end."""

    id: str
    family: str
    skill: str
    seed: int
    request: str
    data: dict[str, Any] = field(default_factory=dict)
    split: Split = "train"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn as an endpoint counts them; of the prompt's, `cached_tokens` were not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """What a policy said. Ids and log-probs are there when the policy is local (else empty), `usage` when it is not.

    `malformed` holds the raw text of what could not be read of a tool section; the complete calls before it are in
    `message`, and count.
    """

    message: Message
    finish_reason: FinishReason
    prompt_ids: tuple[int, ...] = ()
    completion_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    malformed: str | None = None
    model: str = ""
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call returned, as the model will read it. `error` marks a failed call."""

    content: str
    error: bool = False

    @classmethod
    def failure(cls, sentence: str) -> ToolResult:
        """What went wrong, as JSON."""
        return cls(compact_json({"error": sentence}), error=True)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the task was solved, computed by code without looking at the model. None: nothing can verify it.

    `score` in [0, 1] is for what can be solved in part; without it there is only `passed`. `penalties` are faults that
    count apart from that, by name, such as a claim that is not true, and are at least 0.
    """

    passed: bool | None
    reason: str = ""
    score: float | None = None
    penalties: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.score is not None and not 0 <= self.score <= 1:
            raise ValueError(f"a score lies in [0, 1], which {self.score} does not")
        for name, penalty in self.penalties.items():
            if not 0 <= penalty < math.inf:
                raise ValueError(f"a penalty is at least 0, which {penalty} for {name!r} is not")

    @property
    def reward(self) -> float | None:
        """What reinforcement learning makes larger: the score, or 1 for passed, less the penalties."""
        score = self.score if self.score is not None or self.passed is None else float(self.passed)
        return None if score is None else score - sum(self.penalties.values())


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rollout may spend. `tokens` counts the completion tokens of one turn, `steps` the assistant turns."""

    steps: int = 12
    tokens: int = 512
    seconds: float = 120.0


@runtime_checkable
class Policy(Protocol):
    """Who answers."""

    name: str

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        """The next assistant turn after `messages`."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Seeded(Protocol):
    """A policy whose samples depend on a seed."""

    def seeded(self, seed: int) -> Policy:
        """The same policy with another seed."""
        ...


@runtime_checkable
class Shaped(Protocol):
    """A policy whose answers can be held to a JSON schema, as far as its server does that."""

    def shaped(self, name: str, schema: Mapping[str, Any]) -> Policy:
        """The same policy with answers that are JSON in the schema."""
        ...


@runtime_checkable
class World(Protocol):
    """What is acted on: offers tools, keeps state, plays the user, verifies the end. One world object per rollout."""

    @property
    def tools(self) -> Sequence[ToolSpec]: ...

    async def start(self, task: Task) -> list[Message]:
        """Set up the state; return the opening messages (system and user)."""
        ...

    async def call(self, call: ToolCall) -> ToolResult:
        """Execute one call. A bad call is an error result, never an exception."""
        ...

    async def reply(self, message: Message) -> Message | None:
        """The user's answer to an assistant message without calls; None ends the conversation."""
        ...

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        """Judge the final state and what the user was told."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Demonstration:
    """How an expert solves a task: the whole conversation, tool results included. What fine-tuning learns from."""

    task: Task
    tools: tuple[ToolSpec, ...]
    messages: tuple[Message, ...]

    @property
    def opening(self) -> list[Message]:
        """What is said before the policy's first turn."""
        return list(takewhile(lambda message: message.role != "assistant", self.messages))


@runtime_checkable
class Family(Protocol):
    """A source of tasks. `sample` is a pure function of (split, seed): the same seed gives the same task."""

    name: str
    skills: Sequence[str]

    def sample(self, split: Split, seed: int) -> Task: ...

    def world(self, task: Task) -> World: ...

    def demonstrate(self, task: Task) -> Demonstration: ...
