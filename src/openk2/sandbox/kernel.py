"""A Jupyter kernel in the sandbox: Python whose variables stay from cell to cell.

We talk to it over sockets that are files in the scratch folder, so that it needs no network. A cell that runs too long
or prints too much is interrupted; if it does not listen, the kernel is killed, and so it is known that its variables
are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openk2.core import UserError
from openk2.sandbox import kernel_setup
from openk2.sandbox.box import Caps, Process, Sandbox

if TYPE_CHECKING:
    from jupyter_client.asynchronous.client import AsyncKernelClient

START_SECONDS = 180.0
INTERRUPT_SECONDS = 10.0
AGAIN_SECONDS = 2.0
"""An interrupt that comes before the cell has begun is lost, so it is sent again."""

# Nothing of the user's own Jupyter set-up is read, and no history is kept.
_OPTIONS = (
    "--HistoryManager.enabled=False",
    "--InteractiveShell.colors=nocolor",
    "--InteractiveShell.cache_size=0",
)


@dataclass(slots=True)
class Cell:
    """What came of running one piece of code.

    `error` is the exception's class name and text. `note` says why we stopped it, if we did; `alive` whether the
    variables are still there.
    """

    printed: str = ""
    errors: str = ""
    value: str = ""
    error: tuple[str, str] | None = None
    note: str = ""
    alive: bool = True


class Kernel:
    """One running kernel. Made by `Kernel.start`, ended by `close`."""

    def __init__(self, process: Process, client: AsyncKernelClient, caps: Caps) -> None:
        self._process, self._client, self._caps = process, client, caps
        self._request = ""

    @classmethod
    async def start(
        cls, sandbox: Sandbox, folder: Path, scratch: Path, caps: Caps, env: Mapping[str, str] | None = None
    ) -> Kernel:
        """Start a kernel in `folder`; about a second. Raises UserError if it does not come up."""
        from jupyter_client.asynchronous.client import AsyncKernelClient
        from jupyter_client.connect import write_connection_file

        name = secrets.token_hex(4)
        connection, log = scratch / f"kernel-{name}.json", scratch / f"kernel-{name}.log"
        write_connection_file(
            str(connection), ip=str(scratch / f"k{name}"), transport="ipc", key=secrets.token_hex(32).encode()
        )
        # The folder must not shadow Python's own modules while the kernel starts, hence -P.
        argv = [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", str(connection), *_OPTIONS]
        own = {"IPYTHONDIR": str(scratch / "ipython"), "PYTHONWARNINGS": "ignore", **(env or {})}
        process = await sandbox.start(argv, folder, scratch, replace(caps, cpu_seconds=1 << 30), own, log)
        client = AsyncKernelClient(connection_file=str(connection))
        client.load_connection_file()
        client.start_channels(stdin=False, hb=False)
        kernel = cls(process, client, caps)
        try:
            if await kernel._ready():
                await kernel._prepare()
                return kernel
        except BaseException:
            await kernel.close()
            raise
        ended = not kernel.alive
        code = await kernel.close()
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        late = f"not ready after {START_SECONDS:g} seconds"
        reason = lines[-1] if lines else f"it ended with code {code}; is the disk full?" if ended else late
        raise UserError(f"the Python kernel did not start ({reason}): check that ipykernel works in this Python")

    @property
    def alive(self) -> bool:
        return self._process.alive

    async def run(self, code: str) -> Cell:
        """Run code until it ends, fails, or reaches a limit. A kernel that dies is told in the result."""
        return await self._run(code, self._caps.seconds)

    async def _run(self, code: str, seconds: float) -> Cell:
        cell = Cell()
        running = ending = asyncio.ensure_future(self._execute(code, cell))
        dying = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait({running, dying}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not running.done() and not dying.done():
                cell.note = f"stopped after {seconds:g} seconds"
                await self._interrupt(running, dying)
            elif running.done() and cell.note:
                ending = asyncio.ensure_future(self._until_idle())
                await self._interrupt(ending, dying)
            if running.done():
                running.result()
        except asyncio.CancelledError:
            # Nobody waits for this cell any more, but the next one would wait for its end.
            await self._interrupt(ending, dying)
            raise
        finally:
            for waiting in (running, ending, dying):
                waiting.cancel()
        # A kernel told to exit reports the end of the cell first and is gone a moment later.
        cell.alive = self._process.alive
        if cell.error is not None and cell.error[0] == "OutputLimit":
            cell.note = self._too_much()
        if cell.note and cell.error is not None and cell.error[0] in ("OutputLimit", "KeyboardInterrupt"):
            cell.error = None
        return cell

    async def close(self) -> int:
        """End the kernel at once. The exit code, 128 + n after signal n."""
        self._client.stop_channels()
        await self._process.kill()
        return await self._process.wait()

    async def _ready(self) -> bool:
        """Whether the kernel answers in time, and its messages to all reach us.

        The heartbeat is not asked: on a busy machine it misses its beat.
        """
        deadline = time.monotonic() + START_SECONDS
        while self._process.alive and time.monotonic() < deadline:
            self._client.kernel_info()
            with contextlib.suppress(queue.Empty):
                await self._client.get_shell_msg(timeout=1)
                await self._client.get_iopub_msg(timeout=0.2)
                return True
        return False

    async def _prepare(self) -> None:
        source = Path(kernel_setup.__file__).read_text(encoding="utf-8")
        source += f"\nlead_group()\nlimit_output({self._caps.output_bytes})\n"
        # In a namespace of its own: the kernel's is the user's.
        cell = await self._run(f"exec({source!r}, {{}})", START_SECONDS)
        if cell.error is not None or not cell.alive:
            raise UserError(f"the Python kernel could not be set up ({cell.error}): check the versions of ipykernel")

    async def _execute(self, code: str, cell: Cell) -> None:
        """Collect what a cell sends until it is idle, or until it has printed too much."""
        # With the history off on disk this keeps only the text of the cells, which a final semicolon is looked up in.
        self._request = self._client.execute(code, allow_stdin=False, store_history=True)
        size = 0
        while (message := await self._message()) is not None:
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    size += len(content["text"])
                    if content["name"] == "stdout":
                        cell.printed += content["text"]
                    else:
                        cell.errors += content["text"]
                case "execute_result" | "display_data":
                    shown = content["data"].get("text/plain", "")
                    size += len(shown)
                    cell.value += ("\n" if cell.value else "") + shown
                case "error":
                    cell.error = (content["ename"], content["evalue"])
            if size > self._caps.output_bytes:
                cell.note = self._too_much()
                return

    def _too_much(self) -> str:
        return f"stopped after {self._caps.output_bytes >> 20} MB of output"

    async def _until_idle(self) -> None:
        while await self._message() is not None:
            pass

    async def _message(self) -> dict[str, Any] | None:
        """The next message about the running cell; None when it is over."""
        while True:
            message: dict[str, Any] = await self._client.get_iopub_msg()
            if message["parent_header"].get("msg_id") != self._request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return None
            return message

    async def _interrupt(self, running: asyncio.Future[None], dying: asyncio.Future[int]) -> None:
        """Interrupt the cell; kill the kernel if that does not end it.

        Every request is waited for: on a busy machine a late one would stop the next cell.
        """
        both: set[asyncio.Future[Any]] = {running, dying}
        deadline = time.monotonic() + INTERRUPT_SECONDS
        unanswered = 0
        while not running.done() and not dying.done():
            if time.monotonic() > deadline:
                await self._process.kill()
                return
            self._client.control_channel.send(self._client.session.msg("interrupt_request", content={}))
            unanswered += 1
            await asyncio.wait(both, timeout=AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(queue.Empty):
            while unanswered and self._process.alive:
                await self._client.get_control_msg(timeout=INTERRUPT_SECONDS)
                unanswered -= 1
