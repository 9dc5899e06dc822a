"""A model behind an endpoint tries the tasks: nothing is asked for twice, and a failure loses nothing."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")
pytest.importorskip("openai")

from openk2.core import Message, Task, Trajectory, UserError
from openk2.core.atif import from_atif
from openk2.data.lake import Lake, read_rows
from openk2.policy.scripted import ScriptedPolicy
from openk2.rollout.loop import OUT_OF_TIME
from openk2.synth.attempts import must_answer
from openk2.synth.factory import run_factory
from openk2.synth.planner import Planner
from openk2.synth.recipe import SynthRecipe
from openk2.synth.verify import verify_run
from shared.played import Played, chunk, served

SORRY = [
    chunk({"role": "assistant", "content": "I'm sorry, I cannot do that."}),
    chunk({}, "stop"),
    {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 9, "total_tokens": 109}},
    "[DONE]",
]


def recipe(url: str, **attempts: Any) -> SynthRecipe:
    return SynthRecipe.model_validate(
        {
            "name": "asked",
            "domains": {"count": 4, "tools": 60},
            "tasks": {"count": 12, "in_a_row": 3, "per_shard": 5},
            "attempts": {"model": f"openai:m@{url}", "concurrency": 4, **attempts},
        }
    )


def test_attempts_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    played = Played((200, SORRY))
    with served(played) as url:
        status = run_factory(recipe(url, per_task=2, prompt_price=1000.0), tmp_path, workers=1)
    lake = Lake(tmp_path)
    assert status["attempts"] == 2 * status["tasks"] and status["finished"]
    assert lake.one("SELECT sum(steps) FROM attempts") == len(played.asked)
    assert lake.one("SELECT sum(prompt_tokens) FROM attempts") == 100 * len(played.asked)
    assert f"${len(played.asked) * 0.1:.2f}" in capsys.readouterr().err
    # Attempts at one task have seeds of their own, and each turn of one has the same.
    assert len({body["seed"] for body in played.asked}) == status["attempts"]
    assert verify_run(tmp_path, workers=1).to_json()["disagreed"] == 0
    assert 0 <= lake.one("SELECT min(difficulty) FROM tasks") <= lake.one("SELECT max(difficulty) FROM tasks") <= 1


def test_what_had_no_answer_is_asked_again_and_nothing_else(tmp_path: Path) -> None:
    def tired(body: Any) -> Any:
        return (200, SORRY) if len(played.asked) <= 9 else (400, {"error": {"message": "out of credit"}})

    played = Played(tired)
    with served(played) as url:
        with pytest.raises(UserError, match=r"out of credit.*asks again"):
            run_factory(recipe(url), tmp_path, workers=1)
        begun = Lake(tmp_path).status()
        assert not begun["finished"]
        played.begin((200, SORRY))
        status = run_factory(recipe(url), tmp_path, workers=1)
    assert status["finished"] and status["attempts"] == status["tasks"]
    rows = Lake(tmp_path).query("SELECT atif FROM attempts")[1]
    turns = [len(from_atif(json.loads(atif)).steps) for (atif,) in rows]
    # Of what was answered before, whole attempts alone are kept.
    assert len(played.asked) < sum(turns) <= len(played.asked) + 9
    assert not list(tmp_path.rglob("*.jsonl"))


def test_an_endpoint_that_hangs_has_not_answered(tmp_path: Path) -> None:
    hung = threading.Event()

    def hang(body: Any) -> Any:
        hung.wait(20)
        return 200, SORRY

    played = Played(hang)
    with served(played) as url:
        try:
            with pytest.raises(UserError, match=r"did not answer within the 5 seconds of an attempt.*asks again"):
                run_factory(recipe(url, seconds=5.0, concurrency=20), tmp_path, workers=1)
        finally:
            hung.set()
        assert not Lake(tmp_path).status()["finished"]
        played.begin((200, SORRY))
        # Who is slow can be given more time.
        status = run_factory(recipe(url, seconds=60.0, concurrency=2), tmp_path, workers=1)
    assert status["finished"] and status["attempts"] == status["tasks"]
    assert Lake(tmp_path).one("SELECT count(*) FROM attempts WHERE stop = 'seconds'") == 0


def test_a_call_that_takes_all_of_the_time_is_the_agents() -> None:
    task = Task("t/0", "f", "", 0, "do", {})
    policy = ScriptedPolicy([Message("assistant", "")])
    messages = [Message("user", "do"), Message("assistant", ""), Message("tool", OUT_OF_TIME)]
    trajectory = Trajectory(task=task, policy="m", tools=(), messages=messages, stop="seconds")
    must_answer(policy, trajectory, 5)
    trajectory.messages.pop()
    must_answer(policy, trajectory, 5)
    trajectory.messages.pop()
    with pytest.raises(UserError, match="did not answer within the 5 seconds"):
        must_answer(policy, trajectory, 5)


@pytest.mark.parametrize("said", [[], [Message("user", "do"), Message("assistant", "Done.")]])
def test_the_model_that_plays_the_user_may_be_the_one_that_hangs(said: list[Message]) -> None:
    task = Task("t/0", "f", "", 0, "do", {})
    trajectory = Trajectory(task=task, policy="m", tools=(), messages=said, stop="seconds")
    for policy in (ScriptedPolicy([]), Planner([])):
        must_answer(policy, trajectory, 5)
        with pytest.raises(UserError, match=r"^played did not answer within the 5 seconds"):
            must_answer(policy, trajectory, 5, "played")


def test_no_endpoint_is_one_sentence(tmp_path: Path) -> None:
    many = recipe("http://127.0.0.1:1").model_copy(
        update={"tasks": recipe("http://x").tasks.model_copy(update={"count": 40})}
    )
    with served(played := Played((401, {"error": {"message": "no"}}))) as url:
        many = many.model_copy(update={"attempts": many.attempts.model_copy(update={"model": f"openai:m@{url}"})})
        with pytest.raises(UserError, match=r"does not accept the API key.*attempts in a row had no answer"):
            run_factory(many, tmp_path, workers=1)
    assert len(played.asked) < 40


def test_more_tasks_ask_for_them_alone(tmp_path: Path) -> None:
    def limited(url: str, count: int) -> SynthRecipe:
        whole = recipe(url, per_task=2)
        return whole.model_copy(update={"tasks": whole.tasks.model_copy(update={"count": count})})

    played = Played((200, SORRY))
    with served(played) as url:
        run_factory(limited(url, 7), tmp_path / "grown", workers=1)
        before = dict(Lake(tmp_path / "grown").query("SELECT number || '/' || attempt, atif FROM attempts")[1])
        first = len(played.asked)
        with pytest.raises(UserError, match=r"holds attempts at 7 tasks"):
            run_factory(limited(url, 6), tmp_path / "grown", workers=1)
        status = run_factory(limited(url, 12), tmp_path / "grown", workers=1)
        asked = len(played.asked)
        run_factory(limited(url, 12), tmp_path / "at once", workers=1)
    assert status["attempts"] == 2 * status["tasks"] and not list(tmp_path.rglob("*.jsonl"))
    lake = Lake(tmp_path / "grown")
    assert lake.one("SELECT sum(steps) FROM attempts") == asked > first
    after = dict(lake.query("SELECT number || '/' || attempt, atif FROM attempts")[1])
    assert before.items() < after.items()
    for part in ("tasks", "attempts"):
        for path in (tmp_path / "grown" / "synth" / part).iterdir():
            assert path.read_bytes() == (tmp_path / "at once" / "synth" / part / path.name).read_bytes()
    assert len(played.asked) == 2 * asked


def test_damaged_tasks_are_made_anew_and_nobody_is_asked(tmp_path: Path) -> None:
    played = Played((200, SORRY))
    with served(played) as url:
        run_factory(recipe(url), tmp_path, workers=1)
        asked, attempts = len(played.asked), tmp_path / "synth" / "attempts" / "00001.parquet"
        whole = attempts.read_bytes()
        (tmp_path / "synth" / "tasks" / "00001.parquet").write_bytes(b"PAR1")
        assert run_factory(recipe(url), tmp_path, workers=1)["finished"]
    assert len(played.asked) == asked and attempts.read_bytes() == whole


def test_a_line_that_is_no_attempt_is_named(tmp_path: Path) -> None:
    played = Played((200, SORRY))
    with served(played) as url:
        run_factory(recipe(url), tmp_path, workers=1)
        shard = tmp_path / "synth" / "attempts" / "00001.parquet"
        row = next(iter(read_rows(shard)))
        shard.unlink()
        partial = shard.with_suffix(".partial.jsonl")
        good = json.dumps(row)
        old = json.dumps({name: value for name, value in row.items() if name != "malformed"})
        for bad in ('{"num', b"\xff\xfe", "[" * 100_000, '{"number": 5, "attempt": 0}', old,
                    json.dumps(row | {"n_calls": "two"}), json.dumps(row | {"atif": None}), "5"):  # fmt: skip
            line = bad if isinstance(bad, bytes) else bad.encode()
            partial.write_bytes(good.encode() + b"\n" + line + b"\n")
            with pytest.raises(UserError, match=r"00001\.partial\.jsonl, line 2, is no attempt of this version"):
                run_factory(recipe(url), tmp_path, workers=1)
        assert not shard.exists()
        partial.write_text(good + "\n", encoding="utf-8")
        asked = len(played.asked)
        assert run_factory(recipe(url), tmp_path, workers=1)["finished"] and len(played.asked) > asked


def test_a_users_model_that_hangs_at_its_first_word_is_one_sentence(tmp_path: Path) -> None:
    gone = threading.Event()

    def hang(asked: Any) -> tuple[int, Any]:
        gone.wait(20)
        return 200, SORRY

    raw = recipe("x").model_dump() | {"users": {"by_model": True}}
    with served(Played(hang)) as url:
        raw["attempts"] |= {"model": f"openai:m@{url}", "seconds": 2.0, "concurrency": 20}
        try:
            with pytest.raises(UserError, match=r"did not answer within the 2 seconds of an attempt"):
                run_factory(SynthRecipe.model_validate(raw), tmp_path, workers=1)
        finally:
            gone.set()


def test_a_call_that_cannot_be_read_is_no_data(tmp_path: Path) -> None:
    """Also where the attempt has passed: what is trained on is right as a whole."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    broken = [chunk({"role": "assistant", "tool_calls": [call]}), chunk({}, "tool_calls"), "[DONE]"]

    def tries_first(asked: Any) -> tuple[int, Any]:
        return 200, SORRY if any(message["role"] == "tool" for message in asked["messages"]) else broken

    with served(Played(tries_first)) as url:
        tasks = {"count": 60, "in_a_row": 3, "per_shard": 30}
        run_factory(SynthRecipe.model_validate(recipe(url).model_dump() | {"tasks": tasks}), tmp_path, workers=1)
    _, rows = Lake(tmp_path).query("SELECT malformed, dropped FROM tried JOIN verdicts USING (number, attempt)")
    assert {malformed for malformed, _ in rows} == {1}
    reasons = {dropped for _, dropped in rows}
    assert "a call that cannot be read" in reasons and "" not in reasons
