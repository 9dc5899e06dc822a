"""`/v1/responses`: OpenAI's newer route, without memory: the whole conversation comes with every request."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from typing import Annotated, Any, Literal

from pydantic import Field

from openk2.chat import ArgumentsPart, CallBegin, CallEnd, TextPart
from openk2.core import Message, ToolCall
from openk2.core.messages import Role, compact_json, is_unicode
from openk2.serve.answer import Answer, News, Ready, ReasoningPart, RefusalPart, Said
from openk2.serve.errors import invalid
from openk2.serve.fields import Declared, Fields, Listed, Number, given, temperature_field
from openk2.serve.prompt import Asked, Tool, Where
from openk2.serve.service import Settings

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""Kinds of parts that are text, and where it stands in them."""
_LOGPROBS = "message.output_text.logprobs"
_SHAPES: dict[type[News], tuple[str, str]] = {
    TextPart: ("message", "output_text"),
    RefusalPart: ("message", "refusal"),
    ReasoningPart: ("reasoning", "reasoning_text"),
}
"""In which kind of item, and of part, a text is said."""


class ToolEntry(Fields):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedTool(Fields):
    type: Literal["function"]
    name: str


class TextFormat(Fields):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(Fields):
    format: TextFormat | None = None


class Reasoning(Fields):
    effort: str | None = None


class ResponsesRequest(Fields):
    model: str | None = None
    input: str | Listed[dict[str, Any]]
    instructions: str | None = None
    tools: Declared[ToolEntry] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    prompt: Any = None
    max_tool_calls: Any = None
    top_logprobs: int | None = None
    include: Listed[str] | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["disabled"] | None = None

    def asked(self, settings: Settings) -> Asked:
        """In the program's own words. Raises ApiError."""
        for field in ("previous_response_id", "conversation", "background"):
            if getattr(self, field):
                raise invalid(field, "this server keeps no conversations: send all of it in input")
        for field in ("prompt", "max_tool_calls", "top_logprobs"):
            if getattr(self, field):
                raise invalid(field, "it is not served here: leave it out")
        # The rest of what can be included are results of tools that are not here, and reasoning that is open already.
        if _LOGPROBS in (self.include or []):
            raise invalid("include", f"{_LOGPROBS} is not served here: leave it out")
        messages = [Message("system", _checked("instructions", self.instructions))] if self.instructions else []
        items = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        for index, item in enumerate(items):
            _add(messages, f"input.{index}", item)
        choice: tuple[Literal["auto", "none", "required", "tool"], str] = (
            ("tool", self.tool_choice.name)
            if isinstance(self.tool_choice, NamedTool)
            else (self.tool_choice or "auto", "")
        )
        return Asked(
            messages=messages,
            tools=[_tool(index, entry) for index, entry in enumerate(self.tools or [])],
            choice=choice,
            parallel=self.parallel_tool_calls is not False,
            answer=self._answer(),
            where=Where(
                messages="input",
                answer="text.format.schema",
                limit="max_output_tokens",
                switch="text.format.strict",
            ),
            answer_strict=self._format is None or self._format.strict is not False,
            max_tokens=self.max_output_tokens,
            answer_names=self._answer_names(),
            sampling=temperature_field(settings.temperature if self.temperature is None else self.temperature)
            | given(top_p=self.top_p),
            passed={} if self.reasoning is None else given(reasoning_effort=self.reasoning.effort),
        )

    @property
    def _format(self) -> TextFormat | None:
        return self.text.format if self.text is not None else None

    def _answer_names(self) -> dict[str, Any]:
        wanted = self._format
        return {} if wanted is None else given(name=wanted.name, description=wanted.description)

    def _answer(self) -> dict[str, Any] | None:
        wanted = self._format
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_object":
            return {"type": "object"}
        if wanted.name is None:
            raise invalid("text.format.name", "it is missing: give the schema a name")
        if wanted.schema_ is None:
            raise invalid("text.format.schema", "it is missing: send the schema that is meant")
        return wanted.schema_


def _tool(index: int, entry: ToolEntry) -> Tool:
    parameters = entry.parameters or {"type": "object", "properties": {}}
    function = {"name": entry.name, "description": entry.description or "", "parameters": parameters}
    return Tool(
        name=entry.name,
        raw={"type": "function", "function": function},
        parameters=parameters,
        description=entry.description or "",
        strict=entry.strict is not False,
        field=f"tools.{index}",
    )


def _checked(field: str, text: Any) -> str:
    if not isinstance(text, str) or not is_unicode(text):
        raise invalid(field, "it must be a text")
    return text


def _text(field: str, content: Any) -> str:
    if isinstance(content, str):
        return _checked(field, content)
    if not isinstance(content, list):
        raise invalid(field, "it must be a text or a list of parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in _TEXTS:
            raise invalid(field, f"parts of type {str(kind)[:40]!r} are not served here: send text")
        texts.append(_checked(field, part.get(_TEXTS[kind])))
    return "".join(texts)


def _add(messages: list[Message], field: str, item: dict[str, Any]) -> None:
    """One item of the input. Calls that follow an assistant's message, or each other, are one turn."""
    kind = item.get("type", "message")
    if kind == "message":
        role = _ROLES.get(str(item.get("role")))
        if role is None:
            raise invalid(f"{field}.role", f"{str(item.get('role'))[:40]!r} is unknown: use {', '.join(_ROLES)}")
        messages.append(Message(role, _text(f"{field}.content", item.get("content"))))
    elif kind == "function_call":
        call = ToolCall(*(_checked(f"{field}.{key}", item.get(key)) for key in ("call_id", "name", "arguments")))
        if not messages or messages[-1].role != "assistant":
            messages.append(Message("assistant"))
        last = messages[-1]
        messages[-1] = Message("assistant", last.content, (*last.tool_calls, call))
    elif kind == "function_call_output":
        identifier = _checked(f"{field}.call_id", item.get("call_id"))
        messages.append(Message("tool", _text(f"{field}.output", item.get("output")), tool_call_id=identifier))
    elif kind != "reasoning":
        raise invalid(f"{field}.type", f"items of type {str(kind)[:40]!r} are not served here")


_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class _Response:
    """A response while it is being said: its items, and the events that tell of them."""

    def __init__(self, ready: Ready, request: ResponsesRequest) -> None:
        self._answer = Answer(len(ready.prompt_ids))
        self._items: list[dict[str, Any]] = []
        self._numbers = count()
        given = request.model_dump(mode="json", by_alias=True, exclude_none=True)
        self._head = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": ready.model,
            "error": None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": request.temperature,
            "text": given.get("text") or {"format": {"type": "text"}},
            "tool_choice": given.get("tool_choice", "auto"),
            "tools": given.get("tools", []),
            "top_p": request.top_p,
            "truncation": "disabled",
        }

    def to_json(self) -> dict[str, Any]:
        """As it is now."""
        answer = self._answer
        cut = None if answer.end is None else _INCOMPLETE.get(answer.end.finish_reason)
        status = "in_progress" if answer.end is None else "completed" if cut is None else "incomplete"
        usage = {
            "input_tokens": answer.prompt_tokens,
            "input_tokens_details": {"cached_tokens": answer.cached_tokens},
            "output_tokens": answer.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        }
        return self._head | {
            "status": status,
            "incomplete_details": None if cut is None else {"reason": cut},
            "output": self._items,
            "usage": None if answer.end is None or not answer.counted else usage,
        }

    def event(self, kind: str, **fields: Any) -> str:
        """One event of the stream."""
        return compact_json({"type": f"response.{kind}", "sequence_number": next(self._numbers)} | fields)

    def take(self, said: Said) -> list[str]:
        """What news of the answer are here."""
        self._answer.take(said)
        return [told for event in said.events for told in self._told_of(event)]

    def _told_of(self, event: News) -> list[str]:
        if isinstance(event, TextPart | RefusalPart | ReasoningPart):
            return self._more(*_SHAPES[type(event)], event.text)
        out = self.end_text()
        if isinstance(event, CallBegin):
            self._items.append(
                {
                    "type": "function_call", "id": f"fc_{uuid.uuid4().hex}", "call_id": event.id, "name": event.name,
                    "arguments": "", "status": "in_progress",
                }
            )  # fmt: skip
            return [*out, self._item("added")]
        item = self._items[-1]
        if isinstance(event, ArgumentsPart):
            item["arguments"] += event.text
            return [*out, self._told("function_call_arguments.delta", delta=event.text)]
        assert isinstance(event, CallEnd)
        item["status"] = "completed"
        done = self._told("function_call_arguments.done", name=item["name"], arguments=item["arguments"])
        return [*out, done, self._item("done")]

    def _more(self, item: str, kind: str, text: str) -> list[str]:
        """More text of a kind."""
        out = [] if self._in_item(item) else [*self.end_text(), self._begin_item(item)]
        parts = self._items[-1]["content"]
        if not parts or parts[-1]["type"] != kind:
            out += self._end_part()
            empty: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
            parts.append({"type": kind, _key(kind): ""} | empty)
            out.append(self._told("content_part.added", content_index=len(parts) - 1, part=parts[-1]))
        parts[-1][_key(kind)] += text
        return [*out, self._told(f"{kind}.delta", content_index=len(parts) - 1, delta=text, **_logprobs(kind))]

    def _end_part(self) -> list[str]:
        """The end of the last part of the item that is open, if it has one."""
        parts = self._items[-1]["content"]
        if not parts:
            return []
        kind, at = parts[-1]["type"], len(parts) - 1
        text = {_key(kind): parts[-1][_key(kind)]} | _logprobs(kind)
        return [
            self._told(f"{kind}.done", content_index=at, **text),
            self._told("content_part.done", content_index=at, part=parts[-1]),
        ]

    def end(self) -> list[str]:
        """The end of all."""
        assert self._answer.end is not None
        return self.end_text(cut=self._answer.end.finish_reason in _INCOMPLETE)

    def end_text(self, *, cut: bool = False) -> list[str]:
        """The end of the text, if one is open."""
        if not any(map(self._in_item, ("message", "reasoning"))):
            return []
        self._items[-1]["status"] = "incomplete" if cut else "completed"
        return [*self._end_part(), self._item("done")]

    def _in_item(self, kind: str) -> bool:
        return bool(self._items) and self._items[-1]["type"] == kind and self._items[-1]["status"] == "in_progress"

    def _begin_item(self, kind: str) -> str:
        more: dict[str, Any] = {"role": "assistant"} if kind == "message" else {"summary": []}
        short = "msg" if kind == "message" else "rs"
        item = {"type": kind, "id": f"{short}_{uuid.uuid4().hex}", "status": "in_progress", "content": []}
        self._items.append(item | more)
        return self._item("added")

    def _item(self, what: str) -> str:
        return self.event(f"output_item.{what}", output_index=len(self._items) - 1, item=self._items[-1])

    def _told(self, kind: str, **fields: Any) -> str:
        return self.event(kind, item_id=self._items[-1]["id"], output_index=len(self._items) - 1, **fields)


def _key(kind: str) -> str:
    """Where the text of a part stands in it."""
    return _TEXTS.get(kind, "text")


def _logprobs(kind: str) -> dict[str, Any]:
    return {"logprobs": []} if kind == "output_text" else {}


async def whole(ready: Ready, request: ResponsesRequest) -> dict[str, Any]:
    """The response at once."""
    response = _Response(ready, request)
    async for _, said in ready.say(streamed=False):
        response.take(said)
    response.end()
    return response.to_json()


async def streamed(ready: Ready, request: ResponsesRequest) -> AsyncGenerator[str, None]:
    """The response as events, each as JSON."""
    response = _Response(ready, request)
    for kind in ("created", "in_progress"):
        yield response.event(kind, response=response.to_json())
    async with aclosing(ready.say(streamed=True)) as news:
        async for _, said in news:
            for told in response.take(said):
                yield told
    for told in response.end():
        yield told
    final = response.to_json()
    yield response.event(final["status"], response=final)
