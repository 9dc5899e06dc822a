"""`/v1/chat/completions`: OpenAI's request to the engine's, and events to OpenAI's messages and chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from openk2.chat import ArgumentsPart, CallBegin, CompletionReader, Event, TextPart, fold
from openk2.core import Message, UserError
from openk2.core.messages import compact_json, is_unicode
from openk2.engine import Generation, Part
from openk2.serve.errors import invalid
from openk2.serve.prompt import Asked, Ready, Tool
from openk2.serve.service import Service

MOST_CHOICES = 5
MOST_STOPS, LONGEST_STOP = 5, 32
NEAR_ZERO = 1e-3
_SYSTEM = ("developer", "_input")
"""Other names of the system role: OpenAI's newer one, and one of Moonshot's verifier."""


class _Model(BaseModel):
    """Numbers must be numbers; what is not known is ignored, as clients of other servers send much."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Function(_Model):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolEntry(_Model):
    type: Literal["function"]
    function: Function


class NamedFunction(_Model):
    name: str


class NamedTool(_Model):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(_Model):
    name: str = ""
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Model):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(_Model):
    include_usage: bool = False


Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]


class Sampling(_Model):
    """What OpenAI's two completion routes, and the extensions that vLLM made common, have together."""

    model: str | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: int | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=10)] | None = None
    logit_bias: dict[str, Number] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts. Raises ApiError for too many or too long ones."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MOST_STOPS:
            raise invalid("stop", f"there are {len(stops)} texts, and at most {MOST_STOPS} are allowed")
        for text in stops:
            if not text or not is_unicode(text) or len(text.encode()) > LONGEST_STOP:
                raise invalid("stop", f"a text must have 1 to {LONGEST_STOP} bytes, not {text[:40]!r}")
        return tuple(stops)

    def engine_fields(self, service: Service) -> dict[str, Any]:
        """The fields of the engine's Request. Raises ApiError for combinations that make no sense."""
        temperature = service.settings.temperature if self.temperature is None else self.temperature
        if (self.n or 1) > 1 and temperature < NEAR_ZERO:
            raise invalid("n", f"with temperature {temperature} all {self.n} choices would be the same: raise it")
        bias = []
        for key, value in (self.logit_bias or {}).items():
            if not key.isdecimal() or int(key) >= service.tokenizer.vocab_size or abs(value) > 100:
                raise invalid("logit_bias", f"{key[:20]!r}: {value} is no token id with a number from -100 to 100")
            bias.append((int(key), value))
        top_k = self.top_k or 0
        return {
            "temperature": 0.0 if temperature < NEAR_ZERO else temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "top_k": max(top_k, 0),  # some clients say -1 for all
            "min_p": self.min_p or 0.0,
            "presence_penalty": self.presence_penalty or 0.0,
            "frequency_penalty": self.frequency_penalty or 0.0,
            "repetition_penalty": 1.0 if self.repetition_penalty is None else self.repetition_penalty,
            "logit_bias": tuple(bias),
            "stop_ids": tuple(self.stop_token_ids or ()),
        }


class ChatRequest(Sampling):
    messages: list[dict[str, Any]]
    tools: list[ToolEntry] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    functions: Any = None
    function_call: Any = None

    def asked(self, service: Service, body: Mapping[str, Any]) -> Asked:
        """In the program's own words. `body` is the request as it was sent. Raises ApiError."""
        for legacy in ("functions", "function_call"):
            if getattr(self, legacy) is not None:
                raise invalid(legacy, "it is no longer served: use tools and tool_choice")
        partial = bool(self.messages) and self.messages[-1].get("partial") is True
        if partial and self.messages[-1].get("role") != "assistant":
            raise invalid(f"messages.{len(self.messages) - 1}.partial", "only an assistant message can be continued")
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
            partial=partial,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            n=self.n or 1,
            seed=self.seed,
            stop=self.stops,
            sampling=self.engine_fields(service) | {"top_logprobs": self.top_logprobs or 0},
        )

    def _choice(self) -> tuple[Literal["auto", "none", "required", "tool"], str]:
        if isinstance(self.tool_choice, NamedTool):
            return "tool", self.tool_choice.function.name
        return self.tool_choice or "auto", ""

    def _answer(self) -> dict[str, Any] | None:
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_object":
            return {"type": "object"}
        if wanted.json_schema is None:
            raise invalid("response_format.json_schema", "it is missing: send the schema that is meant")
        return wanted.json_schema.schema_


def _message(index: int, raw: dict[str, Any]) -> Message:
    if raw.get("role") in _SYSTEM:
        raw = {**raw, "role": "system"}
    try:
        message = Message.from_openai(raw)
    except UserError as e:
        raise invalid(f"messages.{index}", str(e)) from None
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


class Choice:
    """One answer while it is being said."""

    def __init__(self, service: Service, ready: Ready, stop: tuple[str, ...], logprobs: bool, token_ids: bool) -> None:
        self._tokenizer = service.tokenizer
        self._names = ready.names
        self._reader = CompletionReader(service.tokenizer, stop=stop)
        self._with_logprobs, self._with_ids = logprobs, token_ids
        self._events: list[Event] = []
        self._logprobs: list[dict[str, Any]] = []
        self.ids: list[int] = []
        self.generation: Generation | None = None

    def take(self, part: Part) -> list[Event]:
        """What a part says."""
        self.ids += part.ids
        if self._with_logprobs:
            tops = part.top_logprobs or ((),) * len(part.ids)
            for token, logprob, top in zip(part.ids, part.logprobs, tops, strict=True):
                self._logprobs.append(
                    self._logprob(token, logprob) | {"top_logprobs": [self._logprob(*t) for t in top]}
                )
        return self._seen(self._reader.feed(part.ids))

    def end(self, generation: Generation) -> list[Event]:
        """What was held back until the end."""
        self.generation = generation
        return self._seen(self._reader.close())

    def _seen(self, events: list[Event]) -> list[Event]:
        events = [
            CallBegin(e.index, e.id, self._names.to_client(e.name)) if isinstance(e, CallBegin) else e for e in events
        ]
        self._events += events
        return events

    def _logprob(self, token: int, logprob: float) -> dict[str, Any]:
        base = self._tokenizer.base_size
        raw = self._tokenizer.piece(token) if token < base else self._tokenizer.decode([token]).encode()
        return {"token": raw.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(raw)}

    @property
    def message(self) -> Message:
        return fold(self._events)

    @property
    def finish_reason(self) -> str:
        assert self.generation is not None
        called = any(isinstance(event, CallBegin) for event in self._events)
        return "tool_calls" if called and self.generation.finish_reason == "stop" else self.generation.finish_reason

    def extras(self, start: int = 0) -> dict[str, Any]:
        """Log-probs and ids from the id number `start` on, if they are asked for."""
        out: dict[str, Any] = {"logprobs": {"content": self._logprobs[start:]} if self._with_logprobs else None}
        return out | ({"token_ids": self.ids[start:]} if self._with_ids else {})

    def openai(self, index: int) -> dict[str, Any]:
        """The choice of a whole answer."""
        message = self.message
        raw = message.to_openai()
        if message.tool_calls and not message.content:
            raw["content"] = None
        return {"index": index, "message": raw, "finish_reason": self.finish_reason} | self.extras()


def usage(ready: Ready, choices: list[Choice]) -> dict[str, Any]:
    prompt = len(ready.requests[0].prompt_ids)
    completion = sum(len(choice.ids) for choice in choices)
    first = choices[0].generation
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0 if first is None else first.cached_tokens},
    }


def choices_of(service: Service, ready: Ready, request: ChatRequest) -> list[Choice]:
    return [
        Choice(service, ready, request.stops, bool(request.logprobs), bool(request.return_token_ids))
        for _ in ready.requests
    ]


def _head(service: Service, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": service.settings.name,
    }


async def whole(service: Service, ready: Ready, request: ChatRequest) -> dict[str, Any]:
    """The answer at once."""
    choices = choices_of(service, ready, request)
    async for index, news in service.run(ready.requests):
        if isinstance(news, Part):
            choices[index].take(news)
        else:
            choices[index].end(news)
    answer = _head(service, "chat.completion") | {
        "choices": [choice.openai(index) for index, choice in enumerate(choices)],
        "usage": usage(ready, choices),
    }
    if request.return_token_ids:
        answer["prompt_token_ids"] = list(ready.requests[0].prompt_ids)
    return answer


async def streamed(service: Service, ready: Ready, request: ChatRequest) -> AsyncIterator[str]:
    """The answer in chunks, each as JSON, and the last word."""
    choices = choices_of(service, ready, request)
    head = _head(service, "chat.completion.chunk")

    def chunk(index: int, delta: dict[str, Any], **more: Any) -> str:
        return compact_json(head | {"choices": [{"index": index, "delta": delta, "finish_reason": None} | more]})

    first = {"prompt_token_ids": list(ready.requests[0].prompt_ids)} if request.return_token_ids else {}
    for index in range(len(choices)):
        yield compact_json(
            head
            | {"choices": [{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
            | first
        )
    sent = [0] * len(choices)
    async for index, news in service.run(ready.requests):
        choice = choices[index]
        events = choice.take(news) if isinstance(news, Part) else choice.end(news)
        extras = choice.extras(sent[index])
        sent[index] = len(choice.ids)
        for delta in map(_delta, events):
            if delta is not None:
                yield chunk(index, delta, **extras)
                extras = {}
        if isinstance(news, Part):
            # Ids that say nothing by themselves still have log-probs.
            if extras.get("token_ids") or (extras.get("logprobs") or {}).get("content"):
                yield chunk(index, {}, **extras)
            continue
        # Kimi's clients look for the usage in the last chunk of a choice, OpenAI's in one of its own.
        yield chunk(index, {}, finish_reason=choice.finish_reason, usage=usage(ready, [choice]))
    if request.stream_options is not None and request.stream_options.include_usage:
        yield compact_json(head | {"choices": [], "usage": usage(ready, choices)})
    yield "[DONE]"


def _delta(event: Event) -> dict[str, Any] | None:
    if isinstance(event, TextPart):
        return {"content": event.text}
    if isinstance(event, CallBegin):
        function = {"name": event.name, "arguments": ""}
        return {"tool_calls": [{"index": event.index, "id": event.id, "type": "function", "function": function}]}
    if isinstance(event, ArgumentsPart):
        return {"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]}
    return None
