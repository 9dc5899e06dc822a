"""`openk2 worlds`: the list, descriptions, and servers that are taken in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openk2.synth import catalogue, lexicon

Run = Callable[..., Any]
GOOD = [sys.executable, str(Path(__file__).parents[1] / "worlds" / "mcp" / "servers" / "good.py")]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that is made at once."""
    chosen = (*lexicon.sketches()[:3], max(lexicon.sketches(), key=lambda sketch: len(sketch.title)))
    monkeypatch.setattr(catalogue, "sketches", lambda: chosen)
    return [sketch.name for sketch in chosen]


def test_the_list(cli: Run, few: list[str]) -> None:
    done = cli("worlds", "list")
    assert done.code == 0 and max(map(len, done.out.splitlines())) <= 80
    assert all(name in done.out for name in few)
    listed = cli("worlds", "list", "--json").events
    assert [one["name"] for one in listed] == few
    assert all(one["tools"] > 50 and one["category"] and one["title"] for one in listed)


def test_a_description(cli: Run, few: list[str]) -> None:
    (whole,) = cli("worlds", "describe", few[0], "--json").events
    done = cli("worlds", "describe", few[0])
    assert done.code == 0 and f"{len(whole['entities'])} entities, {len(whole['tools'])} tools" in done.out
    guarded = next(tool for tool in whole["tools"] if tool["requires"] and tool["effects"])
    assert f"  requires: {guarded['requires'][0]}\n" in done.out
    assert f"  effect: {guarded['effects'][0]}\n" in done.out
    (other,) = cli("worlds", "describe", few[0], "--seed", "1", "--json").events
    assert other != whole


def test_worlds_that_are_not_there(cli: Run, tmp_path: Path) -> None:
    cli("worlds", "describe", "dairyfarm").refused("no world 'dairyfarm'", "did you mean dairy_farm?")
    cli("worlds", "serve", "qqqq").refused("no world 'qqqq'", "worlds list")
    cli("worlds", "serve", "none.json").refused("none.json cannot be read")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[")
    cli("worlds", "describe", wrong).refused("is not TOML")
    wrong.write_bytes(b"\xff")
    cli("worlds", "describe", wrong).refused("is not UTF-8")
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    cli("worlds", "describe", empty).refused("empty.json: name: it is missing")
    cli("worlds", "describe", tmp_path / ".json").refused("cannot be read")


def test_a_server_is_added(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "notes.json"
    done = cli("worlds", "mcp", "add", "--name", "notes", "--out", file, "--env", "A=b=c", "--", *GOOD)
    assert done.code == 0 and done.err == ""
    assert done.out.splitlines() == [
        f"{file}: good 1, 4 tools",
        "left out wrong: the schema is not valid JSON Schema",
    ]
    written = json.loads(file.read_text())
    assert written["command"] == GOOD and written["env"] == {"A": "b=c"} and len(written["tools"]) == 4
    (said,) = cli("worlds", "mcp", "add", "--name", "n", "--out", file, "--json", "--", *GOOD).events
    assert said["tools"] == 4 and said["file"] == str(file)


def test_servers_that_cannot_be_added(cli: Run, tmp_path: Path) -> None:
    add = ("worlds", "mcp", "add")
    cli(*add).refused("name a server")
    cli(*add, "--url", "http://127.0.0.1:1/mcp", "--", "true").refused("not both")
    cli(*add, "--url", "ftp://x").refused("http://")
    cli(*add, "--env", "A", "--", "true").refused("NAME=VALUE")
    cli(*add, "--name", "a/b", "--", "true").refused("cannot be a file's")
    cli(*add, "--", "no-such-program").refused("it cannot be started")
    cli(*add, "--timeout", "1", "--", "sleep", "99").refused("did not list its tools within 1 s")
    cli(*add, "--url", "http://127.0.0.1:1/mcp").refused("http://127.0.0.1:1/mcp", "cannot be used")
    cli(*add, "--out", tmp_path / "no" / "f.json", "--", *GOOD).refused("cannot be written")
    # The server is not begun for that.
    cli(*add, "--out", ".", "--", "no-such-program").refused("is a folder: name a file")


def test_specs_are_taken_in(cli: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "s.jsonl", tmp_path / "out.jsonl"
    schema = {"type": "object", "properties": {}}
    tool = {"name": "go", "description": "Go.", "input_schema": schema}
    file.write_text(json.dumps({"server": "s", "domain": "d", "tools": [tool, tool]}) + "\n")
    (report,) = cli("worlds", "mcp", "import", file, "--out", out, "--json").events
    assert (report["tools"], report["accepted"], sum(report["refused"].values())) == (2, 1, 1)
    assert json.loads(out.read_text())["tools"][0]["label"] == "model-backed"
    cli("worlds", "mcp", "import", tmp_path / "none").refused("cannot be read")
    given, written = file.read_bytes(), out.read_bytes()
    cli("worlds", "mcp", "import", file, "--out", out).refused("is there already: name another, or give --force")
    (tmp_path / "link").symlink_to(file)
    for same in (file, tmp_path / "link"):
        cli("worlds", "mcp", "import", file, "--out", same, "--force").refused("is the file that is read")
    assert (file.read_bytes(), out.read_bytes()) == (given, written)
    assert cli("worlds", "mcp", "import", file, "--out", out, "--force").code == 0
    for folder in (".", "/", tmp_path):
        cli("worlds", "mcp", "import", file, "--out", folder, "--force").refused("is a folder: name a file")
    cli("worlds", "mcp", "import", tmp_path).refused("cannot be read")


def test_packages_that_are_missing(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "s.jsonl"
    file.write_text('{"server": "s", "tools": [{"name": "go", "input_schema": {"type": "object"}}]}\n')
    for module in ("mcp", "mcp.server.stdio", "jsonschema"):
        monkeypatch.setitem(sys.modules, module, None)
    for arguments in (("serve", "dairy_farm"), ("mcp", "add", "--", "true"), ("mcp", "import", file)):
        cli("worlds", *arguments).refused("pip install 'openk2[agent]'")
    assert cli("worlds", "describe", "dairy_farm").code == 0


def test_a_session_is_played_through_a_pipe(cli_process: Run) -> None:
    lines = "tools\nshow 2\nstate\nhelp\ncal\ncall 1\ndiff\nsay hello\ngive up\n"
    done = cli_process("worlds", "play", "dairy_farm", "--task", "3", stdin=None, input=lines)
    assert done.code == 1 and done.err == ""
    assert max(map(len, done.out.splitlines())) <= 80
    for words in ("\nuser: ", "> say hello", "not passed: 0 of 100 points", "An expert would have done this:"):
        assert words in done.out
    free = cli_process("worlds", "play", "dairy_farm", "--json", stdin=None, input="undo\nquit\n")
    assert free.code == 0 and [event["event"] for event in free.events] == ["start", "mistake"]


def test_sessions_that_cannot_be(cli: Run) -> None:
    cli("worlds", "play", "dairyfarm").refused("did you mean dairy_farm?")
    assert cli("worlds", "play", "dairy_farm", "--task", "-1").code == 2


def test_a_session_in_a_terminal(command: list[str]) -> None:
    pexpect = pytest.importorskip("pexpect")
    child = pexpect.spawn(command[0], [*command[1:], "worlds", "play", "dairy_farm"], encoding="utf-8", timeout=60)
    child.expect("> ")
    child.send("show get_dairy_c\t\r")
    child.expect("get_dairy_cow: ")
    child.expect("> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
