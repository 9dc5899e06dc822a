"""A policy that says what was written down: for tests, for demonstrations, and to prove a world before any training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from openk2.chat import call_id
from openk2.core import Message, ToolSpec, Turn, UserError
from openk2.core.runs import read_small_text


class ScriptedPolicy:
    """Answers with the assistant messages of `messages`, in order; other messages are passed over.

    The answer depends on the conversation alone: with n assistant messages in it the script's message n is next. So one
    policy serves many rollouts at a time. A call without an id gets the one that K2 would give it.
    """

    def __init__(self, messages: Iterable[Message], name: str = "script", *, ends: bool = False) -> None:
        """`ends`: behind its last message it says nothing, in place of an error."""
        self.name = name
        self._ends = ends
        self._script = [m for m in messages if m.role == "assistant"]

    @classmethod
    def from_file(cls, path: Path | str) -> ScriptedPolicy:
        """From JSON lines, each an OpenAI chat message. Raises UserError naming the file and line that does not fit."""
        if not str(path):
            raise UserError("script: has no file behind it: name a file of JSON lines")
        path = Path(path)
        try:
            lines = read_small_text(path).split("\n")
        except (OSError, ValueError) as e:
            raise UserError(f"could not read the script {path} ({e}): name a file of JSON lines") from e
        messages = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                raw = json.loads(line)
            except (ValueError, RecursionError) as e:
                raise UserError(f"{path} line {number} is not JSON ({e}): write one chat message a line") from e
            if not isinstance(raw, dict):
                raise UserError(f"{path} line {number} is not a JSON object: write one chat message a line")
            try:
                messages.append(Message.from_openai(raw))
            except UserError as e:
                raise UserError(f"{path} line {number}: {e}") from e
        return cls(messages, name=f"script:{path}", ends=True)

    def next(self, messages: Sequence[Message]) -> Message:
        """The message of the script that answers this conversation. Raises UserError when it has no more."""
        said = [m for m in messages if m.role == "assistant"]
        if len(said) >= len(self._script):
            raise UserError(f"the script {self.name} has {len(self._script)} answers and was asked for one more")
        answer = self._script[len(said)]
        first = sum(len(m.tool_calls) for m in said)
        calls = tuple(
            call if call.id else replace(call, id=call_id(call.name, first + i))
            for i, call in enumerate(answer.tool_calls)
        )
        return replace(answer, tool_calls=calls)

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        """The next message of the script. Raises as `next`, unless its end is the end of the turn."""
        over = self._ends and sum(m.role == "assistant" for m in messages) >= len(self._script)
        answer = Message("assistant") if over else self.next(messages)
        return Turn(answer, "tool_calls" if answer.tool_calls else "stop", model=self.name)

    async def close(self) -> None:
        """Nothing to close."""
