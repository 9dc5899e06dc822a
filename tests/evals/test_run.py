"""Success rates: the counting, the output that others script against, and its errors."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import Limits, Message, Task, ToolSpec, Trajectory, Turn, UserError, Verdict
from openk2.core.atif import read_atif
from openk2.core.errors import Interrupted
from openk2.core.families import get_family
from openk2.core.rates import wilson
from openk2.evals import run
from openk2.evals.run import Report, evaluate, evaluate_families, held_out_tasks, rows_of


@settings(deadline=None)
@given(st.integers(1, 2000), st.data())
def test_intervals_hold_the_rate_and_shrink(n: int, data: Any) -> None:
    passed = data.draw(st.integers(0, n))
    low, high = wilson(passed, n)
    assert 0 <= low <= passed / n + 1e-4 and passed / n - 1e-4 <= high <= 1
    wider = wilson(passed, n, z=2.58)
    assert wider[0] <= low and high <= wider[1]


def test_known_intervals() -> None:
    """Wilson's interval by its textbook values."""
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10) == (0.7225, 1.0)
    assert wilson(5, 10) == (0.2366, 0.7634)
    assert wilson(270, 300) == (0.8608, 0.9291)


def _trajectory(task: Task, passed: bool) -> Trajectory:
    return Trajectory(task=task, policy="x", tools=(), verdict=Verdict(passed, "because"))


def test_a_report_counts_by_skill() -> None:
    report = Report("functions")
    for seed in range(10):
        skill = "chain2" if seed % 2 else "single"
        task = Task(f"t/{seed}", "functions", skill, seed, "do", {"opaque": seed == 3})
        report.add(_trajectory(task, passed=seed < 6), rows_of(task))
    raw = report.to_json()
    assert list(raw)[:6] == ["family", "n", "passed", "rate", "ci95", "by_skill"]
    assert (raw["n"], raw["passed"], raw["rate"]) == (10, 6, 0.6)
    assert raw["ci95"][0] < 0.6 < raw["ci95"][1]
    assert {skill: row["n"] for skill, row in raw["by_skill"].items()} == {"chain2": 5, "opaque": 1, "single": 5}
    assert raw["stops"] == {"answered": 10}
    json.dumps(raw)


@pytest.mark.parametrize("name", run.EVALUATED)
def test_every_family_gives_held_out_tasks(name: str) -> None:
    tasks = held_out_tasks(name, 5, seed=1)
    assert len(tasks) == 5 or name in ("real", "handwritten")
    assert all(task.split == "test" for task in tasks)
    again, other = held_out_tasks(name, 5, seed=1), held_out_tasks(name, 5, seed=2)
    assert [t.id for t in again] == [t.id for t in tasks]
    if name not in ("real", "handwritten"):
        assert not {t.request for t in other} & {t.request for t in tasks}


class Expert:
    """Solves a task as its family demonstrates it, found again by the request."""

    name = "expert"

    def __init__(self, demonstrations: dict[str, Sequence[Message]]) -> None:
        self._demonstrations = demonstrations

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        request = next(m.content for m in messages if m.role == "user")
        said = sum(m.role == "assistant" for m in messages)
        turn = [m for m in self._demonstrations[request] if m.role == "assistant"][said]
        return Turn(turn, "tool_calls" if turn.tool_calls else "stop")

    async def close(self) -> None: ...


async def test_the_expert_passes_and_trajectories_are_kept(tmp_path: Path) -> None:
    family = get_family("functions")
    tasks = held_out_tasks(family.name, 6, seed=5)
    policy = Expert({task.request: family.demonstrate(task).messages for task in tasks})
    report = await evaluate(policy, family, tasks, concurrency=3, save=tmp_path)
    assert report.to_json()["passed"] == 6, report.failures
    files = sorted((tmp_path / "functions").glob("*.json"))
    assert len(files) == 6
    assert {read_atif(file).task.id for file in files} == {task.id for task in tasks}


async def test_tasks_of_one_id_are_kept_in_files_of_their_own(tmp_path: Path) -> None:
    family = get_family("functions")
    tasks = held_out_tasks(family.name, 4, seed=5)
    policy = Expert({task.request: family.demonstrate(task).messages for task in tasks})
    same = [replace(task, id=name) for task, name in zip(tasks, ["one/1", "one/1", "ONE/1", "é" * 900], strict=True)]
    await evaluate(policy, family, same, concurrency=2, save=tmp_path)
    files = sorted((tmp_path / "functions").glob("*.json"))
    assert len(files) == 4
    assert sorted(read_atif(file).task.request for file in files) == sorted(task.request for task in tasks)


class Failing(Expert):
    def __init__(self) -> None:
        super().__init__({})

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        raise UserError("this policy is of no use")


async def test_what_goes_wrong_in_one_rollout_is_told_as_it_is() -> None:
    family = get_family("functions")
    with pytest.raises(UserError, match="of no use"):
        await evaluate(Failing(), family, held_out_tasks(family.name, 4, 1), concurrency=2, limits=Limits(steps=2))


class Interrupting(Expert):
    """Presses Ctrl-C in the third rollout."""

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        if messages[1].content == list(self._demonstrations)[2]:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        return await super().act(messages, tools, max_tokens=max_tokens)


def test_ctrl_c_counts_what_was_finished(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    family = get_family("functions")
    tasks = held_out_tasks(family.name, 12, seed=1)
    policy = Interrupting({task.request: family.demonstrate(task).messages for task in tasks})
    monkeypatch.setattr(run, "_policy", lambda *_: policy)
    with pytest.raises(Interrupted, match="counts only what was finished"):
        _evaluate("functions", concurrency=1)
    cut = json.loads(capsys.readouterr().out)
    assert (cut["n"], cut["passed"], cut["of"], cut["interrupted"]) == (2, 2, 12, True)
    with pytest.raises(Interrupted):
        _evaluate("functions", concurrency=1, as_json=False)
    assert "2 of 12 tasks were finished" in capsys.readouterr().out


def _evaluate(*families: str, model: str = "baseline", **changes: Any) -> None:
    options: dict[str, Any] = {
        "n": 12,
        "seed": 1,
        "grammar": True,
        "concurrency": 4,
        "save": None,
        "device": "cpu",
        "assume_yes": True,
        "as_json": True,
    }
    evaluate_families(model, families, **options | changes)


def test_the_json_that_others_read(capsys: pytest.CaptureFixture[str]) -> None:
    _evaluate("functions")
    first = json.loads(capsys.readouterr().out)
    assert first["family"] == "functions" and first["n"] == 12
    assert first["rate"] == round(first["passed"] / 12, 4)
    low, high = first["ci95"]
    assert low <= first["rate"] <= high
    assert sum(row["n"] for skill, row in first["by_skill"].items() if skill != "opaque") == 12
    _evaluate("functions")
    assert json.loads(capsys.readouterr().out) == first, "the same seed, the same tasks"


def test_the_table_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _evaluate("functions", as_json=False, n=30)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].strip() == "functions" and lines[1].split() == ["skill", "n", "passed", "rate", "95", "%", "CI"]
    (whole,) = [line.split() for line in lines if line.startswith("all ")]
    assert whole[1] == "30" and whole[3].endswith("%")
    assert max(map(len, lines)) <= 80 and "\x1b" not in out
    assert "failed functions/test/" in out and "more; --save DIR" in out


def test_reasons_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    report = Report("x")
    task = Task("t/1", "x", "y", 0, "z")
    trajectory = _trajectory(task, False)
    trajectory.verdict = Verdict(False, "not [/bold] but [38.79] \x1b[31m")
    report.add(trajectory, ["y"])
    run.print_report(Console(), report)
    assert "failed t/1: not [/bold] but [38.79]" in capsys.readouterr().out


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no task family 'poetry': use one of functions"):
        _evaluate("functions", "poetry")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no trajectories can be written to"):
        _evaluate("functions", save=tmp_path / "file" / "x")


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_evaluate_all", stopped)
    with pytest.raises(Interrupted, match="only what was finished; the trajectories of the finished tasks are in"):
        _evaluate("functions", save=tmp_path)


def test_the_baseline_needs_no_torch() -> None:
    """So that a look at the tasks is quick."""
    import subprocess

    code = (
        "import sys\nfrom openk2.evals.run import evaluate_families\n"
        "evaluate_families('baseline', ['functions'], n=2, seed=1, grammar=True, concurrency=2, save=None,"
        " device='cpu', assume_yes=True, as_json=True)\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
