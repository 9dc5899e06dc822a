"""The engine in a thread of its own: requests from anywhere join its batch, results and news of them come back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from openk2.engine.generate import Batch, Engine
from openk2.engine.sequence import Generation, Part, Request

Listener = Callable[[Part], None]


@dataclass(frozen=True, slots=True)
class _Job:
    """A request and who waits for it, and may give up at any moment before `finish` or `fail` has begun."""

    request: Request
    future: Future[Generation]
    listener: Listener | None
    heard: list[int] = field(default_factory=lambda: [0])
    """How many ids the listener knows, also when the request begins again."""

    def hear(self, part: Part) -> bool:
        """Tell the listener. Whether it took it: if not, the request has failed."""
        if self.listener is None or not part.ids or self.future.cancelled():
            return True
        self.heard[0] += len(part.ids)
        try:
            self.listener(part)
        except Exception as error:
            self.fail(error)
            return False
        return True

    def finish(self, generation: Generation) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(generation)

    def fail(self, error: BaseException) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class Worker:
    """The thread that owns an engine's batch. It starts with the first request and lives until `close`.

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

    def submit(self, request: Request, listener: Listener | None = None) -> Future[Generation]:
        """Queue a request; cancelling the future gives it up. Raises RuntimeError once the worker is closed.

        `listener` gets what is said as it comes, in the worker's thread, all of it before the future is done. It must
        not wait.
        """
        job = _Job(request, Future(), listener)
        with self._news:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._incoming.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="openk2-engine", daemon=True)
                self._thread.start()
            self._news.notify()
        return job.future

    @property
    def load(self) -> tuple[int, int]:
        """How many requests are being generated, and how many wait."""
        batch = self._batch
        running, waiting = (0, 0) if batch is None else (batch.running, batch.waiting)
        return running, waiting + len(self._incoming)

    def close(self) -> None:
        """Stop the thread; requests that are not complete are cancelled."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join()

    def _take(self, block: bool) -> list[_Job] | None:
        """What has come in; waits for something if `block`. None once it is closed."""
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
        except BaseException as error:  # raised again where the future is awaited
            job.fail(error)

    def _step(self) -> None:
        if self._batch is None:
            return
        for index in [i for i, job in self._active.items() if job.future.cancelled()]:
            self._batch.drop(index)
            del self._active[index]
        complete = self._batch.step()
        listening = {i: job.heard[0] for i, job in self._active.items() if job.listener is not None}
        for index, part in self._batch.parts(listening):
            if not self._active[index].hear(part):
                self._batch.drop(index)
                del self._active[index]
        for index, generation in complete:
            job = self._active.pop(index)
            if job.hear(generation.part(job.heard[0])):
                job.finish(generation)
