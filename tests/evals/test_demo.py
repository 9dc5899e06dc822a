"""The demo: real tasks that an expert can solve, events and a summary for machines, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from openk2.core import Event, Message, Task, ToolSpec, Turn
from openk2.core.atif import read_atif
from openk2.core.families import get_family
from openk2.evals.demo import KINDS, QUESTIONS, WHAT_NANO_IS_NOT, demo_tasks, run_demo, show

FAMILIES = ["real"] * QUESTIONS + [family for family, _ in KINDS]
TASKS = len(FAMILIES)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "state" / "openk2" / "trajectories"


@pytest.fixture
def shrug(tmp_path: Path) -> str:
    """A model that answers everything in the same way."""
    path = tmp_path / "shrug.jsonl"
    path.write_text('{"role": "assistant", "content": "I do not know."}\n')
    return f"script:{path}"


def demo(model: str, *, csv: Path | None = None, strict: bool = False, as_json: bool = True) -> int:
    return run_demo(csv=csv, model=model, assume_yes=True, strict=strict, device="cpu", as_json=as_json)


class Expert:
    """Solves the tasks of the demo as their families demonstrate them."""

    name = "expert"

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._known = {task.request: get_family(task.family).demonstrate(task).messages for task in tasks}

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        request = next(m.content for m in messages if m.role == "user")
        said = sum(m.role == "assistant" for m in messages)
        turn = [m for m in self._known[request] if m.role == "assistant"][said]
        return Turn(turn, "tool_calls" if turn.tool_calls else "stop")

    async def close(self) -> None: ...


async def test_an_expert_passes_every_task(tmp_path: Path) -> None:
    """With the real tools: three Jupyter kernels, shells, simulated functions."""
    tasks = demo_tasks(None)
    events: list[Event] = []
    verdicts: list[bool] = []
    await show(Expert([task for task, _ in tasks]), tasks, events.append, tmp_path / "records", verdicts)
    reasons = [e.verdict.reason for e in events if e.kind == "verdict" and e.verdict and not e.verdict.passed]
    assert verdicts == [True] * TASKS, reasons
    calls = {e.call.name for e in events if e.call is not None}
    assert {"python", "shell"} <= calls
    records = sorted((tmp_path / "records").iterdir())
    assert len(records) == TASKS
    assert [read_atif(r).task.family for r in records] == FAMILIES


def test_it_shows_what_it_promises() -> None:
    tasks = [task for task, _ in demo_tasks(None)]
    families = [task.family for task in tasks]
    assert families.count("real") == 3 and families.count("shell") == 2 and families.count("functions") == 2
    assert all(task.split == "test" for task in tasks)
    in_steps = [t for t in tasks if t.family == "functions" and len(t.data["tools"]) > 2 and len(t.data["groups"]) > 2]
    assert in_steps, "a task with several tools, in steps"
    assert [t.id for t, _ in demo_tasks(None)] == [t.id for t in tasks], "the same every time"


def test_json(shrug: str, capsys: pytest.CaptureFixture[str], state: Path) -> None:
    assert demo(shrug) == 0, "every task came to a verdict"
    captured = capsys.readouterr()
    assert captured.err == ""
    *events, summary = map(json.loads, captured.out.splitlines())
    assert summary == {"event": "summary", "passed": 0, "failed": TASKS, "tasks": TASKS}
    assert [e["event"] for e in events[:4]] == ["start", "user", "assistant", "verdict"]
    verdicts = [e for e in events if e["event"] == "verdict"]
    assert len(verdicts) == TASKS and all(e["passed"] is False and e["reason"] for e in verdicts)
    (folder,) = state.iterdir()
    assert len(list(folder.glob("*.json"))) == TASKS


def test_strict(shrug: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo(shrug, strict=True) == 1


def test_what_a_person_sees(shrug: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo(shrug, as_json=False) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "\x1b" not in out
    assert all(len(line) <= 80 for line in lines if not line.startswith("records: "))
    for number, family in enumerate(FAMILIES, start=1):
        assert any(line.startswith(f"{number}/{TASKS} {family}: ") for line in lines)
    assert lines.count("model   I do not know.") == TASKS
    assert sum(line.startswith("verdict failed: ") for line in lines) == TASKS
    assert f"0 passed, {TASKS} failed, judged by code" in out
    assert WHAT_NANO_IS_NOT[:20] not in out, "another model is not nano"


def test_own_csv_comes_first(shrug: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("name,points\nAnn,1\nBob,2\n")
    assert demo(shrug, csv=path) == 0
    starts = [e for e in map(json.loads, capsys.readouterr().out.splitlines()) if e["event"] == "start"]
    assert [e["family"] for e in starts][:3] == ["csv", "csv", "real"]
    assert starts[0]["request"] == "How many rows are in mine.csv?"


def test_what_nano_is_not_has_the_right_size() -> None:
    from openk2.model import ModelConfig, Transformer

    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        model = Transformer(ModelConfig.preset("nano"))
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert f"{millions:.1f} million parameters" in WHAT_NANO_IS_NOT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_keeps_what_was_done_and_nothing_else(tmp_path: Path, state: Path, number: signal.Signals) -> None:
    (tmp_path / "scratch").mkdir()
    script = tmp_path / "script.jsonl"
    arguments = json.dumps({"command": "sleep 500"})
    call = {"id": "", "type": "function", "function": {"name": "shell", "arguments": arguments}}
    script.write_text(json.dumps({"role": "assistant", "content": "", "tool_calls": [call]}) + "\n")
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from openk2.cli.main import main; main()"),
            *("demo", "--json", "--yes", "--model", f"script:{script}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "scratch")},
        # Whoever started the tests may have told them to ignore it.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert process.stdout is not None
    while json.loads(process.stdout.readline())["event"] != "call":
        pass
    time.sleep(0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1]) == {"event": "summary", "passed": 0, "failed": 0, "tasks": TASKS}
    assert err.startswith(f"openk2: interrupted: 0 of {TASKS} tasks were finished") and err.count("\n") == 1
    assert not [path for path in (tmp_path / "scratch").iterdir() if path.name.startswith("openk2")]
    (record,) = state.glob("demo-*/*.json")
    assert read_atif(record).stop == "interrupted"
