"""A simulated app as an MCP server over stdio: any MCP client can work in it.

The state begins with the session and ends with it. Nothing but MCP is written to stdout.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from openk2 import __version__
from openk2.core import ToolCall, ToolResult, UserError
from openk2.core.messages import compact_json
from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.filling import fill, today_of
from openk2.worlds.apps.interpreter import Interpreter
from openk2.worlds.mcp.catalogue import domain_of

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

MISSING = "the package mcp is missing: install it with pip install 'openk2[agent]'"


class Session:
    """A domain with a state of its own."""

    def __init__(self, domain: Domain, seed: int) -> None:
        self.domain = domain
        self._interpreter = Interpreter(domain)
        self.state = fill(domain, seed)
        people = self.state.rows(domain.users) if domain.users else []
        self._given = {"today": today_of(seed), "user": people[0]["id"] if people else ""}

    @property
    def instructions(self) -> str:
        """What an agent must know before it begins."""
        lines = [f"{self.domain.title}. Today is {self._given['today']}."]
        if self.domain.users and self._given["user"]:
            singular = self.domain.entities[self.domain.users].singular.replace("_", " ")
            lines.append(f"You act for the {singular} {self._given['user']}.")
        return " ".join([*lines, *self.domain.policy])

    def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        return self._interpreter.execute(self.state, ToolCall("", name, compact_json(arguments)), self._given)


def server_of(session: Session) -> Server[Any]:
    """The MCP server of a session."""
    import mcp_types as types
    from mcp.server.lowlevel import Server

    tools = [
        types.Tool(name=spec.name, description=spec.description, input_schema=dict(spec.parameters))
        for spec in (tool.spec() for tool in session.domain.tools)
    ]

    async def list_tools(context: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        result = session.call(params.name, params.arguments or {})
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=result.content)], is_error=result.error
        )

    return Server(
        session.domain.name,
        version=__version__,
        title=session.domain.title,
        instructions=session.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def serve(name: str, seed: int) -> None:
    """Serve a world on stdin and stdout until the client closes them."""
    try:
        import anyio
        from mcp.server.stdio import stdio_server
    except ImportError:
        raise UserError(MISSING) from None
    if sys.stdin is None or sys.stdout is None:
        raise UserError("stdin or stdout is closed: a client speaks MCP over both of them")
    server = server_of(Session(domain_of(name, seed), seed))
    if sys.stdin.isatty():
        print(f"{name} waits for an MCP client on stdin; Ctrl-C ends it", file=sys.stderr)

    async def run() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    # The thread that waits for stdin cannot be interrupted, and there is nothing to tidy up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: os._exit(128 + number))
    anyio.run(run)
