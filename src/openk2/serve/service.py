"""One engine for all requests: who gets in, what comes out, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import CancelledError as Cancelled
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from openk2.chat import Tokenizer
from openk2.core import NANO_SYSTEM
from openk2.engine import Engine, Generation, Part, Request, Worker
from openk2.serve.errors import our_fault, shutting_down, too_many

_RETRY_AFTER = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server allows.

    `temperature` is the one of requests that name none. `max_queued` requests wait beyond those that are generated.
    """

    name: str
    temperature: float = 0.6
    max_queued: int = 256
    max_body: int = 32 << 20
    keys: frozenset[str] = frozenset()


class Service:
    """Runs requests on the engine."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self._worker = Worker(engine)
        self._futures: set[Future[Generation]] = set()
        self.tokens = {"prompt": 0, "cached": 0, "completion": 0}
        self._closing = False
        self.is_nano = len(engine.tokenizer.encode(NANO_SYSTEM)) == 1
        """Whether the vocabulary is one of nano's kind, to which the skeleton of its own declarations is one piece."""

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    @property
    def context(self) -> int:
        return self.engine.context

    @property
    def busy(self) -> int:
        """How many requests are on their way."""
        return len(self._futures)

    @property
    def load(self) -> tuple[int, int]:
        """How many requests are being generated, and how many wait."""
        return self._worker.load

    def admit(self, count: int) -> None:
        """Raises ApiError if there is no place for so many more requests."""
        if self._closing:
            raise shutting_down()
        if self.busy + count > self.engine.max_batch + self.settings.max_queued:
            raise too_many(_RETRY_AFTER)

    async def run(self, requests: Sequence[Request], *, streamed: bool) -> AsyncIterator[tuple[int, Part | Generation]]:
        """(number of the request, news of it), until each has come to its generation.

        All of a request's ids come as parts before its generation: as they are said if `streamed`, else in one. Closing
        the iterator gives the rest up. Raises ApiError if there is no place, and when the engine fails or is stopped.
        """
        self.admit(len(requests))
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[tuple[int, Part | Future[Generation]]] = asyncio.Queue()

        def tell(index: int, what: Part | Future[Generation]) -> None:
            # From the engine's thread. A loop that has ended has nobody who listens.
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.put_nowait, (index, what))

        futures = []
        try:
            for index, request in enumerate(requests):
                # What is not streamed wakes the event loop once, and not for every id.
                listener = partial(tell, index) if streamed else None
                future = self._worker.submit(request, listener)
                futures.append(future)
                self._futures.add(future)
                future.add_done_callback(partial(tell, index))
            missing = len(futures)
            while missing:
                index, what = await news.get()
                if isinstance(what, Part):
                    yield index, what
                    continue
                missing -= 1
                try:
                    generation = what.result()
                except Cancelled:
                    raise shutting_down() from None
                except Exception as e:
                    raise our_fault() from e
                self.tokens["prompt"] += len(requests[index].prompt_ids)
                self.tokens["cached"] += generation.cached_tokens
                self.tokens["completion"] += len(generation.ids)
                if not streamed:
                    yield index, generation.part(0)
                yield index, generation
        finally:
            for future in futures:
                future.cancel()
                self._futures.discard(future)

    async def close(self, grace: float) -> None:
        """Take nothing new, give what runs `grace` seconds, then end it."""
        self._closing = True
        deadline = asyncio.get_running_loop().time() + grace
        while self._futures and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        for future in list(self._futures):
            future.cancel()
        await asyncio.to_thread(self._worker.close)
