"""Families whose tasks are one question and one answer: a world without tools, judged by the family's own `check`.

A new family is a subclass with `sample`, `gold` and `check`; `docs/rl.md` shows one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from openk2.core import Demonstration, Message, Split, Task, ToolCall, ToolResult, ToolSpec, Verdict, World


class QuestionFamily(ABC):
    """Tasks that are answered in one turn. `name` and `skills` are the subclass's, `system` opens the conversation.

    A family that only a critic can judge says so with `verified`, one that executes code with `needs_sandbox`.
    """

    name: str
    skills: Sequence[str]
    system: str = ""
    verified: bool = True
    needs_sandbox: bool = False

    @abstractmethod
    def sample(self, split: Split, seed: int) -> Task:
        """The task of a seed, a pure function of (split, seed). What `check` needs is in its `data`, as JSON."""

    @abstractmethod
    def gold(self, task: Task) -> str:
        """An answer that `check` passes."""

    @abstractmethod
    def check(self, task: Task, answer: str) -> Verdict:
        """Judge an answer by code. `answer` may be any text."""

    async def judge(self, task: Task, answer: str) -> Verdict:
        """As `check`, which it calls; for a family that has to wait for what judges, such as a sandbox."""
        return self.check(task, answer)

    def world(self, task: Task) -> World:
        return QuestionWorld(self, task)

    def demonstrate(self, task: Task) -> Demonstration:
        return Demonstration(task, (), (*self.opening(task), Message("assistant", self.gold(task))))

    def opening(self, task: Task) -> list[Message]:
        """The messages that ask."""
        system = [Message("system", self.system)] if self.system else []
        return [*system, Message("user", task.request)]


class QuestionWorld:
    """A conversation of one question; the first answer ends it."""

    tools: Sequence[ToolSpec] = ()

    def __init__(self, family: QuestionFamily, task: Task) -> None:
        self._family, self._task = family, task

    async def start(self, task: Task) -> list[Message]:
        return self._family.opening(task)

    async def call(self, call: ToolCall) -> ToolResult:
        return ToolResult.failure("there are no tools: answer in words")

    async def reply(self, message: Message) -> Message | None:
        return None

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        answers = [m.content for m in messages if m.role == "assistant" and not m.tool_calls]
        if not answers:
            return Verdict(False, "there is no answer", 0.0)
        return await self._family.judge(self._task, answers[-1])

    async def close(self) -> None:
        """Nothing to clean up."""
