"""The person's own MCP servers, from the file that other clients read too.

    {"mcpServers": {"files": {"command": "npx", "args": ["-y", "..."], "env": {}}, "web": {"url": "https://..."}}}

Servers are the person's choice and run outside the sandbox, with the rights of the person.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openk2.core import ToolResult, ToolSpec, UserError
from openk2.core.errors import first_invalid
from openk2.core.runs import read_small_text
from openk2.worlds import text
from openk2.worlds.mcp.live import Launch, LiveServer
from openk2.worlds.mcp.specs import Names


class _Server(BaseModel):
    # Other clients keep more in it.
    model_config = ConfigDict(extra="ignore")

    command: str = ""
    args: list[str] = []
    env: dict[str, str] = {}
    url: str = ""
    headers: dict[str, str] = {}
    disabled: bool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    servers: dict[str, _Server] = Field(alias="mcpServers")


class ServerTool:
    """One tool of a server. The model knows it by a name that no other tool has."""

    def __init__(self, server: LiveServer, original: str, spec: ToolSpec) -> None:
        self._server, self._original = server, original
        self.spec = spec

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        result = await self._server.call(self._original, dict(arguments))
        return ToolResult(text.cap(text.clean(result.content)), result.error)


class Servers:
    """All servers of a file, open from `open` to `close`. `remarks` says what the person should know of their tools."""

    def __init__(self, launches: Mapping[str, Launch]) -> None:
        self._launches = dict(launches)
        self._open: list[LiveServer] = []
        self.remarks: list[str] = []

    @classmethod
    def read(cls, path: Path) -> Servers:
        """Raises UserError for a file that cannot be read, or says of a server neither a command nor a URL."""
        try:
            found = _File.model_validate_json(read_small_text(path))
        except ValidationError as e:
            where, why = first_invalid(e)
            raise UserError(f'{path}: {where or "the file"}: {why}; write {{"mcpServers": {{NAME: {{...}}}}}}') from e
        except (OSError, ValueError) as e:
            raise UserError(
                f"{path} cannot be read ({getattr(e, 'strerror', None) or e}): name a file of servers"
            ) from e
        launches = {}
        for name, server in found.servers.items():
            if server.disabled:
                continue
            if bool(server.command) == bool(server.url):
                raise UserError(f"{path}: mcpServers.{name} needs a command, or a url, and not both")
            command = (server.command, *server.args) if server.command else ()
            launches[name] = Launch(command, server.url, server.env, server.headers)
        return cls(launches)

    async def open(self, taken: set[str]) -> list[ServerTool]:
        """Start them; their tools, under names that are not in `taken`. Raises UserError if one cannot be used."""
        names, tools = Names(), list[ServerTool]()
        for name in taken:
            names.usable(name)
        for label, launch in self._launches.items():
            server = LiveServer(launch)
            await server.open()
            self._open.append(server)
            for spec in server.specs:
                free = names.usable(spec.name)
                if free is None:
                    continue
                if free != spec.original:
                    self.remarks.append(f"{label}: the tool {spec.original!r} is called {free} here")
                tools.append(ServerTool(server, spec.original, ToolSpec(free, spec.description, spec.schema)))
            self.remarks += [f"{label}: {tool!r} is left out: {why}" for tool, why in server.left_out.items()]
        return tools

    async def close(self) -> None:
        for server in self._open:
            await server.close()
        self._open.clear()
