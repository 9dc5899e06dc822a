"""From a conversation as a client sends it to what the engine is asked, the same for every route."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from openk2.chat import canonicalise, render
from openk2.core import NANO_SYSTEM, ContextOverflow, Message, ToolSpec, UserError
from openk2.engine import Request
from openk2.serve.errors import ApiError, invalid
from openk2.serve.names import ToolNames
from openk2.serve.service import Service

MOST_TOOLS = 128


@dataclass(frozen=True, slots=True)
class Tool:
    """A declared tool: its OpenAI entry as the client wrote it, and where it stands in the request."""

    name: str
    raw: Mapping[str, Any]
    parameters: Mapping[str, Any]
    description: str
    strict: bool
    field: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in the program's own words.

    `messages` still have the client's names and ids. `choice` is auto, none, required, or the name of the tool that is
    to be called. `answer` is a JSON Schema for the text, refused if it cannot be enforced in full and is strict.
    `partial`: the last message is the beginning of the answer. `sampling` are fields of the engine's Request.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    choice: tuple[Literal["auto", "none", "required", "tool"], str] = ("auto", "")
    parallel: bool = True
    answer: Mapping[str, Any] | None = None
    answer_strict: bool = True
    partial: bool = False
    max_tokens: int | None = None
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    """What the engine is asked, one request per choice, and the names that the client knows."""

    requests: tuple[Request, ...]
    names: ToolNames


def prepare(service: Service, asked: Asked) -> Ready:
    """Render and check. Heavy: not for the event loop. Raises ApiError for what cannot be served."""
    names = _names(asked)
    try:
        ids, calls = _render(service, asked, names)
        request = _constrained(
            asked,
            names,
            Request(
                tuple(ids),
                service.context if asked.max_tokens is None else asked.max_tokens,
                stop=asked.stop,
                first_call_index=calls,
                **asked.sampling,
            ),
        )
        _check_schemas(service, asked, names)
        service.engine.check(request)
    except ContextOverflow as e:
        raise invalid("messages", str(e), code="context_length_exceeded") from None
    except UserError as e:
        raise invalid(None, str(e)) from None
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    return Ready(tuple(replace(request, seed=seed + i) for i in range(asked.n)), names)


def render_prompt(service: Service, asked: Asked) -> Sequence[int]:
    """The ids of the prompt alone. Heavy. Raises ApiError for a conversation that makes no sense."""
    try:
        return _render(service, asked, _names(asked))[0]
    except UserError as e:
        raise invalid("messages", str(e)) from None


def _render(service: Service, asked: Asked, names: ToolNames) -> tuple[Sequence[int], int]:
    """The prompt's ids, and how many calls are in it."""
    messages = [_named(message, names) for message in asked.messages]
    prefix = messages.pop() if asked.partial else None
    if not messages:
        raise invalid("messages", "there is none: send at least one")
    first = messages[0].role
    messages = canonicalise(messages)
    if service.is_nano:
        messages = _as_nano_knows(messages, first != "system")
    _check_length(service, messages)
    rendered = render(
        messages,
        [_declaration(tool, names, service.is_nano) for tool in asked.tools],
        tokenizer=service.tokenizer,
        add_generation_prompt=True,
        prefix=prefix,
    )
    return rendered.ids, sum(len(m.tool_calls) for m in messages)


def _as_nano_knows(messages: list[Message], without_system: bool) -> list[Message]:
    """With nano's own system message where the client has none, and results under their tools' names."""
    if without_system:
        messages[0] = Message("system", NANO_SYSTEM)
    called = {call.id: call.name for message in messages for call in message.tool_calls}
    return [
        replace(message, name=called.get(message.tool_call_id or "")) if message.role == "tool" else message
        for message in messages
    ]


def _names(asked: Asked) -> ToolNames:
    seen: set[str] = set()
    if len(asked.tools) > MOST_TOOLS:
        raise invalid("tools", f"there are {len(asked.tools)}, and at most {MOST_TOOLS} are allowed: declare fewer")
    for tool in asked.tools:
        if not tool.name.strip():
            raise invalid(f"{tool.field}.name", "it is empty: give the tool a name")
        if tool.name in seen:
            raise invalid(f"{tool.field}.name", f"{tool.name!r} is declared twice: give every tool its own name")
        seen.add(tool.name)
    return ToolNames(tool.name for tool in asked.tools)


def _named(message: Message, names: ToolNames) -> Message:
    """With tool names as the model knows them."""
    if message.role == "tool":
        return replace(message, name=names.to_model(message.name) if message.name else None)
    calls = tuple(replace(call, name=names.to_model(call.name)) if call.name else call for call in message.tool_calls)
    return replace(message, tool_calls=calls)


def _declaration(tool: Tool, names: ToolNames, for_nano: bool) -> ToolSpec | Mapping[str, Any]:
    """As the client wrote it, key by key; for nano in the order that it has learned."""
    name = names.to_model(tool.name)
    if for_nano:
        return ToolSpec(name, tool.description, tool.parameters)
    if name == tool.name:
        return tool.raw
    return {**tool.raw, "function": {**tool.raw["function"], "name": name}}


def _constrained(asked: Asked, names: ToolNames, request: Request) -> Request:
    kind, wanted = asked.choice
    chosen = [tool for tool in asked.tools if kind != "none" and (kind != "tool" or tool.name == wanted)]
    if kind in ("required", "tool") and not chosen:
        problem = f"no tool {wanted!r} is declared" if kind == "tool" else "a call is required and no tool is declared"
        raise invalid("tool_choice", f"{problem}: declare it in tools")
    return replace(
        request,
        tools=tuple(ToolSpec(names.to_model(tool.name), tool.description, tool.parameters) for tool in chosen),
        must_call=kind in ("required", "tool"),
        one_call=kind == "tool" or not asked.parallel,
        answer=asked.answer,
    )


def _check_schemas(service: Service, asked: Asked, names: ToolNames) -> None:
    """Raises ApiError for a schema that the grammar does not hold the model to, in full."""
    for tool in asked.tools:
        spec = ToolSpec(names.to_model(tool.name), tool.description, tool.parameters)
        try:
            compiled = service.engine.grammar.compile([spec])[spec.name]
        except UserError as e:
            raise invalid(f"{tool.field}.parameters", str(e)) from None
        if compiled.not_enforced and tool.strict:
            raise _not_enforced(f"{tool.field}.parameters", compiled.not_enforced, f"{tool.field}.strict")
    if asked.answer is not None:
        try:
            compiled = service.engine.grammar.compile_answer(asked.answer)
        except UserError as e:
            raise invalid("response_format", str(e)) from None
        if compiled.not_enforced and asked.answer_strict:
            raise _not_enforced("response_format", compiled.not_enforced, "its strict")


def _not_enforced(field: str, remarks: Sequence[str], switch: str) -> ApiError:
    return invalid(
        field,
        f"the schema cannot be enforced in full ({'; '.join(remarks)}): simplify it, or set {switch} to false to have "
        "it enforced as far as possible",
        code="schema_not_enforceable",
    )


def _check_length(service: Service, messages: Sequence[Message]) -> None:
    """Refuse what is far too long before it is tokenised: no id stands for more bytes than the longest piece."""
    size = sum(len(m.content) + sum(len(c.arguments) for c in m.tool_calls) for m in messages)
    least = size // service.engine.grammar.closer.longest_piece
    if least >= service.context:
        raise ContextOverflow(
            f"the conversation has at least {least} tokens and the context is {service.context}: shorten it"
        )
