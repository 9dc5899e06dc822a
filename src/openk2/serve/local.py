"""One engine for all requests: who gets in, what comes out, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import CancelledError as Cancelled
from concurrent.futures import Future
from contextlib import aclosing
from functools import partial

from openk2.chat import CallBegin, CompletionReader, Event, Tokenizer
from openk2.engine import Engine, Generation, Part, Request, Worker
from openk2.serve.answer import End, Ready, Said
from openk2.serve.errors import our_fault, shutting_down
from openk2.serve.names import ToolNames
from openk2.serve.prompt import Asked, engine_requests, render_prompt
from openk2.serve.service import Service, Settings


class LocalService(Service):
    """Runs requests on the engine."""

    context: int

    def __init__(self, engine: Engine, settings: Settings) -> None:
        super().__init__(settings)
        self.engine = engine
        self.context = engine.context
        self._worker = Worker(engine)
        self._futures: set[Future[Generation]] = set()

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    @property
    def busy(self) -> int:
        return len(self._futures)

    @property
    def load(self) -> tuple[int, int]:
        return self._worker.load

    def prepare(self, asked: Asked) -> Ready:
        requests, names = engine_requests(self.engine, asked)
        return _Ready(self, requests, names)

    async def count(self, asked: Asked) -> int:
        return len(await asyncio.to_thread(render_prompt, self.engine, asked))

    async def run(
        self, requests: Sequence[Request], *, streamed: bool
    ) -> AsyncGenerator[tuple[int, Part | Generation], None]:
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
                self._count(len(requests[index].prompt_ids), generation.cached_tokens, len(generation.ids))
                if not streamed:
                    yield index, generation.part(0)
                yield index, generation
        finally:
            for future in futures:
                future.cancel()
                self._futures.discard(future)

    async def close(self, grace: float) -> None:
        self._closing = True
        deadline = asyncio.get_running_loop().time() + grace
        while self._futures and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        for future in list(self._futures):
            future.cancel()
        await asyncio.to_thread(self._worker.close)


class _Ready(Ready):
    """Requests to the engine, one per choice, and the names that the client knows."""

    tokenizer: Tokenizer

    def __init__(self, service: LocalService, requests: Sequence[Request], names: ToolNames) -> None:
        self.model = service.settings.name
        self.n = len(requests)
        self.prompt_ids = requests[0].prompt_ids
        self.tokenizer = service.tokenizer
        self._service = service
        self._requests = requests
        self._names = names

    async def say(self, *, streamed: bool) -> AsyncGenerator[tuple[int, Said], None]:
        readers = [CompletionReader(self.tokenizer, stop=request.stop) for request in self._requests]
        async with aclosing(self._service.run(self._requests, streamed=streamed)) as stream:
            async for index, news in stream:
                if isinstance(news, Part):
                    yield index, Said(self._named(readers[index].feed(news.ids)), part=news)
                    continue
                end = End(
                    news.finish_reason, news.stop, len(self.prompt_ids), len(news.ids), cached_tokens=news.cached_tokens
                )
                yield index, Said(self._named(readers[index].close()), end=end)

    def _named(self, events: Sequence[Event]) -> tuple[Event, ...]:
        """With the client's names of tools."""
        return tuple(
            CallBegin(e.index, e.id, self._names.to_client(e.name)) if isinstance(e, CallBegin) else e for e in events
        )
