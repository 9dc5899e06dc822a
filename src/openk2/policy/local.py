"""The policy that runs here: renders the conversation, lets the engine complete it, reads the turn from the ids.

One background thread owns the engine's batch. Every `act` adds a sequence to it and awaits the result, so concurrent
rollouts are decoded together and the event loop never waits for the model.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from openk2.chat import canonicalise, parse_completion, render
from openk2.core import Message, ToolSpec, Turn
from openk2.engine import Engine, Generation, Request


class LocalPolicy:
    """Answers with a local model.

    Args:
        engine: the model and its tokenizer.
        grammar: whether calls are constrained to declared tools and their schemas.
        temperature, top_p, seed: how ids are drawn; noise is keyed by seed and position. Rollouts that should differ
            take `seeded(n)` policies, which share the batch.
        name: what trajectories call this policy.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        grammar: bool = True,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        name: str = "local",
    ) -> None:
        self.name = name
        self.engine = engine
        self.grammar = grammar
        self.temperature = temperature
        self.top_p = top_p
        self.seed = seed
        self._worker = _Worker(engine)

    def seeded(self, seed: int) -> LocalPolicy:
        """The same policy with another seed. It shares this one's batch; closing either closes both."""
        other = LocalPolicy(
            self.engine,
            grammar=self.grammar,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=seed,
            name=self.name,
        )
        other._worker = self._worker
        return other

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        """The next turn. Raises ContextOverflow if the conversation does not fit, UserError for unusable tools."""
        tokenizer = self.engine.tokenizer
        # Calls that were not sampled here carry foreign ids and spacing, which the model has never seen.
        if any(m.tool_calls and m.token_ids is None for m in messages):
            messages = canonicalise(messages)
        prompt = render(messages, tools, tokenizer=tokenizer, add_generation_prompt=True).ids
        request = Request(
            prompt_ids=tuple(prompt),
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            tools=tuple(tools),
            grammar=self.grammar,
            first_call_index=sum(len(m.tool_calls) for m in messages),
        )
        self.engine.check(request)
        generation = await asyncio.wrap_future(self._worker.submit(request))
        completion = parse_completion(generation.ids, tokenizer)
        finish = generation.finish_reason
        return Turn(
            message=completion.message,
            finish_reason="tool_calls" if finish == "stop" and completion.message.tool_calls else finish,
            prompt_ids=request.prompt_ids,
            completion_ids=generation.ids,
            logprobs=generation.logprobs,
            malformed=completion.malformed,
            model=self.name,
        )

    async def close(self) -> None:
        """Stop the background thread; turns that are still being generated are cancelled."""
        await asyncio.to_thread(self._worker.close)


@dataclass(frozen=True, slots=True)
class _Job:
    request: Request
    future: Future[Generation]


class _Worker:
    """The thread that owns the batch. It starts with the first request and lives until `close`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._news = threading.Condition()
        self._incoming: deque[_Job] = deque()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, request: Request) -> Future[Generation]:
        job = _Job(request, Future())
        with self._news:
            if self._closed:
                raise RuntimeError("the policy is closed")
            self._incoming.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="openk2-engine", daemon=True)
                self._thread.start()
            self._news.notify()
        return job.future

    def close(self) -> None:
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join()

    def _take(self, block: bool) -> list[_Job] | None:
        """What has come in; waits for something if `block`. None once the policy is closed."""
        with self._news:
            while block and not self._incoming and not self._closed:
                self._news.wait()
            jobs = list(self._incoming)
            self._incoming.clear()
            if not self._closed:
                return jobs
        for job in jobs:
            job.future.cancel()
        return None

    def _run(self) -> None:
        batch = self._engine.batch()
        active: dict[int, _Job] = {}
        while (jobs := self._take(block=not active)) is not None:
            try:
                for job in jobs:
                    active[batch.add(job.request)] = job
                for index in [i for i, job in active.items() if job.future.cancelled()]:
                    batch.drop(index)
                    del active[index]
                for index, generation in batch.step():
                    future = active.pop(index).future
                    if future.set_running_or_notify_cancel():
                        future.set_result(generation)
            except BaseException as error:  # raised again in every `act` that waits; the next batch starts afresh
                for job in (*active.values(), *jobs):
                    if not job.future.done():
                        job.future.set_exception(error)
                active.clear()
                batch = self._engine.batch()
        for job in active.values():
            job.future.cancel()
