"""Several requests in one session: what stays, what each may spend, and what is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from openk2.agent.session import Session, SessionWorld
from openk2.agent.staging import Stage
from openk2.agent.store import About, Stored
from openk2.core import ContextOverflow, Event, Limits, Message, ToolCall, ToolSpec, Turn
from openk2.core.atif import read_atif
from openk2.sandbox import Sandbox


class Policy:
    """Says these turns one after the other and keeps what it was shown."""

    name = "test"

    def __init__(self, *turns: Message | Exception) -> None:
        self.turns = list(turns)
        self.shown: list[list[Message]] = []

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        self.shown.append(list(messages))
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return Turn(turn, "tool_calls" if turn.tool_calls else "stop", (1,), (2,), (-0.5,))

    async def close(self) -> None: ...


def says(text: str) -> Message:
    return Message("assistant", text)


def writes(path: str) -> Message:
    arguments = json.dumps({"path": path, "content": path})
    return Message("assistant", "", (ToolCall(f"functions.write_file:{path}", "write_file", arguments),))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Session, Policy, list[Event]]]:
    def session(*turns: Message | Exception, steps: int = 12) -> tuple[Session, Policy, list[Event]]:
        folder = tmp_path / "workspace"
        folder.mkdir()
        stage = Stage(folder, tmp_path / "stage")
        stage.refresh()
        policy, events = Policy(*turns), list[Event]()
        stored = Stored(tmp_path, About(workspace=str(folder), model="test", began="2026-01-01T00:00:00"))
        world = SessionWorld(stage, Sandbox("none"))
        return Session(policy, world, Limits(steps=steps), stored, events.append), policy, events

    return session


async def test_what_was_said_and_done_stays(make: Callable[..., tuple[Session, Policy, list[Event]]]) -> None:
    session, policy, events = make(writes("a"), says("Written."), says("It is a."))
    await session.ask("write a")
    trajectory = await session.ask("what is it?")
    await session.world.end()
    roles = ["system", "user", "assistant", "tool", "assistant", "user"]
    assert [m.role for m in policy.shown[-1]] == roles
    assert trajectory.task.request == "write a"
    assert trajectory.answer == "It is a."
    assert len(trajectory.steps) == 3
    recorded = read_atif(session.record)
    assert recorded.messages == trajectory.messages
    assert [s.turn.completion_ids for s in recorded.steps] == [(2,)] * 3
    assert [s.results[0][1].error for s in recorded.steps if s.results] == [False]
    # The person has typed the second request and need not see it again; nothing judges what they wanted.
    assert [e.message.content for e in events if e.kind == "user" and e.message] == ["write a"]
    assert not any(e.kind == "verdict" for e in events)


async def test_each_request_has_the_whole_of_the_limits(
    make: Callable[..., tuple[Session, Policy, list[Event]]],
) -> None:
    session, _, _ = make(writes("a"), says("one"), writes("b"), says("two"), writes("c"), writes("d"), steps=2)
    assert (await session.ask("1")).finished
    assert (await session.ask("2")).finished
    assert (await session.ask("3")).stop == "steps"
    await session.world.end()


async def test_a_conversation_that_is_too_long_can_be_left(
    make: Callable[..., tuple[Session, Policy, list[Event]]],
) -> None:
    session, policy, _ = make(says("one"), ContextOverflow("too long"), says("two"))
    first = session.record
    await session.ask("1")
    assert (await session.ask("2")).stop == "context"
    session.forget()
    assert (await session.ask("3")).finished
    await session.world.end()
    assert [m.content for m in policy.shown[-1] if m.role == "user"] == ["3"]
    assert session.record != first
    assert [m.content for m in read_atif(first).messages if m.role == "user"] == ["1", "2"]
    assert [m.content for m in read_atif(session.record).messages if m.role == "user"] == ["3"]
