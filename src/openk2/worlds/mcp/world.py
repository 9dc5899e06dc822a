"""MCP servers as worlds: a live one that records what happens, and a recording that answers offline.

    openk2 worlds mcp add --name notes -- npx @modelcontextprotocol/server-memory

writes `notes.json`, a world file: how the server is reached and the tools that it has. A task names the file and may
say what is expected:

    {"server": "notes.json", "expect": {"calls": [{"name": "read_graph"}], "told": ["Ada"]}}

Each rollout in `MCPWorld` writes a session, a file of JSON lines in the folder `notes.sessions`; `ReplayWorld` answers
from those, without the server.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openk2.core import Message, Task, ToolCall, ToolResult, ToolSpec, UserError, Verdict, command
from openk2.core.errors import first_invalid
from openk2.core.messages import compact_json
from openk2.core.runs import check_file
from openk2.worlds.mcp.live import TIMEOUT, Launch, LiveServer


class _Read(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerTool(_Read):
    """A tool in a world file. `original` is the server's own name of it, where K2 cannot write that one."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")
    original: str = ""
    description: str = ""
    input_schema: dict[str, Any]


class ServerFile(_Read):
    """A world file. It has a command or a URL; `sessions` is the folder of the recorded ones, next to the file."""

    kind: Literal["mcp"] = "mcp"
    name: str
    command: tuple[str, ...] = ()
    url: str = ""
    env: dict[str, str] = Field(default_factory=dict)
    server: str = ""
    tools: tuple[ServerTool, ...]
    left_out: dict[str, str] = Field(default_factory=dict)
    sessions: str = Field(pattern=r"^[^/\\]+$")

    @property
    def launch(self) -> Launch:
        return Launch(self.command, self.url, self.env)


class RecordedCall(_Read):
    """A line of a session."""

    name: str
    arguments: str
    content: str
    error: bool = False
    seconds: float = 0.0


class ExpectedCall(_Read):
    """A call that must have succeeded, with at least these arguments."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Expectations(_Read):
    """What must be so at the end: calls that succeeded, in any order; tools that must not have been called; and what
    the last answer must say."""

    calls: tuple[ExpectedCall, ...] = ()
    forbidden: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


class MCPTask(_Read):
    """The data of a task. `session` is for a replay: the name of one recorded session; without it, all of them."""

    server: str
    system: str = ""
    session: str = ""
    expect: Expectations | None = None


def read_server(path: Path) -> ServerFile:
    """A world file. Raises UserError."""
    try:
        file = ServerFile.model_validate_json(path.read_bytes())
    except OSError as e:
        raise UserError(
            f"{path} cannot be read: {e.strerror}; name a file of `{command.typed} worlds mcp add`"
        ) from None
    except ValidationError as e:
        where, problem = first_invalid(e)
        raise UserError(f"{path} is no world file: {where or 'it'}: {problem}; make it anew with mcp add") from None
    if bool(file.command) == bool(file.url):
        raise UserError(f"{path} must have a command or a url, and not both: make it anew with mcp add")
    if file.sessions in (".", ".."):
        raise UserError(f"{path}: sessions must name a folder next to the file")
    return file


def canonical(arguments: str) -> str:
    """Arguments with sorted keys and without spaces: equal for calls that are equal. Text that is no JSON stays."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return arguments


class _ServerWorld:
    """What a live server and a recording have in common: the file, the opening, and the verdict."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tools: Sequence[ToolSpec] = ()
        self._task: MCPTask | None = None
        self._done: list[tuple[str, dict[str, Any]]] = []
        self._called: set[str] = set()

    def _open(self, task: Task) -> list[Message]:
        try:
            self._task = MCPTask.model_validate(task.data)
        except ValidationError as e:
            where, problem = first_invalid(e)
            raise UserError(f"the data of task {task.id}: {where}: {problem}") from None
        self.path = self._folder / self._task.server
        self.file = read_server(self.path)
        self.sessions = self.path.parent / self.file.sessions
        self.tools = [ToolSpec(tool.name, tool.description, tool.input_schema) for tool in self.file.tools]
        self._originals = {tool.name: tool.original or tool.name for tool in self.file.tools}
        system = [Message("system", self._task.system)] if self._task.system else []
        return [*system, Message("user", task.request)]

    def _noted(self, call: ToolCall, result: ToolResult) -> ToolResult:
        self._called.add(call.name)
        if not result.error:
            self._done.append((call.name, call.parsed()))
        return result

    def _refused(self, call: ToolCall) -> ToolResult | None:
        """The answer to a call that need not reach anybody."""
        if call.name not in self._originals:
            return ToolResult.failure(f"there is no tool {call.name!r}")
        try:
            call.parsed()
        except (ValueError, RecursionError) as e:
            return ToolResult.failure(f"the arguments are no JSON object ({e})")
        return None

    async def reply(self, message: Message) -> Message | None:
        return None

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        expect = self._task.expect if self._task is not None else None
        if expect is None:
            return Verdict(None, "the task says nothing of what is expected")
        wrong = [
            f"{wanted.name} did not succeed with {compact_json(wanted.arguments)}"
            for wanted in expect.calls
            if not any(name == wanted.name and _within(wanted.arguments, arguments) for name, arguments in self._done)
        ]
        wrong += [f"{name} was called, which must not be" for name in expect.forbidden if name in self._called]
        last = messages[-1].content if messages and messages[-1].role == "assistant" else ""
        wrong += [f"the answer does not say {text}" for text in expect.told if text.lower() not in last.lower()]
        return Verdict(not wrong, "; ".join(wrong))


class MCPWorld(_ServerWorld):
    """A live server. Every call is written to a session with its result."""

    def __init__(self, folder: Path, *, timeout: float = TIMEOUT) -> None:
        super().__init__(folder)
        self._timeout = timeout
        self._server: LiveServer | None = None
        self._record: TextIO | None = None
        self.session: Path | None = None

    async def start(self, task: Task) -> list[Message]:
        opening = self._open(task)
        self._server = LiveServer(self.file.launch, timeout=self._timeout)
        await self._server.open()
        self.session, self._record = _new_session(self.sessions, task.id)
        return opening

    async def call(self, call: ToolCall) -> ToolResult:
        assert self._server is not None and self._record is not None
        began = time.monotonic()
        result = self._refused(call)
        if result is None:
            result = await self._server.call(self._originals[call.name], call.parsed())
        line = RecordedCall(
            name=call.name,
            arguments=canonical(call.arguments),
            content=result.content,
            error=result.error,
            seconds=round(time.monotonic() - began, 3),
        )
        self._record.write(json.dumps(line.model_dump()) + "\n")
        self._record.flush()
        return self._noted(call, result)

    async def close(self) -> None:
        if self._record is not None:
            self._record.close()
        if self._server is not None:
            await self._server.close()


class ReplayWorld(_ServerWorld):
    """A recording. A call that was recorded gives the result that it had, equal calls one after the other; another one
    is an error that says so."""

    async def start(self, task: Task) -> list[Message]:
        opening = self._open(task)
        assert self._task is not None
        self._left: dict[tuple[str, str], deque[ToolResult]] = {}
        self._had: Counter[tuple[str, str]] = Counter()
        named = self._task.session
        paths = [self.sessions / named] if named else sorted(self.sessions.glob("*.jsonl"))
        if not paths:
            raise UserError(f"{self.path} has no recorded sessions in {self.sessions}: run it with its server first")
        for path in paths:
            for line in read_session(path):
                key = line.name, line.arguments
                self._left.setdefault(key, deque()).append(ToolResult(line.content, line.error))
                self._had[key] += 1
        return opening

    async def call(self, call: ToolCall) -> ToolResult:
        key = call.name, canonical(call.arguments)
        left = self._left.get(key)
        if left:
            return self._noted(call, left.popleft())
        times = self._had[key]
        often = f"only {times} time{'s' if times > 1 else ''}" if times else "not"
        refused = self._refused(call)
        return self._noted(call, refused or ToolResult.failure(f"this call of {call.name} was {often} recorded"))

    async def close(self) -> None:
        return None


def read_session(path: Path) -> list[RecordedCall]:
    """A recorded session. Raises UserError naming the line that cannot be read."""
    lines = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                try:
                    lines.append(RecordedCall.model_validate_json(text))
                except ValidationError:
                    raise UserError(f"{path}, line {number} is no recorded call: record it anew") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}; name a recorded session") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: record it anew") from None
    return lines


def _new_session(folder: Path, task: str) -> tuple[Path, TextIO]:
    """A file that no other rollout has."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", task)[:80] or "task"
    number = 1
    while True:
        path = folder / f"{stem}-{number:04}.jsonl"
        try:
            return path, path.open("x", encoding="utf-8")
        except FileExistsError:
            number += 1


def _within(wanted: dict[str, Any], arguments: dict[str, Any]) -> bool:
    return all(name in arguments and arguments[name] == value for name, value in wanted.items())


async def add(launch: Launch, name: str, out: Path, *, timeout: float) -> ServerFile:
    """Start a server, list its tools and write the world file. Raises UserError."""
    check_file(out)
    server = LiveServer(launch, timeout=timeout)
    await server.open()
    await server.close()
    file = ServerFile(
        name=name,
        command=launch.command,
        url=launch.url,
        env=dict(launch.env),
        server=server.identity,
        tools=tuple(
            ServerTool(
                name=spec.name,
                original="" if spec.original == spec.name else spec.original,
                description=spec.description,
                input_schema=dict(spec.schema),
            )
            for spec in server.specs
        ),
        left_out=server.left_out,
        sessions=f"{out.stem}.sessions",
    )
    text = json.dumps(file.model_dump(exclude_defaults=True), indent=2, ensure_ascii=False) + "\n"
    write_whole(out, text)
    return file


def write_whole(path: Path, text: str) -> None:
    """All of a file or nothing. Raises UserError."""
    check_file(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {e.strerror}; name a file in a folder that is there") from None
