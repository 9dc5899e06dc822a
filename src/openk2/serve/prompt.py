"""From a conversation as a client sends it to what the engine is asked, the same for every route."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from openk2.chat import canonicalise, render
from openk2.core import ContextOverflow, Message, ToolSpec, UserError
from openk2.engine import Engine, NoRoom, Request
from openk2.serve.errors import ApiError, invalid
from openk2.serve.names import ToolNames

MOST_TOOLS = 128


@dataclass(frozen=True, slots=True)
class Tool:
    """A declared tool: its OpenAI entry as the client wrote it, and where it and its schema stand in the request."""

    name: str
    raw: Mapping[str, Any]
    parameters: Mapping[str, Any]
    description: str
    strict: bool
    field: str
    schema_key: str = "parameters"

    def named(self, name: str) -> Mapping[str, Any]:
        """As the client wrote it, key by key, under another name."""
        return self.raw if name == self.name else {**self.raw, "function": {**self.raw["function"], "name": name}}


@dataclass(frozen=True, slots=True)
class Where:
    """What a route's clients call the parts of a request, for errors that name them. `switch` turns the strictness of
    the answer's schema off, where that can be."""

    messages: str = "messages"
    answer: str = "response_format"
    limit: str = "max_tokens"
    switch: str | None = "its strict"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in the program's own words.

    `messages` still have the client's names and ids. `choice` is auto, none, required, or the name of the tool that is
    to be called. `answer` is a JSON Schema for the text, refused if it cannot be enforced in full and is strict.
    `answer_names` is what else the client says of it, its name and a description. `partial`: the last message is the
    beginning of the answer. `sampling` are fields of the engine's Request, those that the client has set.
    `logprobs` and `token_ids`: whether the client wants those of the answer.
    `passed` are fields that mean nothing here, for a server behind.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    choice: tuple[Literal["auto", "none", "required", "tool"], str] = ("auto", "")
    parallel: bool = True
    answer: Mapping[str, Any] | None = None
    answer_strict: bool = True
    answer_names: Mapping[str, Any] = field(default_factory=dict)
    partial: bool = False
    max_tokens: int | None = None
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    token_ids: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    passed: Mapping[str, Any] = field(default_factory=dict)
    where: Where = Where()

    @property
    def must_call(self) -> bool:
        """Whether a text alone is no answer."""
        return self.choice[0] in ("required", "tool")

    @property
    def one_call(self) -> bool:
        """Whether there may be no second call."""
        return self.choice[0] == "tool" or not self.parallel


def engine_requests(engine: Engine, asked: Asked) -> tuple[tuple[Request, ...], ToolNames]:
    """What the engine is asked, one request per choice, and the names that the client knows.

    Heavy: not for the event loop. Raises ApiError for what cannot be served.
    """
    names = tool_names(asked)
    ids, calls = _rendered(engine, asked, names)
    check_sampling(engine, asked.sampling)
    try:
        request = Request(
            tuple(ids),
            engine.context if asked.max_tokens is None else asked.max_tokens,
            stop=asked.stop,
            first_call_index=calls,
            **asked.sampling,
        )
        # Before the schemas, which take longer.
        engine.check(request)
        request = _constrained(asked, names, request)
        _check_schemas(engine, asked)
        engine.check(request)
    except ContextOverflow as e:
        raise invalid(asked.where.messages, str(e), code="context_length_exceeded") from None
    except NoRoom as e:
        # Only a limit that the client has set can be raised; else it is the context that ends.
        field = asked.where.messages if asked.max_tokens is None else asked.where.limit
        raise invalid(field, str(NoRoom(e.needs, e.room, asked.where.limit))) from None
    except UserError as e:
        raise invalid(None, str(e)) from None
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    return tuple(replace(request, seed=seed + i) for i in range(asked.n)), names


def check_sampling(engine: Engine, sampling: Mapping[str, Any]) -> None:
    """Raises ApiError for ids that the model does not have."""
    check_ids(engine, "stop_token_ids", sampling.get("stop_ids", ()))
    check_ids(engine, "logit_bias", (token for token, _ in sampling.get("logit_bias", ())))


def check_ids(engine: Engine, field: str, ids: Iterable[int]) -> None:
    """Raises ApiError for ids that the model does not have."""
    size = engine.config.vocab_size
    wrong = next((token for token in ids if not 0 <= token < size), None)
    if wrong is not None:
        raise invalid(field, f"the model has no id {wrong}: its ids are 0 to {size - 1}")


def render_prompt(engine: Engine, asked: Asked) -> Sequence[int]:
    """The ids of the prompt alone. Heavy. Raises ApiError for a conversation that makes no sense."""
    return _rendered(engine, asked, tool_names(asked))[0]


def _rendered(engine: Engine, asked: Asked, names: ToolNames) -> tuple[Sequence[int], int]:
    """As `_render`. Raises ApiError."""
    try:
        return _render(engine, asked, names)
    except ContextOverflow as e:
        raise invalid(asked.where.messages, str(e), code="context_length_exceeded") from None
    except UserError as e:
        raise invalid(asked.where.messages, str(e)) from None


def _render(engine: Engine, asked: Asked, names: ToolNames) -> tuple[Sequence[int], int]:
    """The prompt's ids, and how many calls are in it."""
    messages, prefix = named_messages(asked, names)
    messages = canonicalise(messages, engine.tokenizer, with_tools=bool(asked.tools))
    _check_length(engine, messages)
    rendered = render(
        messages,
        [tool.named(names.to_model(tool.name)) for tool in asked.tools],
        tokenizer=engine.tokenizer,
        add_generation_prompt=True,
        prefix=prefix,
    )
    return rendered.ids, sum(len(m.tool_calls) for m in messages)


def tool_names(asked: Asked) -> ToolNames:
    """The names of the declared tools. Raises ApiError for too many, and for those that no tool can have."""
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


def named_messages(asked: Asked, names: ToolNames) -> tuple[list[Message], Message | None]:
    """The conversation with tool names as the model knows them, and the beginning of the answer. Raises ApiError."""
    messages = [_named(message, names) for message in asked.messages]
    prefix = messages.pop() if asked.partial else None
    if not messages:
        raise invalid(asked.where.messages, "there is none: send at least one")
    return messages, prefix


def _named(message: Message, names: ToolNames) -> Message:
    """With tool names as the model knows them."""
    if message.role == "tool":
        return replace(message, name=names.to_model(message.name) if message.name else None)
    calls = tuple(replace(call, name=names.to_model(call.name)) if call.name else call for call in message.tool_calls)
    return replace(message, tool_calls=calls)


def _constrained(asked: Asked, names: ToolNames, request: Request) -> Request:
    return replace(
        request,
        tools=tuple(
            ToolSpec(names.to_model(tool.name), tool.description, tool.parameters) for tool in chosen_tools(asked)
        ),
        must_call=asked.must_call,
        one_call=asked.one_call,
        answer=asked.answer,
    )


def chosen_tools(asked: Asked) -> list[Tool]:
    """The tools that may be called. Raises ApiError if there is none and a call is required."""
    kind, wanted = asked.choice
    chosen = [tool for tool in asked.tools if kind != "none" and (kind != "tool" or tool.name == wanted)]
    if asked.must_call and not chosen:
        problem = f"no tool {wanted!r} is declared" if kind == "tool" else "a call is required and no tool is declared"
        raise invalid("tool_choice", f"{problem}: declare it in tools")
    return chosen


def _check_schemas(engine: Engine, asked: Asked) -> None:
    """Raises ApiError for a schema that the grammar does not hold the model to, in full."""
    for tool in asked.tools:
        # What is compiled is the same under every name, and errors have the client's.
        spec = ToolSpec(tool.name, tool.description, tool.parameters)
        field = f"{tool.field}.{tool.schema_key}"
        try:
            compiled = engine.grammar.compile([spec])[spec.name]
        except UserError as e:
            raise invalid(field, str(e)) from None
        if compiled.not_enforced and tool.strict:
            raise _not_enforced(field, compiled.not_enforced, f"{tool.field}.strict")
    if asked.answer is not None:
        try:
            compiled = engine.grammar.compile_answer(asked.answer)
        except UserError as e:
            raise invalid(asked.where.answer, str(e)) from None
        if compiled.not_enforced and asked.answer_strict:
            raise _not_enforced(asked.where.answer, compiled.not_enforced, asked.where.switch)


def _not_enforced(field: str, remarks: Sequence[str], switch: str | None) -> ApiError:
    loosen = "" if switch is None else f", or set {switch} to false to have it enforced as far as possible"
    return invalid(
        field,
        f"the schema cannot be enforced in full ({'; '.join(remarks)}): simplify it{loosen}",
        code="schema_not_enforceable",
    )


def _check_length(engine: Engine, messages: Sequence[Message]) -> None:
    """Refuse what is far too long before it is tokenised: no id stands for more bytes than the longest piece."""
    size = sum(len(m.content) + sum(len(c.arguments) for c in m.tool_calls) for m in messages)
    least = size // engine.grammar.closer.longest_piece
    if least >= engine.context:
        raise ContextOverflow(
            f"the conversation has at least {least} tokens and the context is {engine.context}: shorten it"
        )
