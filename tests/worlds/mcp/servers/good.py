"""A well-behaved server: notes, and one tool whose name K2 cannot write. On stdio, or on the port that is given."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

NOTES: list[str] = []
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS = [
    types.Tool(name="add_note", description="Add a note.", input_schema=TEXT),
    types.Tool(name="list_notes", description="All notes.", input_schema={"type": "object", "properties": {}}),
    types.Tool(name="notes.count é", description="How many.", input_schema={"type": "object"}),
    types.Tool(
        name="wrong", description="Wrong.", input_schema={"type": "object", "properties": {"a": {"type": "no"}}}
    ),
    types.Tool(name="picture", description="An image.", input_schema={"type": "object"}),
]


async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
    """Two a page."""
    at = int(params.cursor or 0) if params else 0
    more = str(at + 2) if at + 2 < len(TOOLS) else None
    return types.ListToolsResult(tools=TOOLS[at : at + 2], next_cursor=more)


async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    arguments, error = params.arguments or {}, False
    if params.name == "add_note":
        if "text" in arguments:
            NOTES.append(arguments["text"])
            text = f"note {len(NOTES)} added"
        else:
            text, error = "a note needs a text", True
    elif params.name == "list_notes":
        text = "\n".join(NOTES) or "none"
    elif params.name == "picture":
        return types.CallToolResult(content=[types.ImageContent(type="image", data="QUJD", mime_type="image/png")])
    else:
        text = str(len(NOTES))
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=error)


async def main() -> None:
    server = Server("good", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
    if sys.argv[1:]:
        app = server.streamable_http_app()
        await uvicorn.Server(uvicorn.Config(app, port=int(sys.argv[1]), log_level="error")).serve()
        return
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


anyio.run(main)
