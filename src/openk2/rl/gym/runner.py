"""Running many small Python programs that nobody has read, each in a sandbox of its own.

A program gets the standard library and nothing else: it can neither write, mark nor lock a file, start no process, use
no network, and sees neither other programs, nor the packages of this Python, nor this one, in which the reference
solutions are. Run by root, it has no capabilities. What it prints is bytes that somebody else must judge. A start costs
some 60 ms of a core, nearly all of it the supervisor's.
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

    By default `programs_at_once`. Raises UserError if this system has no sandbox: nothing is run without one.
    """

    def __init__(self, at_once: int | None = None, caps: Caps = PROGRAM) -> None:
        if at_once is not None and at_once < 1:
            raise UserError(f"a runner cannot run {at_once} programs at once: use 1 or more")
        found = resolve_sandbox()
        if found.kind == "none":
            raise UserError("programs of a model are not run without a sandbox: install bubblewrap")
        self.caps, self.at_once = caps, at_once or programs_at_once(caps)
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


def programs_at_once(caps: Caps = PROGRAM) -> int:
    """As many as the processors keep busy, and no more than fit into a quarter of the memory should each take all that
    it may."""
    processors = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(4 * processors, memory // 4 // caps.memory_bytes))


# What no rule about paths or signals keeps a program from. Whoever may set a limit of the supervisor's processor time,
# or ours, can end it; the owner of a file may change its mode, times and attributes wherever it is, and a reader may
# lock it. By machine (linux/audit.h, asm/unistd.h): its number in seccomp; prlimit64, ioctl, fcntl; what is refused.
_CALLS = {
    "x86_64": (
        0xC000003E, (302, 16, 72), (
            141, 142, 144, 203, 314, 251,  # setpriority, sched_set{param,scheduler,affinity,attr}, ioprio_set
            90, 91, 268, 452, 92, 93, 94, 260,  # chmod, fchmod, fchmodat, fchmodat2, chown, fchown, lchown, fchownat
            132, 235, 261, 280,  # utime, utimes, futimesat, utimensat
            188, 189, 190, 463, 197, 198, 199, 466, 469,  # {,l,f}setxattr{,at}, {,l,f}removexattr{,at}, file_setattr
            73,  # flock
            227, 164, 159, 305,  # clock_settime, settimeofday, adjtimex, clock_adjtime
            161, 155, 165, 166,  # chroot, pivot_root, mount, umount2
            170, 171, 167, 168, 163, 179, 443,  # sethostname, setdomainname, swapon, swapoff, acct, quotactl{,_fd}
            169, 174, 175, 313, 176, 246, 320,  # reboot, {create,init,finit,delete}_module, kexec_{,file_}load
        ),
    ),
    "aarch64": (
        0xC00000B7, (261, 29, 25), (
            140, 118, 119, 122, 274, 30,
            52, 53, 452, 55, 54,
            88,
            5, 6, 7, 463, 14, 15, 16, 466, 469,
            32,
            112, 170, 171, 266,
            51, 41, 40, 39,
            161, 162, 224, 225, 89, 60, 443,
            142, 105, 273, 106, 104, 294,
        ),
    ),
}  # fmt: skip
_ATTRIBUTES = (0x40086602, 0x40046602, 0x40087602, 0x40047602, 0x401C5820)
"""Of ioctl: FS_IOC_SETFLAGS and FS_IOC_SETVERSION, in 64 and 32 bits, and FS_IOC_FSSETXATTR."""
_LOCKS = (6, 7, 37, 38, 1024)
"""Of fcntl: F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW, F_SETLEASE."""
_LOAD, _EQUAL, _ABOVE, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = (_RETURN, 0, 0, 0x7FFF0000), (_RETURN, 0, 0, 0x00050001)
_X32 = 0x40000000


def _filter(machine: str) -> bytes:
    """A seccomp program that refuses calls which change files, the system, or what other processes may use. None
    elsewhere than on Linux on a machine whose calls are known."""
    if sys.platform != "linux" or machine not in _CALLS:
        return b""
    audit, (prlimit, ioctl, fcntl), refused = _CALLS[machine]
    # A test is followed by how many instructions to skip if it holds, and if not.
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), _REFUSE, (_LOAD, 0, 0, 0)]
    for test, value in [(_ABOVE, _X32), *((_EQUAL, number) for number in refused)]:
        lines += [(test, 0, 1, value), _REFUSE]
    # The second argument of these is a command of 32 bits.
    for number, commands in ((ioctl, _ATTRIBUTES), (fcntl, _LOCKS)):
        lines += [(_EQUAL, 0, 2 * len(commands) + 2, number), (_LOAD, 0, 0, 24)]
        lines += [line for command in commands for line in ((_EQUAL, 0, 1, command), _REFUSE)]
        lines += [_ALLOW]
    # The first argument of prlimit64 is a process; 0 is the caller.
    lines += [(_EQUAL, 0, 3, prlimit), (_LOAD, 0, 0, 16), (_EQUAL, 1, 0, 0), _REFUSE, _ALLOW]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


class _Closed(Sandbox):
    """A sandbox in which nothing can be written, less be read, and root has no capabilities."""

    def _command(
        self, argv: Sequence[str], folder: Path, scratch: Path, caps: Caps, env: Mapping[str, str]
    ) -> list[str]:
        *launcher, spec = super()._command(argv, folder, scratch, caps, env)
        closed = {"read": [*_library(), str(folder)], "write": ["/dev/null"], "capabilities": []}
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
