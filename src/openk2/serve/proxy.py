"""Our API in front of any server that speaks OpenAI's chat route.

Text is passed on while it comes. Tool calls are not: each is complete, checked and, where it is plain what was meant,
repaired before a client hears of it, and its id is K2's. For calls that are beyond repair the model is told what is
wrong and asked again; if that does not help the request is refused. So a client never sees a call that its own
declaration does not allow, whatever the server behind does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import MISSING, fields, replace
from functools import partial
from typing import Any, Literal

from openk2.chat import ArgumentsPart, CallBegin, CallEnd, Event, TextPart, TextReader, call_id, canonicalise
from openk2.chat import tokenizer as tk
from openk2.core import ContextOverflow, Usage, UserError
from openk2.engine import Request
from openk2.policy.endpoint import Draft, EndpointError, OpenAIEndpoint, openai_message
from openk2.serve.answer import End, Ready, Said
from openk2.serve.errors import ApiError, invalid, our_fault, shutting_down
from openk2.serve.names import ToolNames
from openk2.serve.prompt import Asked, chosen_tools, named_messages, tool_names
from openk2.serve.repair import Tools, WrongCall
from openk2.serve.service import Service, Settings

_TRIES = 3
"""How often the model is asked for calls that can be used."""
_FIELDS = {"stop_ids": "stop_token_ids"}
"""Names that fields of the engine's Request have in OpenAI's API and its extensions."""
_DEFAULTS = {f.name: f.default for f in fields(Request) if f.default is not MISSING}


class Proxy(Service):
    """Passes requests on.

    Args:
        endpoint: the server behind, and the model's name there.
        settings: the settings.
    """

    context = None

    def __init__(self, endpoint: OpenAIEndpoint, settings: Settings) -> None:
        super().__init__(settings)
        self.endpoint = endpoint
        self._places = asyncio.Semaphore(settings.max_running)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        return len(self._tasks)

    @property
    def load(self) -> tuple[int, int]:
        running = min(self.busy, self.settings.max_running)
        return running, self.busy - running

    def prepare(self, asked: Asked) -> Ready:
        for field, wanted in (("logprobs", asked.logprobs), ("return_token_ids", asked.token_ids)):
            if wanted:
                raise invalid(field, "the model is behind another server, and ids are not known here: leave it out")
        names = tool_names(asked)
        body = _body(asked, names)
        chosen = [names.to_model(tool.name) for tool in chosen_tools(asked)]
        try:
            tools = Tools({names.to_model(tool.name): tool.parameters for tool in asked.tools}, chosen)
        except ValueError as e:
            raise invalid("tools", str(e)) from None
        return _Ready(self, asked, body, names, tools)

    async def count(self, asked: Asked) -> int:
        """As the server behind counts: it is asked for a single token of an answer."""
        # What the answer has to be may need more than a token.
        asked = replace(asked, choice=("auto", ""), answer=None)
        body = await asyncio.to_thread(lambda: _body(asked, tool_names(asked)))
        self.admit(1)
        drafts: list[Draft] = []

        async def ask() -> None:
            drafts.append(await self.ask(body | {"max_tokens": 1}, None))

        task = self.begin(ask)
        try:
            await asyncio.wait((task,))
        finally:
            task.cancel()
        if task.cancelled():
            raise shutting_down()
        task.result()
        draft = drafts[0]
        if draft.usage is None:
            raise ApiError(501, "the server behind does not say how many tokens a prompt has", kind="server_error")
        return draft.usage.prompt_tokens

    async def ask(self, body: dict[str, Any], on_text: Callable[[str], None] | None) -> Draft:
        """The answer of the server behind. Raises ApiError."""
        try:
            return await self.endpoint.answer(body, on_text)
        except ContextOverflow as e:
            raise invalid("messages", str(e), code="context_length_exceeded") from None
        except EndpointError as e:
            if e.status == 429:
                raise ApiError(
                    429, str(e), kind="rate_limit_reached_error", code="busy_upstream", retry_after=e.retry_after or 1
                ) from None
            if e.status in (400, 404, 413, 422):
                raise ApiError(400, str(e), code="refused_upstream") from None
            status = 504 if e.status == 504 else 502
            raise ApiError(status, str(e), kind="server_error", code="upstream_failed") from None

    def note(self, usage: Usage) -> None:
        """Count the tokens of an answer."""
        self._count(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)

    def begin(self, choice: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Answer one choice, as soon as there is a place."""

        async def run() -> None:
            async with self._places:
                await choice()

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, grace: float) -> None:
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.endpoint.close()


class _Ready(Ready):
    """One request in OpenAI's words, and what its calls are checked with."""

    def __init__(self, proxy: Proxy, asked: Asked, body: dict[str, Any], names: ToolNames, tools: Tools) -> None:
        self.model = proxy.settings.name
        self.n = asked.n
        self._proxy = proxy
        self._asked = asked
        self._body = body
        self._names = names
        self._tools = tools
        self._begun: AsyncGenerator[tuple[int, Said], None] | None = None
        self._first: tuple[int, Said] | None = None
        self._calls_before = sum(len(message.get("tool_calls", ())) for message in body["messages"])

    async def begin(self) -> None:
        self._begun = self._news()
        self._first = await anext(self._begun)

    async def say(self, *, streamed: bool) -> AsyncGenerator[tuple[int, Said], None]:
        del streamed  # it is always, so that nothing between here and there gives up on silence
        async with aclosing(self._begun or self._news()) as news:
            if self._first is not None:
                yield self._first
            async for one in news:
                yield one

    async def _news(self) -> AsyncGenerator[tuple[int, Said], None]:
        self._proxy.admit(self.n)
        news: asyncio.Queue[tuple[int, Said] | BaseException] = asyncio.Queue()

        async def choice(index: int) -> None:
            try:
                await self._choice(index, lambda said: news.put_nowait((index, said)))
            except (Exception, asyncio.CancelledError) as e:
                news.put_nowait(e)
                if isinstance(e, asyncio.CancelledError):
                    raise

        tasks = [self._proxy.begin(partial(choice, index)) for index in range(self.n)]
        try:
            missing = self.n
            while missing:
                what = await news.get()
                if isinstance(what, asyncio.CancelledError):
                    raise shutting_down()
                if isinstance(what, ApiError):
                    raise what
                if isinstance(what, BaseException):
                    raise our_fault() from what
                missing -= what[1].end is not None
                yield what
        finally:
            # Not awaited: cancelled while it waits, that would cancel them once more, in the middle of hanging up.
            for task in tasks:
                task.cancel()

    async def _choice(self, index: int, tell: Callable[[Said], None]) -> None:
        """One answer, with as many questions as it takes. Raises ApiError."""
        body = self._body | ({} if self._asked.seed is None else {"seed": self._asked.seed + index})
        used = Usage(0, 0, 0)
        spoken, unspoken = list[str](), list[str]()

        def speak(text: str) -> None:
            if text:
                spoken.append(text)
                tell(Said((TextPart(text),)))

        for attempt in range(_TRIES):
            unspoken.clear()
            # What comes with calls that are made anew is not said twice.
            draft = await self._ask(body, unspoken.append if attempt else speak)
            if draft.usage is not None:
                used = Usage(*(a + b for a, b in zip(_numbers(used), _numbers(draft.usage), strict=True)))
            calls, problem = await asyncio.to_thread(self._read, draft)
            if problem is None:
                break
            body = body | {"messages": [*self._body["messages"], *_told(draft, problem)]}
        else:
            raise ApiError(
                502,
                f"the model behind {self._proxy.endpoint.base_url} was asked {_TRIES} times and gave no call that can "
                f"be used: {problem}",
                kind="server_error",
                code="invalid_tool_call_upstream",
            )
        if not (spoken and calls):
            speak("".join(unspoken))
        self._proxy.note(used)
        finish: Literal["stop", "length"] = "length" if draft.finish in ("length", "max_tokens") else "stop"
        tell(Said(tuple(calls), end=End(finish, None, *_numbers(used))))

    async def _ask(self, body: dict[str, Any], say: Callable[[str], None]) -> Draft:
        """One attempt. `say` gets the text before any calls, which servers leave in it, as it comes."""
        # A marker may come in pieces.
        reader = TextReader((tk.SECTION_BEGIN,))
        draft = await self._proxy.ask(body, lambda text: say(reader.feed(text.encode("utf-8", "replace"))))
        say(reader.close())
        return draft

    def _read(self, draft: Draft) -> tuple[list[Event], str | None]:
        """The calls of an answer as events, or what is wrong with them."""
        turn = draft.turn("", self._calls_before)
        cut = turn.finish_reason == "length"
        calls = turn.message.tool_calls[:1] if self._asked.one_call else turn.message.tool_calls
        if calls and not self._tools.may_call:
            return [], None if turn.message.content else "no tool may be called, and there is no text"
        events: list[Event] = []
        for index, call in enumerate(calls):
            try:
                name = self._tools.name(call.name)
                arguments = self._tools.arguments(name, call.arguments)
            except WrongCall as e:
                if cut and call is calls[-1]:
                    # There was no room for it.
                    break
                return [], str(e)
            identifier = call_id(name, self._calls_before + index)
            events += (
                CallBegin(index, identifier, self._names.to_client(name)),
                ArgumentsPart(index, arguments),
                CallEnd(index),
            )
        if turn.malformed is not None and not cut:
            return [], f"a part of it cannot be read as a call: {turn.malformed[:200]!r}"
        if self._asked.must_call and not events and not cut:
            return [], "a tool call is required, and there is none"
        return events, None


def _numbers(usage: Usage) -> tuple[int, int, int]:
    return usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens


def _told(draft: Draft, problem: str) -> list[dict[str, Any]]:
    """What the model is told of a call that cannot be used. The call is not repeated: servers read history as JSON."""
    text = draft.content.partition(tk.SECTION_BEGIN)[0]
    said = [{"role": "assistant", "content": text}] if text else []
    return [*said, {"role": "user", "content": f"Your last reply cannot be used: {problem}. Reply again."}]


def _body(asked: Asked, names: ToolNames) -> dict[str, Any]:
    """The request in OpenAI's words. Raises ApiError."""
    messages, prefix = named_messages(asked, names)
    given_system = messages[0].role == "system"
    try:
        messages = canonicalise(messages)[0 if given_system else 1 :]
    except UserError as e:
        raise invalid("messages", str(e)) from None
    body: dict[str, Any] = {"messages": [openai_message(message) for message in messages]}
    if prefix is not None:
        body["messages"].append(openai_message(prefix) | {"partial": True})
    if asked.tools:
        body["tools"] = [
            {**tool.raw, "function": {**tool.raw["function"], "name": names.to_model(tool.name)}}
            for tool in asked.tools
        ]
    kind, wanted = asked.choice
    if kind == "tool":
        body["tool_choice"] = {"type": "function", "function": {"name": names.to_model(wanted)}}
    elif kind != "auto" and asked.tools:
        body["tool_choice"] = kind
    if asked.tools and not asked.parallel:
        body["parallel_tool_calls"] = False
    if asked.answer == {"type": "object"}:
        body["response_format"] = {"type": "json_object"}
    elif asked.answer is not None:
        wanted_schema = {"name": "answer", "schema": asked.answer, "strict": asked.answer_strict}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted_schema}
    if asked.max_tokens is not None:
        body["max_tokens"] = asked.max_tokens
    if asked.stop:
        body["stop"] = list(asked.stop)
    for name, value in asked.sampling.items():
        # The temperature is there only if it is meant.
        if name == "temperature" or value != _DEFAULTS[name]:
            body[_FIELDS.get(name, name)] = dict(value) if name == "logit_bias" else value
    return body
