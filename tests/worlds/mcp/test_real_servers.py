"""Servers that others wrote, each in an environment of its own: listed, called, recorded, replayed.

They are installed from PyPI and npm on the first run, into OPENK2_MCP_SERVERS if it is set, so that it is done once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openk2.core import Task, ToolCall
from openk2.worlds.mcp.live import Launch
from openk2.worlds.mcp.world import MCPWorld, ReplayWorld, add

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Server:
    """A package, the program in it, at least how many tools it has, and a call with a part of its result."""

    package: str
    program: str
    tools: int
    call: str
    arguments: dict[str, Any]
    result: str
    registry: str = "pypi"
    pins: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


def npm(*values: Any, **more: Any) -> Server:
    return Server(*values, registry="npm", **more)


# {here} is a scratch folder with a file a.txt, which is a git repository.
SERVERS = [
    Server(
        "mcp-server-time",
        "mcp-server-time",
        2,
        "convert_time",
        {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
        "21:00",
    ),
    Server("mcp-server-git", "mcp-server-git", 10, "git_log", {"repo_path": "{here}"}, "the first commit"),
    Server(
        "mcp-server-sqlite",
        "mcp-server-sqlite",
        5,
        "read_query",
        {"query": "SELECT 6 * 7 AS answer"},
        "42",
        pins=("mcp<2",),
        options=("--db-path", "{here}/a.db"),
    ),
    Server(
        "mcp-server-calculator",
        "mcp-server-calculator",
        1,
        "calculate",
        {"expression": "6 * 7"},
        "42",
        pins=("mcp<2",),
    ),
    Server("mcp-mathematics", "mcp-mathematics", 15, "calculate_expression", {"expr": "6 * 7"}, "42"),
    npm(
        "@modelcontextprotocol/server-everything",
        "mcp-server-everything",
        8,
        "echo",
        {"message": "hello"},
        "hello",
    ),
    npm(
        "@modelcontextprotocol/server-memory",
        "mcp-server-memory",
        9,
        "create_entities",
        {"entities": [{"name": "Ada", "entityType": "person", "observations": ["writes programs"]}]},
        "Ada",
        env=(("MEMORY_FILE_PATH", "{here}/memory.jsonl"),),
    ),
    npm(
        "@modelcontextprotocol/server-filesystem",
        "mcp-server-filesystem",
        10,
        "list_directory",
        {"path": "{here}"},
        "[FILE] a.txt",
        options=("{here}",),
    ),
    npm("@coo-quack/calc-mcp", "calc-mcp", 15, "hash", {"input": "a", "algorithm": "sha256"}, "ca978112ca1bbdca"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Server], Path]:
    """Where a server's program is."""
    kept = os.environ.get("OPENK2_MCP_SERVERS")
    home = Path(kept) if kept else tmp_path_factory.mktemp("servers")

    def install(server: Server) -> Path:
        if server.registry == "npm":
            if shutil.which("npm") is None:
                pytest.skip("npm is not installed")
            folder = home / "npm"
            program = folder / "node_modules" / ".bin" / server.program
            command = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder), server.package]
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = home / server.package
            program = folder / "bin" / server.program
            command = [str(folder / "bin" / "pip"), "install", "--quiet", server.package, *server.pins]
            if not program.exists():
                subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
        if not program.exists():
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=400)
            if done.returncode:
                pytest.skip(f"{server.package} could not be installed: {done.stderr.strip()[-200:]}")
        return program

    return install


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "a.txt").write_text("one\n")
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "--quiet"], ["add", "a.txt"], ["commit", "--quiet", "-m", "the first commit"]):
        subprocess.run([*git, *words], check=True, timeout=60)
    return folder


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.package)
async def test_a_real_server_and_its_replay(
    server: Server, installed: Callable[[Server], Path], here: Path, tmp_path: Path
) -> None:
    def filled(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("{here}", str(here)))

    launch = Launch(
        (str(installed(server)), *filled(list(server.options))), env={key: filled(value) for key, value in server.env}
    )
    file = await add(launch, "it", tmp_path / "it.json", timeout=60)
    assert len(file.tools) >= server.tools and not file.left_out
    task = Task("t", "mcp", "real", 0, "do it", {"server": "it.json", "expect": {"calls": [{"name": server.call}]}})
    arguments = json.dumps(filled(server.arguments))
    calls = [
        ToolCall("1", server.call, arguments),
        # What a server says of a call that it cannot take is recorded too.
        ToolCall("2", server.call, '{"no_such_argument": [1]}'),
        ToolCall("3", server.call, arguments),
    ]
    seen = []
    for world in (MCPWorld(tmp_path, timeout=60), ReplayWorld(tmp_path)):
        try:
            await world.start(task)
            seen.append([await world.call(call) for call in calls])
            assert (await world.verify([])).passed
        finally:
            await world.close()
    live, replayed = seen
    assert not live[0].error and server.result in live[0].content
    assert live == replayed
