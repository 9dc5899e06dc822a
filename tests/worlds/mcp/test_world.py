"""A live server as a world, and the same again from its recording."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from openk2.core import Limits, Message, Task, ToolCall, ToolSpec, Turn, UserError, World
from openk2.rollout import rollout
from openk2.worlds.mcp.live import Launch
from openk2.worlds.mcp.world import MCPWorld, ReplayWorld, add, canonical, read_server

EXPECT = {"calls": [{"name": "add_note", "arguments": {"text": "milk"}}], "forbidden": ["picture"], "told": ["milk"]}
CALLS: list[tuple[str, str]] = [
    ("list_notes", "{}"),
    ("add_note", '{"text": "milk"}'),
    ("list_notes", "{ }"),
    ("add_note", "{}"),
    ("add_note", '{"text"'),
    ("notes_count", "{}"),
    ("nothing_such", "{}"),
]


def task(**data: Any) -> Task:
    return Task("notes/1", "mcp", "notes", 0, "note: milk", {"server": "notes.json", **data})


class Script:
    """A policy that makes its calls and says its answer."""

    name = "script"

    def __init__(self, calls: Sequence[tuple[str, str]], answer: str) -> None:
        self._turns = [Message("assistant", "", (ToolCall("c", *call),)) for call in calls]
        self._turns.append(Message("assistant", answer))

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        message = self._turns.pop(0)
        return Turn(message, "tool_calls" if message.tool_calls else "stop")

    async def close(self) -> None:
        return None


@pytest.fixture
async def folder(tmp_path: Path, good: Launch) -> Path:
    await add(good, "notes", tmp_path / "notes.json", timeout=30)
    return tmp_path


async def test_a_rollout_and_its_replay_are_the_same(folder: Path) -> None:
    live = MCPWorld(folder)
    assert isinstance(live, World)
    first = await rollout(Script(CALLS, "milk is noted"), live, task(expect=EXPECT))
    assert first.verdict is not None and first.verdict.passed
    assert live.session == folder / "notes.sessions" / "notes-1-0001.jsonl"
    replay = ReplayWorld(folder)
    assert isinstance(replay, World)
    second = await rollout(Script(CALLS, "milk is noted"), replay, task(expect=EXPECT))
    assert second.messages == first.messages and second.tools == first.tools
    assert second.verdict == first.verdict
    contents = [message.content for message in first.messages if message.role == "tool"]
    assert contents[:4] == ["none", "note 1 added", "milk", "a note needs a text"]
    assert "no JSON object" in contents[4] and contents[5] == "1" and "there is no tool" in contents[6]


async def test_what_was_not_recorded_is_said(folder: Path) -> None:
    await rollout(Script(CALLS[:3], "done"), MCPWorld(folder), task())
    replay = ReplayWorld(folder)
    await replay.start(task(session="notes-1-0001.jsonl"))
    other = await replay.call(ToolCall("c", "add_note", '{"text":"eggs"}'))
    assert other.error and json.loads(other.content) == {"error": "this call of add_note was not recorded"}
    assert [(await replay.call(ToolCall("c", "list_notes", "{}"))).content for _ in range(2)] == ["none", "milk"]
    third = await replay.call(ToolCall("c", "list_notes", "{}"))
    assert third.error and "only 2 times recorded" in third.content
    assert (await replay.verify([])).passed is None
    await replay.close()


async def test_rollouts_at_the_same_time_have_sessions_of_their_own(folder: Path) -> None:
    worlds = [MCPWorld(folder) for _ in range(3)]
    for world in worlds:
        await world.start(task())
    for number, world in enumerate(worlds):
        await world.call(ToolCall("c", "add_note", json.dumps({"text": f"n{number}"})))
    for number, world in enumerate(worlds):
        assert (await world.call(ToolCall("c", "list_notes", "{}"))).content == f"n{number}"
        await world.close()
    assert len({world.session for world in worlds}) == 3


@pytest.mark.parametrize(
    ("calls", "answer", "reason"),
    [
        ([], "milk", "add_note did not succeed with"),
        ([("add_note", '{"text":"eggs"}')], "milk", "add_note did not succeed with"),
        ([("add_note", '{"text":"milk"}'), ("picture", "{}")], "milk", "picture was called"),
        ([("add_note", '{"text":"milk"}')], "done", "the answer does not say milk"),
    ],
)
async def test_expectations_that_are_not_met(
    folder: Path, calls: list[tuple[str, str]], answer: str, reason: str
) -> None:
    done = await rollout(Script(calls, answer), MCPWorld(folder), task(expect=EXPECT))
    assert done.verdict is not None and done.verdict.passed is False and reason in done.verdict.reason


async def test_bad_files_are_a_sentence(folder: Path) -> None:
    file = folder / "notes.json"
    good = json.loads(file.read_text())
    for change, words in (
        ({"command": []}, "must have a command or a url"),
        ({"sessions": "../up"}, "sessions"),
        ({"sessions": ".."}, "must name a folder"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools.0.name"),
        ({"extra": 1}, "extra"),
    ):
        file.write_text(json.dumps(good | change))
        with pytest.raises(UserError, match=words):
            read_server(file)
    file.write_bytes(b"\xff{")
    with pytest.raises(UserError, match="no world file"):
        read_server(file)
    with pytest.raises(UserError, match="cannot be read"):
        await MCPWorld(folder).start(task(server="none.json"))
    with pytest.raises(UserError, match=r"the data of task notes/1: expect\.calls\.0\.name"):
        await MCPWorld(folder).start(task(expect={"calls": [{}]}))
    file.write_text(json.dumps(good))
    with pytest.raises(UserError, match="no recorded sessions"):
        await ReplayWorld(folder).start(task())
    sessions = folder / "notes.sessions"
    sessions.mkdir()
    (sessions / "a.jsonl").write_text('{"name":"x","arguments":"{}","content":"y"}\n{"name"\n')
    with pytest.raises(UserError, match="line 2 is no recorded call"):
        await ReplayWorld(folder).start(task())


async def test_a_server_that_cannot_be_started_ends_the_rollout(folder: Path) -> None:
    file = folder / "notes.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"command": ["no-such-program"]}))
    with pytest.raises(UserError, match="it cannot be started"):
        await rollout(Script([], ""), MCPWorld(folder), task())


async def test_a_rollout_whose_time_is_over(hostile: Callable[[str], Launch], pids: Path, tmp_path: Path) -> None:
    await add(hostile("hang"), "notes", tmp_path / "notes.json", timeout=30)
    done = await rollout(Script([("go", "{}")], "done"), MCPWorld(tmp_path), task(), Limits(seconds=2))
    assert done.stop == "seconds" and "stopped" in done.messages[-1].content
    assert not Path(f"/proc/{pids.read_text()}").exists()


async def test_a_hanging_call_is_recorded_as_it_was_answered(hostile: Callable[[str], Launch], tmp_path: Path) -> None:
    await add(hostile("hang"), "notes", tmp_path / "notes.json", timeout=30)
    live = await rollout(Script([("go", "{}")], "done"), MCPWorld(tmp_path, timeout=1), task())
    replay = await rollout(Script([("go", "{}")], "done"), ReplayWorld(tmp_path), task())
    assert live.stop == "answered" and live.messages == replay.messages
    assert "did not answer go within 1 s" in live.messages[2].content


def test_equal_arguments_are_equal() -> None:
    assert canonical('{"b": 1, "a": [1, {"d": 2, "c": "é"}]}') == canonical('{"a":[1,{"c":"\\u00e9","d":2}],"b":1}')
    assert canonical("{") == "{"
