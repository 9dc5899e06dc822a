"""`/v1/messages`: Anthropic's request to the engine's, and events to Anthropic's messages and stream.

Temperatures are scaled by 0.6 for K2, as Moonshot's endpoint does, and not for other models behind; a request without
one means Anthropic's 1. Requests for thinking are taken and change nothing: the model has no thinking mode. What a
model behind another server thinks is not shown: a block of it would need a signature, which is Anthropic's alone to
give.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from openk2.chat import ArgumentsPart, CallBegin, CallEnd, TextPart
from openk2.core import Message, ToolCall
from openk2.core.messages import compact_json, is_unicode
from openk2.serve.answer import Answer, Ready, ReasoningPart, RefusalPart
from openk2.serve.errors import ApiError, invalid
from openk2.serve.fields import Declared, Fields, Listed, Number, given, temperature_field
from openk2.serve.prompt import Asked, Tool, Where
from openk2.serve.service import Settings

_MOST_STOPS = 16
_KINDS: dict[str, Literal["auto", "required", "tool", "none"]] = {
    "auto": "auto",
    "any": "required",
    "tool": "tool",
    "none": "none",
}


def _own(kind: Any) -> Any:
    """Raises for tools that Anthropic's own server runs."""
    if isinstance(kind, str) and kind != "custom":
        problem = "tools of type {kind} are not served here: declare one of your own, with input_schema"
        raise PydanticCustomError("not_served", problem, {"kind": repr(kind[:40])})
    return kind


class ToolEntry(Fields):
    # First, as for another type the other fields are not those either.
    type: Annotated[Literal["custom"] | None, BeforeValidator(_own)] = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None


class Choice(Fields):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessageEntry(Fields):
    role: Literal["user", "assistant", "system"]
    content: str | Listed[dict[str, Any]]


class OutputFormat(Fields):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Fields):
    format: OutputFormat | None = None


class CountRequest(Fields):
    """What is counted: a request without what concerns the answer."""

    model: str | None = None
    messages: Listed[MessageEntry]
    system: str | Listed[dict[str, Any]] | None = None
    tools: Declared[ToolEntry] | None = None
    tool_choice: Choice | None = None
    thread: Any = None
    mcp_servers: Any = None
    container: Any = None

    def asked(self, settings: Settings) -> Asked:
        """In the program's own words. Raises ApiError."""
        if self.thread is not None:
            # By these words Anthropic's client knows that it has to send whole conversations.
            unsupported = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
            problem = "thread: this server keeps no conversations: leave it out, and send all messages"
            raise ApiError(400, problem, field="thread", details=unsupported)
        for field in ("mcp_servers", "container"):
            if getattr(self, field):
                raise invalid(field, "nothing is run on this server: leave it out, and declare tools that you run")
        messages: list[Message] = []
        if self.system:
            messages.append(Message("system", _text("system", self.system)))
        for index, entry in enumerate(self.messages):
            messages += _messages(f"messages.{index}", entry)
        last = self.messages[-1] if self.messages else None
        choice = self.tool_choice
        if choice is not None and choice.type == "tool" and choice.name is None:
            raise invalid("tool_choice.name", "it is missing: name the tool that is to be called")
        return Asked(
            messages=messages,
            tools=[_tool(i, entry) for i, entry in enumerate(self.tools or [])],
            choice=("auto", "") if choice is None else (_KINDS[choice.type], choice.name or ""),
            parallel=choice is None or not choice.disable_parallel_tool_use,
            partial=last is not None and last.role == "assistant" and bool(messages) and not messages[-1].tool_calls,
        )


class MessagesRequest(CountRequest):
    max_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[Number, Field(ge=0, le=1)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    stop_sequences: Listed[str] | None = None
    stream: bool | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None

    def asked(self, settings: Settings) -> Asked:
        """In the program's own words. Raises ApiError."""
        base = super().asked(settings)
        stops = tuple(self.stop_sequences or ())
        if len(stops) > _MOST_STOPS:
            raise invalid("stop_sequences", f"there are {len(stops)}, and at most {_MOST_STOPS} are allowed")
        if not all(text and is_unicode(text) for text in stops):
            raise invalid("stop_sequences", "they must be texts that are not empty")
        where, wanted = self._format()
        if wanted is not None and base.partial:
            raise invalid(where, "JSON cannot be mixed with a beginning of the answer, as the last message is")
        temperature = settings.temperature
        if self.temperature is not None:
            temperature = settings.anthropic_scale * self.temperature
        return replace(
            base,
            answer=None if wanted is None else wanted.schema_,
            where=Where(answer=f"{where}.schema", switch=None),
            max_tokens=self.max_tokens,
            stop=stops,
            sampling=temperature_field(temperature) | given(top_p=self.top_p, top_k=self.top_k),
        )

    def _format(self) -> tuple[str, OutputFormat | None]:
        """The form of the answer, and where it stands; `output_format` is what it was called at first."""
        if self.output_config is not None and self.output_config.format is not None:
            return "output_config.format", self.output_config.format
        return "output_format", self.output_format


def _tool(index: int, entry: ToolEntry) -> Tool:
    function = {"name": entry.name, "description": entry.description or "", "parameters": entry.input_schema}
    return Tool(
        name=entry.name,
        raw={"type": "function", "function": function},
        parameters=entry.input_schema,
        description=entry.description or "",
        # Anthropic's default is not strict: its clients declare schemas that are hints.
        strict=entry.strict is True,
        field=f"tools.{index}",
        schema_key="input_schema",
    )


def _text(field: str, content: str | list[dict[str, Any]]) -> str:
    parts = [content] if isinstance(content, str) else [_text_of(f"{field}.{i}", b) for i, b in enumerate(content)]
    return _checked(field, "".join(parts))


def _checked(field: str, text: str) -> str:
    if not is_unicode(text):
        raise invalid(field, "a text has half a character (a lone surrogate), which no encoding has")
    return text


def _text_of(field: str, block: dict[str, Any]) -> str:
    kind, text = block.get("type"), block.get("text")
    if not isinstance(kind, str):
        raise invalid(f"{field}.type", "it is missing: say what kind of block this is")
    if kind != "text":
        raise invalid(field, f"blocks of type {kind[:40]!r} are not served here: send text")
    if not isinstance(text, str):
        raise invalid(f"{field}.text", "it is missing, or no text")
    return text


def _messages(field: str, entry: MessageEntry) -> list[Message]:
    """One of Anthropic's messages, whose blocks may be several of ours: results come before what the user says."""
    if isinstance(entry.content, str):
        return [Message(entry.role, _text(field, entry.content))]
    texts: list[str] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    for number, block in enumerate(entry.content):
        where, kind = f"{field}.content.{number}", block.get("type")
        if kind in ("thinking", "redacted_thinking") and entry.role == "assistant":
            continue
        if kind == "tool_use" and entry.role == "assistant":
            calls.append(_call(where, block))
        elif kind == "tool_result" and entry.role == "user":
            results.append(_result(where, block))
        else:
            texts.append(_checked(where, _text_of(where, block)))
    if entry.role == "assistant":
        return [Message("assistant", "".join(texts), tuple(calls))]
    return [*results, *([Message(entry.role, "".join(texts))] if texts or not results else [])]


def _call(field: str, block: dict[str, Any]) -> ToolCall:
    identifier, name, given = block.get("id"), block.get("name"), block.get("input", {})
    if not isinstance(identifier, str) or not isinstance(name, str) or not isinstance(given, dict):
        raise invalid(field, "a tool_use block needs id and name as texts, and input as an object")
    return ToolCall(*(_checked(field, text) for text in (identifier, name, compact_json(given))))


def _result(field: str, block: dict[str, Any]) -> Message:
    identifier, content = block.get("tool_use_id"), block.get("content", "")
    if not isinstance(identifier, str) or not isinstance(content, str | list):
        raise invalid(field, "a tool_result block needs tool_use_id as a text, and content as a text or blocks")
    if not all(isinstance(part, dict) for part in content if isinstance(content, list)):
        raise invalid(field, "the content of a tool_result is a text or a list of blocks")
    text = _text(f"{field}.content", content)
    # The model's format has no word of its own for a tool that failed.
    failed = block.get("is_error") is True and not text.lower().startswith("error")
    return Message("tool", f"Error: {text}" if failed else text, tool_call_id=identifier)


_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def _why(answer: Answer) -> dict[str, Any]:
    """Why it ended."""
    sequence = None if answer.end is None else answer.end.stop
    ended = "refusal" if answer.refusal else "end_turn" if sequence is None else "stop_sequence"
    reason = _STOP_REASONS.get(answer.finish_reason, ended)
    return {"stop_reason": reason, "stop_sequence": sequence if reason == "stop_sequence" else None}


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "input_tokens": answer.prompt_tokens - answer.cached_tokens,
        "output_tokens": answer.completion_tokens,
        "cache_read_input_tokens": answer.cached_tokens,
        "cache_creation_input_tokens": 0,
    }


def _head(ready: Ready) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": ready.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


async def whole(ready: Ready) -> dict[str, Any]:
    """The answer at once."""
    answer = Answer(len(ready.prompt_ids))
    async for _, said in ready.say(streamed=False):
        answer.take(said)
    message = answer.message
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.shown}] if answer.shown else []
    for call in message.tool_calls:
        content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)})
    return _head(ready) | {"content": content} | _why(answer) | {"usage": _usage(answer)}


def _input(arguments: str) -> Any:
    """What is called with. Where it cannot be read as JSON (a number of thousands of digits is enough), as Anthropic
    advises to write that."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return {"INVALID_JSON": arguments}


async def streamed(ready: Ready) -> AsyncGenerator[str, None]:
    """The answer as Anthropic's events, each as JSON."""
    answer = Answer(len(ready.prompt_ids))
    yield compact_json({"type": "message_start", "message": _head(ready) | {"usage": _usage(answer)}})
    index, in_text = -1, False
    async with aclosing(ready.say(streamed=True)) as news:
        async for _, said in news:
            answer.take(said)
            for event in said.events:
                if isinstance(event, ReasoningPart):
                    continue
                is_text = isinstance(event, TextPart | RefusalPart)
                if in_text and not is_text:
                    yield _stop(index)
                    in_text = False
                if is_text and not in_text:
                    index, in_text = index + 1, True
                    yield _start(index, {"type": "text", "text": ""})
                if isinstance(event, TextPart | RefusalPart):
                    yield _delta(index, {"type": "text_delta", "text": event.text})
                elif isinstance(event, CallBegin):
                    index += 1
                    yield _start(index, {"type": "tool_use", "id": event.id, "name": event.name, "input": {}})
                elif isinstance(event, ArgumentsPart):
                    yield _delta(index, {"type": "input_json_delta", "partial_json": event.text})
                elif isinstance(event, CallEnd):
                    yield _stop(index)
    if in_text:
        yield _stop(index)
    yield compact_json({"type": "message_delta", "delta": _why(answer), "usage": _usage(answer)})
    yield compact_json({"type": "message_stop"})


def _start(index: int, block: dict[str, Any]) -> str:
    return compact_json({"type": "content_block_start", "index": index, "content_block": block})


def _delta(index: int, delta: dict[str, Any]) -> str:
    return compact_json({"type": "content_block_delta", "index": index, "delta": delta})


def _stop(index: int) -> str:
    return compact_json({"type": "content_block_stop", "index": index})
