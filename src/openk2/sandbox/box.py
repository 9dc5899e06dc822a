"""What confines a program: sandlock (Landlock and seccomp), else bubblewrap (namespaces), else nothing, with consent.

Inside, a program reads the system and its Python, writes only its folder and its own scratch folder, has no network
unless it is given it, sees neither the home folder nor our environment, and is under resource limits. Without a sandbox
only the limits and the clean environment are left, and `notice` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from openk2.core import UserError
from openk2.sandbox import launch

Kind = Literal["sandlock", "bubblewrap", "none"]

# Read once: what changes on the disk while we run must not decide what runs outside the sandbox.
_LAUNCHER = Path(launch.__file__).read_text(encoding="utf-8")

UNCONFINED = "No sandbox: what the model runs has the rights of your user."

# A system that is read and never written. Of /etc only what programs need to start: it also holds secrets.
SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/proc", "/sys/devices/system/cpu",
    "/etc/alternatives", "/etc/fonts", "/etc/gitconfig", "/etc/group", "/etc/ld.so.cache", "/etc/ld.so.conf",
    "/etc/ld.so.conf.d", "/etc/locale.alias", "/etc/localtime", "/etc/magic", "/etc/mime.types", "/etc/nsswitch.conf",
    "/etc/os-release", "/etc/passwd", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/timezone",
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom",
)  # fmt: skip

# What a program reads that looks up an address.
_OF_NETWORK = tuple(path for path in ("/etc/hosts", "/etc/resolv.conf", "/etc/ssl") if Path(path).exists())

# What root keeps inside, so that it can work in the folder of another user, and end what it started as another one:
# chown, dac_override, fowner, fsetid, kill, setgid, setuid. Without the others it cannot raise its limits or set the
# clock, to name two. Bubblewrap leaves it none.
_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7)


@dataclass(frozen=True, slots=True)
class Caps:
    """What one confined program may use. Limits of the system apply as well when they are lower."""

    memory_bytes: int = 4 << 30
    cpu_seconds: int = 600
    file_bytes: int = 1 << 30
    processes: int = 128
    output_bytes: int = 8 << 20
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. `code` is 128 + n after signal n; `note` says what stopped it, if something did."""

    output: bytes
    code: int
    note: str = ""


class Process:
    """A running confined program. `kill` leaves nothing of it behind."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def stdout(self) -> asyncio.StreamReader:
        assert self._process.stdout is not None
        return self._process.stdout

    async def wait(self) -> int:
        """The exit code, 128 + n after signal n."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def kill(self) -> None:
        """End the program and all that it started."""
        if not self.alive:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                # asyncio reports an end only when all output has been taken.
                while self._process.stdout is not None and await self._process.stdout.read(1 << 16):
                    pass
                await self._process.wait()
        except TimeoutError:
            # The launcher hangs, which it never should: at least its own session goes.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One way to confine programs. `notice` is what the user must know about it; empty if it is complete.

    `reads` are folders that may be read beside the system. With `network` a program may talk to everybody but the
    services that clouds tell their keys at; `frozen`: it may not write into its folder either.
    """

    kind: Kind
    notice: str = ""
    bwrap: str = ""
    reads: tuple[str, ...] = ()
    network: bool = False
    frozen: bool = False

    async def start(
        self,
        argv: Sequence[str],
        folder: Path,
        scratch: Path,
        caps: Caps,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> Process:
        """Start a program in `folder`, its only writable place beside `scratch`.

        Its output goes to the file `log`, else to `Process.stdout`.
        """
        with open(log or os.devnull, "wb") as file:
            process = await asyncio.create_subprocess_exec(
                *self._command(argv, folder, scratch, caps, env or {}),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE if log is None else file,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        return Process(process)

    async def run(
        self,
        argv: Sequence[str],
        folder: Path,
        scratch: Path,
        caps: Caps,
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a program to its end, its time limit or its output limit, whichever comes first."""
        process = await self.start(argv, folder, scratch, caps, env)
        output, note = bytearray(), ""
        try:
            async with asyncio.timeout(caps.seconds):
                while chunk := await process.stdout.read(1 << 16):
                    output += chunk
                    if len(output) > caps.output_bytes:
                        note = f"stopped after {caps.output_bytes >> 20} MB of output"
                        break
                else:
                    return Ended(bytes(output), await process.wait())
        except TimeoutError:
            note = f"stopped after {caps.seconds:g} seconds"
        finally:
            await process.kill()
        return Ended(bytes(output), await process.wait(), note)

    def _command(
        self, argv: Sequence[str], folder: Path, scratch: Path, caps: Caps, env: Mapping[str, str]
    ) -> list[str]:
        spec: dict[str, Any] = {
            "kind": self.kind,
            "bwrap": self.bwrap,
            "argv": list(argv),
            "folder": str(folder),
            "env": {**environment(scratch), **env},
            "read": [*readable(), *self.reads, *(_OF_NETWORK if self.network else ()), *([str(folder)] * self.frozen)],
            "write": [*([] if self.frozen else [str(folder)]), str(scratch), "/dev/null"],
            "network": self.network,
            "capabilities": _CAPABILITIES,
            **asdict(caps),
        }
        return [sys.executable, "-I", "-c", _LAUNCHER, json.dumps(spec)]


def environment(scratch: Path) -> dict[str, str]:
    """A clean environment: our own, with whatever keys and tokens are in it, stays outside."""
    home = str(scratch)
    found = {
        "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "USER": "user",
    }
    return found | {name: os.environ[name] for name in ("TZ",) if name in os.environ}


@cache
def readable() -> list[str]:
    """What may be read: the system and the Python that runs us."""
    return [path for path in (*SYSTEM, *_python()) if os.access(path, os.R_OK)]


# What a Python needs of its prefix. The rest is not its own: a prefix can be ~/.local, or the home folder itself.
_OF_PREFIX = ("bin", "etc/ipython", "include", "lib", "lib32", "lib64", "pyvenv.cfg", "share/zoneinfo")


def _python() -> list[str]:
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(sys.executable).resolve().parents[1])}
    return [f"{prefix.rstrip('/')}/{part}" for prefix in sorted(prefixes) for part in _OF_PREFIX]


_PROBE = """
import contextlib, sys
open("inside", "w").close()
with contextlib.suppress(OSError):
    open(sys.argv[1], "w").close()
"""


PROBE_SECONDS = (20.0, 120.0)
"""How long a sandbox may take to start: at first, and once more."""


def probe(sandbox: Sandbox) -> str:
    """Try a sandbox for real: the reason why it cannot be used, or nothing if it can.

    Raises UserError if it does not start in time even at the second attempt: a busy machine says nothing about a
    sandbox, and is no reason to go without one.
    """
    for seconds in PROBE_SECONDS:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return _probe(sandbox, seconds)
    raise UserError(
        f"the sandbox {sandbox.kind} did not start within {PROBE_SECONDS[-1]:.0f} seconds: this machine is too busy, "
        "try again later"
    )


def _probe(sandbox: Sandbox, seconds: float) -> str:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="openk2-") as name:
        outside = Path(name).resolve()
        folder, scratch = outside / "folder", outside / "scratch"
        folder.mkdir()
        scratch.mkdir()
        argv = [sys.executable, "-I", "-S", "-c", _PROBE, str(outside / "written")]
        command = sandbox._command(argv, folder, scratch, replace(Caps(), cpu_seconds=20), {})
        lifeline, ours = os.pipe()
        try:
            done = subprocess.run(command, stdin=lifeline, capture_output=True, text=True, timeout=seconds, check=False)
        finally:
            os.close(lifeline)
            os.close(ours)
        if (outside / "written").exists():
            return "it lets programs write everywhere"
        if done.returncode == 0 and (folder / "inside").exists():
            return ""
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
