"""Conversations of one's own for fine-tuning: JSON lines as OpenAI's fine-tuning takes them, and `openk2 export --to
openai` writes them. A line is an object with `messages`, and `tools` where there are some.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openk2.core import Demonstration, Message, Task, ToolSpec, UserError, command


def line_offsets(path: Path) -> list[int]:
    """Where each line that is not blank begins, in bytes. Raises UserError if the file cannot be read or has none."""
    offsets, at = [], 0
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.strip():
                    offsets.append(at)
                at += len(line)
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from e
    if not offsets:
        raise UserError(f"{path} has no conversations: write one a line, as {command.typed} export --to openai does")
    return offsets


def read_conversations(path: Path, offset: int, number: int, count: int) -> Iterator[Demonstration]:
    """`count` conversations from the byte `offset` on, which is that of conversation `number`.

    Raises UserError that names the conversation which is none, or in which the assistant says nothing.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        for at in range(number, number + count):
            line = next(line for line in file if line.strip())
            try:
                yield _conversation(json.loads(line), path.stem, at)
            except (ValueError, RecursionError) as e:
                raise UserError(f"{path}, conversation {at + 1}: not JSON ({e})") from e
            except UserError as e:
                raise UserError(f"{path}, conversation {at + 1}: {e}") from e


def _conversation(raw: Any, name: str, number: int) -> Demonstration:
    if not isinstance(raw, dict) or not isinstance(raw.get("messages"), list):
        raise UserError("it is no object with a list of messages")
    declared = raw.get("tools") or []
    if not isinstance(declared, list):
        raise UserError(f"its tools are a list, not {json.dumps(declared)[:40]}")
    if not all(isinstance(one, dict) for one in [*raw["messages"], *declared]):
        raise UserError("a message, or a tool, is no object")
    # OpenAI's newer word for a system message.
    renamed = ({**one, "role": "system"} if one.get("role") == "developer" else one for one in raw["messages"])
    messages = tuple(map(Message.from_openai, renamed))
    if not any(message.role == "assistant" for message in messages):
        raise UserError("the assistant says nothing in it, and that is what is learned")
    for call in (call for message in messages for call in message.tool_calls):
        try:
            call.parsed()
        except (ValueError, RecursionError) as e:
            raise UserError(f"the arguments of a call of {call.name!r} are no JSON object ({e})") from None
    tools = tuple(map(ToolSpec.from_openai, declared))
    return Demonstration(Task(f"{name}/{number}", name, "", number, "", {}), tools, messages)
