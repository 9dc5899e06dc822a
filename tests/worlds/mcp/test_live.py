"""Whatever a server does, a call has a result, and no process is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openk2.core import UserError
from openk2.worlds.mcp.live import LARGEST_RESULT, Launch, LiveServer

Hostile = Callable[[str], Launch]


def running(pids: Path) -> list[int]:
    """Which of the processes are still there; those that only wait to be collected are not."""
    found = []
    for pid in map(int, pids.read_text().split()):
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            continue
        if status.rpartition(")")[2].split()[0] != "Z":
            found.append(pid)
    return found


async def gone(pids: Path) -> None:
    for _ in range(50):
        if not running(pids):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"still running: {running(pids)}")


async def test_a_server_that_behaves(good: Launch) -> None:
    server = LiveServer(good)
    await server.open()
    assert server.identity == "good 1"
    assert [spec.name for spec in server.specs] == ["add_note", "list_notes", "notes_count", "picture"]
    assert server.specs[2].original == "notes.count é"
    assert server.left_out == {"wrong": "the schema is not valid JSON Schema"}
    assert (await server.call("add_note", {"text": "héllo"})).content == "note 1 added"
    refused = await server.call("add_note", {})
    assert refused.error and refused.content == "a note needs a text"
    assert (await server.call("list_notes", {})).content == "héllo"
    assert (await server.call("picture", {})).content == "[image/png, 3 bytes]"
    both = await asyncio.gather(*(server.call("notes.count é", {}) for _ in range(5)))
    assert [result.content for result in both] == ["1"] * 5
    await server.close()
    await server.close()
    assert "cut off" in (await server.call("list_notes", {})).content


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("hang", "was cut off: it did not answer go within 1 s"),
        ("stubborn", "it did not answer go within 1 s"),
        ("children", "it did not answer go within 1 s"),
        ("die", "it ended with status 3 (out of memory)"),
        ("killed", "it ended by signal 9"),
        ("flood", "it floods stdout with what is not MCP"),
        ("notifications", "messages that answer nothing"),
        ("line", "it wrote a line of more than 8 MB"),
    ],
)
async def test_a_call_that_ends_a_server(hostile: Hostile, pids: Path, what: str, words: str) -> None:
    # Floods need longer to be noticed where the machine is busy.
    server = LiveServer(hostile(what), timeout=1 if "1 s" in words else 30)
    try:
        async with asyncio.timeout(60):
            await server.open()
            result = await server.call("go", {})
            assert result.error and words in result.content
            again = await server.call("go", {})
            assert again.error and words in again.content
    finally:
        await server.close()
    await gone(pids)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("huge", f"the result of go has 200000 bytes, and at most {LARGEST_RESULT} are taken"),
        ("misshapen", "the result of go cannot be read"),
        ("refuses", "not today"),
    ],
)
async def test_a_result_that_cannot_be_used_leaves_the_server(
    hostile: Hostile, pids: Path, what: str, words: str
) -> None:
    server = LiveServer(hostile(what))
    await server.open()
    for _ in range(2):
        result = await server.call("go", {})
        assert result.error and words in result.content and "cut off" not in result.content
    await server.close()
    await gone(pids)


async def test_some_nonsense_on_stdout_is_no_harm(hostile: Hostile, pids: Path) -> None:
    server = LiveServer(hostile("garbage"))
    await server.open()
    assert (await server.call("go", {})).content == "still here"
    await server.close()
    await gone(pids)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("silent", "it did not list its tools within 1 s"),
        ("schemas", "it has no tool that can be used (the schema is not valid JSON Schema)"),
        ("list", "it is not MCP: tools.0.inputSchema"),
        ("properties", "it is not MCP: tools.0.inputSchema.properties"),
        ("none", "it has no tools"),
        ("endless_list", "pages"),
    ],
)
async def test_a_server_that_cannot_be_opened(hostile: Hostile, pids: Path, what: str, words: str) -> None:
    server = LiveServer(hostile(what), timeout=1 if "1 s" in words else 30)
    with pytest.raises(UserError) as caught:
        await server.open()
    assert words in str(caught.value) and "\n" not in str(caught.value)
    await gone(pids)


@pytest.mark.parametrize("command", [("no-such-program-anywhere",), ("/",), ("a\0b",)])
async def test_a_command_that_cannot_be_started(command: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="it cannot be started"):
        await LiveServer(Launch(command)).open()


async def test_a_server_sees_no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", "secret")
    seen = tmp_path / "seen"
    with pytest.raises(UserError):
        await LiveServer(Launch(("sh", "-c", f"env > {seen}"), env={"GIVEN": "yes"})).open()
    assert "secret" not in seen.read_text() and "GIVEN=yes" in seen.read_text()


async def test_whoever_is_cancelled_leaves_no_process(hostile: Hostile, pids: Path) -> None:
    server = LiveServer(hostile("stubborn"))
    await server.open()

    async def use() -> None:
        try:
            await server.call("go", {})
        finally:
            await server.close()

    began = time.monotonic()
    task = asyncio.create_task(use())
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(pids)
    assert time.monotonic() - began < 10


def test_a_loop_that_ends_takes_the_server_with_it(hostile: Hostile, pids: Path) -> None:
    async def forgetful() -> None:
        await LiveServer(hostile("stubborn")).open()

    asyncio.run(forgetful())
    for _ in range(50):
        if not running(pids):
            break
        time.sleep(0.1)
    assert not running(pids)


@pytest.fixture
def at_a_url(good: Launch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The well-behaved server on the network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*good.command, str(port)])
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp", process
    finally:
        process.kill()
        process.wait()


async def test_a_server_on_the_network(at_a_url: tuple[str, subprocess.Popen[bytes]]) -> None:
    url, process = at_a_url
    server = LiveServer(Launch(url=url), timeout=5)
    await server.open()
    assert server.identity == "good 1" and len(server.specs) == 4
    assert (await server.call("add_note", {"text": "milk"})).content == "note 1 added"
    assert (await server.call("list_notes", {})).content == "milk"
    process.kill()
    process.wait()
    gone = await server.call("list_notes", {})
    assert gone.error and gone.content
    await server.close()
    with pytest.raises(UserError, match="cannot be used"):
        await LiveServer(Launch(url=url), timeout=5).open()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes | None) -> None:
    """An HTTP server that is none of MCP: it says nothing, or without end."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        if body is not None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
            while body:
                writer.write(body)
                await writer.drain()
        else:
            await asyncio.sleep(60)
    writer.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [(None, "within 2 s"), (b"", "cannot be used"), (b"x" * 65536, "it sent an answer of more than 8 MB")],
)
async def test_what_is_no_mcp_server_on_the_network(body: bytes | None, words: str) -> None:
    listening = await asyncio.start_server(lambda r, w: answer(r, w, body), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    began = time.monotonic()
    with pytest.raises(UserError, match=words):
        await LiveServer(Launch(url=f"http://127.0.0.1:{port}/mcp"), timeout=2 if "2 s" in words else 30).open()
    assert time.monotonic() - began < 20
    listening.close()
