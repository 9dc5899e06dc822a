"""A machine as a world: Python, a shell and files in one folder.

The names and schemas of the five tools are frozen: models are trained on them. Every declaration is short because it is
part of every prompt.
"""

from __future__ import annotations

import json

from openk2.core import ToolCall, ToolSpec

MACHINE_SYSTEM = "You are OpenK2 nano. Use the tools."

# Results must not depend on the language or the terminal of the person who runs this.
SHELL_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TERM": "dumb", "COLUMNS": "80"}


def _tool(name: str, description: str, *parameters: str) -> ToolSpec:
    schema = {
        "type": "object",
        "properties": {parameter: {"type": "string"} for parameter in parameters},
        "required": list(parameters),
    }
    return ToolSpec(name, description, schema)


PYTHON = _tool("python", "Run Python code.", "code")
SHELL = _tool("shell", "Run a shell command.", "command")
READ_FILE = _tool("read_file", "Read a file.", "path")
WRITE_FILE = _tool("write_file", "Write a file.", "path", "content")
EDIT_FILE = _tool("edit_file", "Replace text in a file.", "path", "old", "new")
MACHINE_TOOLS: tuple[ToolSpec, ...] = (PYTHON, SHELL, READ_FILE, WRITE_FILE, EDIT_FILE)

_BY_NAME = {tool.name: tool for tool in MACHINE_TOOLS}
_JSON_NAMES = {bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}


def machine_arguments(call: ToolCall) -> dict[str, str] | str:
    """The checked arguments of a call of a machine tool, or the sentence that says what is wrong with it."""
    tool = _BY_NAME.get(call.name)
    if tool is None:
        return f"no tool named {call.name[:80]}: use {', '.join(_BY_NAME)}"
    try:
        arguments = call.parsed()
    except json.JSONDecodeError as e:
        return f"the arguments of {call.name} are not valid JSON: {e.msg} at character {e.pos}"
    except (ValueError, RecursionError) as e:
        return str(e)
    wanted: list[str] = tool.parameters["required"]
    for name in wanted:
        if name not in arguments:
            return f"{call.name} needs the argument {name}"
        if not isinstance(arguments[name], str):
            kind = _JSON_NAMES.get(type(arguments[name]), "null")
            return f"the argument {name} of {call.name} must be a string, not {kind}"
    for name in arguments:
        if name not in wanted:
            return f"{call.name} has no argument {name[:80]}: it takes {', '.join(wanted)}"
    return {name: arguments[name] for name in wanted}
