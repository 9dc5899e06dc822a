"""A running record says all that the trajectory has."""

from __future__ import annotations

from pathlib import Path

import pytest

from openk2.core import Message, Step, Task, ToolCall, ToolResult, ToolSpec, Trajectory, Turn, Usage, UserError
from openk2.rollout import recover
from openk2.rollout.record import Recorder

CALL = ToolCall("functions.look:0", "look", '{"at": 1}')
WRONG = ToolCall("functions.look:1", "look", "{not JSON")


def test_what_was_said_before_and_what_an_endpoint_counted_come_back(tmp_path: Path) -> None:
    tools = (ToolSpec("look", "Look.", {"type": "object"}),)
    whole = Trajectory(Task("t/1", "t", "s", 3, "Look.", {"a": [1]}, "test"), "endpoint", tools, stop="interrupted")
    recorder = Recorder(tmp_path / "t.json")
    recorder.open()
    recorder.start(whole)
    given = [
        Message("user", "Look."),
        Message("assistant", "", (CALL, WRONG)),
        Message("tool", "a tree", tool_call_id=CALL.id, name="look"),
        Message("tool", "what?", tool_call_id=WRONG.id, name="look"),
        Message("assistant", "A tree."),
        Message("user", "Again, é."),
    ]
    for message in given:
        recorder.message(message)
    turn = Turn(Message("assistant", "", (CALL,)), "tool_calls", model="big", usage=Usage(12, 5, 3))
    step = Step(turn, [(CALL, ToolResult("a bush", error=True))], 0.5)
    recorder.step(step)
    recovered = recover(recorder.lines_path)
    whole.steps = [step]
    whole.messages = [*given, turn.message, Message("tool", "a bush", tool_call_id=CALL.id, name="look")]
    assert recovered == whole


def test_a_conversation_that_was_not_told_whole_is_kept_up_to_there(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "t.json")
    recorder.open()
    recorder.start(Trajectory(Task("t/1", "t", "s", 3, "Look."), "p", ()))
    recorder.message(Message("user", "Look."))
    recorder.message(Message("assistant", "", (CALL,)))
    assert [message.role for message in recover(recorder.lines_path).messages] == ["user"]
    recorder.message(Message("tool", "a tree", tool_call_id=CALL.id, name="look"))
    recovered = recover(recorder.lines_path)
    assert [message.role for message in recovered.messages] == ["user", "assistant", "tool"]
    assert recovered.stop == "interrupted"


OTHERS = ("hello", "{}", "[1]", '{"line":"start"}', "[]", "é")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has nothing yet"),
        ('{"steps": [', "has nothing yet"),
        *((f"{text}\n", "is not the record of a rollout") for text in OTHERS),
        (None, r"cannot be read \(Is a directory\)"),
    ],
)
def test_what_is_no_record_is_refused(text: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)
    with pytest.raises(UserError, match=says):
        recover(path)
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\)"):
        recover(tmp_path / "none.jsonl")
