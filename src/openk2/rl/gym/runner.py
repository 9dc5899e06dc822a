"""Running many small Python programs that nobody has read, each in a sandbox of its own.

A program gets the standard library and nothing else: it can write no file, start no process, use no network, and sees
neither other programs, nor the packages of this Python, nor this one, in which the reference solutions are. What it
prints is bytes that somebody else must judge. A start costs some 60 ms of a core, nearly all of it the supervisor's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import openk2
from openk2.core import UserError
from openk2.sandbox import Caps, Ended, Process, Sandbox, resolve_sandbox
from openk2.sandbox.box import readable

PROGRAM = Caps(
    memory_bytes=256 << 20, cpu_seconds=3, file_bytes=0, processes=1, output_bytes=1 << 18, seconds=10.0
)  # fmt: skip
"""What a program may use. No byte of a file: memory can also be had as files without a name, which no limit counts."""
START_SECONDS = 180.0
"""How long a sandbox may take to start, which is no time of the program: so many start at once on a busy machine."""
_SUPERVISOR_CPU = 600
_MARK = b"\0started\n"

# The mark is written before the program has a say, so a program cannot pretend that its sandbox has not started.
_BOOT = """
import ctypes, os, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]),) * 2)
with open(sys.argv[1], "rb") as file:
    source = file.read()

class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

code = bytes.fromhex(sys.argv[3])
if code:
    room = ctypes.create_string_buffer(code)
    rules = Filter(len(code) // 8, ctypes.addressof(room))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(rules), 0, 0):
        sys.exit(f"the filter of system calls was refused: {os.strerror(ctypes.get_errno())}")
os.write(1, b"\\0started\\n")
exec(compile(source, "program.py", "exec"), {"__name__": "__main__"})
"""


class Runner:
    """Runs programs, `at_once` of them at a time; the others wait for their turn.

    By default as many as the processors keep busy, and no more than fit into a quarter of the memory should each take
    all that it may. Raises UserError if this system has no sandbox: nothing is run without one.
    """

    def __init__(self, at_once: int | None = None, caps: Caps = PROGRAM) -> None:
        if at_once is not None and at_once < 1:
            raise UserError(f"a runner cannot run {at_once} programs at once: use 1 or more")
        found = resolve_sandbox()
        if found.kind == "none":
            raise UserError("programs of a model are not run without a sandbox: install bubblewrap")
        self.caps, self.at_once = caps, at_once or _fitting(caps)
        self._sandbox = _Closed(found.kind, found.notice, found.bwrap)
        self._turns: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def run(self, source: str) -> Ended:
        """Run a program to its end or to one of its limits; nothing of it lives on.

        Raises UserError if the sandbox does not start, which says nothing about the program.
        """
        async with self._turn():
            try:
                with tempfile.TemporaryDirectory(prefix="openk2-") as name:
                    return await self._run(source, Path(name).resolve())
            except OSError as e:
                raise _fault(str(e)) from e

    def _turn(self) -> asyncio.Semaphore:
        """What is waited on for a turn. It belongs to one event loop, and a runner may see several in its life."""
        loop = asyncio.get_running_loop()
        if self._turns is None or self._turns[0] is not loop:
            self._turns = loop, asyncio.Semaphore(self.at_once)
        return self._turns[1]

    async def _run(self, source: str, folder: Path) -> Ended:
        program = folder / "program.py"
        program.write_text(source, encoding="utf-8", errors="backslashreplace")
        # Without `site` Python starts in a third of the time.
        options = [str(program), str(self.caps.cpu_seconds), _filter(platform.machine()).hex()]
        argv = [sys.executable, "-I", "-S", "-c", _BOOT, *options]
        # The supervisor is under the same limits: were it to run out of processor time, who would end the program?
        caps = replace(self.caps, cpu_seconds=_SUPERVISOR_CPU)
        process = await self._sandbox.start(argv, folder, folder, caps)
        async with _ending(process):
            output = await _started(process)
            note = await self._collect(process, output)
        return Ended(bytes(output), await process.wait(), note)

    async def _collect(self, process: Process, output: bytearray) -> str:
        """Take what a program prints until it ends; what stopped it before, if something did."""
        most = self.caps.output_bytes
        try:
            async with asyncio.timeout(self.caps.seconds):
                while len(output) <= most:
                    if not (chunk := await process.stdout.read(1 << 16)):
                        # A program that has closed its output still has to end.
                        await process.wait()
                        return ""
                    output += chunk
        except TimeoutError:
            return f"stopped after {self.caps.seconds:g} seconds"
        del output[most:]
        return f"stopped after {most >> 10} kB of output"


@contextlib.asynccontextmanager
async def _ending(process: Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await process.kill()


async def _started(process: Process) -> bytearray:
    """Wait for the mark; what came with it is the program's first output."""
    head = bytearray()
    try:
        async with asyncio.timeout(START_SECONDS):
            while len(head) < len(_MARK) and (chunk := await process.stdout.read(1 << 16)):
                head += chunk
            if not head.startswith(_MARK):
                while len(head) < 1 << 16 and (chunk := await process.stdout.read(1 << 16)):
                    head += chunk
    except TimeoutError:
        raise _fault(f"not ready after {START_SECONDS:g} seconds") from None
    if not head.startswith(_MARK):
        lines = head.decode("utf-8", "replace").strip().splitlines()
        raise _fault(lines[-1][:200] if lines else "it ended without a word")
    return head[len(_MARK) :]


def _fault(reason: str) -> UserError:
    return UserError(f"the sandbox for a program did not start ({reason}): this machine is at fault, not the program")


def _fitting(caps: Caps) -> int:
    processors = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(4 * processors, memory // 4 // caps.memory_bytes))


# Landlock keeps signals inside, but not these: whoever may set a limit of the supervisor's processor time, or ours, can
# end it. By machine: its number in seccomp, prlimit64, and setpriority, sched_setparam, sched_setscheduler,
# sched_setaffinity, sched_setattr, ioprio_set (linux/audit.h, asm/unistd.h).
_CALLS = {
    "x86_64": (0xC000003E, 302, (141, 142, 144, 203, 314, 251)),
    "aarch64": (0xC00000B7, 261, (140, 118, 119, 122, 274, 30)),
}
_LOAD, _EQUAL, _ABOVE, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001
_X32 = 0x40000000


def _filter(machine: str) -> bytes:
    """A seccomp program that refuses calls which change limits or priorities of other processes. None elsewhere than
    on Linux on a machine whose calls are known."""
    if sys.platform != "linux" or machine not in _CALLS:
        return b""
    audit, prlimit, refused = _CALLS[machine]
    tests = [(_ABOVE, _X32), *((_EQUAL, number) for number in refused)]
    # Jumps are counted from the next instruction on. At the end: allow, refuse.
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 0, len(tests) + 5, audit), (_LOAD, 0, 0, 0)]
    lines += [(test, len(tests) - i + 3, 0, value) for i, (test, value) in enumerate(tests)]
    # The first argument of prlimit64 is a process; 0 is the caller.
    lines += [(_EQUAL, 0, 2, prlimit), (_LOAD, 0, 0, 16), (_EQUAL, 0, 1, 0), (_RETURN, 0, 0, _ALLOW)]
    lines += [(_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


class _Closed(Sandbox):
    """A sandbox in which nothing can be written, and less be read."""

    def _command(
        self, argv: Sequence[str], folder: Path, scratch: Path, caps: Caps, env: Mapping[str, str]
    ) -> list[str]:
        *launcher, spec = super()._command(argv, folder, scratch, caps, env)
        closed = {"read": [*_library(), str(folder)], "write": ["/dev/null"]}
        return [*launcher, json.dumps(json.loads(spec) | closed)]


@cache
def _library() -> tuple[str, ...]:
    """What of the readable a program without packages needs: neither those, nor this package, nor what runs here."""
    hidden = {
        Path(openk2.__file__).resolve().parent,
        *(Path(place).resolve() for place in sys.path if _packages(place)),
    }
    # A list without doubles: /bin and /usr/bin may be one folder under two names.
    places = [Path(place) for place in readable() if place != "/proc"]
    return tuple(dict.fromkeys(str(path) for place in places for path in _without(place, hidden)))


def _packages(place: str) -> bool:
    return Path(place).name in ("site-packages", "dist-packages")


def _without(path: Path, hidden: Iterable[Path]) -> list[Path]:
    """The path, or the parts of it that are left when what is hidden is taken out."""
    real = path.resolve()
    if any(real.is_relative_to(one) for one in hidden):
        return []
    if not any(one.is_relative_to(real) for one in hidden):
        return [path]
    # A link on the way down may lead back up.
    return [part for child in sorted(path.iterdir()) if not child.is_symlink() for part in _without(child, hidden)]
