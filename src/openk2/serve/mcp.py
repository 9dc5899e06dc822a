"""A simulated app as an MCP server over stdio: any MCP client can work in it, and in what was imported.

The state begins with the session and ends with it. Nothing but MCP is written to stdout.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from openk2 import __version__
from openk2.core import ToolCall, ToolResult, ToolSpec, UserError
from openk2.core.messages import compact_json
from openk2.synth.catalogue import domain_of
from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.filling import fill, today_of
from openk2.worlds.apps.interpreter import Interpreter
from openk2.worlds.mcp.specs import MISSING

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

    from openk2.synth.ask import Asker
    from openk2.worlds.mcp.imports import ImportedServer


LABEL = "openk2/label"
"""Under this key of a tool's `_meta` a client finds whether it is inferred or model-backed."""


class Served(Protocol):
    """What can be served: tools over a state that a session owns."""

    name: str
    title: str
    instructions: str
    tools: Sequence[ToolSpec]
    labels: Mapping[str, str]
    """What of a tool's meaning is known, by name, where it is not all: inferred or model-backed."""

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult: ...

    async def close(self) -> None: ...


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
        self.labels: Mapping[str, str] = {}

    async def close(self) -> None:
        self.state.close()

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        return self._interpreter.execute(self.state, ToolCall("", name, compact_json(arguments)), self._given)


class ImportedSession:
    """An imported server, its tools as that server declares them: those that are simulated, and with an `asker` those
    that a model plays, whose records are in `path` if it is given."""

    def __init__(self, server: ImportedServer, seed: int, asker: Asker | None = None, path: Path | None = None) -> None:
        from openk2.synth.simulator import Records, Simulator
        from openk2.worlds.mcp.simulated import Simulated

        if server.simulation is None and asker is None:
            raise UserError(
                f"{server.server} is model-backed: no tool of it is simulated, and to serve it takes a model that "
                "plays them, --model"
            )
        self.name = self.title = server.server
        simulation = server.simulation
        self._app = None if simulation is None else Simulated(simulation, server.specs, seed)
        inferred = {} if self._app is None else self._app.specs
        self._played: Simulator | None = None
        if asker is not None:
            others = [spec for spec in server.specs if spec.name not in inferred]
            records = Records(server.server, path)
            self._played = Simulator(server.server, server.category, others, asker, records, seed=seed)
        played = {} if self._played is None else self._played.specs
        offered = [spec for spec in server.specs if spec.name in inferred or spec.name in played]
        self.tools: Sequence[ToolSpec] = [spec.tool() for spec in offered]
        self.labels: Mapping[str, str] = {spec.name: server.label_of(spec) for spec in offered}
        by = f"; {', '.join(played)}: played by a model" if played else ""
        self.instructions = (
            f"A simulation of {server.server}. Inferred from their declarations: {', '.join(inferred) or 'none'}{by}. "
            f"Today is {today_of(seed)}."
        )

    async def close(self) -> None:
        if self._played is not None:
            await self._played.close()

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        call = ToolCall("", name, compact_json(arguments))
        if self._played is not None and name in self._played.specs:
            return await self._played.call(call, None if self._app is None else self._app.state.content())
        if self._app is not None:
            return self._app.call(call)
        return ToolResult.failure(f"there is no tool {name!r}")


def server_of(session: Served) -> Server[Any]:
    """The MCP server of a session."""
    import mcp_types as types
    from mcp.server.lowlevel import Server

    tools = [
        types.Tool(
            name=spec.name,
            description=spec.description,
            input_schema=dict(spec.parameters),
            _meta={LABEL: session.labels[spec.name]} if spec.name in session.labels else None,
        )
        for spec in session.tools
    ]

    async def list_tools(context: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        result = await session.call(params.name, params.arguments or {})
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


def _session(name: str, seed: int, imported: Path | None, model: str, state: Path | None) -> Served:
    if imported is None:
        return Session(domain_of(name, seed), seed)
    from openk2.worlds.mcp.imports import read_imported

    server = read_imported(imported, name)
    if not model:
        return ImportedSession(server, seed)
    from openk2.policy.resolve import resolve_policy
    from openk2.synth.ask import Asker
    from openk2.synth.recipe import AskConfig

    config = AskConfig(temperature=0.0)
    policy = resolve_policy(model, temperature=config.temperature, seed=seed)
    # What was answered once is not asked again: the same session over again does not need the endpoint.
    kept = imported.with_name(f"{imported.name}.asked")
    return ImportedSession(server, seed, Asker(policy, kept, config, again=True), state)


def serve(name: str, seed: int, imported: Path | None = None, model: str = "", state: Path | None = None) -> None:
    """Serve a world on stdin and stdout until the client closes them: one by its name, or of those imported, with a
    model for the tools whose meaning is not known."""
    try:
        import anyio
        from mcp.server.stdio import stdio_server
    except ImportError:
        raise UserError(MISSING) from None
    if sys.stdin is None or sys.stdout is None:
        raise UserError("stdin or stdout is closed: a client speaks MCP over both of them")
    session = _session(name, seed, imported, model, state)
    server = server_of(session)
    if sys.stdin.isatty():
        print(f"{name} waits for an MCP client on stdin; Ctrl-C ends it", file=sys.stderr)

    async def run() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
        await session.close()

    # The thread that waits for stdin cannot be interrupted, and there is nothing to tidy up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: os._exit(128 + number))
    anyio.run(run)
