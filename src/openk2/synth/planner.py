"""A policy that knows the plan: the expert whose trajectories need no model.

It follows the plan of its task and reacts to what comes between: a call that failed for a fault is made again. One
planner serves one rollout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from openk2.chat import call_id
from openk2.core import Message, ToolCall, ToolSpec, Turn
from openk2.core.messages import compact_json
from openk2.worlds.apps.world import PlannedCall, PlanTurn

_MOST_RETRIES = 2
"""As often as that a call is made again: what fails three times in a row is given up by the loop."""


class Planner:
    """Follows the turns of a plan."""

    name = "planner"

    def __init__(self, plan: Sequence[PlanTurn]) -> None:
        self._plan = plan
        self._turn = self._wave = self._calls = self._retries = 0
        self._asked = False
        self._sent: dict[str, PlannedCall] = {}

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        """The next step of the plan."""
        again = self._failed(messages)
        if again and self._retries < _MOST_RETRIES:
            self._retries += 1
            return self._call(again)
        self._retries = 0
        turn = self._plan[self._turn]
        if turn.question and not self._asked:
            self._asked = True
            return Turn(Message("assistant", turn.question), "stop", model=self.name)
        if self._wave < len(turn.waves):
            self._wave += 1
            return self._call(turn.waves[self._wave - 1])
        self._turn, self._wave, self._asked = self._turn + 1, 0, False
        return Turn(Message("assistant", turn.answer), "stop", model=self.name)

    def _failed(self, messages: Sequence[Message]) -> list[PlannedCall]:
        """The calls of the last step that a fault has stopped."""
        failed = []
        for message in reversed(messages):
            if message.role != "tool":
                break
            if message.content.startswith('{"error"') and json.loads(message.content).get("retry"):
                failed.append(self._sent[message.tool_call_id or ""])
        return failed[::-1]

    def _call(self, planned: Sequence[PlannedCall]) -> Turn:
        calls = tuple(
            ToolCall(call_id(call.name, self._calls + i), call.name, compact_json(call.arguments))
            for i, call in enumerate(planned)
        )
        self._calls += len(calls)
        self._sent = {call.id: one for call, one in zip(calls, planned, strict=True)}
        return Turn(Message("assistant", "", calls), "tool_calls", model=self.name)

    async def close(self) -> None:
        """Nothing to close."""
