"""A world that is watched: what it raises, and what never comes back, is its own failure and names itself.

An episode whose world or verifier has failed says nothing about the policy, so it is left out, never scored 0.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar, cast

from openk2.core import Family, Message, Task, ToolCall, ToolResult, ToolSpec, UserError, Verdict, World
from openk2.core.errors import why

T = TypeVar("T")


class WorldFailed(Exception):
    """One sentence: which task, what of its world, and how. `hung` says that its time was over."""

    def __init__(self, sentence: str, *, hung: bool = False) -> None:
        super().__init__(sentence)
        self.hung = hung


class WatchedWorld:
    """The world of a family's task, with `seconds` for each thing that it does. Where there are `turns` it waits for
    its turn before that: hundreds of worlds that begin at once are not slow, the machine is.

    Raises WorldFailed, when it is made too.
    """

    def __init__(self, family: Family, task: Task, seconds: float, turns: asyncio.Semaphore | None = None) -> None:
        try:
            self._world = family.world(task)
        except (Exception, SystemExit) as e:
            raise WorldFailed(f"the world of {task.id} could not be made ({why(e)})") from e
        if not isinstance(self._world, World):
            raise WorldFailed(f"the world of {task.id} could not be made ({type(self._world).__name__} is no World)")
        self._task, self._seconds = task, seconds
        self._turns = turns or asyncio.Semaphore()

    @property
    def tools(self) -> Sequence[ToolSpec]:
        return self._world.tools

    async def start(self, task: Task) -> list[Message]:
        return await self._watch("could not be set up", lambda: self._world.start(task))

    async def call(self, call: ToolCall) -> ToolResult:
        return await self._watch(f"failed at {call.name}", lambda: self._world.call(call))

    async def reply(self, message: Message) -> Message | None:
        return await self._watch("failed at the user's answer", lambda: self._world.reply(message))

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        return await self._watch("could not be verified", lambda: self._verdict(messages))

    async def _verdict(self, messages: Sequence[Message]) -> Verdict:
        verdict = await self._world.verify(messages)
        if not isinstance(verdict, Verdict):
            raise UserError(f"its verifier gave {type(verdict).__name__} and no Verdict")
        if type(verdict.passed) not in (bool, type(None)) or not isinstance(verdict.reason, str):
            raise UserError("its verifier's verdict has something else than True, False or None, and a reason in words")
        return verdict

    async def close(self) -> None:
        await self._watch("could not be closed", self._world.close)

    async def _watch(self, what: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            async with self._turns, asyncio.timeout(self._seconds):
                return cast(T, await _Armed(begin(), self._seconds))
        except (TimeoutError, _Rang) as e:
            raise self._failed(what, f"not within {self._seconds:g} s", hung=True) from e
        except asyncio.CancelledError as e:
            # Ours, or one that the world's own code has raised?
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise self._failed(what, why(e)) from e
        except (Exception, SystemExit) as e:
            raise self._failed(what, why(e)) from e

    def _failed(self, what: str, why: str, *, hung: bool = False) -> WorldFailed:
        return WorldFailed(f"the world of {self._task.id} {what} ({why})", hung=hung)


class _Rang(BaseException):
    """The time is over. No Exception, so that a world's own handlers do not take it for one of theirs."""


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
    """Raise _Rang in the block when it takes longer, again each second. Only the main thread can be interrupted so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _Rang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
