"""Policies behind an HTTP endpoint: anything that speaks OpenAI's chat route or Anthropic's messages.

Both stream, so that a proxy that gives up on silence does not end a long turn, and put the answer together with a
tolerance for what servers get wrong: calls without ids or indices, arguments as objects, markers of K2's chat format
left in the text, an end that is never given. The clients are OpenAI's and Anthropic's own; they try again after
timeouts, 429 and 5xx. A stream that breaks off is asked for again as a whole.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from openk2.chat import call_id, tool_name
from openk2.chat import tokenizer as tk
from openk2.core import ContextOverflow, FinishReason, Message, ToolCall, ToolSpec, Turn, Usage, UserError
from openk2.core.messages import as_unicode, compact_json

_RETRIES = 4
_TIMEOUT = 600.0
_BREAKS = 2
"""How often a stream that broke off is asked for again."""
_TAIL = 10.0
"""Seconds that a stream has for what comes behind the end of the answer: the usage, and the last word."""
_TOO_LONG = re.compile(
    r"context.?(length|window|size|is)\b|too long|maximum.{0,20}(tokens|length)|prompt is longer", re.I
)
_CALL = re.compile(re.escape(tk.CALL_BEGIN) + r"\s*([^<]+?)\s*" + re.escape(tk.ARGUMENT_BEGIN) + r"\s*")


Kind = Literal["reasoning", "content", "refusal"]
"""The texts of an answer."""


class _BrokenOff(Exception):
    """A stream ended without an end."""


class EndpointError(UserError):
    """The endpoint gave no answer. `status` is its HTTP status, if it came so far, `said` its own words, and
    `retry_after` the seconds that it asked to wait."""

    def __init__(self, problem: str, status: int | None = None, retry_after: int | None = None, said: str = "") -> None:
        super().__init__(problem)
        self.status = status
        self.retry_after = retry_after
        self.said = said


@dataclass(slots=True)
class Draft:
    """An answer that is put together. `stop` is the stop text that ended it, where the server says which."""

    content: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)
    finish: str | None = None
    stop: str | None = None
    usage: Usage | None = None
    _by_index: dict[int, dict[str, str]] = field(default_factory=dict)

    def call(self, index: int | None, identifier: str | None, function: Mapping[str, Any]) -> dict[str, str]:
        """The call that a piece belongs to; a new one for a new index or id, or if it is whole behind a whole one."""
        if not isinstance(index, int | None) or not isinstance(identifier, str | None):
            raise TypeError("the index of a call is a number, and its id a text")
        found = self._known(index, identifier)
        if found is not None and not identifier and function.get("name") and function.get("arguments"):
            found = None if _is_object(found["arguments"]) else found
        if found is None:
            found = {"id": "", "name": "", "arguments": ""}
            self.calls.append(found)
        if index is not None:
            self._by_index[index] = found
        if identifier:
            found["id"] = identifier
        return found

    def _known(self, index: int | None, identifier: str | None) -> dict[str, str] | None:
        same_id = [call for call in self.calls if identifier and call["id"] == identifier]
        if index is None:
            return same_id[-1] if same_id else None if identifier or not self.calls else self.calls[-1]
        found = self._by_index.get(index)
        if found is not None and identifier and found["id"] not in ("", identifier):
            # Every call has the same index.
            return same_id[-1] if same_id else None
        return found

    def turn(self, model: str, first_index: int) -> Turn:
        """The turn. Calls without an id get the one that K2 would give them."""
        content, calls, malformed = self.content, self.calls, None
        if not calls and tk.SECTION_BEGIN in content:
            content, calls, malformed = _calls_in_text(content)
        made = tuple(
            ToolCall(call["id"] or call_id(call["name"], first_index + i), call["name"], call["arguments"] or "{}")
            for i, call in enumerate(calls)
            if call["name"]
        )
        lost = [call for call in calls if not call["name"] and (call["id"] or call["arguments"])]
        if lost and malformed is None:
            malformed = compact_json(lost)
        finish: FinishReason = "length" if self.finish in ("length", "max_tokens") else "stop"
        if made and finish == "stop":
            finish = "tool_calls"
        return Turn(Message("assistant", content, made), finish, malformed=malformed, model=model, usage=self.usage)


def _calls_in_text(content: str) -> tuple[str, list[dict[str, str]], str | None]:
    """Text, complete calls and the unreadable rest of a text in which K2's markers were left."""
    text, _, section = content.partition(tk.SECTION_BEGIN)
    calls: list[dict[str, str]] = []
    rest, at = "", 0
    while found := _CALL.search(section, at):
        behind = json_end(section, found.end())
        end = section.find(tk.CALL_END, behind)
        if end < 0:
            break
        if behind > found.end() and tk.CALL_BEGIN in section[behind:end]:
            # The end was left out.
            end, at_end = behind, behind
        else:
            at_end = end + len(tk.CALL_END)
        arguments = section[found.end() : end].strip()
        calls.append({"id": found[1], "name": tool_name(found[1]), "arguments": arguments})
        rest += section[at : found.start()]
        at = at_end
    rest += section[at:]
    for marker in (tk.SECTION_BEGIN, tk.SECTION_END, tk.IM_END):
        rest = rest.replace(marker, "")
    return text, calls, rest.strip() or None


def json_end(text: str, start: int) -> int:
    """Behind the JSON value that begins at `start`, in whose strings markers are text; `start` if there is none."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return start


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
        openai = _package("openai")
        # Only here: it needs the client's packages.
        from openk2.policy.unmarked import drop_mark

        self._client: Any = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=key,
            max_retries=retries,
            timeout=_TIMEOUT,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [drop_mark]}),
        )

    async def answer(self, body: Mapping[str, Any], hear: Mapping[Kind, Callable[[str], None]] | None = None) -> Draft:
        """The answer to a request without `model`. `hear` gets texts as they come, of one attempt only.

        Raises ContextOverflow if the conversation does not fit, EndpointError if there is no answer.
        """
        listeners = hear or {}
        heard = False

        def tell(draft: Draft, known: Mapping[Kind, int]) -> None:
            nonlocal heard
            for kind, listener in listeners.items():
                if more := getattr(draft, kind)[known.get(kind, 0) :]:
                    heard = True
                    listener(more)

        def take(draft: Draft, chunk: dict[str, Any]) -> None:
            known = {kind: len(getattr(draft, kind)) for kind in listeners}
            _openai_chunk(draft, chunk)
            tell(draft, known)

        async def ask(stream: bool) -> Draft:
            create = self._client.chat.completions.create
            # Not all servers' fields are parameters of the client.
            fields = {key: value for key, value in body.items() if key != "messages"}
            if not stream:
                whole = await create(model=self.model, messages=body["messages"], extra_body=fields)
                draft = _openai_answer(whole.model_dump(warnings=False))
                tell(draft, {})
                return draft
            fields["stream_options"] = {"include_usage": True}
            chunks = await create(model=self.model, messages=body["messages"], extra_body=fields, stream=True)
            try:
                return await _read(chunks, take, _package("openai"))
            except _BrokenOff as e:
                if heard:
                    raise EndpointError(f"{self.base_url} broke off in the middle of its answer{e}") from e
                raise

        return await _asked(ask, self.base_url, _package("openai"))

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
        return draft.turn(self.name, sum(len(m.tool_calls) for m in messages))

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
            base_url=self._base_url, api_key=key, max_retries=retries, timeout=_TIMEOUT
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
            return await _read(events, _anthropic_event, _package("anthropic"))

        draft = await _asked(ask, self._base_url, _package("anthropic"))
        return draft.turn(self.name, sum(len(m.tool_calls) for m in messages))

    async def close(self) -> None:
        await self._client.close()


async def _read(stream: Any, take: Callable[[Draft, dict[str, Any]], None], package: Any) -> Draft:
    """Put a stream together. Raises _BrokenOff if the answer does not come to an end, for whatever reason."""
    import httpx2

    draft = Draft()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as patience, stream as pieces:
            async for piece in pieces:
                take(draft, piece.model_dump(warnings=False))
                if draft.finish is not None and patience.when() is None:
                    # Some servers neither say the last word nor hang up.
                    patience.reschedule(loop.time() + _TAIL)
    except (package.APIConnectionError, httpx2.RequestError, json.JSONDecodeError, TimeoutError) as e:
        if draft.finish is None:
            raise _BrokenOff from e
    except package.APIError as e:
        # Said by the server in the middle of the stream.
        if draft.finish is None:
            raise _BrokenOff(f": {_message_of(e)}") from e
    if draft.finish is None:
        raise _BrokenOff
    return draft


async def _asked(ask: Callable[[bool], Awaitable[Draft]], where: str, package: Any) -> Draft:
    """The answer, as a stream if that comes to an end. Raises ContextOverflow or EndpointError, not the client's."""
    import httpx2

    broken = ""
    try:
        for pause in range(_BREAKS):
            try:
                return await ask(True)
            except _BrokenOff as e:
                broken = str(e)
                await asyncio.sleep(pause)
        return await ask(False)
    except package.APITimeoutError as e:
        raise EndpointError(f"{where} gave no answer in {_TIMEOUT:.0f} s: is it overloaded?", 504) from e
    except package.APIConnectionError as e:
        if isinstance(e.__cause__, httpx2.TooManyRedirects):
            raise EndpointError(f"{where} sends from address to address without an end: is it the right one?") from e
        if isinstance(e.__cause__, httpx2.DecodingError):
            raise EndpointError(f"{where} gives answers that cannot be read ({e.__cause__})") from e
        raise EndpointError(f"{where} cannot be reached ({e.__cause__ or e}): is a server running there?") from e
    except package.AuthenticationError as e:
        problem = f"{where} does not accept the API key: set it in the environment"
        raise EndpointError(problem, 401, said=_message_of(e)) from e
    except package.APIStatusError as e:
        said = _message_of(e)
        if e.status_code in (400, 413) and _TOO_LONG.search(said):
            raise ContextOverflow(f"{where}: {said}") from e
        problem = f"{where} answers {e.status_code}: {said}"
        raise EndpointError(problem, e.status_code, _retry_after(e), said) from e
    except (package.APIError, _BrokenOff, LookupError, ValueError, TypeError, AttributeError, RecursionError) as e:
        problem = f"{where} gives answers that cannot be read ({type(e).__name__}: {as_unicode(str(e))[:200]}){broken}"
        raise EndpointError(problem) from e


def _retry_after(error: Any) -> int | None:
    said = error.response.headers.get("retry-after", "")
    return int(said) if said.isdecimal() and len(said) < 6 else None


def _message_of(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error", body)
    said = inner.get("message") if isinstance(inner, dict) else None
    return as_unicode(str(said or error.message))[:500]


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


def _openai_usage(raw: Any) -> Usage | None:
    if not isinstance(raw, dict) or not isinstance(raw.get("prompt_tokens"), int):
        return None
    details = raw.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    counts = raw["prompt_tokens"], raw.get("completion_tokens"), cached
    return Usage(*(count if isinstance(count, int) and count > 0 else 0 for count in counts))


def _openai_chunk(draft: Draft, chunk: dict[str, Any]) -> None:
    draft.usage = _openai_usage(chunk.get("usage")) or draft.usage
    choices = chunk.get("choices") or []
    if choices:
        choice = _only(choices)
        # Moonshot's platform gives the usage here.
        draft.usage = _openai_usage(choice.get("usage")) or draft.usage
        delta = choice.get("delta") or {}
        _add_texts(draft, delta)
        pieces = delta.get("tool_calls") or []
        for piece in pieces:
            index = piece.get("index")
            if index is None and not piece.get("id") and len(pieces) > 1:
                # Whole calls side by side.
                index = len(draft.calls)
            function = piece.get("function") or {}
            _add(draft.call(index, piece.get("id"), function), function)
        draft.finish = choice.get("finish_reason") or draft.finish
        draft.stop = _stop(choice) or draft.stop


def _openai_answer(answer: dict[str, Any]) -> Draft:
    choice = _only(answer["choices"])
    message = choice.get("message") or {}
    draft = Draft(finish=choice.get("finish_reason") or "stop", stop=_stop(choice))
    _add_texts(draft, message)
    for index, call in enumerate(message.get("tool_calls") or []):
        function = call.get("function") or {}
        _add(draft.call(index, call.get("id"), function), function)
    draft.usage = _openai_usage(answer.get("usage"))
    return draft


def _only(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """The choice of an answer that was asked for one. Raises ValueError if it is another one."""
    if len(choices) != 1 or choices[0].get("index") not in (0, None):
        raise ValueError("it has another choice than the only one that was asked for, the number 0")
    return choices[0]


def _add_texts(draft: Draft, said: dict[str, Any]) -> None:
    draft.content += _text(said.get("content"))
    # Two names of the same, of which some servers give both.
    thought = said.get("reasoning_content") or said.get("reasoning")
    draft.reasoning += thought if isinstance(thought, str) else ""
    refusal = said.get("refusal")
    draft.refusal += refusal if isinstance(refusal, str) else ""


def _stop(choice: dict[str, Any]) -> str | None:
    """The stop text that ended a choice, in vLLM's and in SGLang's words. An id that ended it is none."""
    found = choice.get("stop_reason") or choice.get("matched_stop")
    return found if isinstance(found, str) else None


def _is_object(text: str) -> bool:
    """Whether a text is a whole JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _text(content: Any) -> str:
    """Content, which may be a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content or ""


def _add(call: dict[str, str], function: dict[str, Any]) -> None:
    """A piece of a call. Some servers repeat the name, some send arguments as an object."""
    name = function.get("name")
    call["name"] = call["name"] or (name if isinstance(name, str) else "")
    arguments = function.get("arguments")
    call["arguments"] += (
        arguments if isinstance(arguments, str) else "" if arguments is None else compact_json(arguments)
    )


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
    cached = raw.get("cache_read_input_tokens")
    fresh = raw.get("input_tokens")
    prompt = before.prompt_tokens if fresh is None else fresh + (cached or 0)
    draft.usage = Usage(
        prompt,
        raw.get("output_tokens") or before.completion_tokens,
        before.cached_tokens if cached is None else cached,
    )


def _anthropic_event(draft: Draft, event: dict[str, Any]) -> None:
    kind = event.get("type")
    if kind == "message_start":
        _anthropic_usage(draft, event["message"].get("usage"))
    elif kind == "content_block_start" and event["content_block"].get("type") == "tool_use":
        block = event["content_block"]
        draft.calls.append({"id": block.get("id") or "", "name": block.get("name") or "", "arguments": ""})
    elif kind == "content_block_delta":
        delta = event["delta"]
        if delta.get("type") == "text_delta":
            draft.content += delta.get("text") or ""
        elif delta.get("type") == "input_json_delta" and draft.calls:
            draft.calls[-1]["arguments"] += delta.get("partial_json") or ""
    elif kind == "message_delta":
        _anthropic_usage(draft, event.get("usage"))
        draft.finish = event["delta"].get("stop_reason") or draft.finish


def _anthropic_answer(answer: dict[str, Any]) -> Draft:
    draft = Draft(finish=answer.get("stop_reason") or "end_turn")
    for block in answer["content"]:
        if block.get("type") == "text":
            draft.content += block.get("text") or ""
        elif block.get("type") == "tool_use":
            arguments = compact_json(block.get("input") or {})
            draft.calls.append({"id": block.get("id") or "", "name": block.get("name") or "", "arguments": arguments})
    _anthropic_usage(draft, answer.get("usage"))
    return draft
