"""`openk2 export`, and what `openk2 synth` shows of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from openk2.data.lake import Lake
from shared.runs import damaged, few

Run = Callable[..., Any]


def test_export(cli: Run, tmp_path: Path) -> None:
    kept = Lake(few()).status()["kept"]
    target = tmp_path / "a.jsonl"
    done = cli("export", few(), "--to", "openai", target)
    assert done.code == 0 and done.out == f"{target}: {kept} rows\n"
    cli("export", few(), "--to", "openai", target).refused("is there already: name another, or give --force")
    done = cli("export", few(), "--to", "openai", target, "--force", "--json")
    assert json.loads(done.out) == {"path": str(target), "rows": kept, "failed": 0}
    cli("export", few(), "--to", "csv", target).refused("there is no format 'csv'")
    for to in ("atif", "verl"):
        cli("export", tmp_path / "none", "--to", to, tmp_path / "a").refused("there is no folder")


def test_trajectories_in_a_folder_called_rl(cli: Run, tmp_path: Path) -> None:
    assert cli("export", few(), "--to", "atif", tmp_path / "trials" / "rl").code == 0
    done = cli("export", tmp_path / "trials", "--to", "openai", tmp_path / "a.jsonl", "--json")
    assert json.loads(done.out)["rows"] == Lake(few()).status()["kept"]


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


def test_a_query_of_any_size(cli: Run, cli_process: Run) -> None:
    done = cli("synth", "query", few(), "select 'nan'::double a, 1.0/0 b, [1.5, 'inf'::double] c", "--json")
    assert json.loads(done.out, parse_constant=pytest.fail) == [{"a": None, "b": None, "c": [1.5, None]}]
    numbers = cli("synth", "query", few(), "select range a from range(2500)", "--json").out
    assert json.loads(numbers) == [{"a": number} for number in range(2500)]
    assert cli("synth", "query", few(), "select 1 a where false", "--json").out == "[]\n"
    table = cli("synth", "query", few(), "select 'x' a, range b from range(2500)").out.splitlines()
    assert [line.split() for line in table] == [["a", "b"], *(["x", str(number)] for number in range(2500))]
    assert cli("synth", "query", few(), "select '' as \" \"").code == 0
    assert "order:100:7" in cli("synth", "query", few(), "select 'order:100:7' a").out
    # No word is cut; where there is no room for all of them, rows stand below each other.
    long = cli("synth", "query", few(), "select repeat('a', 64) h, repeat('word ', 60) t").out.splitlines()
    assert long[0].split() == ["h", "t"] and long[1].split() == ["a" * 64, *["word"] * 2] and max(map(len, long)) <= 80
    longer = cli("synth", "query", few(), "select repeat('a', 60) h, repeat('b', 60) other").out.splitlines()
    assert longer == ["- 1", f"h      {'a' * 60}", f"other  {'b' * 60}"]
    later = "select case when range < 2400 then 'x' else repeat('y', 72) end a, range b from range(2500)"
    assert f"{'y' * 72}  2499" in cli("synth", "query", few(), later).out
    # No bar of DuckDB's comes between the rows, as it would in a program that has no file.
    bar = cli_process("synth", "query", few(), "select current_setting('enable_progress_bar') a", "--json").out
    assert json.loads(bar) == [{"a": False}]
    # Rows come while others are not there yet.
    columns, pieces = Lake(few()).pieces("from range(1000000000)")
    assert columns == ["range"] and next(pieces)[1] == (1,)
    cli("synth", "query", few(), "").refused("the query is empty")
    assert "near_misses" in cli("synth", "query", "--help").out


def test_nothing_that_was_verified_is_an_error(cli: Run, tmp_path: Path) -> None:
    shutil.copytree(few(), tmp_path / "run")
    for path in (*(tmp_path / "run" / "synth" / "attempts").glob("*"), tmp_path / "run" / "synth" / "kept.parquet"):
        path.unlink()
    done = cli("synth", "verify", tmp_path / "run", "--workers", "1")
    assert done.code == 1 and "nothing was checked" in done.out
    done = cli("synth", "verify", tmp_path / "run", "--workers", "1", "--json")
    assert done.code == 1 and json.loads(done.out)["checked"] == 0


def test_show(cli: Run, tmp_path: Path) -> None:
    done = cli("synth", "show", few(), "--n", "2", "--seed", "4")
    assert done.code == 0 and done.out.count("\n## Task ") == 2
    assert (
        cli("synth", "show", few(), "--n", "2", "--seed", "4", "--out", tmp_path / "a.md").out == f"{tmp_path}/a.md\n"
    )
    assert (tmp_path / "a.md").read_text() == done.out
    show = ("synth", "show", few(), "--n", "1", "--out")
    before = (tmp_path / "a.md").read_text()
    cli(*show, tmp_path / "a.md").refused("is there already: name another, or give --force")
    assert (tmp_path / "a.md").read_text() == before
    assert cli(*show, tmp_path / "a.md", "--force").code == 0 and (tmp_path / "a.md").read_text() != before
    for folder in (".", "/", tmp_path):
        cli(*show, folder).refused("is a folder: name a file")
