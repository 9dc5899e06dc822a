"""Messages, tool calls and tool declarations: the conversation as data.

The JSON form is OpenAI's chat format; inside the program these frozen dataclasses are used. An assistant message that
a local policy sampled carries its exact token ids, so that nothing is tokenised twice between sampler and gradient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openk2.core.errors import UserError

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
NANO_SYSTEM = "You are OpenK2 nano. Use the tools."
"""The system message of all training episodes, and so of whoever lets nano act."""


def compact_json(value: Any, *, finite: bool = False) -> str:
    """JSON without spaces, the form that K2 is trained on (tool declarations, arguments).

    Python writes infinite numbers as words that are not JSON: with `finite` they raise ValueError.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=not finite)


def as_unicode(text: str) -> str:
    """The text with a question mark for every half of a character, which no encoding has."""
    return text.encode("utf-8", "replace").decode()


def is_unicode(text: str) -> bool:
    """Whether the text can be written at all: JSON escapes can make half a character, which is in no encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call. `arguments` is the JSON text exactly as it was written, valid or not."""

    id: str
    name: str
    arguments: str

    def parsed(self) -> dict[str, Any]:
        """Arguments as an object. Raises ValueError when they are not a JSON object."""
        try:
            value = json.loads(self.arguments)
        except RecursionError as e:
            raise ValueError(f"the arguments of {self.name} are nested too deeply") from e
        if not isinstance(value, dict):
            raise ValueError(f"the arguments of {self.name} are a JSON {type(value).__name__}, not an object")
        return value


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `token_ids` are the sampled ids of an assistant body, from after `<|im_middle|>` to `<|im_end|>`."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    token_ids: tuple[int, ...] | None = None

    @classmethod
    def from_openai(cls, raw: Mapping[str, Any]) -> Message:
        """From an OpenAI chat message. Raises UserError naming the field that does not fit."""
        role = raw.get("role")
        if role not in ROLES:
            raise UserError(f"message role {role!r} is unknown: use one of {', '.join(ROLES)}")
        content = raw.get("content")
        if content is None and role == "assistant":
            # What the model said instead of an answer.
            content = raw.get("refusal")
        if isinstance(content, list):
            content = "".join(_text_part(part) for part in content)
        if content is not None and not isinstance(content, str):
            raise UserError(f"message content must be text or a list of text parts, not {type(content).__name__}")
        calls = raw.get("tool_calls") or []
        if not isinstance(calls, list | tuple):
            raise UserError(f"message tool_calls must be a list, not {type(calls).__name__}")
        return cls(
            role=role,
            content=content or "",
            tool_calls=tuple(_call(call) for call in calls),
            tool_call_id=_optional_text(raw, "tool_call_id"),
            name=_optional_text(raw, "name"),
        )

    def to_openai(self) -> dict[str, Any]:
        """The OpenAI chat message, without fields that are empty."""
        raw: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            raw["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in self.tool_calls
            ]
        if self.tool_call_id is not None:
            raw["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            raw["name"] = self.name
        return raw


def _call(raw: Any) -> ToolCall:
    function = raw.get("function") if isinstance(raw, Mapping) else None
    if not isinstance(function, Mapping):
        raise UserError(f"a tool call must be {{'function': {{'name': ..., 'arguments': ...}}}}, got {str(raw)[:80]}")
    arguments = function.get("arguments", "{}")
    if not isinstance(arguments, str):
        arguments = compact_json(arguments)
    return ToolCall(_optional_text(raw, "id") or "", _optional_text(function, "name") or "", arguments)


def _optional_text(raw: Mapping[str, Any], field: str) -> str | None:
    value = raw.get(field)
    if value is not None and not isinstance(value, str):
        raise UserError(f"message {field} must be text, not {type(value).__name__}")
    return value


def _text_part(part: Any) -> str:
    if isinstance(part, Mapping):
        text = part.get(kind) if (kind := part.get("type")) in ("text", "refusal") else None
        if isinstance(text, str):
            return text
    raise UserError(f"only text parts are supported in message content, got {compact_json(part)[:80]}")


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A declared tool: its name, what it does, and the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @classmethod
    def from_openai(cls, raw: Mapping[str, Any]) -> ToolSpec:
        """From an entry of the OpenAI `tools` array. Raises UserError if it is not a function declaration."""
        function = raw.get("function")
        if raw.get("type", "function") != "function" or not isinstance(function, Mapping) or not function.get("name"):
            raise UserError(f"a tool must be {{'type': 'function', 'function': {{'name': ...}}}}, got {str(raw)[:80]}")
        return cls(
            name=str(function["name"]),
            description=str(function.get("description") or ""),
            parameters=function.get("parameters") or {"type": "object", "properties": {}},
        )

    def to_openai(self) -> dict[str, Any]:
        """The entry of the OpenAI `tools` array, what the tool does before its name.

        A causal model reads in this order: a name that follows its description can be found by it.
        """
        return {
            "type": "function",
            "function": {
                "description": self.description,
                "name": self.name,
                "parameters": dict(self.parameters),
            },
        }


def as_messages(messages: Sequence[Message | Mapping[str, Any]]) -> list[Message]:
    """Accept either form."""
    return [m if isinstance(m, Message) else Message.from_openai(m) for m in messages]


def as_tools(tools: Sequence[ToolSpec | Mapping[str, Any]] | None) -> list[ToolSpec]:
    """Accept either form."""
    return [t if isinstance(t, ToolSpec) else ToolSpec.from_openai(t) for t in tools or ()]
