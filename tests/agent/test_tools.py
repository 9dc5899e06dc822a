"""Tools beside the machine's five: what they find, how calls that do not fit are answered, and the person's servers."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openk2.agent.servers import Servers
from openk2.agent.session import SessionWorld
from openk2.agent.staging import Stage
from openk2.agent.tools import AskUser, Todo, search_tools, unclear
from openk2.core import ToolCall, ToolResult, ToolSpec, UserError
from openk2.sandbox import resolve_sandbox

GOOD = Path(__file__).parents[1] / "worlds" / "mcp" / "servers" / "good.py"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SessionWorld]:
    home = tmp_path / "work"
    (home / "src").mkdir(parents=True)
    (home / "src" / "a.py").write_text("def first():\n    return 1\n")
    (home / "b.txt").write_text("first\nFirst\n")
    (home / "-x.py").write_text("")
    stage = Stage(home, tmp_path / "stage")
    stage.refresh()
    made = SessionWorld(stage, resolve_sandbox(True))
    made.offer([*search_tools(made.workspace, made.scratch, made.sandbox), Todo(), AskUser(lambda question: "blue")])
    yield made
    await made.end()


async def call(world: SessionWorld, name: str, arguments: Any) -> ToolResult:
    return await world.call(ToolCall("c", name, arguments if isinstance(arguments, str) else json.dumps(arguments)))


async def test_files_and_lines_are_found(world: SessionWorld) -> None:
    assert (await call(world, "glob", {"pattern": "*.py"})).content == "-x.py\nsrc/a.py"
    assert (await call(world, "glob", {"pattern": "*.py", "path": "src"})).content == "src/a.py"
    assert (await call(world, "grep", {"pattern": "fi.st"})).content == "b.txt:1:first\nsrc/a.py:1:def first():"
    found = await call(world, "grep", {"pattern": "FIRST", "ignore_case": True, "files": "*.txt"})
    assert found.content == "b.txt:1:first\nb.txt:2:First"
    assert await call(world, "grep", {"pattern": "nowhere"}) == ToolResult("nothing is found")
    # A pattern and a place are never options.
    assert (await call(world, "grep", {"pattern": "--help"})).content == "nothing is found"
    assert (await call(world, "glob", {"pattern": "*", "path": "-x.py"})).content == "-x.py"
    wrong = await call(world, "grep", {"pattern": "("})
    assert wrong.error and "regex parse error" in wrong.content
    assert (await call(world, "glob", {"pattern": "*", "path": "/root/.ssh"})).error


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("glob", "{", "the arguments are no JSON object"),
        ("glob", {}, "glob: 'pattern' is a required property"),
        ("glob", {"pattern": 3}, "pattern: 3 is not of type 'string'"),
        ("grep", {"pattern": "a", "colour": "red"}, "grep: 'colour' is not declared"),
        ("todo", {"items": [{"text": "a", "state": "never"}]}, "items.0.state: 'never' is not one of"),
        ("rm", {}, "no tool named rm: use python, shell, read_file, write_file, edit_file, glob, grep, todo, ask_user"),
    ],
)
async def test_a_call_that_does_not_fit_is_told_why(world: SessionWorld, name: str, arguments: Any, says: str) -> None:
    result = await call(world, name, arguments)
    assert result.error and result.content.startswith(says)


async def test_a_list_and_a_question(world: SessionWorld) -> None:
    items = [{"text": "look", "state": "done"}, {"text": "change\x1b[2J", "state": "under way"}]
    assert (await call(world, "todo", {"items": items})).content == "[x] look\n[>] change"
    assert await call(world, "ask_user", {"question": "Which colour?", "choices": ["red", "blue"]}) == ToolResult(
        "blue"
    )
    alone = await AskUser(lambda question: None).run({"question": "?"})
    assert alone.error and "nobody is there" in alone.content


def test_what_is_unclear_is_said() -> None:
    assert unclear([ToolSpec("f", " ", {"type": "object"}), ToolSpec("g", "Does g.", {"type": "object"})]) == [
        "the tool f has no description"
    ]


def write(path: Path, servers: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"mcpServers": servers, "other": 1}))
    return path


async def test_servers_of_the_person_are_called_by_names_of_their_own(world: SessionWorld, tmp_path: Path) -> None:
    one = {"command": sys.executable, "args": [str(GOOD)]}
    servers = Servers.read(write(tmp_path / "mcp.json", {"one": one, "two": one, "off": {"disabled": True}}))
    try:
        tools = await servers.open({tool.name for tool in world.tools})
        names = [tool.spec.name for tool in tools]
        assert len(names) == len(set(names)) and len(names) % 2 == 0
        twice = [name for name in names if name.endswith("_2")]
        assert len(twice) == len(names) // 2 and any("is called" in remark for remark in servers.remarks)
        world.offer(tools)
        assert {tool.name for tool in world.tools} > set(names)
        for name in ("add_note", "add_note_2"):
            assert await call(world, name, {"text": "x"}) == ToolResult("note 1 added")
        assert (await call(world, "add_note", {"text": 1})).content.startswith("text: 1 is not of type")
    finally:
        await servers.close()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "mcp.json: the file: Invalid JSON"),
        ("{}", r"mcp.json: mcpServers: Field required; write {\"mcpServers\": {NAME: {...}}}"),
        ('{"mcpServers": {"a": {}}}', "mcpServers.a needs a command, or a url, and not both"),
        ('{"mcpServers": {"a": {"command": 3}}}', "mcpServers.a.command"),
    ],
)
def test_a_file_of_servers_that_is_none(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "mcp.json").write_text(content)
    with pytest.raises(UserError) as error:
        Servers.read(tmp_path / "mcp.json")
    assert says.replace("\\", "") in str(error.value)


async def test_a_server_that_cannot_be_started(tmp_path: Path) -> None:
    servers = Servers.read(write(tmp_path / "mcp.json", {"a": {"command": str(tmp_path / "nothing")}}))
    with pytest.raises(UserError, match=r"the MCP server .*nothing' cannot be used: it cannot be started"):
        await servers.open(set())
    with pytest.raises(UserError, match="cannot be read"):
        Servers.read(tmp_path / "missing.json")
