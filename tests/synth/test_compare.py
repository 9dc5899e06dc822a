"""A run's tools beside those of servers, on the same axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from openk2.core import UserError
from openk2.data.lake import Lake
from openk2.synth.compare import ToolCounts, compare, depth, plain, read_servers, specs_file
from shared.runs import few

TEXT = {"type": "string"}


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "deep"),
    [
        ({}, 0),
        (an_object(), 0),
        (an_object(a=TEXT, b=TEXT), 1),
        (an_object(a={"type": "array", "items": TEXT}), 2),
        (an_object(a=an_object(b=TEXT)), 2),
        (an_object(a=an_object(b=an_object(c=TEXT)), d=TEXT), 3),
        (an_object(a={"type": "array", "items": an_object(b=TEXT)}), 3),
        (an_object(a={"anyOf": [TEXT, an_object(b=TEXT)]}), 2),
        ({"properties": 3}, 0),
        (an_object(a=True), 1),
    ],
)
def test_depth(schema: dict[str, Any], deep: int) -> None:
    assert depth(schema) == deep


def test_schemas_are_the_same_whatever_is_said_of_them() -> None:
    said = {"$schema": "x", "title": "T"} | an_object(title=TEXT | {"description": "The title."}, b=TEXT)
    said |= {"required": ["title", "b"], "additionalProperties": False}
    silent = an_object(b=TEXT, title=TEXT) | {"required": ["b", "title"]}
    assert plain(said) == plain(silent) and "title" in plain(said)["properties"]
    assert plain(silent) != plain(an_object(b=TEXT, title=TEXT))


def test_counts() -> None:
    counts = ToolCounts()
    counts.add_server(3)
    counts.add("find", "Find a thing.", an_object(q=TEXT | {"description": "What."}, n=TEXT) | {"required": ["q"]})
    counts.add("find", "", an_object(n=TEXT, q=TEXT) | {"required": ["q"]})
    counts.add("ping", "Ping.", {})
    found = counts.to_json("mine")
    assert (found["tools"], found["distinct_names"], found["distinct_schemas"]) == (3, 2, 2)
    assert found["name_schema_ratio"] == round(2 / 3, 4) and found["described_parameters"] == 0.25
    axes = {axis: one["counts"] for axis, one in found["axes"].items()}
    assert axes == {
        "tools per domain or server": {"3": 1},
        "parameters": {"0": 1, "2": 2},
        "required parameters": {"0": 1, "1": 2},
        "depth": {"0": 1, "1": 2},
        "words of description": {"0": 1, "1": 1, "3": 1},
    }


def test_a_run_beside_servers(tmp_path: Path) -> None:
    path = tmp_path / "servers.jsonl"
    tools = [{"name": "find", "description": "Find.", "input_schema": an_object(q=TEXT)}, {"name": "ping"}]
    path.write_text(json.dumps({"server": "s", "domain": "d", "tools": tools}) + "\n\n")
    own, other = compare(few(), path)
    assert own["tools"] == Lake(few()).status()["tools"] and own["servers"] == 5
    assert other["tools"] == 2 and other["axes"]["parameters"]["counts"] == {"0": 1, "1": 1}


def test_the_file_is_that_of_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert specs_file(None) is None and specs_file(tmp_path) == tmp_path
    monkeypatch.setenv("OPENK2_DATA", str(tmp_path))
    assert specs_file(None) is None
    (tmp_path / "toucan_mcp").mkdir()
    (tmp_path / "toucan_mcp" / "servers.jsonl").touch()
    assert specs_file(None) == tmp_path / "toucan_mcp" / "servers.jsonl"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}\n", "line 1 of .* is not a server with tools: give JSON lines"),
        ('{"tools": []}\n[1]\n', "line 2 of .* is not a server"),
        ('{"tools": [{"name": ""}]}\n', "line 1 of .* is not a server"),
        ('{"tools": [{"name": "a", "input_schema": [1]}]}\n', "line 1 of .* is not a server"),
        ("{\n", "line 1 of .* is not JSON: give JSON lines"),
        (None, "cannot be compared with .No such file"),
    ],
)
def test_files_that_cannot_be_read(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        list(read_servers(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        list(read_servers(path))
