"""A machine as a world: Python, a shell and files in one folder.

The names and schemas of the five tools are frozen: models are trained on them. Every declaration is short because it is
part of every prompt.

`MachineWorld` works in a folder that exists, such as a person's own; `TaskMachineWorld` makes a scratch folder, fills
it for a task and judges what became of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from openk2.core import NANO_SYSTEM, Message, Task, ToolCall, ToolResult, ToolSpec, UserError, Verdict
from openk2.core.messages import is_unicode
from openk2.sandbox import Caps, Sandbox, resolve_sandbox, touched
from openk2.sandbox.kernel import Cell, Kernel
from openk2.worlds import text
from openk2.worlds.files import Files

# Results must not depend on the language or the terminal of the person who runs this. Nor on how fast it goes: Python
# takes compiled code for fresh if a module has changed within a second and kept its size.
SHELL_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TERM": "dumb", "COLUMNS": "80", "PYTHONDONTWRITEBYTECODE": "1"}


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
        return f"no tool named {text.clean(call.name[:80])}: use {', '.join(_BY_NAME)}"
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
        if not is_unicode(arguments[name]):
            return f"the argument {name} of {call.name} holds half a character (a lone surrogate)"
    for name in arguments:
        if name not in wanted:
            return f"{call.name} has no argument {text.clean(name[:80])}: it takes {', '.join(wanted)}"
    return {name: arguments[name] for name in wanted}


KERNEL_DEATHS = 2
"""With so many dead kernels Python stays off: the model kills it each time."""


def _temporary(owner: object, prefix: str) -> tuple[Path, Callable[[], object]]:
    """A new folder and what removes it; a world that nobody closed takes it along when it goes."""
    folder = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    return folder, weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)


class MachineWorld:
    """The five tools over a folder. Nothing can verify what a person asked for, so the verdict is open.

    The kernel starts with the first Python call. `sandbox` is what this system offers if none is given.
    Raises UserError if the folder cannot be used or there is neither a sandbox nor consent to go without.
    """

    def __init__(self, workspace: Path, sandbox: Sandbox | None = None, caps: Caps | None = None) -> None:
        try:
            mode = workspace.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as e:
            raise UserError(f"the workspace {workspace} does not exist: create it or choose another folder") from e
        except (OSError, ValueError) as e:
            raise UserError(f"the workspace {workspace} cannot be used ({e}): choose another folder") from e
        if not stat.S_ISDIR(mode):
            raise UserError(f"the workspace {workspace} is a file: choose the folder it is in")
        if not os.access(workspace, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise UserError(
                f"the workspace {workspace} cannot be read: change its permissions or choose another folder"
            )
        if own := touched(workspace):
            raise UserError(
                f"in the workspace {workspace} OpenK2 itself could be changed ({own}): choose another folder"
            )
        self.workspace = workspace.resolve()
        self._sandbox = sandbox or resolve_sandbox()
        self._caps = caps or Caps()
        self._files = Files(self.workspace)
        self._kernel: Kernel | None = None
        self._deaths = 0
        # What the confined programs may write beside the folder; also holds the sockets, whose names must be short.
        self.scratch, self._clear_scratch = _temporary(self, "openk2-")

    @property
    def tools(self) -> Sequence[ToolSpec]:
        return MACHINE_TOOLS

    async def start(self, task: Task) -> list[Message]:
        return [Message("system", NANO_SYSTEM), Message("user", task.request)]

    async def call(self, call: ToolCall) -> ToolResult:
        arguments = machine_arguments(call)
        if isinstance(arguments, str):
            return ToolResult(arguments, error=True)
        match call.name:
            case "python":
                return await self._python(arguments["code"])
            case "shell":
                return await self._shell(arguments["command"])
            case "read_file":
                return await asyncio.to_thread(self._files.read, arguments["path"])
            case "write_file":
                return await asyncio.to_thread(self._files.write, arguments["path"], arguments["content"])
            case _:
                return await asyncio.to_thread(self._files.edit, arguments["path"], arguments["old"], arguments["new"])

    async def reply(self, message: Message) -> Message | None:
        return None

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        return Verdict(None)

    async def close(self) -> None:
        if self._kernel is not None:
            await self._kernel.close()
            self._kernel = None
        await asyncio.to_thread(self._clear_scratch)

    async def _python(self, code: str) -> ToolResult:
        before = ""
        if self._kernel is not None and not self._kernel.alive:
            before = await self._buried()
        if self._deaths >= KERNEL_DEATHS:
            return ToolResult("Python is off because it died twice: use shell", error=True)
        if self._kernel is None:
            try:
                self._kernel = await Kernel.start(
                    self._sandbox, self.workspace, self.scratch, self._caps, SHELL_ENVIRONMENT
                )
            except UserError as e:
                return ToolResult(text.cap(text.clean(str(e))), error=True)
        cell = await self._kernel.run(code)
        notes = [note for note in (cell.note, "" if cell.alive else await self._buried()) if note]
        return _python_result(cell, before, notes)

    async def _buried(self) -> str:
        """Clear a dead kernel away; what the model must know about it."""
        assert self._kernel is not None
        code = await self._kernel.close()
        self._kernel = None
        self._deaths += 1
        why = f"killed, {_SIGNALS.get(code - 128, f'signal {code - 128}')}" if code > 128 else f"exit code {code}"
        return f"Python died ({why}) and its variables are gone"

    async def _shell(self, command: str) -> ToolResult:
        if "\0" in command:
            return ToolResult("the command holds a zero character", error=True)
        ended = await self._sandbox.run(
            ["/bin/sh", "-c", command], self.workspace, self.scratch, self._caps, SHELL_ENVIRONMENT
        )
        shown = text.from_bytes(ended.output)
        if ended.note:
            return ToolResult(text.shell_text(shown, note=ended.note), error=True)
        return ToolResult(text.shell_text(shown, ended.code), error=ended.code != 0)


_SIGNALS = {6: "it aborted", 9: "perhaps out of memory", 11: "it crashed", 24: "too much computing"}


def _python_result(cell: Cell, before: str, notes: list[str]) -> ToolResult:
    error = text.error_line(*cell.error) if cell.error is not None else ""
    stopped = "\n".join(part for part in (error, *notes) if part)
    printed = f"{before}\n{cell.printed}" if before else cell.printed
    return ToolResult(text.python_text(printed, cell.errors, cell.value, stopped), error=bool(stopped))


class TaskMachineWorld(MachineWorld):
    """A scratch folder that `setup(task, folder)` fills and `verify(task, folder, messages)` judges.

    The folder exists from `start` to `close`.
    """

    def __init__(
        self,
        setup: Callable[[Task, Path], None],
        verify: Callable[[Task, Path, Sequence[Message]], Verdict],
        sandbox: Sandbox | None = None,
        caps: Caps | None = None,
    ) -> None:
        self._setup, self._verify = setup, verify
        self._task: Task | None = None
        parent, self._clear_folder = _temporary(self, "openk2-task-")
        folder = parent / "work"
        folder.mkdir()
        try:
            super().__init__(folder, sandbox, caps)
        except UserError:
            self._clear_folder()
            raise

    async def start(self, task: Task) -> list[Message]:
        self._task = task
        self._setup(task, self.workspace)
        return await super().start(task)

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        if self._task is None:
            return Verdict(False, "the task was never set up")
        return self._verify(self._task, self.workspace, messages)

    async def close(self) -> None:
        await super().close()
        await asyncio.to_thread(self._clear_folder)
