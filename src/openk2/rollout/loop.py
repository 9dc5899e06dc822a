"""One rollout: the policy speaks, the world answers, within limits, and code judges the end.

The agent, evaluation, data synthesis and reinforcement learning all run this same function.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from openk2.core import (
    ContextOverflow,
    Event,
    Halt,
    Limits,
    Message,
    OnEvent,
    Policy,
    Step,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    UserError,
    Verdict,
    World,
)
from openk2.core.trajectory import StopReason
from openk2.rollout.record import Recorder
from openk2.rollout.replay import COMPLAINT, retrace

SAME_FAILURES = 3
"""So many identical failing calls in a row end a rollout: the policy is stuck."""

OUT_OF_TIME = "stopped: the time for this task is over"
"""The result of a call during which the time was over."""

T = TypeVar("T")


class _Stop(Exception):
    """The rollout is over for this reason."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason: StopReason = reason


async def rollout(
    policy: Policy,
    world: World,
    task: Task,
    limits: Limits | None = None,
    *,
    on_event: OnEvent | None = None,
    record: Path | None = None,
    earlier: Trajectory | None = None,
) -> Trajectory:
    """Let `policy` act in `world` on `task` until it answers or a limit is reached, then verify.

    Calls of one turn are executed in order. A malformed tool section is told back to the policy once; the second one
    ends the rollout, and so do `SAME_FAILURES` identical failing calls in a row. The verdict is computed whatever the
    end was, but an unfinished rollout never passes. The world is always closed; the policy is not, it may be shared.

    With `record`, every step is appended to `record` with the suffix `.jsonl` while the rollout runs; at the end the
    whole trajectory is written to `record` in ATIF. When the rollout is cancelled or interrupted, the partial
    trajectory is written and the exception goes on. Raises what the policy or the world raises.

    A policy that pauses (`Halt`) leaves a trajectory that has no verdict; as `earlier` it is gone on with. All that it
    did is then done again in `world`; raises UserError if that gives something else.
    """
    run = _Rollout(policy, world, task, limits or Limits(), on_event, Recorder(record) if record else None, earlier)
    return await run.run()


class _Rollout:
    def __init__(
        self,
        policy: Policy,
        world: World,
        task: Task,
        limits: Limits,
        on_event: OnEvent | None,
        recorder: Recorder | None,
        earlier: Trajectory | None,
    ) -> None:
        self.policy, self.world, self.task, self.limits = policy, world, task, limits
        self.on_event, self.recorder = on_event, recorder
        self.began = time.monotonic()
        self.trajectory = Trajectory(task=task, policy=policy.name, tools=())
        self.earlier = earlier
        self.last_failure: tuple[str, str] | None = None
        self.failures = 0
        self.malformed = 0

    async def run(self) -> Trajectory:
        trajectory = self.trajectory
        # Until the loop ends by itself, whatever ends it is an interruption.
        trajectory.stop = "interrupted"
        if self.recorder is not None:
            self.recorder.open()
        try:
            try:
                await (self._start() if self.earlier is None else self._go_on(self.earlier))
                while True:
                    await self._turn()
            except _Stop as stop:
                trajectory.stop = stop.reason
            trajectory.verdict = await self._verdict()
        finally:
            trajectory.seconds = time.monotonic() - self.began
            try:
                await self.world.close()
            finally:
                if self.recorder is not None:
                    self.recorder.close(trajectory)
        self._emit(Event("verdict", self.task, verdict=trajectory.verdict))
        return trajectory

    async def _start(self) -> None:
        messages = await self._timed(self.world.start(self.task))
        self.trajectory.tools = tuple(self.world.tools)
        if self.recorder is not None:
            self.recorder.start(self.trajectory)
        self._emit(Event("start", self.task))
        for message in messages:
            self._say(message)

    async def _go_on(self, earlier: Trajectory) -> None:
        if difference := await self._timed(retrace(earlier, self.world)):
            raise UserError(f"{self.task.id} cannot go on where it was paused: {difference}")
        self.trajectory.tools = earlier.tools
        self.trajectory.messages[:] = earlier.messages
        self.trajectory.steps[:] = earlier.steps
        self.malformed = earlier.messages.count(COMPLAINT)
        for call, result in (pair for step in earlier.steps for pair in step.results):
            self._note_failure(call, result)

    async def _turn(self) -> None:
        """One assistant turn with everything that follows from it. Raises _Stop at the end of the rollout."""
        trajectory = self.trajectory
        if len(trajectory.steps) >= self.limits.steps:
            raise _Stop("steps")
        began = time.monotonic()
        try:
            turn = await self._timed(
                self.policy.act(tuple(trajectory.messages), trajectory.tools, max_tokens=self.limits.tokens)
            )
        except ContextOverflow as e:
            raise _Stop("context") from e
        except Halt as e:
            raise _Stop(e.reason) from e
        step = Step(turn)
        trajectory.steps.append(step)
        trajectory.messages.append(turn.message)
        self._emit(Event("assistant", self.task, message=turn.message))
        try:
            if turn.finish_reason == "length":
                raise _Stop("length")
            for call in turn.message.tool_calls:
                await self._call(step, call)
        finally:
            step.seconds = time.monotonic() - began
            if self.recorder is not None:
                self.recorder.step(step)
        if turn.malformed is not None:
            self._complain()
        elif not turn.message.tool_calls:
            await self._answered(turn)

    async def _call(self, step: Step, call: ToolCall) -> None:
        self._emit(Event("call", self.task, call=call))
        try:
            result = await self._timed(self.world.call(call))
        except _Stop:
            self._returned(step, call, ToolResult(OUT_OF_TIME, error=True))
            raise
        self._returned(step, call, result)
        self._note_failure(call, result)
        if self.failures >= SAME_FAILURES:
            raise _Stop("repeated")

    def _note_failure(self, call: ToolCall, result: ToolResult) -> None:
        if not result.error:
            self.last_failure, self.failures = None, 0
            return
        failure = (call.name, call.arguments)
        self.failures = self.failures + 1 if failure == self.last_failure else 1
        self.last_failure = failure

    def _returned(self, step: Step, call: ToolCall, result: ToolResult) -> None:
        step.results.append((call, result))
        self.trajectory.messages.append(Message("tool", result.content, tool_call_id=call.id, name=call.name))
        self._emit(Event("tool_result", self.task, call=call, result=result))

    def _complain(self) -> None:
        self.malformed += 1
        if self.malformed > 1:
            raise _Stop("malformed")
        self._say(COMPLAINT)

    async def _answered(self, turn: Turn) -> None:
        reply = await self._timed(self.world.reply(turn.message))
        if reply is None:
            raise _Stop("answered")
        self._say(reply)

    async def _verdict(self) -> Verdict:
        if self.trajectory.stop == "paused":
            return Verdict(None, "paused")
        if not self.trajectory.messages:
            # The world was not set up in time: there is nothing that it could look at.
            return Verdict(False, f"not begun ({self.trajectory.stop})")
        verdict = await self.world.verify(tuple(self.trajectory.messages))
        if verdict.passed and not self.trajectory.finished:
            return Verdict(False, f"not finished ({self.trajectory.stop})")
        return verdict

    def _say(self, message: Message) -> None:
        """Add a message that the policy did not write."""
        self.trajectory.messages.append(message)
        if self.recorder is not None:
            self.recorder.message(message)
        if message.role == "user":
            self._emit(Event("user", self.task, message=message))

    async def _timed(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await within what is left of the time limit. Raises _Stop("seconds") when it is over."""
        left = self.limits.seconds - (time.monotonic() - self.began)
        if left <= 0:
            coroutine.close()
            raise _Stop("seconds")
        try:
            async with asyncio.timeout(left) as timeout:
                return await coroutine
        except TimeoutError as e:
            # Only our own clock is a limit; a TimeoutError from inside is a failure of the policy or the world.
            if timeout.expired():
                raise _Stop("seconds") from e
            raise

    def _emit(self, event: Event) -> None:
        if self.on_event is not None:
            self.on_event(event)
