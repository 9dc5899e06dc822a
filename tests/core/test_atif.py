"""A trajectory survives the interchange format unchanged, and foreign or damaged files give one sentence."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk2.core import Message, Step, Task, ToolCall, ToolResult, ToolSpec, Trajectory, Turn, UserError, Verdict
from openk2.core.atif import from_atif, read_atif, to_atif, write_atif
from openk2.core.messages import compact_json

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, json_values, max_size=3)
arguments = (
    objects.map(compact_json) | texts | st.just('{"a": NaN}') | st.just('{"a":1,"a":2}') | json_values.map(json.dumps)
)
ids = st.lists(st.integers(0, 5000), max_size=5).map(tuple)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    task = Task(draw(texts), "f", "s", draw(st.integers(0, 9)), draw(texts), draw(objects), "test")
    trajectory = Trajectory(
        task=task,
        policy="nano",
        tools=(ToolSpec("t", draw(texts), {"type": "object", "properties": draw(objects)}),),
        messages=[Message("system", draw(texts)), Message("user", draw(texts))],
        verdict=Verdict(draw(st.none() | st.booleans()), draw(texts)),
        stop=draw(st.sampled_from(["answered", "interrupted"])),
        seconds=1.5,
    )
    for _ in range(draw(st.integers(0, 3))):
        calls = tuple(
            ToolCall(draw(st.sampled_from(["functions.t:0", "functions.t:1"])), "t", draw(arguments))
            for _ in range(draw(st.integers(0, 2)))
        )
        completion = draw(ids)
        message = Message(
            "assistant",
            draw(texts),
            calls,
            name=draw(st.none() | texts),
            token_ids=draw(st.sampled_from([None, completion, (*completion, 7)])) or None,
        )
        malformed = draw(st.none() | texts)
        turn = Turn(
            message,
            "stop",
            draw(ids),
            completion,
            (-0.25,) * len(completion),
            malformed,
            draw(st.sampled_from(["", "m"])),
        )
        step = Step(turn, seconds=0.5)
        trajectory.messages.append(message)
        for call in calls[: draw(st.integers(0, len(calls)))]:
            result = ToolResult(draw(texts), draw(st.booleans()))
            step.results.append((call, result))
            trajectory.messages.append(Message("tool", result.content, tool_call_id=call.id, name="t"))
        trajectory.steps.append(step)
        if draw(st.booleans()):
            trajectory.messages.append(Message("user", draw(texts)))
    return trajectory


# On a busy machine examples are not drawn quickly.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(trajectories())
def test_round_trip_through_json(trajectory: Trajectory) -> None:
    text = json.dumps(to_atif(trajectory).to_json_dict(), allow_nan=False)
    assert from_atif(json.loads(text)) == trajectory


def test_round_trip_of_a_conversation_without_steps(tmp_path) -> None:
    call = ToolCall("functions.t:0", "t", "{}")
    trajectory = Trajectory(
        Task("a", "f", "s", 0, "hi"),
        "expert",
        (),
        [
            Message("user", "hi"),
            Message("assistant", "", (call,)),
            Message("tool", "3", tool_call_id="functions.t:0", name="t"),
            Message("assistant", "three", name="calculator", token_ids=(4, 5)),
        ],
    )
    write_atif(tmp_path / "t.json", trajectory)
    assert read_atif(tmp_path / "t.json") == trajectory


def test_lone_surrogates_do_not_stop_the_record(tmp_path) -> None:
    call = ToolCall("functions.t:0", "t", '{"a":"\\ud800"}')
    message = Message("assistant", "x\ud800", (call,))
    trajectory = Trajectory(
        Task("a", "f", "s", 0, "hi"), "p", (), [Message("user", "\udcff"), message], [Step(Turn(message, "stop"))]
    )
    write_atif(tmp_path / "t.json", trajectory)
    kept = read_atif(tmp_path / "t.json")
    assert kept.messages[0].content == "?" and kept.messages[1].tool_calls[0] == call


def test_a_foreign_document_is_read() -> None:
    trajectory = from_atif(
        {
            "schema_version": "ATIF-v1.8",
            "session_id": "s1",
            "agent": {"name": "other", "version": "2"},
            "steps": [
                {"step_id": 1, "source": "user", "message": [{"type": "text", "text": "list"}]},
                {
                    "step_id": 2,
                    "source": "agent",
                    "message": "",
                    "tool_calls": [{"tool_call_id": "c1", "function_name": "ls", "arguments": {"path": "."}}],
                    "observation": {"results": [{"source_call_id": "c1", "content": "a.txt"}]},
                },
            ],
        }
    )
    assert trajectory.task.request == "list" and trajectory.policy == "other"
    assert trajectory.steps[0].results == [(ToolCall("c1", "ls", '{"path":"."}'), ToolResult("a.txt"))]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not JSON"),
        ("\x00\xff", "not JSON"),
        ("{}", "not a valid ATIF"),
        ("[]", "not a valid ATIF"),
        (
            '{"schema_version":"ATIF-v1.8","agent":{"name":"a","version":"1"},"steps":[],"extra":{"task":{"no":1}}}',
            "task",
        ),
    ],
)
def test_damaged_files(tmp_path, text: str, sentence: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        read_atif(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_atif(tmp_path / "none.json")


def test_equal_trajectories_with_other_clocks_are_the_only_difference() -> None:
    trajectory = Trajectory(Task("a", "f", "s", 0, "hi"), "p", (), seconds=1.0)
    assert from_atif(to_atif(replace(trajectory, seconds=2.0))) == replace(trajectory, seconds=2.0)
