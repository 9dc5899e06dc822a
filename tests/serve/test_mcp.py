"""Our apps, as an MCP client sees them: the command as a program, and the SDK's own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import ClientSession
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from openk2.core import UserError
from openk2.serve.mcp import Session
from openk2.synth.evolve import evolve
from openk2.synth.lexicon import sketches
from openk2.worlds.mcp.imports import import_file, read_imported
from shared.played import Played, chunk, served

SHOP = Path(__file__).parents[1] / "worlds" / "apps" / "shop.toml"
MAIN = [sys.executable, "-c", "from openk2.cli.main import main; main()"]
SKETCH = sketches()[0]


def parameters(*arguments: str) -> StdioServerParameters:
    env = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return StdioServerParameters(command=MAIN[0], args=[*MAIN[1:], "worlds", "serve", *arguments], env=env)


async def test_a_client_lists_and_calls_and_sees_what_it_has_changed() -> None:
    domain = evolve(SKETCH, 3)
    here = Session(domain, 3)
    people = domain.users
    assert people is not None
    singular = domain.entities[people].singular
    user = here.state.rows(people)[0]
    async with (
        stdio_client(parameters(SKETCH.name, "--seed", "3")) as (read, write),
        ClientSession(read, write) as session,
    ):
        begun = await session.initialize()
        assert begun.server_info.name == domain.name and user["id"] in str(begun.instructions)
        listed = (await session.list_tools()).tools
        assert [tool.name for tool in listed] == [tool.name for tool in domain.tools]
        assert [tool.input_schema for tool in listed] == [tool.spec().parameters for tool in domain.tools]
        found = await session.call_tool(f"get_{singular}", {f"{singular}_id": user["id"]})
        assert not found.is_error and json.loads(found.content[0].text) == user
        wrong = await session.call_tool(f"get_{singular}", {f"{singular}_id": "nobody"})
        assert wrong.is_error and "has the id 'nobody'" in wrong.content[0].text
        for name, arguments in ((f"get_{singular}", {}), ("no_such_tool", {}), (f"get_{singular}", {"x": "\u0000"})):
            assert (await session.call_tool(name, arguments)).is_error
        # Every tool gives here what it gives there, errors too.
        for tool in domain.tools:
            filled = {
                name: here.state.rows(parameter.ref)[0]["id"]
                for name, parameter in tool.parameters.items()
                if parameter.ref
            }
            there = await session.call_tool(tool.name, filled)
            mine = await here.call(tool.name, filled)
            assert (there.content[0].text, there.is_error) == (mine.content, mine.error)


async def test_the_newest_protocol_too_and_a_declaration_in_a_file() -> None:
    async with Client(stdio_client(parameters(str(SHOP)))) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} >= {"cancel_order", "place_order"}
        assert (await client.call_tool("cancel_order", {"order_id": "no"})).is_error


async def test_a_simulation_of_an_imported_server(tmp_path: Path) -> None:
    text, need = {"type": "string"}, ["boxTitle"]
    tools = [
        {"name": "createBox", "input_schema": {"type": "object", "properties": {"boxTitle": text}, "required": need}},
        {"name": "getBox", "input_schema": {"type": "object", "properties": {"boxId": text}, "required": ["boxId"]}},
        {"name": "forecast", "input_schema": {"type": "object"}},
    ]
    given, out = tmp_path / "given.jsonl", tmp_path / "out.jsonl"
    servers = [{"server": "Boxes", "tools": tools}, {"server": "Weather", "tools": tools[2:]}]
    servers[1]["tools"] = [tools[2] | {"description": "of the weather"}]
    given.write_text("".join(json.dumps(server) + "\n" for server in servers))
    import_file(given, out, as_json=True)
    async with Client(stdio_client(parameters("Boxes", "--imported", str(out)))) as client:
        listed = (await client.list_tools()).tools
        assert [(tool.name, tool.input_schema) for tool in listed] == [
            (tool["name"], tool["input_schema"]) for tool in tools[:2]
        ]
        made = json.loads((await client.call_tool("createBox", {"boxTitle": "red"})).content[0].text)
        assert made["boxTitle"] == "red"
        found = await client.call_tool("getBox", {"boxId": made["id"]})
        assert json.loads(found.content[0].text) == made
    for name, words in (("Weather", "is model-backed"), ("Bicycles", "has no server 'Bicycles'")):
        done = subprocess.run(
            [*MAIN, "worlds", "serve", name, "--imported", str(out)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2 and done.stdout == "" and words in done.stderr
    out.write_text("{")
    with pytest.raises(UserError, match="line 1 is not what"):
        read_imported(out, "Boxes")


async def test_a_model_plays_what_is_not_inferred(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    text, need = {"type": "string"}, ["boxTitle"]
    tools = [
        {"name": "createBox", "input_schema": {"type": "object", "properties": {"boxTitle": text}, "required": need}},
        {"name": "getBox", "input_schema": {"type": "object", "properties": {"boxId": text}, "required": ["boxId"]}},
        {"name": "forecast", "input_schema": {"type": "object"}},
    ]
    given, out, state = tmp_path / "given.jsonl", tmp_path / "out.jsonl", tmp_path / "state.db"
    given.write_text(json.dumps({"server": "Boxes", "tools": tools}) + "\n")
    import_file(given, out, as_json=True)
    rain = {"collection": "days", "id": "today", "record": {"sky": "rain"}}
    said = [chunk({"role": "assistant", "content": json.dumps({"result": "rain", "changes": [rain]})}),
            chunk({}, "stop"), "[DONE]"]  # fmt: skip
    with served(played := Played((200, said))) as url:
        options = ("Boxes", "--imported", str(out), "--model", f"openai:m@{url}", "--state", str(state))
        for answers in (1, 2):
            async with Client(stdio_client(parameters(*options))) as client:
                listed = {tool.name: tool.meta for tool in (await client.list_tools()).tools}
                assert listed == {
                    "createBox": {"openk2/label": "inferred"},
                    "getBox": {"openk2/label": "inferred"},
                    "forecast": {"openk2/label": "model-backed"},
                }
                assert json.loads((await client.call_tool("createBox", {"boxTitle": "red"})).content[0].text)["id"]
                assert (await client.call_tool("forecast", {})).content[0].text == '"rain"'
            assert len(played.asked) == answers
    # The second session knows what the first one has written, and what the simulated tools have made.
    assert "red" in json.dumps(played.asked[0]) and '{\\"sky\\":\\"rain\\"}' in json.dumps(played.asked[1])


@pytest.mark.parametrize(
    "options, words",
    [
        (["--model", "nano"], "name their file with --imported"),
        (["--state", "x.db"], "name it with --model"),
    ],
)
def test_options_that_need_each_other(options: list[str], words: str) -> None:
    done = subprocess.run([*MAIN, "worlds", "serve", SKETCH.name, *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == "" and words in " ".join(done.stderr.split())


def test_nothing_but_mcp_on_stdout_and_the_end_is_an_end() -> None:
    done = subprocess.run(
        [*MAIN, "worlds", "serve", SKETCH.name], input="nonsense\n", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        assert json.loads(line)["jsonrpc"] == "2.0"


def test_a_signal_ends_it_at_once() -> None:
    process = subprocess.Popen(
        [*MAIN, "worlds", "serve", SKETCH.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}) + "\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == SKETCH.name
    process.terminate()
    assert process.wait(10) == 143
    process.stdin.close()
    process.stdout.close()
