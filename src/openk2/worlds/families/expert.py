"""Demonstrations on the machine: an expert writes a conversation call by call in a scratch folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from openk2.core import NANO_SYSTEM, Demonstration, Message, Task, ToolCall, compact_json
from openk2.worlds.inline import InlineMachine
from openk2.worlds.machine import MACHINE_TOOLS


class Expert:
    """Writes a demonstration call by call against an in-process machine."""

    def __init__(self, request_text: str, folder: Path) -> None:
        self.machine = InlineMachine(folder)
        self.messages = [Message("system", NANO_SYSTEM), Message("user", request_text)]
        self.calls = 0

    def call(self, tool: str, **arguments: str) -> str:
        """Make one call and return what came back."""
        call = ToolCall(f"functions.{tool}:{self.calls}", tool, compact_json(arguments))
        self.calls += 1
        result = self.machine.call(call)
        self.messages.append(Message("assistant", tool_calls=(call,)))
        self.messages.append(Message("tool", result.content, tool_call_id=call.id, name=tool))
        return result.content

    def say(self, text: str) -> None:
        self.messages.append(Message("assistant", text))


def demonstrated(
    task: Task, setup: Callable[[Task, Path], None], solve: Callable[[Path], tuple[Message, ...]]
) -> Demonstration:
    """What `solve` writes in a fresh folder that `setup` has filled for the task."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup(task, folder)
        return Demonstration(task, MACHINE_TOOLS, solve(folder))
