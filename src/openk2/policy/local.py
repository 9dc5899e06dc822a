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
from openk2.engine import Batch, Engine, Generation, Request


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
    """A request and who waits for it, and may give up at any moment before `finish` or `fail` has begun."""

    request: Request
    future: Future[Generation]

    def finish(self, generation: Generation) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(generation)

    def fail(self, error: BaseException) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class _Worker:
    """The thread that owns the batch. It starts with the first request and lives until `close`.

    When a batch fails, its requests begin again one at a time, which changes nothing in what they say; so only the one
    that cannot be served fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._news = threading.Condition()
        self._incoming: deque[_Job] = deque()
        self._closed = False
        self._thread: threading.Thread | None = None
        # Only the thread touches these.
        self._batch: Batch | None = None
        self._active: dict[int, _Job] = {}

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
        fresh, suspects = deque[_Job](), deque[_Job]()
        alone = False
        while (jobs := self._take(block=not (self._active or fresh or suspects))) is not None:
            fresh.extend(jobs)
            if not self._active:
                alone = bool(suspects)
                if alone:
                    self._begin(suspects.popleft())
            while fresh and not alone:
                self._begin(fresh.popleft())
            try:
                self._step()
            except BaseException as error:  # whatever it is, this thread goes on
                failed = list(self._active.values())
                self._active.clear()
                self._batch = None
                if len(failed) == 1:
                    failed[0].fail(error)
                else:
                    suspects.extend(failed)
        for job in (*self._active.values(), *fresh, *suspects):
            job.future.cancel()

    def _begin(self, job: _Job) -> None:
        try:
            self._batch = self._batch or self._engine.batch()
            self._active[self._batch.add(job.request)] = job
        except BaseException as error:  # raised again in the `act` that waits
            job.fail(error)

    def _step(self) -> None:
        if self._batch is None:
            return
        for index in [i for i, job in self._active.items() if job.future.cancelled()]:
            self._batch.drop(index)
            del self._active[index]
        for index, generation in self._batch.step():
            self._active.pop(index).finish(generation)
