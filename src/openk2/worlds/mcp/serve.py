"""A simulated app as an MCP server over stdio: any MCP client can work in it.

The state begins with the session and ends with it. Nothing but MCP is written to stdout.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from openk2 import __version__
from openk2.core import ToolCall, ToolResult, ToolSpec, UserError
from openk2.core.messages import compact_json
from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.filling import fill, today_of
from openk2.worlds.apps.interpreter import Interpreter
from openk2.worlds.mcp.catalogue import domain_of
from openk2.worlds.mcp.specs import MISSING

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

    from openk2.worlds.mcp.imports import ImportedServer


class Served(Protocol):
    """What can be served: tools over a state that a session owns."""

    name: str
    title: str
    instructions: str
    tools: Sequence[ToolSpec]

    def call(self, name: str, arguments: dict[str, Any]) -> ToolResult: ...


class Session:
    """A domain with a state of its own."""

    def __init__(self, domain: Domain, seed: int) -> None:
        self.name, self.title = domain.name, domain.title
        self.tools: Sequence[ToolSpec] = [tool.spec() for tool in domain.tools]
        self._interpreter = Interpreter(domain)
        self.state = fill(domain, seed)
        people = self.state.rows(domain.users) if domain.users else []
        self._given = {"today": today_of(seed), "user": people[0]["id"] if people else ""}
        # What an agent must know before it begins.
        lines = [f"{domain.title}. Today is {self._given['today']}."]
        if domain.users and people:
            singular = domain.entities[domain.users].singular.replace("_", " ")
            lines.append(f"You act for the {singular} {self._given['user']}.")
        self.instructions = " ".join([*lines, *domain.policy])

    def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        return self._interpreter.execute(self.state, ToolCall("", name, compact_json(arguments)), self._given)


class ImportedSession:
    """The simulated part of an imported server, its tools as that server declares them."""

    def __init__(self, server: ImportedServer, seed: int) -> None:
        from openk2.worlds.mcp.infer import Simulated

        if server.simulation is None:
            raise UserError(f"{server.server} is model-backed: no tool of it is simulated, so it cannot be served")
        self.name = self.title = server.server
        self._app = Simulated(server.simulation, server.specs, seed)
        self.tools: Sequence[ToolSpec] = [spec.tool() for spec in self._app.specs.values()]
        self.instructions = f"A simulation of {server.server}, inferred from its tools. Today is {today_of(seed)}."

    def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        return self._app.call(ToolCall("", name, compact_json(arguments)))


def server_of(session: Served) -> Server[Any]:
    """The MCP server of a session."""
    import mcp_types as types
    from mcp.server.lowlevel import Server

    tools = [
        types.Tool(name=spec.name, description=spec.description, input_schema=dict(spec.parameters))
        for spec in session.tools
    ]

    async def list_tools(context: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        result = session.call(params.name, params.arguments or {})
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=result.content)], is_error=result.error
        )

    return Server(
        session.name,
        version=__version__,
        title=session.title,
        instructions=session.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _session(name: str, seed: int, imported: Path | None) -> Served:
    if imported is None:
        return Session(domain_of(name, seed), seed)
    from openk2.worlds.mcp.imports import read_imported

    return ImportedSession(read_imported(imported, name), seed)


def serve(name: str, seed: int, imported: Path | None = None) -> None:
    """Serve a world on stdin and stdout until the client closes them: one by its name, or of those imported."""
    try:
        import anyio
        from mcp.server.stdio import stdio_server
    except ImportError:
        raise UserError(MISSING) from None
    if sys.stdin is None or sys.stdout is None:
        raise UserError("stdin or stdout is closed: a client speaks MCP over both of them")
    server = server_of(_session(name, seed, imported))
    if sys.stdin.isatty():
        print(f"{name} waits for an MCP client on stdin; Ctrl-C ends it", file=sys.stderr)

    async def run() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    # The thread that waits for stdin cannot be interrupted, and there is nothing to tidy up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: os._exit(128 + number))
    anyio.run(run)
