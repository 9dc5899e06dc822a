"""The record of a rollout: what was said, called and returned, and the verdict.

`Trajectory` is the in-memory form; `core.atif` writes and reads the interchange form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from openk2.core.messages import Message, ToolCall, ToolSpec
from openk2.core.protocols import Task, ToolResult, Turn, Verdict

StopReason = Literal[
    "answered", "steps", "seconds", "length", "context", "malformed", "repeated", "interrupted", "budget", "paused"
]


@dataclass(slots=True)
class Step:
    """One assistant turn with the results of its calls, in order."""

    turn: Turn
    results: list[tuple[ToolCall, ToolResult]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class Trajectory:
    """A whole rollout. `messages` is the full conversation; `steps` adds ids, log-probs and timings per turn."""

    task: Task
    policy: str
    tools: tuple[ToolSpec, ...]
    messages: list[Message] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    verdict: Verdict = field(default_factory=lambda: Verdict(None))
    stop: StopReason = "answered"
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """The policy ended by itself with an answer."""
        return self.stop == "answered"

    @property
    def answer(self) -> str:
        """The last thing the assistant told the user, or nothing."""
        for message in reversed(self.messages):
            if message.role == "assistant" and not message.tool_calls:
                return message.content
        return ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that just happened in a rollout, for whoever watches."""

    kind: Literal["start", "user", "assistant", "call", "tool_result", "verdict"]
    task: Task
    message: Message | None = None
    call: ToolCall | None = None
    result: ToolResult | None = None
    verdict: Verdict | None = None

    def to_json(self) -> dict[str, Any]:
        """One JSON object per event, without empty fields."""
        raw: dict[str, Any] = {"event": self.kind, "task": self.task.id}
        if self.kind == "start":
            raw |= {"family": self.task.family, "skill": self.task.skill, "request": self.task.request}
        if self.message is not None:
            raw["content"] = self.message.content
        if self.call is not None:
            raw |= {"id": self.call.id, "name": self.call.name, "arguments": self.call.arguments}
        if self.result is not None:
            raw |= {"content": self.result.content, "error": self.result.error}
            if self.call is not None:
                # As the agent's interface calls them.
                raw |= {"tool": self.call.name, "output": self.result.content}
        if self.verdict is not None:
            raw |= {"passed": self.verdict.passed, "reason": self.verdict.reason}
        return raw


class Halt(Exception):
    """Raised by a policy that does not speak again in this rollout: `budget` ends it, `paused` lets it go on later."""

    def __init__(self, reason: Literal["budget", "paused"]) -> None:
        super().__init__(reason)
        self.reason: StopReason = reason


OnEvent = Callable[[Event], None]
