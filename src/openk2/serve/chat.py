"""`/v1/chat/completions`: OpenAI's request to the engine's, and events to OpenAI's messages and chunks.

Three fields of answers are not OpenAI's but common: `reasoning_content` for what a model thought, a choice's
`stop_reason` for the stop text that ended it, and `token_ids`. Fields of requests that mean something only to a server
behind are passed on to it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import Field

from openk2.chat import ArgumentsPart, CallBegin, TextPart
from openk2.core import Message, UserError
from openk2.core.messages import compact_json, is_unicode
from openk2.serve.answer import Answer, News, Ready, ReasoningPart, RefusalPart, Said, openai_head, openai_usage
from openk2.serve.errors import invalid
from openk2.serve.fields import Declared, Fields, Listed, Sampling, given
from openk2.serve.prompt import Asked, Tool, Where
from openk2.serve.service import Settings

_SYSTEM = ("developer", "_input")
"""Other names of the system role: OpenAI's newer one, and one of Moonshot's verifier."""


class Function(Fields):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolEntry(Fields):
    type: Literal["function"]
    function: Function


class NamedFunction(Fields):
    name: str


class NamedTool(Fields):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Fields):
    name: str
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Fields):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(Sampling):
    messages: Listed[dict[str, Any]]
    tools: Declared[ToolEntry] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    reasoning_effort: Any = None
    chat_template_kwargs: Any = None
    thinking: Any = None
    user: Any = None
    metadata: Any = None
    functions: Any = None
    function_call: Any = None

    def asked(self, settings: Settings, body: Mapping[str, Any]) -> Asked:
        """In the program's own words. `body` is the request as it was sent. Raises ApiError."""
        for legacy in ("functions", "function_call"):
            if getattr(self, legacy) is not None:
                raise invalid(legacy, "it is no longer served: use tools and tool_choice")
        partial = bool(self.messages) and self.messages[-1].get("partial") is True
        if partial and self.messages[-1].get("role") != "assistant":
            raise invalid(f"messages.{len(self.messages) - 1}.partial", "only an assistant message can be continued")
        if partial and self.messages[-1].get("tool_calls"):
            problem = "a message with calls is whole and cannot be continued"
            raise invalid(f"messages.{len(self.messages) - 1}.partial", problem)
        answer = self._answer()
        if partial and answer is not None:
            raise invalid("response_format", "JSON cannot be mixed with a partial message")
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs", "it needs logprobs to be true")
        return Asked(
            messages=[_message(index, raw) for index, raw in enumerate(self.messages)],
            tools=[_tool(index, entry, body["tools"][index]) for index, entry in enumerate(self.tools or [])],
            choice=self._choice(),
            parallel=self.parallel_tool_calls is not False,
            answer=answer,
            answer_strict=not (answer and self._loose()),
            partial=partial,
            answer_names=self._answer_names(),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            where=Where(limit="max_completion_tokens" if self.max_completion_tokens else "max_tokens"),
            n=self.n or 1,
            seed=self.seed,
            stop=self.stops,
            logprobs=bool(self.logprobs),
            token_ids=bool(self.return_token_ids),
            sampling=self.engine_fields(settings) | given(top_logprobs=self.top_logprobs or None),
            passed=self._passed(),
        )

    def _passed(self) -> dict[str, Any]:
        fields = given(
            reasoning_effort=self.reasoning_effort,
            chat_template_kwargs=self.chat_template_kwargs,
            thinking=self.thinking,
            user=self.user,
            metadata=self.metadata,
        )
        for name, value in fields.items():
            try:
                written = is_unicode(compact_json(value, finite=True))
            except ValueError:
                written = False
            if not written:
                raise invalid(name, "it cannot be written: it has half a character (a lone surrogate), or no number")
        return fields

    def _answer_names(self) -> dict[str, Any]:
        wanted = self.response_format.json_schema if self.response_format is not None else None
        if wanted is None or wanted.schema_ is None:
            return {}
        return given(name=wanted.name, description=wanted.description)

    def _choice(self) -> tuple[Literal["auto", "none", "required", "tool"], str]:
        if isinstance(self.tool_choice, NamedTool):
            return "tool", self.tool_choice.function.name
        return self.tool_choice or "auto", ""

    def _loose(self) -> bool:
        """Whether the schema of the answer says that it need not be held to in full."""
        wanted = self.response_format.json_schema if self.response_format is not None else None
        return wanted is not None and wanted.strict is False

    def _answer(self) -> dict[str, Any] | None:
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_schema":
            if wanted.json_schema is None:
                raise invalid("response_format.json_schema", "it is missing: send the schema that is meant")
            if wanted.json_schema.schema_ is not None:
                return wanted.json_schema.schema_
        return {"type": "object"}


def _message(index: int, raw: dict[str, Any]) -> Message:
    if not isinstance(raw.get("partial"), bool | None):
        raise invalid(f"messages.{index}.partial", "it must be true or false")
    if raw.get("role") in _SYSTEM:
        raw = {**raw, "role": "system"}
    try:
        message = Message.from_openai(raw)
    except UserError as e:
        raise invalid(f"messages.{index}", str(e)) from None
    if raw.get("content") is None and message.role in ("system", "user"):
        raise invalid(f"messages.{index}.content", "it is missing: say something, or leave the message out")
    texts = [message.content, message.name or "", message.tool_call_id or ""]
    texts += [text for call in message.tool_calls for text in (call.id, call.name, call.arguments)]
    if not all(map(is_unicode, texts)):
        raise invalid(
            f"messages.{index}", "a text has half a character (a lone surrogate), which no encoding can write"
        )
    return message


def _tool(index: int, entry: ToolEntry, raw: dict[str, Any]) -> Tool:
    function = entry.function
    return Tool(
        name=function.name,
        raw=raw,
        parameters=function.parameters or {"type": "object", "properties": {}},
        description=function.description or "",
        strict=function.strict is not False,
        field=f"tools.{index}.function",
    )


class _Choice(Answer):
    """With what OpenAI's clients ask besides the message."""

    def __init__(self, ready: Ready, request: ChatRequest) -> None:
        super().__init__(len(ready.prompt_ids))
        self.ids: list[int] = []
        self._ready = ready
        self._with_logprobs, self._with_ids = bool(request.logprobs), bool(request.return_token_ids)
        self._logprobs: list[dict[str, Any]] = []

    def take(self, said: Said) -> None:
        super().take(said)
        if said.part is None:
            return
        self.ids += said.part.ids
        if self._with_logprobs:
            tops = said.part.top_logprobs or ((),) * len(said.part.ids)
            for token, logprob, top in zip(said.part.ids, said.part.logprobs, tops, strict=True):
                entry = self._logprob(token, logprob)
                self._logprobs.append(entry | {"top_logprobs": [self._logprob(*one) for one in top]})

    def _logprob(self, token: int, logprob: float) -> dict[str, Any]:
        assert self._ready.tokenizer is not None  # a request for log-probs is refused where ids are not known
        raw = self._ready.tokenizer.shown(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(raw)}

    def extras(self, start: int = 0) -> dict[str, Any]:
        """Log-probs and ids from the id number `start` on, if they are asked for."""
        out: dict[str, Any] = {"logprobs": {"content": self._logprobs[start:]} if self._with_logprobs else None}
        return out | ({"token_ids": self.ids[start:]} if self._with_ids else {})

    def openai(self, index: int) -> dict[str, Any]:
        """The choice of a whole answer."""
        message = self.message
        raw = message.to_openai()
        if (message.tool_calls or self.refusal) and not message.content:
            raw["content"] = None
        for name, text in (("refusal", self.refusal), ("reasoning_content", self.reasoning)):
            if text:
                raw[name] = text
        return {"index": index, "message": raw} | self.why() | self.extras()

    def why(self) -> dict[str, Any]:
        """Why it ended."""
        assert self.end is not None
        stopped = {} if self.end.stop is None else {"stop_reason": self.end.stop}
        return {"finish_reason": self.finish_reason} | stopped


def _usage(choices: list[_Choice]) -> dict[str, Any] | None:
    if not all(choice.counted for choice in choices):
        return None
    first, completion = choices[0], sum(choice.completion_tokens for choice in choices)
    return openai_usage(first.prompt_tokens, completion, first.cached_tokens)


async def whole(ready: Ready, request: ChatRequest) -> dict[str, Any]:
    """The answer at once."""
    choices = [_Choice(ready, request) for _ in range(ready.n)]
    async for index, said in ready.say(streamed=False):
        choices[index].take(said)
    answer = openai_head("chatcmpl", "chat.completion", ready.model) | {
        "choices": [choice.openai(index) for index, choice in enumerate(choices)],
        "usage": _usage(choices),
    }
    if request.return_token_ids:
        answer["prompt_token_ids"] = list(ready.prompt_ids)
    return answer


async def streamed(ready: Ready, request: ChatRequest) -> AsyncGenerator[str, None]:
    """The answer in chunks, each as JSON, and the last word."""
    choices = [_Choice(ready, request) for _ in range(ready.n)]
    head = openai_head("chatcmpl", "chat.completion.chunk", ready.model)

    def chunk(index: int, delta: dict[str, Any], **more: Any) -> str:
        return compact_json(head | {"choices": [{"index": index, "delta": delta, "finish_reason": None} | more]})

    first = {"prompt_token_ids": list(ready.prompt_ids)} if request.return_token_ids else {}
    for index in range(len(choices)):
        yield compact_json(
            head
            | {"choices": [{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
            | first
        )
    sent = [0] * len(choices)
    async with aclosing(ready.say(streamed=True)) as news:
        async for index, said in news:
            choice = choices[index]
            choice.take(said)
            extras = choice.extras(sent[index])
            sent[index] = len(choice.ids)
            for delta in map(_delta, said.events):
                if delta is not None:
                    yield chunk(index, delta, **extras)
                    extras = {}
            # Ids that say nothing by themselves still have log-probs.
            if extras.get("token_ids") or (extras.get("logprobs") or {}).get("content"):
                yield chunk(index, {}, **extras)
            if said.end is not None:
                # Kimi's clients look for the usage in the last chunk of a choice, OpenAI's in one of its own.
                yield chunk(index, {}, **choice.why(), usage=_usage([choice]))
    if request.stream_options is not None and request.stream_options.include_usage:
        yield compact_json(head | {"choices": [], "usage": _usage(choices)})
    yield "[DONE]"


def _delta(event: News) -> dict[str, Any] | None:
    if isinstance(event, TextPart):
        return {"content": event.text}
    if isinstance(event, ReasoningPart):
        return {"reasoning_content": event.text}
    if isinstance(event, RefusalPart):
        return {"refusal": event.text}
    if isinstance(event, CallBegin):
        function = {"name": event.name, "arguments": ""}
        return {"tool_calls": [{"index": event.index, "id": event.id, "type": "function", "function": function}]}
    if isinstance(event, ArgumentsPart):
        return {"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]}
    return None
