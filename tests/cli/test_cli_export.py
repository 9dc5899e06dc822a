"""`openk2 export`, and what `openk2 synth` shows of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from openk2.data.lake import Lake
from shared.runs import damaged, few

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENK2_DATA", raising=False)


def test_export(cli: Run, tmp_path: Path) -> None:
    kept = Lake(few()).status()["kept"]
    target = tmp_path / "a.jsonl"
    done = cli("export", few(), "--to", "openai", target)
    assert done.code == 0 and done.out == f"{target}: {kept} rows\n"
    cli("export", few(), "--to", "openai", target).refused("is there already: name another, or give --force")
    done = cli("export", few(), "--to", "openai", target, "--force", "--json")
    assert json.loads(done.out) == {"path": str(target), "rows": kept, "failed": 0}
    cli("export", few(), "--to", "csv", target).refused("there is no format 'csv'")
    cli("export", tmp_path / "none", "--to", "atif", tmp_path / "a").refused("there is no folder")


def test_failed_ones_are_counted(cli: Run, tmp_path: Path) -> None:
    run = damaged(tmp_path / "run")
    assert cli("export", run, "--to", "atif", tmp_path / "a", "--all").code == 0
    done = cli("export", tmp_path / "a", "--to", "openai", tmp_path / "a.jsonl")
    assert done.out.endswith(" rows; 1 that failed are left out\n")


def test_report(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("openk2.synth.pictures.Picture.png", lambda self: b"")
    done = cli("synth", "report", few(), "--out", tmp_path)
    lines = done.out.splitlines()
    assert done.code == 0 and max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert str(tmp_path / "report.html") in lines and "kept trajectories" in done.out
    figures = json.loads(cli("synth", "report", few(), "--out", tmp_path, "--json").out)
    assert figures["counts"] == Lake(few()).status() and str(tmp_path / "coverage.png") in figures["paths"]
    cli("synth", "report", tmp_path).refused("is not a run of the data factory")
    cli("synth", "report", few(), "--out", tmp_path, "--compare", tmp_path / "none").refused("cannot be compared with")


def test_show(cli: Run, tmp_path: Path) -> None:
    done = cli("synth", "show", few(), "--n", "2", "--seed", "4")
    assert done.code == 0 and done.out.count("\n## Task ") == 2
    assert (
        cli("synth", "show", few(), "--n", "2", "--seed", "4", "--out", tmp_path / "a.md").out == f"{tmp_path}/a.md\n"
    )
    assert (tmp_path / "a.md").read_text() == done.out
