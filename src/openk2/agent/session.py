"""One session of the agent: requests, a folder of yours, a policy, and the record that stays.

Tools act on a staged copy of the folder. At the end of a request what they have changed is reviewed, and what is taken
over is merged into the folder, where it can be taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from openk2.agent.request import csvs_that_are_no_tables
from openk2.agent.review import Accept, Entry, Review
from openk2.agent.setup import record_name, warn
from openk2.agent.staging import Change, Conflict, Stage
from openk2.agent.store import Stored, writing
from openk2.agent.tools import Checked, Tool
from openk2.core import (
    NANO_SYSTEM,
    Event,
    Limits,
    Message,
    OnEvent,
    Policy,
    Step,
    Task,
    ToolCall,
    ToolResult,
    ToolSpec,
    Trajectory,
)
from openk2.core.atif import read_atif, write_atif
from openk2.rollout import rollout
from openk2.sandbox import Sandbox
from openk2.worlds.machine import EDIT_FILE, WRITE_FILE, MachineWorld
from openk2.worlds.text import clean

STOPPED = "stopped by the user"
"""The result of a call during which the person pressed Ctrl-C."""


class SessionWorld(MachineWorld):
    """A staged copy of a person's folder over several requests: Python's variables and what was said stay until `end`.

    Where `sandbox` is frozen the file tools write nothing either. `system` is what the model is told at first.
    """

    def __init__(self, stage: Stage, sandbox: Sandbox, system: str = NANO_SYSTEM) -> None:
        self.stage = stage
        # What is large is a link into the person's own folder, and git says where its own is.
        self.sandbox = replace(sandbox, reads=(*sandbox.reads, *map(str, stage.shared.values())))
        super().__init__(stage.folder, sandbox=self.sandbox)
        self._system = system
        self._more = Checked(())
        self.said: list[Message] = []

    def offer(self, tools: Sequence[Tool]) -> None:
        """Tools beside the machine's own."""
        self._more = Checked(tools)

    @property
    def tools(self) -> Sequence[ToolSpec]:
        return (*super().tools, *self._more.specs)

    async def call(self, call: ToolCall) -> ToolResult:
        if call.name in self._more:
            return await self._more.call(call)
        if self.sandbox.frozen and call.name in (WRITE_FILE.name, EDIT_FILE.name):
            return ToolResult("the workspace is read-only", error=True)
        names = [tool.name for tool in self.tools]
        if call.name not in names:
            return ToolResult(f"no tool named {clean(call.name[:80])}: use {', '.join(names)}", error=True)
        return await super().call(call)

    async def start(self, task: Task) -> list[Message]:
        return [*(self.said or [Message("system", self._system)]), Message("user", task.request)]

    async def close(self) -> None:
        """The end of one request is not the end of the session."""

    async def end(self) -> None:
        await super().close()


@dataclass(slots=True)
class Outcome:
    """What came of the changes of a request: entries that were taken over and refused, and what could not be merged."""

    taken: list[Entry] = field(default_factory=list)
    refused: list[Entry] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        return {
            "taken": [entry.to_json() for entry in self.taken],
            "refused": [entry.to_json() for entry in self.refused],
            "conflicts": [{"path": one.change.path, "reason": one.reason} for one in self.conflicts],
        }


class Session:
    """Requests one after the other, each with the whole of the limits; one record for all of them."""

    def __init__(self, policy: Policy, world: SessionWorld, limits: Limits, stored: Stored, watch: OnEvent) -> None:
        self.policy, self.world, self.limits, self.watch = policy, world, limits, watch
        self.stored = stored
        self.record = stored.record
        self.last: Trajectory | None = None
        """What was said and done so far, also where a request was stopped."""
        self._first: Task | None = None
        self._steps: list[Step] = []
        self._seconds = 0.0
        self.bad_input: list[str] = []
        """Why the CSVs that the last request was about are no tables, if nothing but Python worked on them."""

    def go_on(self, earlier: Trajectory) -> None:
        """Behind an earlier session. Python's variables are gone."""
        self._keep(earlier)

    async def ask(self, request: str) -> Trajectory:
        """Work on a request; the trajectory, like the record, is that of the conversation up to here.

        What the tools have changed is in the stage, and `settle` decides about it.
        """
        await asyncio.to_thread(self.world.stage.refresh)
        no_tables = await asyncio.to_thread(csvs_that_are_no_tables, request, self.world.stage.workspace)
        for sentence in no_tables:
            warn(sentence)
        again = self._first is not None
        if not again and self.record.exists():
            self.record = self.record.with_name(f"{record_name()}.json")
        self.stored.asked(request)
        task = Task(f"agent/{self.stored.id}", "agent", "agent", seed=0, request=request)

        def show(event: Event) -> None:
            # The earlier requests are on the screen already, and nothing can verify what a person wanted.
            if event.kind != "verdict" and not (again and event.kind == "user"):
                self.watch(event)

        try:
            trajectory = await rollout(self.policy, self.world, task, self.limits, on_event=show, record=self.record)
        except asyncio.CancelledError:
            # The person wants to say something else: what was done until then is part of the conversation.
            if self.record.exists():
                self._join(read_atif(self.record))
            raise
        used = {call.name for step in trajectory.steps for call, _ in step.results}
        self.bad_input = no_tables if used <= {"python"} else []
        return self._join(trajectory)

    async def settle(self, request: str, accept: Accept) -> Outcome:
        """Take over what `accept` wants of what the tools have changed. Raises UserError if the disk is full."""
        stage = self.world.stage
        changes = await asyncio.to_thread(stage.changes)
        found = Review(stage, changes)
        if not found.entries:
            return Outcome()
        taken = list(accept(found))
        chosen = found.changes_of(taken)
        paths = {change.path for change in chosen}
        wanted = {entry.path for entry in taken}
        conflicts = []
        if chosen:
            conflicts = await asyncio.to_thread(self._merge, chosen, request)
        await asyncio.to_thread(stage.reset, [change for change in changes if change.path not in paths])
        return Outcome(taken, [entry for entry in found.entries if entry.path not in wanted], conflicts)

    def _merge(self, changes: Sequence[Change], request: str) -> list[Conflict]:
        # Another session may be writing for a while.
        with writing():
            return self.world.stage.merge(changes, self.stored.next_turn(request))

    def _join(self, trajectory: Trajectory) -> Trajectory:
        """Behind what was said and done before, in the record too."""
        if trajectory.steps:
            # A call that was stopped has no result, which no model has ever seen.
            step = trajectory.steps[-1]
            for call in step.turn.message.tool_calls[len(step.results) :]:
                step.results.append((call, ToolResult(STOPPED, error=True)))
                trajectory.messages.append(Message("tool", STOPPED, tool_call_id=call.id, name=call.name))
        if self._first is not None:
            trajectory.task = self._first
            trajectory.steps[:0] = self._steps
            trajectory.seconds += self._seconds
            write_atif(self.record, trajectory)
        self._keep(trajectory)
        return trajectory

    def _keep(self, trajectory: Trajectory) -> None:
        self.last = trajectory
        self._first, self._steps, self._seconds = trajectory.task, trajectory.steps, trajectory.seconds
        self.world.said = trajectory.messages

    def forget(self) -> None:
        """Begin a new conversation, with a record of its own. Files and Python's variables stay."""
        self._first, self._steps, self._seconds = None, [], 0.0
        self.world.said = []
