"""What was done before: sessions listed, a turn taken back, a session executed again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from openk2.agent.session import STOPPED, SessionWorld
from openk2.agent.setup import state_folder
from openk2.agent.staging import Stage
from openk2.agent.store import Stored, find, sessions, writing
from openk2.agent.tools import Todo, search_tools
from openk2.agent.undo import Record, Turn
from openk2.core import Message, ToolSpec, UserError
from openk2.core.runs import locked
from openk2.sandbox import Sandbox


def undo(workspace: Path, identifier: str = "") -> tuple[Record, dict[str, str]]:
    """Take back the last turn that changed something in a workspace, of one session if its id is given.

    Returns its record, and for each path that could not be taken back why. Raises UserError if there is no turn.
    """
    found = [find(identifier)] if identifier else sessions(workspace)
    with writing():
        # A session may have been gone on with after a later one.
        turns = sorted((turn for stored in found for turn in stored.turns), key=lambda turn: turn.at, reverse=True)
        for turn in turns:
            record = turn.read()
            if not record.undone:
                return record, turn.take_back()
    raise UserError(f"there is nothing to take back in {workspace}: see agent sessions, or name another --workspace")


@dataclass(frozen=True, slots=True)
class Divergence:
    """A call that gave something else than it did when the session was recorded. Steps are counted from 1."""

    step: int
    tool: str
    arguments: str
    was: str
    now: str

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@contextmanager
def staged(stored: Stored, workspace: Path) -> Iterator[Stage]:
    """The staged copy that a session works on, always at one place. Raises UserError while another process has it."""
    with locked(stored.folder, "look at it then"):
        folder = stored.folder / "stage"
        _remove(folder)
        folder.mkdir()
        try:
            yield Stage(workspace, folder / workspace.name, [state_folder()])
        finally:
            _remove(folder)


async def replay(stored: Stored, sandbox: Sandbox) -> Divergence | None:
    """Execute the calls of a session again, in the workspace as it was before: the first that gives something else.

    The workspace itself is not touched. Raises UserError for a session without a record, and if its changes were mixed
    up with others since, so that what was there before cannot be made again.
    """
    trajectory, turns = stored.trajectory(), [turn for turn in stored.turns if not turn.read().undone]
    before = stored.folder / "before"
    _remove(before)
    try:
        workspace = Path(stored.about.workspace)
        before.mkdir()
        home = Stage(workspace, before / workspace.name, [state_folder()])
        home.refresh()
        for turn in reversed(turns):
            if left := turn.take_back(home.folder):
                path, reason = next(iter(left.items()))
                raise UserError(f"the folder as it was before cannot be made again: {path}: {reason}")
        with staged(stored, home.folder) as stage:
            stage.refresh()
            world = SessionWorld(stage, sandbox)
            recorded = {tool.name for tool in trajectory.tools}
            own = [*search_tools(world.workspace, world.scratch, world.sandbox), Todo()]
            world.offer([tool for tool in own if tool.spec.name in recorded])
            try:
                return await _again(trajectory.messages, trajectory.tools, world, turns, before / "turns")
            finally:
                await world.end()
    finally:
        _remove(before)


async def _again(
    messages: list[Message], tools: Sequence[ToolSpec], world: SessionWorld, turns: list[Turn], folder: Path
) -> Divergence | None:
    elsewhere = {tool.name for tool in tools} - {tool.name for tool in world.tools}
    results = {message.tool_call_id: message.content for message in messages if message.role == "tool"}
    waiting, step, request = list(turns), 0, ""
    for message in messages:
        if message.role == "user":
            _settle(world.stage, request, waiting, folder)
            request = message.content
        if message.role != "assistant":
            continue
        step += 1
        for call in message.tool_calls:
            was = results.get(call.id)
            # What a person or somebody else's server has answered is not asked again.
            if was is None or was == STOPPED or call.name in elsewhere:
                continue
            result = await world.call(call)
            if result.content != was:
                return Divergence(step, call.name, call.arguments, was, result.content)
    return None


def _settle(stage: Stage, request: str, waiting: list[Turn], folder: Path) -> None:
    """What was taken over at the end of a request stays, the rest goes."""
    changes = stage.changes()
    taken: set[str] = set()
    if waiting and changes and (record := waiting[0].read()).request == request:
        taken = {kept.path for kept in record.kept}
        waiting.pop(0)
    stage.merge([change for change in changes if change.path in taken], Turn(folder / str(len(waiting))))
    stage.reset([change for change in changes if change.path not in taken])


def _remove(folder: Path) -> None:
    """Whatever programs have made of it, however deep, and nothing that a link leads to. They have ended by now."""
    if folder.exists():
        subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", "--", str(folder)], check=False, stderr=subprocess.DEVNULL)
