"""The loop ends for the right reason, tells the truth about it, and cleans up."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from openk2.core import (
    ContextOverflow,
    Event,
    Limits,
    Message,
    Task,
    ToolCall,
    ToolResult,
    ToolSpec,
    Turn,
    UserError,
    Verdict,
)
from openk2.core.atif import read_atif
from openk2.rollout import recover, rollout

TASK = Task("t1", "echo", "say", 0, "say hi")
TOOLS = (ToolSpec("echo", "Echo.", {"type": "object", "properties": {"text": {"type": "string"}}}),)


def calls(*texts: str) -> Turn:
    made = tuple(ToolCall(f"functions.echo:{i}", "echo", json.dumps({"text": text})) for i, text in enumerate(texts))
    return Turn(Message("assistant", "", made), "tool_calls", (1, 2), (3, 4), (-0.5, -0.1))


def says(text: str) -> Turn:
    return Turn(Message("assistant", text, name="parrot"), "stop")


class Scripted:
    name = "scripted"

    def __init__(self, *turns: Turn | Callable[[], Turn]) -> None:
        self.turns = list(turns)
        self.seen: list[list[Message]] = []

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        self.seen.append(list(messages))
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        return turn() if callable(turn) else turn

    async def close(self) -> None: ...


class Echo:
    """Echoes; the text `fail` fails and `wait` never returns."""

    tools = TOOLS

    def __init__(self, replies: Sequence[str] = (), passed: bool | None = True) -> None:
        self.replies, self.passed = list(replies), passed
        self.heard: list[str] = []
        self.closed = 0

    async def start(self, task: Task) -> list[Message]:
        return [Message("system", "Echo."), Message("user", task.request)]

    async def call(self, call: ToolCall) -> ToolResult:
        text = call.parsed()["text"]
        self.heard.append(text)
        if text == "wait":
            await asyncio.sleep(3600)
        return ToolResult(text, error=text == "fail")

    async def reply(self, message: Message) -> Message | None:
        return Message("user", self.replies.pop(0)) if self.replies else None

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        return Verdict(self.passed)

    async def close(self) -> None:
        self.closed += 1


async def test_answer_after_calls() -> None:
    world, events = Echo(), list[Event]()
    done = await rollout(Scripted(calls("a", "b"), says("a b")), world, TASK, on_event=events.append)
    assert done.stop == "answered" and done.finished and done.answer == "a b" and done.verdict.passed
    assert world.heard == ["a", "b"] and world.closed == 1
    assert [m.role for m in done.messages] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert done.messages[4].tool_call_id == "functions.echo:1"
    assert [e.kind for e in events] == [
        "start", "user", "assistant", "call", "tool_result", "call", "tool_result", "assistant", "verdict",
    ]  # fmt: skip


async def test_the_simulated_user_may_go_on() -> None:
    done = await rollout(Scripted(says("to whom?"), says("done")), Echo(replies=["to Ann"]), TASK)
    assert [m.content for m in done.messages[2:]] == ["to whom?", "to Ann", "done"]


async def test_step_limit() -> None:
    world = Echo()
    done = await rollout(Scripted(calls("a")), world, TASK, Limits(steps=3))
    assert done.stop == "steps" and len(done.steps) == 3 and world.closed == 1
    assert done.verdict == Verdict(False, "not finished (steps)"), "an unfinished rollout never passes"


async def test_unfinished_without_a_verifier_has_no_verdict() -> None:
    done = await rollout(Scripted(calls("a")), Echo(passed=None), TASK, Limits(steps=1))
    assert done.verdict.passed is None


async def test_time_limit_stops_a_call_that_hangs() -> None:
    done = await rollout(Scripted(calls("a", "wait", "b")), Echo(), TASK, Limits(seconds=0.2))
    assert done.stop == "seconds"
    results = [result for _, result in done.steps[0].results]
    assert [r.error for r in results] == [False, True] and "time" in results[1].content


async def test_time_limit_of_zero_stops_before_the_first_turn() -> None:
    policy = Scripted(says("hi"))
    done = await rollout(policy, Echo(), TASK, Limits(seconds=0))
    assert done.stop == "seconds" and not policy.seen


async def test_cut_turn() -> None:
    done = await rollout(Scripted(Turn(Message("assistant", "I thi"), "length")), Echo(), TASK)
    assert done.stop == "length" and not done.verdict.passed


async def test_context_overflow() -> None:
    def overflow() -> Turn:
        raise ContextOverflow("3000 tokens do not fit into 2048")

    done = await rollout(Scripted(calls("a"), overflow), Echo(), TASK)
    assert done.stop == "context" and len(done.steps) == 1


async def test_malformed_is_told_back_once() -> None:
    bad = Turn(Message("assistant", ""), "tool_calls", malformed='{"text":')
    policy = Scripted(bad, calls("a"), says("a"))
    done = await rollout(policy, Echo(), TASK)
    assert done.stop == "answered"
    assert policy.seen[1][-1].role == "system" and "Malformed" in policy.seen[1][-1].content

    done = await rollout(Scripted(bad), Echo(), TASK)
    assert done.stop == "malformed" and len(done.steps) == 2


async def test_complete_calls_before_a_malformed_rest_count() -> None:
    cut = replace(calls("a"), malformed='{"text":')
    world = Echo()
    done = await rollout(Scripted(cut, says("a")), world, TASK)
    assert done.stop == "answered" and world.heard == ["a"]
    assert [m.role for m in done.messages[2:]] == ["assistant", "tool", "system", "assistant"]


async def test_three_identical_failing_calls_in_a_row_end_it() -> None:
    world = Echo()
    done = await rollout(Scripted(calls("fail")), world, TASK, Limits(steps=10))
    assert world.heard == ["fail"] * 3 and done.stop == "repeated"

    world = Echo()
    turns = [calls("fail"), calls("fail"), calls("a"), calls("fail"), says("well")]
    assert (await rollout(Scripted(*turns), world, TASK)).finished, "something else in between is progress"


async def test_a_failing_world_is_closed_and_its_error_goes_on() -> None:
    class Broken(Echo):
        async def verify(self, messages: Sequence[Message]) -> Verdict:
            raise UserError("the folder is gone")

    world = Broken()
    with pytest.raises(UserError, match="gone"):
        await rollout(Scripted(says("hi")), world, TASK)
    assert world.closed == 1


async def test_record_is_written_as_it_goes_and_as_atif_at_the_end(tmp_path) -> None:
    path, lines = tmp_path / "runs" / "t.json", tmp_path / "runs" / "t.jsonl"
    snapshots = []

    def watch(event: Event) -> None:
        if event.kind == "assistant":
            snapshots.append(recover(lines))

    policy = Scripted(calls("a", "fail"), says("b"), says("a"))
    done = await rollout(policy, Echo(["and?"]), TASK, on_event=watch, record=path)
    assert snapshots[2].messages == done.messages[:-1] and snapshots[2].stop == "interrupted"
    assert snapshots[1].steps[0].results == done.steps[0].results
    assert read_atif(path) == done
    assert not lines.exists()


async def test_cancelling_leaves_the_partial_trajectory(tmp_path) -> None:
    path, world = tmp_path / "t.json", Echo()
    running = asyncio.create_task(rollout(Scripted(calls("a"), calls("wait")), world, TASK, record=path))
    while "wait" not in world.heard:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    kept = read_atif(path)
    assert kept.stop == "interrupted" and kept.verdict.passed is None and len(kept.steps) == 2 and world.closed == 1
    assert [len(step.results) for step in kept.steps] == [1, 0]


async def test_recover_ignores_a_line_that_was_cut(tmp_path) -> None:
    lines = tmp_path / "t.jsonl"

    def watch(event: Event) -> None:
        if event.kind == "verdict":
            raise AssertionError("not reached")

    class Dies(Echo):
        async def reply(self, message: Message) -> Message | None:
            with lines.open("a") as f:
                f.write('{"line":"step","mess')
            recovered = recover(lines)
            assert [s.turn.completion_ids for s in recovered.steps] == [(3, 4), ()]
            return None

    await rollout(Scripted(calls("a"), says("a")), Dies(), TASK, record=tmp_path / "t.json")


async def test_a_record_that_cannot_be_written_is_said_before_any_work(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    policy, world = Scripted(says("hi")), Echo()
    with pytest.raises(UserError, match="choose another folder"):
        await rollout(policy, world, TASK, record=tmp_path / "file" / "t.json")
    assert not policy.seen
