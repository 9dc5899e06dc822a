"""Many rollouts in step with each other, on one engine, in an order that is a function of the seeds alone.

The engine goes on only when every rollout either waits for it or is over, and requests join the batch in the order of
their rollouts. So floats are added in the same order in every run, and a run that goes on from a checkpoint makes the
same bytes as one that was never stopped. Worlds that answer at once lose nothing by it; slow ones are waited for.

A generation that goes round in a circle is cut short: it is not going to end by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from openk2.engine import Batch, Engine, Generation, Request
from openk2.policy.local import LocalPolicy

T = TypeVar("T")
_CHECK_EVERY = 16
_LONGEST_PERIOD = 16
_REPEATED_IDS = 64
"""So many ids that repeat what stood one period before are a circle."""


def is_circle(ids: Sequence[int]) -> bool:
    """Whether the last `_REPEATED_IDS` ids repeat a pattern of at most `_LONGEST_PERIOD`."""
    tail = ids[-_REPEATED_IDS - _LONGEST_PERIOD :]
    if len(tail) < _REPEATED_IDS + _LONGEST_PERIOD:
        return False
    end = len(tail)
    return any(
        tail[end - _REPEATED_IDS :] == tail[end - _REPEATED_IDS - period : end - period]
        for period in range(1, _LONGEST_PERIOD + 1)
    )


@dataclass(slots=True)
class _Asked:
    place: int
    turn: int
    request: Request
    future: Future[Generation]


class Seat:
    """The place of one rollout: what it asks goes to the sampler under its number."""

    def __init__(self, sampler: Sampler, place: int) -> None:
        self._sampler, self._place = sampler, place
        self.circles = 0
        """How many of its generations were cut short."""

    def submit(self, request: Request) -> Future[Generation]:
        return self._sampler.ask(self, self._place, request)

    def close(self) -> None:
        """The sampler goes on."""

    def policy(self, *, grammar: bool, temperature: float, seed: int) -> LocalPolicy:
        """Who answers in this rollout."""
        return LocalPolicy(
            self._sampler.engine, grammar=grammar, temperature=temperature, seed=seed, name="policy", worker=self
        )


@dataclass(slots=True)
class Sampler:
    """Generates for the rollouts that `run` is given. `engine` computes with weights that do not change meanwhile."""

    engine: Engine
    _asked: list[_Asked] = field(default_factory=list)
    _seats: dict[int, Seat] = field(default_factory=dict)
    _waiting: int = 0
    _live: int = 0
    _failed: Exception | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def run(self, rollouts: Sequence[Callable[[Seat], Awaitable[T]]], at_once: int) -> list[T]:
        """Do all rollouts, `at_once` at a time, each with a seat of its own. Raises what a rollout raises."""
        return asyncio.run(self._run(rollouts, at_once))

    def ask(self, seat: Seat, place: int, request: Request) -> Future[Generation]:
        future: Future[Generation] = Future()
        self._seats[place] = seat
        self._asked.append(_Asked(place, len(self._asked), request, future))
        self._waiting += 1
        self._news.set()
        return future

    async def _run(self, rollouts: Sequence[Callable[[Seat], Awaitable[T]]], at_once: int) -> list[T]:
        self._asked, self._seats, self._waiting, self._live, self._news = [], {}, 0, 0, asyncio.Event()
        self._failed = None
        batch = self.engine.batch()
        running: dict[int, _Asked] = {}
        tasks: list[asyncio.Task[T]] = []
        todo = iter(enumerate(rollouts))
        step = 0
        try:
            while True:
                while self._live < at_once and (following := next(todo, None)) is not None:
                    tasks.append(self._begin(*following))
                await self._quiet()
                if self._failed is not None:
                    raise self._failed
                if self._live == 0:
                    break
                for asked in sorted(self._asked, key=lambda one: (one.place, one.turn)):
                    running[batch.add(asked.request)] = asked
                self._asked.clear()
                step += 1
                complete = batch.step()
                if step % _CHECK_EVERY == 0:
                    complete += self._cut_circles(batch, running, {index for index, _ in complete})
                for index, generation in complete:
                    self._waiting -= 1
                    running.pop(index).future.set_result(generation)
                    # One after the other: what blocks in the first of them can still spare the rest.
                    await asyncio.sleep(0)
                    if self._failed is not None:
                        raise self._failed
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [task.result() for task in tasks]

    def _begin(self, place: int, rollout: Callable[[Seat], Awaitable[T]]) -> asyncio.Task[T]:
        async def live() -> T:
            try:
                return await rollout(Seat(self, place))
            except Exception as e:
                self._failed = self._failed or e
                raise
            finally:
                self._live -= 1
                self._news.set()

        self._live += 1
        return asyncio.create_task(live())

    async def _quiet(self) -> None:
        """Until every live rollout waits for the engine, or one has failed."""
        while self._waiting < self._live and self._failed is None:
            self._news.clear()
            await self._news.wait()

    def _cut_circles(
        self, batch: Batch, running: dict[int, _Asked], complete: set[int]
    ) -> list[tuple[int, Generation]]:
        cut: list[tuple[int, Generation]] = []
        known = {index: 0 for index in running if index not in complete}
        for index, part in batch.parts(known):
            if is_circle(part.ids):
                batch.drop(index)
                self._seats[running[index].place].circles += 1
                cut.append((index, Generation(part.ids, part.logprobs, "length")))
        return cut
