"""Our API in front of any server that speaks OpenAI's chat route.

Text is passed on while it comes. Tool calls are not: each is complete, checked and, where it is plain what was meant,
repaired before a client hears of it, and its id is K2's. Neither is an answer that has to be JSON (`response_format`):
it is said when it is complete and satisfies its schema, in one piece also to a client that streams. For what is beyond
repair the model is told what is wrong and asked again; if that does not help the request is refused. So a client never
sees a call or an answer that its own declaration does not allow, whatever the server behind does. What a limit cut off,
and what the model or its filter refused, is passed on as that. What it thought is passed on while it comes.

Calls that a server leaves in the text in K2's markers are calls, if tools may be called and they are whole: from the
marker on the text waits until that is sure. Where they are broken the model is asked again; what is no calls is text.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from openk2.chat import ArgumentsPart, CallBegin, CallEnd, TextPart, call_id
from openk2.core import ContextOverflow, Usage
from openk2.core.messages import as_unicode
from openk2.policy.draft import Draft, Kind
from openk2.policy.endpoint import OpenAIEndpoint
from openk2.policy.failures import EndpointError
from openk2.policy.leaked import Leaked, LeakReader
from openk2.serve.answer import End, Finish, News, Ready, ReasoningPart, RefusalPart, Said
from openk2.serve.errors import ApiError, invalid, our_fault, shutting_down
from openk2.serve.names import ToolNames
from openk2.serve.outgoing import again, body_of
from openk2.serve.prompt import Asked, chosen_tools, tool_names
from openk2.serve.repair import Expected, Tools, WrongCall, WrongJson
from openk2.serve.service import Service, Settings

_TRIES = 3
"""How often the model is asked for calls, or an answer in JSON, that can be used."""
_FINISHES: dict[str, Finish] = {"length": "length", "max_tokens": "length", "content_filter": "content_filter"}
"""Ends before the end, in servers' words; any other is one."""
_PARTS: dict[Kind, Callable[[str], News]] = {"reasoning": ReasoningPart, "content": TextPart, "refusal": RefusalPart}
_MAY_LEAK: tuple[Kind, ...] = ("content", "reasoning")
"""Texts in which servers leave calls."""
_CALLED = ("tool_calls", "function_call")
"""Ends in a call, in servers' words."""
_BUSY = (503, 529)
"""What servers answer who have too much to do; the second is Anthropic's."""
_NO_MODEL = re.compile(r"\bmodels?\b", re.I)


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
        for name, wanted in (("logprobs", asked.logprobs), ("return_token_ids", asked.token_ids)):
            if wanted:
                raise invalid(name, "the model is behind another server, and ids are not known here: leave it out")
        names = tool_names(asked)
        body = body_of(asked, names)
        chosen = [tool.name for tool in chosen_tools(asked)]
        try:
            tools = Tools({tool.name: tool.parameters for tool in asked.tools}, chosen, names)
        except ValueError as e:
            raise invalid("tools", str(e)) from None
        try:
            answer = None if asked.answer is None else Expected(asked.answer)
        except ValueError as e:
            raise invalid(asked.where.answer, f"the schema cannot be used: {e}") from None
        return _Ready(self, asked, body, names, tools, answer)

    async def count(self, asked: Asked) -> int:
        """As the server behind counts: it is asked for a single token of an answer."""
        # What the answer has to be may need more than a token.
        asked = replace(asked, choice=("auto", ""), answer=None, max_tokens=1)
        body = await asyncio.to_thread(lambda: body_of(asked, tool_names(asked)))
        self.admit(1)
        drafts: list[Draft] = []

        async def ask() -> None:
            drafts.append(await self.ask(body))

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

    async def ask(
        self,
        body: dict[str, Any],
        hear: Mapping[Kind, Callable[[str], None]] | None = None,
        forget: Callable[[], None] | None = None,
    ) -> Draft:
        """The answer of the server behind, as `OpenAIEndpoint.answer`. Raises ApiError."""
        try:
            return await self.endpoint.answer(body, hear, forget)
        except ContextOverflow as e:
            raise invalid("messages", str(e), code="context_length_exceeded") from None
        except EndpointError as e:
            raise self._refusal(e) from None

    def _refusal(self, error: EndpointError) -> ApiError:
        """What the client is told of a failure behind. What only the operator can mend is no fault of the client's."""
        if error.quota is not None:
            return ApiError(429, str(error), kind="exceeded_current_quota_error", code=error.quota)
        if error.status in _BUSY:
            seconds = error.retry_after
            return ApiError(503, str(error), kind="server_error", code="busy_upstream", retry_after=seconds)
        if error.status == 429:
            kind, seconds = "rate_limit_reached_error", error.retry_after or 1
            return ApiError(429, str(error), kind=kind, code="busy_upstream", retry_after=seconds)
        if error.status in (400, 413, 422):
            return ApiError(400, str(error), code="refused_upstream")
        url, model = self.endpoint.base_url, self.endpoint.model
        status, code, problem = 504 if error.status == 504 else 502, "upstream_failed", str(error)
        if error.status in (401, 403):
            code, problem = (
                "key_refused_upstream",
                f"the key of this server, which is not the client's, is refused: {error}",
            )
        elif error.status == 404 and _NO_MODEL.search(error.said):
            code, problem = (
                "no_model_upstream",
                f"the server at {url} has no model {model!r}: it answers 404: {error.said}",
            )
        elif error.status == 404:
            code = "not_found_upstream"
            problem = (
                f"nothing is at {url}/chat/completions, where the model {model!r} should be: is the address right? "
                f"Often it ends with /v1. It answers 404: {error.said}"
            )
        return ApiError(status, problem, kind="server_error", code=code)

    def note(self, usage: Usage) -> None:
        """Count the tokens of an answer."""
        self._count(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)

    def begin(self, choice: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Answer one choice, as soon as there is a place.

        Places bound what is asked of the server behind at the same time. A choice keeps its own while it asks again,
        and while it waits before it tries a busy server again: another one let in meanwhile would make that server
        busier, and what has been waited for and paid for would wait behind it.
        """

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
    """One request in OpenAI's words, and what its calls and its answer in JSON are checked with."""

    def __init__(
        self,
        proxy: Proxy,
        asked: Asked,
        body: dict[str, Any],
        names: ToolNames,
        tools: Tools,
        answer: Expected | None,
    ) -> None:
        self.model = proxy.settings.name
        self.n = asked.n
        self._proxy = proxy
        self._asked = asked
        self._body = body
        self._names = names
        self._tools = tools
        self._answer = answer
        self._begun: AsyncGenerator[tuple[int, Said], None] | None = None
        self._first: tuple[int, Said] | None = None
        self._calls_before = sum(len(message.get("tool_calls", ())) for message in body["messages"])

    async def begin(self) -> None:
        self._begun = self._news(streamed=True)
        self._first = await anext(self._begun)

    async def say(self, *, streamed: bool) -> AsyncGenerator[tuple[int, Said], None]:
        async with aclosing(self._begun or self._news(streamed)) as news:
            if self._first is not None:
                yield self._first
            async for one in news:
                yield one

    async def _news(self, streamed: bool) -> AsyncGenerator[tuple[int, Said], None]:
        self._proxy.admit(self.n)
        news: asyncio.Queue[tuple[int, Said] | BaseException] = asyncio.Queue()

        async def choice(index: int) -> None:
            try:
                await self._choice(index, lambda said: news.put_nowait((index, said)), streamed)
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
                if news.empty():
                    # Who is just about to wake up is not cancelled: behind a server that always has more to say that
                    # would be the case whenever it is tried.
                    await asyncio.sleep(0)
        finally:
            # Not awaited: cancelled while it waits, that would cancel them once more, in the middle of hanging up.
            for task in tasks:
                task.cancel()

    async def _choice(self, index: int, tell: Callable[[Said], None], streamed: bool) -> None:
        """One answer, with as many questions as it takes. Raises ApiError.

        It comes as a stream in any case, so that nothing between here and there gives up on silence. One that breaks
        off is asked for again as long as nothing of it has been told: where that is not `streamed`, until it is whole.
        """
        question = self._body | ({} if self._asked.seed is None else {"seed": self._asked.seed + index})
        body = question
        used, counted = Usage(0, 0, 0), True
        spoken = set[Kind]()

        def speak(kind: Kind, text: str) -> None:
            if text:
                spoken.add(kind)
                tell(Said((_PARTS[kind](text),)))

        tries = 0
        while True:
            # What is asked for again is not said twice, and JSON only when it is right.
            live: set[Kind] = set() if tries else {"reasoning", "refusal"}
            live |= set() if tries or self._answer else {"content"}
            reply = await self._ask(body, speak, live, streamed)
            tries, draft = tries + 1, reply.draft
            if draft.usage is None:
                counted = False
            else:
                used = Usage(*(a + b for a, b in zip(_numbers(used), _numbers(draft.usage), strict=True)))
            problem = await asyncio.to_thread(self._check, reply)
            if problem is None:
                break
            if tries == _TRIES:
                where = self._proxy.endpoint.base_url
                told = f"the model behind {where} was asked {tries} times and gave nothing that can be used"
                raise ApiError(502, f"{told}: {problem.shown}", kind="server_error", code=problem.code)
            body = again(question, reply.text, problem.problem)
        if "reasoning" not in spoken:
            speak("reasoning", reply.thought)
        # A text before calls that are made anew was said with the first of them.
        if tries == 1 or not ("content" in spoken and reply.events):
            speak("content", reply.unsaid)
        if "refusal" not in spoken:
            speak("refusal", as_unicode(draft.text("refusal")))
        self._proxy.note(used)
        finish: Finish = _FINISHES.get(str(draft.finish), "stop")
        stop = draft.stop if finish == "stop" and draft.stop in self._asked.stop else None
        tell(Said(tuple(reply.events), end=End(finish, stop, *_numbers(used), counted=counted)))

    async def _ask(
        self, body: dict[str, Any], speak: Callable[[Kind, str], None], live: set[Kind], streamed: bool
    ) -> _Reply:
        """One attempt, of which the texts in `live` are said as they come, or where that is not `streamed`, before it
        is known what it is good for."""
        readers = {kind: LeakReader(bool(self._tools.may_call)) for kind in _MAY_LEAK}
        said: dict[Kind, list[str]] = {kind: [] for kind in _MAY_LEAK}

        def hear(kind: Kind, text: str) -> None:
            text = as_unicode(text)
            if kind in readers:
                text = readers[kind].feed(text)
                said[kind].append(text)
            speak(kind, text)

        if streamed:
            draft = await self._proxy.ask(body, {kind: partial(hear, kind) for kind in live})
        else:
            heard: list[tuple[Kind, str]] = []

            def keep(kind: Kind, text: str) -> None:
                heard.append((kind, text))

            draft = await self._proxy.ask(body, {kind: partial(keep, kind) for kind in live}, heard.clear)
            for kind, text in heard:
                hear(kind, text)
        unsaid: dict[Kind, str] = {}
        found: dict[Kind, Leaked] = {}
        for kind, reader in readers.items():
            text = "" if kind in live else reader.feed(as_unicode(draft.text(kind)))
            found[kind] = await asyncio.to_thread(reader.close, cut=str(draft.finish) in _FINISHES)
            unsaid[kind] = text + found[kind].text
            said[kind].append(unsaid[kind])
        if "reasoning" in live:
            speak("reasoning", unsaid["reasoning"])
        text, leaked = "".join(said["content"]), found["content"]
        # What is left beside calls that the server knows itself is the same calls once more.
        calls, broken = (draft.calls, False) if draft.calls else (leaked.calls, leaked.broken)
        if not (calls or broken or text.strip() or found["reasoning"].broken):
            # Some servers take what comes before the end of a thought for a part of it.
            calls = found["reasoning"].calls
        return _Reply(draft, text, unsaid["content"], "".join(said["reasoning"]), calls, broken)

    def _check(self, reply: _Reply) -> _Problem | None:
        """Reads the calls as events and an answer in JSON, or says what is wrong with them."""
        draft = reply.draft
        finish = _FINISHES.get(str(draft.finish))
        refused = finish == "content_filter" or bool(draft.text("refusal"))
        calls = [call for call in reply.calls if call["name"]]
        if any(not call["name"] and (call["id"] or call["arguments"]) for call in reply.calls) and finish is None:
            return _Problem("a call in it has no name")
        if reply.broken and finish is None:
            return _Problem("a part of it begins as a call and does not end as one")
        if draft.finish in _CALLED and not reply.calls and (self._tools.may_call or not reply.text):
            return _Problem("it ends in a call, and there is none")
        if calls and not self._tools.may_call:
            if not (reply.text or refused):
                return _Problem("no tool may be called, and there is no text")
            calls = []
        events: list[News] = []
        for index, call in enumerate(calls[:1] if self._asked.one_call else calls):
            try:
                name = self._tools.name(call["name"])
                arguments = self._tools.arguments(name, call["arguments"])
            except WrongCall as e:
                if finish is not None and call is calls[-1]:
                    # There was no room for it.
                    break
                return _Problem(str(e), e.shown)
            identifier = call_id(name, self._calls_before + index)
            events += (
                CallBegin(index, identifier, self._names.to_client(name)),
                ArgumentsPart(index, arguments),
                CallEnd(index),
            )
        reply.events = events
        if events or finish is not None or refused:
            return None
        if self._asked.must_call:
            return _Problem("a tool call is required, and there is none")
        if self._answer is not None:
            try:
                reply.text = reply.unsaid = self._answer.read(reply.text)
            except WrongJson as e:
                return _Problem(f"the answer has to be JSON: {e}", code="invalid_answer_upstream")
        return None


@dataclass(slots=True)
class _Reply:
    """One attempt: its text without calls, what of that has not been said, what was thought before, its calls, whether
    there is a broken one behind them, and the events that they are."""

    draft: Draft
    text: str
    unsaid: str
    thought: str
    calls: list[dict[str, str]]
    broken: bool
    events: list[News] = field(default_factory=list)


class _Problem:
    """Why an attempt cannot be used, as the model is told and as the client is."""

    def __init__(self, problem: str, shown: str | None = None, code: str = "invalid_tool_call_upstream") -> None:
        self.problem = problem
        self.shown = problem if shown is None else shown
        self.code = code


def _numbers(usage: Usage) -> tuple[int, int, int]:
    return usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens
