"""Policies behind an HTTP endpoint: anything that speaks OpenAI's chat route or Anthropic's messages.

Both stream, so that a proxy that gives up on silence does not end a long turn, and put the answer together with a
tolerance for what servers get wrong: calls without ids or indices, arguments as objects, markers of K2's chat format
left in the text, an end that is never given. The clients are OpenAI's and Anthropic's own; they try again after
timeouts, 429 and 5xx. A stream that breaks off is asked for again as a whole.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from openk2.core import Message, ToolCall, ToolSpec, Turn, Usage, UserError
from openk2.core.messages import compact_json
from openk2.policy.chunks import take_chunk, token_count, whole_answer
from openk2.policy.draft import Draft, Kind
from openk2.policy.events import ServerSentEvent, read_events
from openk2.policy.failures import (
    TIMEOUT,
    BrokenOff,
    EndpointError,
    Unreadable,
    failed,
    failure,
    no_second_try_without_quota,
    of_it,
    words,
)

_Piece = TypeVar("_Piece")
_RETRIES = 4
_BREAKS = 2
"""How often a stream that broke off is asked for again."""
_TAIL = 10.0
"""Seconds that a stream has for what comes behind the end of the answer: the usage, and the last word."""
_LIMIT, _NEWER_LIMIT = "max_tokens", "max_completion_tokens"
"""OpenAI's names of the most tokens of an answer; its models that reason refuse the older one."""
_EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""What server-sent events begin with, and neither JSON nor a page does."""
_FAILED = ("abort", "error")
"""Ends of vLLM's, SGLang's and OpenRouter's answers that are none."""


class OpenAIEndpoint:
    """The route `/chat/completions` of one model.

    Args:
        model: its name there.
        base_url: the address up to `/v1`.
        key: the API key.
        retries: how often the client asks again after timeouts, 429 and 5xx.
    """

    def __init__(self, model: str, base_url: str, *, key: str = "none", retries: int = _RETRIES) -> None:
        self.model = model
        self.base_url = base_url
        self._limit = _LIMIT
        openai = _package("openai")
        # Imported late: it takes a while, and is not needed where no endpoint is.
        from openk2.policy.transport import AiohttpTransport

        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=key,
            max_retries=retries,
            timeout=TIMEOUT,
            http_client=openai.DefaultAsyncHttpxClient(
                transport=AiohttpTransport(), event_hooks={"response": [no_second_try_without_quota]}
            ),
        )

    async def answer(
        self,
        body: Mapping[str, Any],
        hear: Mapping[Kind, Callable[[str], None]] | None = None,
        forget: Callable[[], None] | None = None,
    ) -> Draft:
        """The answer to a request without `model`. `hear` gets texts as they come, of one attempt only: where one
        breaks off after that, there is another if `forget` can make the texts unheard.

        Raises ContextOverflow if the conversation does not fit, EndpointError if there is no answer.
        """
        listeners = hear or {}
        told = False
        openai = _package("openai")

        def tell(draft: Draft, *, whole: bool = False) -> None:
            nonlocal told
            for kind, listener in listeners.items():
                if more := draft.news(kind, whole=whole):
                    told = True
                    listener(more)

        def take(draft: Draft, event: ServerSentEvent) -> None:
            if event.is_last:
                draft.finish = draft.finish or "stop"
                return
            chunk = json.loads(event.data)
            if (said := failure(chunk, event.name)) is not None:
                raise BrokenOff(said)
            take_chunk(draft, chunk)
            tell(draft)

        async def attempt(stream: bool, limit: str) -> Draft:
            async with self._question(body, stream, limit) as answer:
                response = answer.http_response
                kind = response.headers.get("content-type", "")
                is_stream = "event-stream" in kind or (stream and not ("json" in kind or "html" in kind))
                # Some servers give the answer as a whole although a stream is asked for, some call a stream JSON.
                if is_stream or (await response.aread()).lstrip().startswith(_EVENT_FIELDS):
                    async with aclosing(read_events(response)) as events:
                        draft = await _read(events, take, openai)
                elif "html" in kind:
                    raise Unreadable(words(response.text))
                else:
                    whole = json.loads(response.content)
                    if (said := failure(whole)) is not None:
                        raise EndpointError(f"{self.base_url} answers with an error: {said}", said=said)
                    draft = whole_answer(whole)
            if draft.finish in _FAILED:
                raise BrokenOff(f"its end is {draft.finish!r}")
            tell(draft, whole=True)
            return draft

        async def ask(stream: bool) -> Draft:
            nonlocal told
            limit = self._limit
            try:
                return await attempt(stream, limit)
            except BrokenOff as e:
                if told and forget is not None:
                    forget()
                    told = False
                if told:
                    raise EndpointError(f"{self.base_url} broke off in the middle of its answer{of_it(str(e))}") from e
                raise
            except (openai.BadRequestError, openai.UnprocessableEntityError) as e:
                if _LIMIT not in body or limit not in words(e.body):
                    raise
                other = _LIMIT if limit == _NEWER_LIMIT else _NEWER_LIMIT
                try:
                    draft = await attempt(stream, other)
                except (openai.BadRequestError, openai.UnprocessableEntityError):
                    raise e from None
                # It was the name indeed: errors repeat what a client has sent, and so say anything.
                self._limit = other
                return draft

        return await _asked(ask, self.base_url, openai)

    def _question(self, body: Mapping[str, Any], stream: bool, limit: str) -> Any:
        """The client's manager of the response."""
        # Not all servers' fields are parameters of the client; and it would look through each message, which takes
        # longer than all the rest.
        fields = {limit if key == _LIMIT else key: value for key, value in body.items()}
        if stream:
            fields["stream_options"] = {"include_usage": True}
        create = self._client.chat.completions.with_streaming_response.create
        return create(model=self.model, messages=[], extra_body=fields, stream=stream)

    async def close(self) -> None:
        await self._client.close()


class OpenAIPolicy:
    """Answers through `/chat/completions`.

    Args:
        model, base_url, key, retries: as OpenAIEndpoint's.
        temperature, top_p, seed: sent along; None leaves them to the server.
        name: what trajectories call this policy.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        key: str = "none",
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        name: str | None = None,
        retries: int = _RETRIES,
    ) -> None:
        self.name = name or f"openai:{model}@{base_url}"
        self.endpoint = OpenAIEndpoint(model, base_url, key=key, retries=retries)
        self._sampling = _given(temperature=temperature, top_p=top_p, seed=seed)

    def seeded(self, seed: int) -> OpenAIPolicy:
        """The same policy with another seed. It shares this one's connections; closing either closes both."""
        other = copy.copy(self)
        other._sampling = self._sampling | {"seed": seed}
        return other

    def shaped(self, name: str, schema: Mapping[str, Any]) -> OpenAIPolicy:
        """The same policy that asks for JSON in a schema, by `response_format`. It shares this one's connections."""
        wanted = {"type": "json_schema", "json_schema": {"name": name, "schema": dict(schema)}}
        other = copy.copy(self)
        other._sampling = self._sampling | {"response_format": wanted}
        return other

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        """The next turn. Raises ContextOverflow if the conversation does not fit, UserError if there is no answer."""
        body: dict[str, Any] = {
            "messages": [openai_message(message) for message in messages],
            "max_tokens": max_tokens,
            **self._sampling,
        }
        if tools:
            body["tools"] = [tool.to_openai() for tool in tools]
        draft = await self.endpoint.answer(body)
        return draft.turn(self.name, sum(len(m.tool_calls) for m in messages), offered=bool(tools))

    async def close(self) -> None:
        await self.endpoint.close()


class AnthropicPolicy:
    """Answers through `/v1/messages`. Arguments as OpenAIPolicy's; `base_url` None is Anthropic's own."""

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        key: str = "none",
        temperature: float | None = None,
        top_p: float | None = None,
        name: str | None = None,
        retries: int = _RETRIES,
    ) -> None:
        self.name = name or f"anthropic:{model}" + (f"@{base_url}" if base_url else "")
        self._model = model
        self._base_url = base_url or "https://api.anthropic.com"
        self._sampling = _given(temperature=temperature, top_p=top_p)
        self._client: Any = _package("anthropic").AsyncAnthropic(
            base_url=self._base_url, api_key=key, max_retries=retries, timeout=TIMEOUT
        )

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        """The next turn. Raises as OpenAIPolicy's."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": _anthropic_messages(messages),
            "max_tokens": max_tokens,
        }
        # The client's newest version has no parameters for them any more, and the servers do.
        extra: dict[str, Any] = {"extra_body": self._sampling} if self._sampling else {}
        if system := "\n\n".join(m.content for m in messages if m.role == "system"):
            body["system"] = system
        if tools:
            body["tools"] = [
                {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}
                for tool in tools
            ]

        async def ask(stream: bool) -> Draft:
            if not stream:
                answer = await self._client.messages.create(**body, **extra)
                return _anthropic_answer(answer.model_dump(warnings=False))
            events = await self._client.messages.create(**body, **extra, stream=True)
            async with events:
                return await _read(aiter(events), _take_anthropic, _package("anthropic"))

        draft = await _asked(ask, self._base_url, _package("anthropic"))
        return draft.turn(self.name, sum(len(m.tool_calls) for m in messages), offered=bool(tools))

    async def close(self) -> None:
        await self._client.close()


async def _read(pieces: AsyncIterator[_Piece], take: Callable[[Draft, _Piece], None], package: Any) -> Draft:
    """Put a stream together. Raises BrokenOff if the answer does not come to an end, for whatever reason."""
    import httpx2

    draft = Draft()
    loop = asyncio.get_running_loop()
    said = ""
    try:
        async with asyncio.timeout(None) as patience:
            async for piece in pieces:
                take(draft, piece)
                if draft.finish is not None and patience.when() is None:
                    # Some servers neither say the last word nor hang up.
                    patience.reschedule(loop.time() + _TAIL)
    except httpx2.DecodingError:
        if draft.finish is None:
            raise
    except BrokenOff as e:
        said = str(e)
    except (package.APIConnectionError, httpx2.RequestError, json.JSONDecodeError, TimeoutError):
        pass
    except package.APIError as e:
        # Said by the server in the middle of the stream.
        said = words(e.body)
    if draft.finish is None:
        raise BrokenOff(said)
    return draft


async def _asked(ask: Callable[[bool], Awaitable[Draft]], where: str, package: Any) -> Draft:
    """The answer, as a stream if that comes to an end. Raises ContextOverflow or EndpointError, not the client's."""
    import httpx2

    try:
        for pause in range(_BREAKS):
            with suppress(BrokenOff):
                return await ask(True)
            await asyncio.sleep(pause)
        return await ask(False)
    except (
        package.APIError, httpx2.RequestError, BrokenOff, LookupError, ValueError, TypeError, AttributeError,
        RecursionError,
    ) as e:  # fmt: skip
        raise failed(where, e, package) from e


def _package(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as e:
        raise UserError(f"the package {name} is not installed: pip install 'openk2[serve]'") from e


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def openai_message(message: Message) -> dict[str, Any]:
    """As servers want it: a message of calls alone has no content."""
    raw = message.to_openai()
    if message.tool_calls and not message.content:
        raw["content"] = None
    return raw


def _anthropic_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Results in a user's message, before the text that follows them; neighbours of one role are one message."""
    out: list[dict[str, Any]] = []
    for message in messages:
        blocks: list[dict[str, Any]] = []
        if message.role == "tool":
            blocks.append(
                {"type": "tool_result", "tool_use_id": message.tool_call_id or "", "content": message.content}
            )
        elif message.role != "system":
            # Blocks of text must not be empty.
            blocks += [{"type": "text", "text": message.content}] if message.content else []
            blocks += [_tool_use(call) for call in message.tool_calls]
        role = "assistant" if message.role == "assistant" else "user"
        if out and out[-1]["role"] == role:
            out[-1]["content"] += blocks
        elif blocks:
            out.append({"role": role, "content": blocks})
    return out


def _tool_use(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = call.parsed()
    except ValueError:
        arguments = {"unreadable": call.arguments}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _anthropic_usage(draft: Draft, raw: Any) -> None:
    """Usage comes in parts; what an event leaves out stays."""
    if not isinstance(raw, dict):
        return
    before = draft.usage or Usage(0, 0, 0)
    cached = token_count(raw.get("cache_read_input_tokens"))
    fresh = token_count(raw.get("input_tokens"))
    prompt = before.prompt_tokens if fresh is None else fresh + (cached or 0)
    draft.usage = Usage(
        prompt,
        token_count(raw.get("output_tokens")) or before.completion_tokens,
        before.cached_tokens if cached is None else cached,
    )


def _take_anthropic(draft: Draft, piece: Any) -> None:
    event = piece.model_dump(warnings=False)
    kind = event.get("type")
    if kind == "message_start":
        _anthropic_usage(draft, event["message"].get("usage"))
    elif kind == "content_block_start" and event["content_block"].get("type") == "tool_use":
        block = event["content_block"]
        draft.calls.append({"id": block.get("id") or "", "name": block.get("name") or "", "arguments": ""})
    elif kind == "content_block_delta":
        delta = event["delta"]
        if delta.get("type") == "text_delta":
            draft.add_text("content", delta.get("text") or "")
        elif delta.get("type") == "input_json_delta" and draft.calls:
            draft.calls[-1]["arguments"] += delta.get("partial_json") or ""
    elif kind == "message_delta":
        _anthropic_usage(draft, event.get("usage"))
        draft.finish = event["delta"].get("stop_reason") or draft.finish


def _anthropic_answer(answer: dict[str, Any]) -> Draft:
    draft = Draft(finish=answer.get("stop_reason") or "end_turn")
    for block in answer["content"]:
        if block.get("type") == "text":
            draft.add_text("content", block.get("text") or "")
        elif block.get("type") == "tool_use":
            arguments = compact_json(block.get("input") or {})
            draft.calls.append({"id": block.get("id") or "", "name": block.get("name") or "", "arguments": arguments})
    _anthropic_usage(draft, answer.get("usage"))
    return draft
