"""A world that is watched: what it raises, and what never comes back, is its own failure and names itself.

An episode whose world or verifier has failed says nothing about the policy, so it is left out, never scored 0.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar, cast

from openk2.core import Message, Task, ToolCall, ToolResult, ToolSpec, UserError, Verdict, World

T = TypeVar("T")


class WorldFailed(Exception):
    """One sentence: which task, what of its world, and how."""


class WatchedWorld:
    """`world` with `seconds` for each thing that it does. It waits for its turn before that, where there are `turns`:
    hundreds of worlds that begin at once are not slow, the machine is."""

    def __init__(self, world: World, task: Task, seconds: float, turns: asyncio.Semaphore | None = None) -> None:
        self._world, self._task, self._seconds = world, task, seconds
        self._turns = turns or asyncio.Semaphore()

    @property
    def tools(self) -> Sequence[ToolSpec]:
        return self._world.tools

    async def start(self, task: Task) -> list[Message]:
        return await self._watch("could not be set up", self._world.start(task))

    async def call(self, call: ToolCall) -> ToolResult:
        return await self._watch(f"failed at {call.name}", self._world.call(call))

    async def reply(self, message: Message) -> Message | None:
        return await self._watch("failed at the user's answer", self._world.reply(message))

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        return await self._watch("could not be verified", self._verdict(messages))

    async def _verdict(self, messages: Sequence[Message]) -> Verdict:
        verdict = await self._world.verify(messages)
        if not isinstance(verdict, Verdict):
            raise UserError(f"its verifier gave {type(verdict).__name__} and no Verdict")
        return verdict

    async def close(self) -> None:
        await self._watch("could not be closed", self._world.close())

    async def _watch(self, what: str, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with self._turns, asyncio.timeout(self._seconds):
                return cast(T, await _Armed(work, self._seconds))
        except (Exception, SystemExit) as e:
            said = str(e).splitlines()
            why = said[0][:200] if said and not isinstance(e, TimeoutError) else ""
            why = why if isinstance(e, UserError) else f"{type(e).__name__}: {why}" if why else type(e).__name__
            if isinstance(e, TimeoutError):
                why = f"not within {self._seconds:g} s"
            raise WorldFailed(f"the world of {self._task.id} {what} ({why})") from e
        finally:
            # Who is cancelled while it waits for its turn has not begun.
            work.close()


class _Armed:
    """Awaits `work`; each stretch of it that does not give way to others may take so many seconds."""

    def __init__(self, work: Coroutine[Any, Any, Any], seconds: float) -> None:
        self._work, self._seconds = work, seconds

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                with _alarm(self._seconds):
                    waits_for = next(inner) if thrown is None else inner.throw(thrown)
            except StopIteration as end:
                return end.value
            thrown = None
            try:
                yield waits_for
            except BaseException as e:  # handed on to where it belongs
                thrown = e


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes longer. Only the main thread can be interrupted so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
