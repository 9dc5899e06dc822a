"""The small process between us and a confined one: `python -I -c TEXT SPEC`, TEXT being that of this file.

It starts the program under limits and confinement, and makes sure that nothing of it survives: when the program ends,
when we ask (SIGTERM), or when we die (standard input is a pipe whose other end only we hold), every descendant is
killed, also those that moved to another session. It imports nothing of this package, so that it starts fast; the
confinement's own supervisor lives here and not in a process with a model in it.

SPEC is JSON: see `openk2.sandbox.box`. The exit code is the program's, or 128 + n after signal n.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
CAPABILITY_VERSION = 0x20080522
METADATA = ("169.254.169.254", "fd00:ec2::254")
"""Where clouds tell a machine, and whoever asks from it, its keys."""
NOT_STARTED = 125
"""Exit code when the confinement could not be set up; the reason is on standard error."""


def main() -> int:
    spec: dict[str, Any] = json.loads(sys.argv[1])
    if sys.platform == "linux":
        # Orphans of the program come to us and not to init, so that they can be found and killed.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGTERM, lambda *_: None)
    _limit(spec)
    try:
        wait = _sandlock(spec) if spec["kind"] == "sandlock" else _plain(spec)
    except (OSError, RuntimeError, ValueError, ImportError) as e:
        print(f"the sandbox could not start: {e}", file=sys.stderr)
        return NOT_STARTED
    done_read, done_write = os.pipe()
    code = [128 + signal.SIGKILL]

    def watch() -> None:
        code[0] = wait()
        os.close(done_write)

    threading.Thread(target=watch, daemon=True).start()
    # Nothing is ever written to our standard input: readable means that the other end is closed.
    select.select([0, wake_read, done_read], [], [])
    _kill_descendants()
    return code[0]


def _limit(spec: dict[str, Any]) -> None:
    """Resource limits for us and for all that we start."""
    wanted = {
        resource.RLIMIT_AS: spec["memory_bytes"],
        resource.RLIMIT_CPU: spec["cpu_seconds"],
        resource.RLIMIT_FSIZE: spec["file_bytes"],
        resource.RLIMIT_CORE: 0,
    }
    if spec["kind"] != "sandlock" and sys.platform == "linux":
        # This limit counts all tasks of the user, so it is set above what runs already. Sandlock counts its own.
        wanted[resource.RLIMIT_NPROC] = _tasks_of_user() + spec["processes"]
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        # macOS refuses some of these; a limit that the system cannot set is not a reason to stop.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))


def _tasks_of_user() -> int:
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == os.getuid():
                    count += len(list((entry / "task").iterdir()))
    return count


def _give_up(kept: Sequence[int]) -> None:
    """Leave us and all that we start no capabilities but those, each below 32, and these only if we have them."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(64):
        if number not in kept:
            # Refused to who is not root, who has nothing to give up either.
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    # Two words of 32 capabilities, each with the effective, the permitted and the inheritable ones.
    head, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    done = libc.capget(head, sets) == 0
    sets[:] = [*[sets[1] & sum(1 << number for number in kept)] * 2, 0, 0, 0, 0]
    if not done or libc.capset(head, sets):
        raise OSError(ctypes.get_errno(), f"capabilities cannot be given up: {os.strerror(ctypes.get_errno())}")


def _sandlock(spec: dict[str, Any]) -> Callable[[], int]:
    # Before sandlock begins threads: capabilities are a thread's own.
    _give_up(spec["capabilities"])
    import sandlock

    box = sandlock.Sandbox(
        fs_readable=spec["read"],
        fs_writable=spec["write"],
        cwd=spec["folder"],
        clean_env=True,
        env=spec["env"],
        # What is not denied is allowed then.
        net_deny=list(METADATA) if spec["network"] else [],
        net_allow_bind=["*"] if spec["network"] else [],
        max_processes=spec["processes"],
        no_coredump=False,
        allow_degraded=list(sandlock.Protection),
    )
    mode = sandlock.StdioMode
    process = box.popen(spec["argv"], stdin=mode.NULL, stdout=mode.INHERIT, stderr=mode.INHERIT)

    def wait() -> int:
        result = process.wait()
        if result.reason == sandlock.ExitReason.EXITED:
            return int(result.exit_code)
        return 128 + (result.signal if result.signal > 0 else signal.SIGKILL)

    return wait


def _plain(spec: dict[str, Any]) -> Callable[[], int]:
    """The program itself, or bubblewrap around it."""
    argv = spec["argv"]
    if spec["kind"] == "bubblewrap":
        argv = [*_bubblewrap(spec), *argv]
    process = subprocess.Popen(
        argv, cwd=spec["folder"], env=spec["env"], stdin=subprocess.DEVNULL, start_new_session=True
    )

    def wait() -> int:
        code = process.wait()
        return code if code >= 0 else 128 - code

    return wait


def _bubblewrap(spec: dict[str, Any]) -> list[str]:
    command = [spec["bwrap"], "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--dev", "/dev", "--proc", "/proc", *(["--share-net"] if spec["network"] else [])]
    for path in spec["read"]:
        if not path.startswith(("/dev", "/proc")):
            command += ["--ro-bind", path, path]
    for path in spec["write"]:
        if not path.startswith("/dev"):
            command += ["--bind", path, path]
    return [*command, "--remount-ro", "/", "--chdir", spec["folder"], "--"]


def _kill_descendants() -> None:
    """Kill every process that we started, directly or not, until none is left."""
    for _ in range(1000):
        alive = _descendants()
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        # A dead child stays in the list until somebody asks for its end.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        select.select([], [], [], 0.002)


def _descendants() -> list[int]:
    """All living processes below this one. Empty where there is no /proc; their session is killed by the caller."""
    children: dict[int, list[int]] = {}
    try:
        entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return []
    for entry in entries:
        with contextlib.suppress(OSError):
            # The name of the program is in parentheses and may hold anything.
            state, parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            if state != b"Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The watching thread may still wait for a process that is gone; it holds nothing worth a clean-up.
    os._exit(status)
