"""A live MCP server that nothing it does can harm: every wait, every line and every result has a bound.

The SDK's transport keeps a line until it ends and speaks of every line that is not MCP; this one has bounds and says in
one sentence why a server was cut off. The server is a process group of its own, which is ended whole. A server that was
cut off stays so: what it has done of a call is not known, so that going on would be guessing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from openk2 import __version__
from openk2.core import ToolResult, UserError
from openk2.core.errors import first_invalid
from openk2.core.messages import as_unicode, compact_json
from openk2.worlds.mcp.specs import MISSING, Names, Spec, checked

if TYPE_CHECKING:
    from mcp import ClientSession
    from mcp.client._transport import TransportStreams

TIMEOUT = 30.0
LARGEST_RESULT = 100_000
_LONGEST_LINE = 8_000_000
_NONSENSE_LINES, _NONSENSE_BYTES = 1000, 1_000_000
_UNASKED = 10_000
"""So many messages in a row that answer nothing."""
_MOST_TOOLS, _MOST_PAGES = 2000, 100
_SILENCE = 300.0
"""Seconds without a word on a connection over which a server may speak of itself; calls have their own clock."""
_GRACE = 1.0
_LAST_WORDS = 2000
_INHERITED = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "TMPDIR")
"""The environment may hold keys: a server sees what it needs to run, and what it is given by name."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is reached: by a command or at a URL, with `headers` that may hold a key."""

    command: tuple[str, ...] = ()
    url: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def words(self) -> str:
        """What a person calls it."""
        text = self.url or " ".join(self.command)
        return text if len(text) <= 100 else text[:97] + "..."


class LiveServer:
    """One session with a server. Everything of it happens in a task of its own, so that any task may open and close it.

    After `open`, `specs` are the tools that can be used, and `left_out` says why others cannot.
    """

    def __init__(self, launch: Launch, *, timeout: float = TIMEOUT) -> None:
        self._launch, self._timeout = launch, timeout
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session: ClientSession | None = None
        self._opening = True
        self._unasked = 0
        self.fault: str | None = None
        self.identity = ""
        self.specs: tuple[Spec, ...] = ()
        self.left_out: dict[str, str] = {}

    async def open(self) -> None:
        """Start the server and list its tools. Raises UserError if it cannot be used, and it has ended then."""
        try:
            # Imported to see whether it can be: an installation may be there and broken.
            import_module("mcp")
        except ImportError:
            raise UserError(MISSING) from None
        for name in ("mcp", "client", "httpx2"):
            # The SDK logs tracebacks of what a server does wrong; here that becomes a sentence.
            logging.getLogger(name).addHandler(logging.NullHandler())
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(ready))
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.wait((ready, self._task), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            self.fault = self.fault or f"it did not list its tools within {self._timeout:g} s"
        except BaseException:
            await self.close()
            raise
        if ready.done():
            return
        ready.cancel()
        await self.close()
        raise UserError(
            f"the MCP server {self._launch.words!r} cannot be used: {self.fault or 'it closed the connection'}; "
            "try it by hand, or name another one"
        )

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """What a tool returns; `name` is the server's own. Whatever goes wrong is an error result."""
        from mcp import MCPError

        if self._session is None or self.fault is not None:
            return self._gone()
        self._unasked = 0
        try:
            async with asyncio.timeout(self._timeout) as clock:
                result = await self._session.call_tool(name, arguments)
        except TimeoutError:
            if not clock.expired():
                return ToolResult.failure("the connection to the server timed out")
            self.fault = self.fault or f"it did not answer {name} within {self._timeout:g} s"
            await self.close()
            return self._gone()
        except Exception as e:
            if self._stop.is_set():
                return self._gone()
            said = _first_line(e)
            return ToolResult.failure(
                said if isinstance(e, MCPError) else f"the result of {name} cannot be read: {said}"
            )
        text = shown(result)
        size = len(text.encode())
        if size > LARGEST_RESULT:
            return ToolResult.failure(
                f"the result of {name} has {size} bytes, and at most {LARGEST_RESULT} are taken: ask for less"
            )
        return ToolResult(text, result.is_error)

    def _gone(self) -> ToolResult:
        return ToolResult.failure(f"the server was cut off: {self.fault or 'it is not open'}")

    async def close(self) -> None:
        """End the server and everything that it has started. May be called twice."""
        self._stop.set()
        if self._task is None:
            return
        if self._opening:
            # Nothing waits for the event yet.
            self._opening = False
            self._task.cancel()
        # Whoever is cancelled meanwhile must not leave a process behind.
        task, self._task = self._task, None
        while not task.done():
            try:
                await asyncio.shield(asyncio.wait((task,)))
            except asyncio.CancelledError:
                await asyncio.wait((task,))
                raise

    async def _live(self, ready: asyncio.Future[None]) -> None:
        """The whole life of the session. Never raises, but when it is cancelled."""
        from mcp import ClientSession
        from mcp_types import Implementation

        try:
            async with (
                self._streams() as (read, write),
                ClientSession(read, write, client_info=Implementation(name="openk2", version=__version__)) as session,
            ):
                try:
                    begun = await session.initialize()
                    self.identity = as_unicode(f"{begun.server_info.name} {begun.server_info.version}".strip())[:200]
                    await self._list(session)
                    self._session = session
                finally:
                    self._opening = False
                if not ready.done():
                    ready.set_result(None)
                await self._stop.wait()
        except Exception as e:
            self.fault = self.fault or _first_line(e)
        finally:
            self._opening, self._session = False, None

    async def _list(self, session: ClientSession) -> None:
        from mcp_types import PaginatedRequestParams

        names, specs, cursor = Names(), list[Spec](), None
        for _ in range(_MOST_PAGES):
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
            for tool in page.tools:
                found = checked(tool.name, tool.description, tool.input_schema, names)
                if isinstance(found, Spec):
                    specs.append(found)
                else:
                    self.left_out[as_unicode(tool.name)[:_LAST_WORDS]] = found
            cursor = page.next_cursor
            if cursor is None:
                break
            if len(specs) + len(self.left_out) > _MOST_TOOLS:
                raise ValueError(f"it lists more than {_MOST_TOOLS} tools")
        else:
            raise ValueError(f"its list of tools has more than {_MOST_PAGES} pages")
        if not specs:
            reasons = "; ".join(sorted(set(self.left_out.values())))
            raise ValueError(f"it has no tool that can be used ({reasons})" if reasons else "it has no tools")
        self.specs = tuple(specs)

    def _streams(self) -> contextlib.AbstractAsyncContextManager[TransportStreams]:
        return self._http() if self._launch.url else self._stdio()

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[TransportStreams]:
        """A server on the network. The SDK bounds the events of a stream; whole answers are bounded here."""
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        def too_much() -> None:
            self.fault = self.fault or f"it sent an answer of more than {_LONGEST_LINE // 1_000_000} MB"
            self._stop.set()

        class Bounded(httpx2.AsyncByteStream):
            def __init__(self, stream: httpx2.AsyncByteStream) -> None:
                self._stream = stream

            async def __aiter__(self) -> AsyncIterator[bytes]:
                size = 0
                async for chunk in self._stream:
                    size += len(chunk)
                    if size > _LONGEST_LINE:
                        too_much()
                        raise httpx2.ReadError("the answer is too long")
                    yield chunk

            async def aclose(self) -> None:
                await self._stream.aclose()

        async def bound(response: httpx2.Response) -> None:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                assert isinstance(response.stream, httpx2.AsyncByteStream)
                response.stream = Bounded(response.stream)

        async with (
            httpx2.AsyncClient(
                timeout=httpx2.Timeout(self._timeout, read=_SILENCE),
                headers=dict(self._launch.headers),
                event_hooks={"response": [bound]},
            ) as client,
            streamable_http_client(self._launch.url, http_client=client) as streams,
        ):
            yield streams

    @asynccontextmanager
    async def _stdio(self) -> AsyncIterator[TransportStreams]:
        """The server as a process, its stdin and stdout as streams of messages."""
        import anyio
        from mcp.shared.message import SessionMessage

        try:
            process = await asyncio.create_subprocess_exec(
                *self._launch.command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env={name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(self._launch.env),
                start_new_session=True,
            )
        except (OSError, ValueError) as e:
            raise ValueError(f"it cannot be started ({getattr(e, 'strerror', None) or e})") from None
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        words = bytearray()

        async def receive() -> None:
            async with incoming:
                fault = await self._receive(process, incoming)
                if not self._stop.is_set():
                    self.fault = self.fault or fault or await _how_it_ended(process, words)
                    # Wakes `_live`, which ends the process.
                    self._stop.set()

        async def send() -> None:
            assert process.stdin is not None
            # The server may be gone: `receive` sees that too.
            with contextlib.suppress(OSError, anyio.ClosedResourceError):
                async for message in outgoing:
                    line = message.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
                    process.stdin.write(line.encode())
                    await process.stdin.drain()

        async def listen() -> None:
            assert process.stderr is not None
            while chunk := await process.stderr.read(65536):
                words.extend(chunk)
                del words[:-_LAST_WORDS]

        tasks = [asyncio.create_task(receive()), asyncio.create_task(send()), asyncio.create_task(listen())]
        try:
            yield read, write
        finally:
            for task in tasks[:2]:
                task.cancel()
            try:
                await _end(process, at_once=self.fault is not None)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for stream in (incoming, read, write, outgoing):
                    stream.close()

    async def _receive(self, process: Process, incoming: Any) -> str | None:
        """Hand on the messages until stdout ends or must not be listened to any longer; then the reason."""
        from mcp.shared.message import SessionMessage
        from mcp_types import JSONRPCError, JSONRPCResponse, jsonrpc_message_adapter

        assert process.stdout is not None
        pending, nonsense, wasted = bytearray(), 0, 0
        while chunk := await process.stdout.read(65536):
            *lines, rest = chunk.split(b"\n")
            for part in lines:
                line = bytes(pending) + part
                pending.clear()
                if not line.strip():
                    continue
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except (ValueError, RecursionError):
                    nonsense, wasted = nonsense + 1, wasted + len(line)
                    if nonsense > _NONSENSE_LINES or wasted > _NONSENSE_BYTES:
                        return "it floods stdout with what is not MCP"
                    continue
                self._unasked = 0 if isinstance(message, JSONRPCResponse | JSONRPCError) else self._unasked + 1
                if self._unasked > _UNASKED:
                    return f"it sent {_UNASKED} messages that answer nothing"
                await incoming.send(SessionMessage(message))
            pending += rest
            if len(pending) > _LONGEST_LINE:
                return f"it wrote a line of more than {_LONGEST_LINE // 1_000_000} MB"
        return None


async def _how_it_ended(process: Process, words: bytearray) -> str:
    """Of a process whose stdout has ended."""
    try:
        async with asyncio.timeout(_GRACE):
            status = await process.wait()
    except TimeoutError:
        return "it closed its stdout"
    how = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
    last = bytes(words).decode("utf-8", "replace").strip().splitlines()
    return f"it {how}" + (f" ({last[-1].strip()[:200]})" if last else "")


async def _end(process: Process, *, at_once: bool) -> None:
    """End a process and its group, politely unless `at_once`."""
    # A process that does not read may keep the pipe full.
    if process.stdin is not None:
        process.stdin.close()
    # The last one also ends what a process that has gone has left in its group.
    steps = (signal.SIGKILL,) if at_once else (None, signal.SIGTERM, signal.SIGKILL)
    try:
        for step in steps:
            if step is not None:
                _signal(process, step)
            try:
                async with asyncio.timeout(_GRACE):
                    await process.wait()
                break
            except TimeoutError:
                continue
    finally:
        _signal(process, signal.SIGKILL)
        # What has left the group may hold the pipes open, for which `wait` waits too.
        transport = getattr(process, "_transport", None)
        if transport is not None:
            transport.close()


def _signal(process: Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _first_line(error: BaseException) -> str:
    """What an error says, without the groups that tasks wrap it in."""
    from mcp import MCPError

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ValidationError):
        where, problem = first_invalid(error)
        return as_unicode(f"it is not MCP: {where}: {problem}")[:300]
    lines = (error.error.message if isinstance(error, MCPError) else str(error)).strip().splitlines()
    return as_unicode(lines[0])[:300] if lines else type(error).__name__


def shown(result: Any) -> str:
    """A result as the model reads it: its texts, and of other things what they are."""
    parts: list[str] = []
    for block in result.content:
        if block.type == "text":
            parts.append(block.text)
        elif block.type in ("image", "audio"):
            parts.append(f"[{block.mime_type}, {len(block.data) * 3 // 4} bytes]")
        elif block.type == "resource_link":
            parts.append(f"[{block.uri}]")
        else:
            parts.append(getattr(block.resource, "text", None) or f"[{block.resource.uri}]")
    if not parts and result.structured_content is not None:
        parts.append(compact_json(result.structured_content))
    return as_unicode("\n".join(parts))
