"""Trajectories for other programs: everything that was said, called and offered arrives there, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from openk2.core import Message, Step, Task, ToolCall, ToolResult, ToolSpec, Trajectory, Turn, UserError, Verdict
from openk2.core.atif import from_atif, read_atif, to_atif, write_atif
from openk2.core.runs import sha256_file
from openk2.data.export import FORMS, export, open_source
from openk2.data.lake import Lake
from openk2.worlds.apps.world import AppTask
from shared.runs import damaged, few

NAMES = {"openai": "a.jsonl", "trl": "a.parquet", "verl": "a.parquet", "verifiers": "a.parquet", "atif": "a"}
SPEC = ToolSpec("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})


def played(name: str, passed: bool | None, arguments: str = '{"at":"é"}') -> Trajectory:
    """One call, its result, and an answer."""
    call = ToolCall("functions.look:0", "look", arguments)
    said = Message("assistant", "I look.", (call,))
    answer = Message("assistant", f"{name} is there")
    messages = [Message("system", "Be kind."), Message("user", "Look!"), said]
    messages += [Message("tool", '{"n": 1}', tool_call_id=call.id, name="look"), answer]
    steps = [Step(Turn(said, "tool_calls"), [(call, ToolResult('{"n": 1}'))]), Step(Turn(answer, "stop"))]
    task = Task(name, "own", "looking", 1, "Look!", {"expect": [1, "x"]}, "test")
    return Trajectory(task, "someone", (SPEC,), messages, steps, Verdict(passed, "" if passed else "not found"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder as evaluations leave it."""
    folder = tmp_path / "saved"
    for name, passed in (("own_1", True), ("own_2", False), ("own_3", None)):
        write_atif(folder / "own" / f"{name}.json", played(name, passed))
    write_atif(folder / "other" / "own_1.json", played("other_1", False, '{"at": no'))
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def kept(run: Path) -> list[Trajectory]:
    return [from_atif(json.loads(atif)) for (atif,) in Lake(run).query("SELECT atif FROM trajectories")[1]]


def test_openai_has_all_that_was_said_and_offered(tmp_path: Path) -> None:
    done = export(few(), "openai", tmp_path / "a.jsonl")
    rows, wanted = lines(done.path), kept(few())
    assert done.rows == len(rows) == len(wanted) > 20
    for row, trajectory in zip(rows, wanted, strict=True):
        assert list(row) == ["messages", "tools"]
        assert [Message.from_openai(raw) for raw in row["messages"]] == trajectory.messages
        assert tuple(ToolSpec.from_openai(raw) for raw in row["tools"]) == trajectory.tools


def test_openai_is_what_its_client_declares(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
    from pydantic import TypeAdapter

    export(few(), "openai", tmp_path / "a.jsonl")
    messages, tools = TypeAdapter(list[ChatCompletionMessageParam]), TypeAdapter(list[ChatCompletionToolParam])
    for row in lines(tmp_path / "a.jsonl"):
        messages.validate_python(row["messages"], strict=False)
        tools.validate_python(row["tools"])


def test_trl_has_arguments_as_objects(tmp_path: Path) -> None:
    export(few(), "trl", tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.names == ["messages", "tools"]
    assert table.schema.field("messages").type == pa.list_(pa.json_())
    calls = 0
    for row, trajectory in zip(table.to_pylist(), kept(few()), strict=True):
        raw = [json.loads(message) for message in row["messages"]]
        for message in raw:
            for call in message.get("tool_calls", ()):
                assert isinstance(call["function"]["arguments"], dict)
                calls += 1
        assert [Message.from_openai(message) for message in raw] == trajectory.messages
        assert tuple(ToolSpec.from_openai(json.loads(tool)) for tool in row["tools"]) == trajectory.tools
    assert calls > 20


def test_verl_has_what_executes_a_task_again(tmp_path: Path) -> None:
    export(few(), "verl", tmp_path / "a.parquet")
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    for index, (row, trajectory) in enumerate(zip(rows, kept(few()), strict=True)):
        assert row["data_source"] == "openk2/apps" and row["reward_model"]["style"] == "rule"
        assert [m["role"] for m in row["prompt"]] == ["system", "user"]
        assert row["prompt"][1]["content"] == trajectory.task.request
        extra = row["extra_info"]
        assert extra["index"] == index and extra["split"] == "train"
        task = Task(**json.loads(extra["task"]))
        assert task == trajectory.task and extra["id"] == task.id
        rubric = AppTask.model_validate(task.data).rubric
        assert json.loads(row["reward_model"]["ground_truth"]) == rubric.model_dump(mode="json")
        assert [tool["function"]["name"] for tool in json.loads(extra["tools"])] == [t.name for t in trajectory.tools]


def test_verifiers_in_both_kinds_of_file(tmp_path: Path) -> None:
    export(few(), "verifiers", tmp_path / "a.parquet")
    export(few(), "verifiers", tmp_path / "a.jsonl")
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert rows == lines(tmp_path / "a.jsonl")
    for row, trajectory in zip(rows, kept(few()), strict=True):
        info = json.loads(row["info"])
        assert Task(**info["openk2_task"]) == trajectory.task and row["id"] == trajectory.task.id
        assert [ToolSpec(**tool) for tool in info["tool_defs"]] == list(trajectory.tools)
        assert row["answer"] == trajectory.answer and len(row["prompt"]) == 2


def test_atif_of_a_run(tmp_path: Path) -> None:
    done = export(few(), "atif", tmp_path / "a")
    files = sorted((tmp_path / "a").rglob("*.json"))
    assert len(files) == done.rows and files[0].parent.name == "few"
    wanted = {trajectory.task.id: trajectory for trajectory in kept(few())}
    for file in files:
        found = read_atif(file)
        assert found == wanted[found.task.id]
    # And what was exported can be exported.
    assert export(tmp_path / "a", "openai", tmp_path / "a.jsonl").rows == done.rows


def test_failed_ones_are_left_out_or_labelled(tmp_path: Path) -> None:
    run = damaged(tmp_path / "run")
    good, total = len(kept(run)), len(kept(few()))
    assert export(run, "trl", tmp_path / "a.parquet").rows == good == total - 1
    assert export(run, "trl", tmp_path / "b.parquet", everything=True).rows == total
    rows = pq.read_table(tmp_path / "b.parquet").to_pylist()
    assert list(rows[0]) == ["prompt", "completion", "tools", "label", "score"]
    assert [row["label"] for row in rows] == [False] + [True] * good and rows[0]["score"] == 0.4
    first = kept(few())[0]
    texts = [*rows[0]["prompt"], *rows[0]["completion"]]
    assert [Message.from_openai(json.loads(text)) for text in texts] == first.messages
    assert [json.loads(text)["role"] for text in rows[0]["prompt"]] == ["system", "user"]
    assert json.loads(rows[0]["completion"][0])["role"] == "assistant"
    export(run, "openai", tmp_path / "b.jsonl", everything=True)
    assert [row["passed"] for row in lines(tmp_path / "b.jsonl")] == [False] + [True] * good
    assert lines(tmp_path / "b.jsonl")[0]["score"] == 0.4


def test_a_folder_of_an_evaluation(saved: Path, tmp_path: Path) -> None:
    done = export(saved, "openai", tmp_path / "a.jsonl")
    assert (done.rows, done.failed) == (2, 2)
    rows = lines(tmp_path / "a.jsonl")
    assert [row["messages"][-1]["content"] for row in rows] == ["own_1 is there", "own_3 is there"]
    assert rows[0]["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"at":"é"}'
    assert rows[0]["messages"][3]["tool_call_id"] == rows[0]["messages"][2]["tool_calls"][0]["id"]
    export(saved, "openai", tmp_path / "b.jsonl", everything=True)
    assert [(row["passed"], row["score"]) for row in lines(tmp_path / "b.jsonl")] == [
        (False, 0.0),
        (True, 1.0),
        (False, 0.0),
        (None, None),
    ]
    # Text that is no object stays text.
    export(saved, "trl", tmp_path / "b.parquet", everything=True)
    first = pq.read_table(tmp_path / "b.parquet").to_pylist()[0]
    assert json.loads(first["completion"][0])["tool_calls"][0]["function"]["arguments"] == '{"at": no'
    export(saved, "atif", tmp_path / "a", everything=True)
    assert sorted(f.relative_to(tmp_path / "a").as_posix() for f in (tmp_path / "a").rglob("*.json")) == [
        "other/own_1.json",
        "own/own_1.json",
        "own/own_2.json",
        "own/own_3.json",
    ]


def test_a_task_is_one_row_however_often_it_was_tried(tmp_path: Path) -> None:
    for number in range(3):
        write_atif(tmp_path / "in" / f"{number}.json", played("same", True))
    assert export(tmp_path / "in", "verl", tmp_path / "a.parquet").rows == 1
    assert export(tmp_path / "in", "verifiers", tmp_path / "a.jsonl").rows == 1
    assert export(tmp_path / "in", "openai", tmp_path / "b.jsonl").rows == 3
    row = pq.read_table(tmp_path / "a.parquet").to_pylist()[0]
    assert row["ability"] == "looking" and row["extra_info"]["split"] == "test"
    assert json.loads(row["reward_model"]["ground_truth"]) == {"expect": [1, "x"]}


def test_halves_of_characters_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    text = json.dumps(to_atif(played("x", True)).to_json_dict()).replace("I look.", "\\ud800")
    (tmp_path / "in" / "x.json").write_text(text)
    for to, name in (("openai", "a.jsonl"), ("trl", "t.parquet"), ("verl", "v.parquet"), ("verifiers", "f.parquet")):
        assert export(tmp_path / "in", to, tmp_path / name).rows == 1
    assert lines(tmp_path / "a.jsonl")[0]["messages"][2]["content"] == "?"


def all_bytes(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): sha256_file(file) for file in files}


@pytest.mark.parametrize("to", FORMS)
def test_the_bytes_are_the_same(to: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    export(few(), to, tmp_path / "one" / NAMES[to], watch=lambda done, total: seen.append((done, total)))
    export(few(), to, tmp_path / "two" / NAMES[to])
    assert all_bytes(tmp_path / "one" / NAMES[to]) == all_bytes(tmp_path / "two" / NAMES[to])
    total = open_source(few()).total
    assert seen == [(at, total) for at in range(total + 1)]


@pytest.mark.parametrize("to", FORMS)
def test_what_is_there_is_replaced_when_that_is_said(to: str, saved: Path, tmp_path: Path) -> None:
    target = tmp_path / NAMES[to]
    export(saved, to, target, everything=True)
    before = all_bytes(target)
    with pytest.raises(UserError, match=r"is there already: name another, or give --force"):
        export(few(), to, target)
    assert all_bytes(target) == before
    export(few(), to, target, force=True)
    assert all_bytes(target) != before
    export(saved, to, target, everything=True, force=True)
    assert all_bytes(target) == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("to", FORMS)
def test_nothing_is_left_of_what_was_stopped(to: str, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(few(), to, tmp_path / NAMES[to], watch=stop)
    assert not list(tmp_path.iterdir())


def write(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "in").mkdir()
        (folder / "in" / "x.json").write_text(text)
        return folder / "in"

    return make


def not_finished(folder: Path) -> Path:
    (damaged(folder / "run") / "synth" / "kept.parquet").unlink()
    return folder / "run"


def judged_otherwise(folder: Path) -> Path:
    path = damaged(folder / "run") / "synth" / "kept.parquet"
    pq.write_table(pq.read_table(path).slice(0, 12), path)
    return folder / "run"


def failed(folder: Path) -> Path:
    write_atif(folder / "in" / "x.json", played("x", False))
    return folder / "in"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none", "there is no folder .*none: name a run of synth or rl"),
        (lambda folder: folder, "has no trajectories: name a folder"),
        (lambda folder: write("{}")(folder) / "x.json", "is a file: name the folder"),
        (write("{"), r"x\.json is not JSON: take it out"),
        (write("[]"), r"x\.json is not a trajectory: take it out"),
        (write("{}"), r"x\.json: not a valid ATIF trajectory: .*; take it out"),
        (not_finished, "is not finished, so nothing is decided .*synth run command goes on"),
        (judged_otherwise, "are not those that were judged: run the synth run command"),
        (failed, "has nothing to export: all 1 trajectories failed: --all exports them"),
    ],
)
def test_sources_that_cannot_be(make: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    source = make(tmp_path)
    for to in FORMS:
        with pytest.raises(UserError, match=words):
            export(source, to, tmp_path / "out" / NAMES[to])
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.is_relative_to(tmp_path / "out")]


@pytest.mark.parametrize(
    ("to", "name", "words"),
    [
        ("csv", "a.csv", "there is no format 'csv': use one of openai, trl, verl, verifiers, atif"),
        ("openai", "a.parquet", r"openai is a file: name one that ends in \.jsonl, and not "),
        ("verifiers", "a", r"ends in \.parquet or \.jsonl"),
        ("openai", "folder.jsonl", "is a folder: name a file"),
        ("atif", "file", "is a file, and atif is a folder: name a folder"),
        ("atif", "full", "has files that no export wrote"),
        ("atif", "saved", "are one within the other"),
        ("atif", "saved/more", "are one within the other"),
        ("atif", ".", "are one within the other"),
    ],
)
def test_targets_that_cannot_be(to: str, name: str, words: str, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    if name == "full":
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "notes.txt").write_text("mine")
    if name == "file":
        (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=words):
        export(saved, to, tmp_path / name, force=True)
    assert len(list(saved.rglob("*.json"))) == 4


def test_without_the_packages(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"Parquet needs pyarrow: pip install 'openk2\[data\]'"):
        export(saved, "trl", tmp_path / "a.parquet")
    # What is text needs nothing.
    assert export(saved, "openai", tmp_path / "a.jsonl").rows == 2
