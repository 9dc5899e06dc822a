"""Specs by thousands: what is refused and why, what is simulated, and that the simulation does what it says."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from openk2.core import ToolCall, ToolResult, UserError
from openk2.worlds.apps.declaration import read_domain
from openk2.worlds.mcp import specs
from openk2.worlds.mcp.imports import DOUBLE, ImportedServer, Report, import_file, imported
from openk2.worlds.mcp.simulated import Simulated
from openk2.worlds.mcp.words import tokens

TEXT = {"type": "string"}


def tool(name: Any, required: dict[str, Any], /, **optional: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": required | optional, "required": list(required)}
    return {"name": name, "description": f"{name} it", "input_schema": schema}


CRM = [
    tool("crm_create_contact", {"name": TEXT, "companyId": TEXT}, tags={"type": "array", "items": TEXT}),
    tool("crm_get_contact", {"contactId": TEXT}),
    tool("crm_list_contacts", {}, companyId=TEXT, limit={"type": "integer"}, query=TEXT),
    tool("crm_update_contact", {"contactId": TEXT}, name=TEXT, tags={"type": "array", "items": TEXT}),
    tool("crm_archive_contact", {"contactId": TEXT}),
    tool("crm_delete_contact", {"contactId": TEXT}),
    tool("crm_create_company", {"name": TEXT}, size={"type": "string", "enum": ["small", "large"]}),
    tool("crm_get_company", {"id": TEXT}),
    tool("crm_forecast_weather", {"city": TEXT}),
    tool("crm_get_weather", {"city": TEXT}),
]
FILES = [
    tool("createNote", {"path": TEXT, "content": TEXT}),
    tool("readNote", {"path": TEXT}),
    tool("deleteNote", {"path": TEXT}),
    tool("create-ticket", {"title": TEXT}),
    tool("close-ticket", {"ticket_number": {"type": "integer"}}),
    tool("get-ticket", {"ticket_number": {"type": "integer"}}),
]


def write(path: Path, *servers: Any) -> Path:
    path.write_text("".join(json.dumps(server) + "\n" for server in servers))
    return path


def taken(path: Path) -> tuple[list[ImportedServer], dict[str, Any]]:
    report = Report()
    servers = list(imported(path, report))
    return servers, report.as_json()


def test_every_tool_is_accepted_or_refused_for_a_reason(tmp_path: Path) -> None:
    bad = [
        tool("fine", {"a": TEXT}),
        tool("fine", {"a": TEXT}),
        {"name": "x", "description": "", "input_schema": {"type": "string"}},
        {"name": "x", "description": "", "input_schema": None},
        {"name": "x", "input_schema": {"type": "object", "properties": {"a": {"type": "text"}}}},
        {"name": "x", "input_schema": {"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}}},
        {"name": "x", "input_schema": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/x"}}}},
        {"name": "x", "input_schema": {"type": "object", "description": "y" * 200_000}},
        {"name": "???", "description": "", "input_schema": {"type": "object"}},
        {"name": None, "input_schema": {"type": "object"}},
        {"name": "2 fast/now", "description": "z", "input_schema": {"type": "object", "properties": {"$ref": TEXT}}},
        {"name": "n" * 90, "description": "long", "input_schema": {"type": "object", "properties": {"q": TEXT}}},
        {"name": "n" * 91, "description": "longer", "input_schema": {"type": "object", "properties": {"q": TEXT}}},
    ]
    servers, report = taken(write(tmp_path / "s.jsonl", {"server": "Bad", "domain": "d", "tools": bad}))
    assert report["tools"] == len(bad) == report["accepted"] + sum(report["refused"].values())
    assert report["refused"] == {
        DOUBLE: 1, specs.NO_OBJECT: 2, specs.NO_SCHEMA: 1, specs.NO_REFERENCE: 2, specs.TOO_LARGE: 1, specs.NO_NAME: 2,
    }  # fmt: skip
    names = [spec.name for spec in servers[0].specs]
    assert names == ["fine", "t_2_fast_now", "n" * 64, "n" * 62 + "_2"]
    assert servers[0].specs[1].original == "2 fast/now" and servers[0].label == "model-backed"


def test_what_a_simulation_does(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", {"server": "My CRM", "tools": CRM}, {"server": "Files", "tools": FILES})
    (crm, files), report = taken(path)
    assert report["inferred"] == 14 and report["model_backed"] == 2
    assert report["servers"] == {
        "total": 2, "inferred": 1, "partly_inferred": 1, "model_backed": 0, "without_tools": 0,
    }  # fmt: skip
    assert [spec.name for spec in crm.specs if crm.label_of(spec) != "inferred"] == [
        "crm_forecast_weather",
        "crm_get_weather",
    ]
    assert crm.simulation is not None and files.simulation is not None
    app = Simulated(crm.simulation, crm.specs)

    def do(name: str, /, **arguments: Any) -> ToolResult:
        return app.call(ToolCall("c", name, json.dumps(arguments)))

    company = json.loads(do("crm_create_company", name="Acme", size="large").content)
    assert do("crm_create_company", name="Acme", size="huge").error
    assert json.loads(do("crm_get_company", id=company["id"]).content)["size"] == "large"
    assert "has the id" in do("crm_create_contact", name="Ada", companyId="nobody").content
    ada = json.loads(do("crm_create_contact", name="Ada", companyId=company["id"], tags=["a", "b"]).content)
    assert ada["tags"] == ["a", "b"] and ada["companyId"] == company["id"]
    changed = json.loads(do("crm_update_contact", contactId=ada["id"], tags=["c"]).content)
    assert changed["tags"] == ["c"] and changed["name"] == "Ada"
    assert json.loads(do("crm_archive_contact", contactId=ada["id"]).content)["status"] == "archived"
    found = json.loads(do("crm_list_contacts", companyId=company["id"]).content)
    assert [row["id"] for row in found] == [ada["id"]]
    assert len(json.loads(do("crm_list_contacts", limit=2).content)) == 2
    assert [row["id"] for row in json.loads(do("crm_list_contacts", query="ADA").content)] == [ada["id"]]
    assert not do("crm_delete_contact", contactId=ada["id"]).error
    assert do("crm_get_contact", contactId=ada["id"]).error
    assert "required" in do("crm_get_contact").content
    assert "there is no tool" in do("crm_get_weather", city="x").content

    app = Simulated(files.simulation, files.specs)
    assert do("readNote", path="/a").error
    assert not do("createNote", path="/a", content="hello").error
    assert json.loads(do("readNote", path="/a").content)[0]["content"] == "hello"
    assert not do("deleteNote", path="/a").error and do("readNote", path="/a").error
    ticket = json.loads(do("create-ticket", title="broken").content)
    assert not do("close-ticket", ticket_number=ticket["ticket_number"]).error
    assert json.loads(do("get-ticket", ticket_number=ticket["ticket_number"]).content)[0]["status"] == "closed"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with pytest.raises(UserError, match="cannot be read"):
        taken(path)
    for text, words in (
        ("{", "line 1 is not JSON"),
        ("\n7\n{", "line 2 is no server: it is not a JSON object"),
        ('{"server": "a"}', "line 1 is no server: tools"),
        ('{"server": "a", "tools": [3]}', "line 1 is no server: tools.0: Input should be a valid dictionary$"),
        ('{"tools": []}', "line 1 is no server: server: Field required$"),
        ("[" * 100_000, "give one server a line, not a JSON array"),
        ('[\n {"server": "a", "tools": []}\n]', "give one server a line, not a JSON array"),
        ('[{"server": "a", "tools": []}]', "give one server a line, not a JSON array"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            taken(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="line 1 is not JSON"):
        taken(path)


def test_lines_that_are_no_servers_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = json.dumps({"server": "Files", "domain": None, "tools": FILES})
    path = tmp_path / "s.jsonl"
    path.write_text(f'{{"server": "a"}}\n{good}\n7\n{{\n[]\n')
    (files,), report = taken(path)
    assert files.category == "Others" and report["accepted"] == len(FILES) == report["tools"]
    assert [one["line"] for one in report["refused_servers"]] == [1, 3, 4, 5] and report["refused"] == {}
    assert report["refused_servers"][0]["reason"] == "is no server: tools: Field required"
    import_file(path, None, as_json=False)
    assert "left out: line 3 is no server: it is not a JSON object\n" in capsys.readouterr().out


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$"])
def test_a_pattern_that_would_take_for_ever_is_an_error(pattern: str, tmp_path: Path) -> None:
    note = tool("createNote", {"path": TEXT | {"pattern": pattern}, "content": TEXT})
    (files,), _ = taken(write(tmp_path / "s.jsonl", {"server": "Files", "tools": [note, *FILES[1:]]}))
    assert files.simulation is not None
    app = Simulated(files.simulation, files.specs)
    made = app.call(ToolCall("c", "createNote", json.dumps({"path": "a" * 5000 + "!", "content": "x"})))
    assert made.error and "takes too long" in made.content
    assert not app.call(ToolCall("c", "createNote", json.dumps({"path": "aaa", "content": "x"}))).error


def test_a_schema_that_nothing_can_be_checked_against(tmp_path: Path) -> None:
    both = {"type": "object", "patternProperties": {"(a+)+$": True}, "unevaluatedProperties": False}
    _, report = taken(write(tmp_path / "s.jsonl", {"server": "s", "tools": [{"name": "x", "input_schema": both}]}))
    assert report["refused"] == {specs.NO_CHECK: 1}


def test_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    import_file(write(tmp_path / "s.jsonl", {"server": "My CRM", "tools": CRM}), out, as_json=True)
    assert json.loads(capsys.readouterr().out)["tools"] == len(CRM)
    (server,) = map(json.loads, out.read_text().splitlines())
    assert server["label"] == "partly inferred" and read_domain(server["simulation"]["declaration"])
    import_file(tmp_path / "s.jsonl", None, as_json=False)
    said = capsys.readouterr().out
    assert said.startswith(f"{len(CRM)} tools, {len(CRM)} accepted\n")
    assert max(map(len, said.splitlines())) <= 80


def test_words_of_names() -> None:
    assert tokens("getHTTPServer-info_2") == ["get", "http", "server", "info", "2"]
    assert tokens("é") == []


def _some(schema: Any, rng: random.Random) -> Any:
    """A value that may fit a schema."""
    if not isinstance(schema, dict):
        return "x"
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    values = {"string": "some text", "integer": 3, "number": 2.5, "boolean": True, "array": [], "object": {}}
    return values.get(kind, "x")


@pytest.mark.parametrize("share", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_thousands_of_real_specs(share: int, tmp_path: Path, data_pack: Path) -> None:
    lines = (data_pack / "toucan_mcp" / "servers.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "servers.jsonl").write_text("".join(lines[::share]), encoding="utf-8")
    servers, report = taken(tmp_path / "servers.jsonl")
    assert report["tools"] == report["accepted"] + sum(report["refused"].values())
    if share == 1:
        assert report["tools"] == 5668
        assert report["accepted"] > 5000 and report["inferred"] > 250
    rng, worked, called = random.Random(0), 0, 0
    for server in servers:
        names = [spec.name for spec in server.specs]
        assert len(set(names)) == len(names)
        if server.simulation is None:
            continue
        app = Simulated(server.simulation, server.specs)
        for spec in app.specs.values():
            properties = spec.schema.get("properties", {})
            arguments = {
                name: _some(properties[name], rng) for name in spec.schema.get("required", ()) if name in properties
            }
            # Ids of rows that there are.
            for name in arguments:
                declared = server.simulation.bridges[spec.name].arguments.get(name)
                tools = {one["name"]: one for one in server.simulation.declaration["tools"]}
                ref = tools[server.simulation.bridges[spec.name].tool]["parameters"].get(declared, {}).get("ref")
                rows = app.state.rows(ref) if ref else []
                if rows:
                    arguments[name] = rows[0]["id"]
            result = app.call(ToolCall("c", spec.name, json.dumps(arguments)))
            json.loads(result.content)
            called, worked = called + 1, worked + (not result.error)
    assert called == report["inferred"] and worked > 0.6 * called, (worked, called)
