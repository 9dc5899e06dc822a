"""Many programs run at once, within their limits, apart from each other; a machine at fault is no fault of theirs."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from openk2.core import UserError
from openk2.rl.gym import runner
from openk2.rl.gym.runner import PROGRAM, Runner
from openk2.sandbox import Sandbox, box, resolve_sandbox

BRIEF = replace(PROGRAM, seconds=2.0)
BUSY = replace(PROGRAM, seconds=300.0, cpu_seconds=1)
"""A second of a processor may take many where others want it too: only what idles is held to the other limit."""

EARLIER: set[int] = set()


@pytest.fixture(autouse=True)
def earlier() -> None:
    """Other tests may have left processes that serve this one for good."""
    EARLIER.clear()
    EARLIER.update(p.pid for p in psutil.Process().children(recursive=True))


def children() -> list[psutil.Process]:
    """The living processes that came from this one in this test."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if p.pid not in EARLIER and p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def programs() -> list[str]:
    """All processes of any parent that run a program."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(part.startswith(b"/") and part.endswith(b"/program.py") for part in line[:8]):
                found.append(entry.name)
    return found


async def test_output_and_exit_code() -> None:
    ended = await Runner().run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (sorted(ended.output.split()), ended.code, ended.note) == ([b"err", b"out"], 3, "")
    assert (await Runner().run("x = '\udc00'; print(len('é'))")).output == b"1\n"


@pytest.mark.parametrize(
    ("source", "note", "code", "said"),
    [
        ("while True: print('x' * 1000)", "stopped after 256 kB of output", None, b"x"),
        ("while True: pass", "", 137, b""),
        ("import time; time.sleep(99)", "stopped after 2 seconds", None, b""),
        ("import os; os.close(1); os.close(2)\nwhile True: pass", "", 137, b""),
        ("x = bytearray(1 << 30)", "", 1, b"MemoryError"),
        ("x = []\nwhile True: x.append('x' * 10**6 + str(len(x)))", "", 1, b"MemoryError"),
        ("import os; os.fork()", "", 1, b"BlockingIOError"),
        ("import os; f = os.memfd_create('a'); os.write(f, b'x')", "", 1, b"File too large"),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "", 1, b"Error"),
        ("open('here', 'w')", "", 1, b"Error"),
        ("import openk2", "", 1, b"ModuleNotFoundError"),
        ("import sys\nsys.exit('\\0started' * 2)", "", 1, b"started"),
    ],
)
async def test_limits(source: str, note: str, code: int | None, said: bytes) -> None:
    ended = await Runner(caps=BRIEF if "sleep" in source else BUSY).run(source)
    assert ended.note == note and said in ended.output and len(ended.output) <= PROGRAM.output_bytes
    assert code is None or ended.code == code
    assert not children()


@pytest.mark.parametrize(
    "attack",
    [
        "os.kill(VICTIM, 9)",
        "signal.pidfd_send_signal(os.pidfd_open(VICTIM), 9)",
        "resource.prlimit(VICTIM, resource.RLIMIT_CPU, (0, 0))",
        "os.setpriority(os.PRIO_PROCESS, VICTIM, 19)",
        "os.sched_setaffinity(VICTIM, [0])",
    ],
)
async def test_no_other_process_is_touched(attack: str) -> None:
    """Neither the supervisor, which is the parent, nor one of ours."""
    bystander = await asyncio.create_subprocess_exec("sleep", "30")
    try:
        for victim in ("os.getppid()", str(bystander.pid), str(os.getpid())):
            ended = await Runner().run(f"import os, resource, signal\n{attack.replace('VICTIM', victim)}")
            assert ended.code != 0 and b"Error" in ended.output
        assert psutil.Process(bystander.pid).nice() == psutil.Process().nice()
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_no_file_is_changed_or_locked_and_no_clock_is_set(tmp_path: Path) -> None:
    """Neither a file of ours that cannot be read, nor one that can; by the one program of them all."""
    ours = tmp_path / "checkpoint"
    ours.write_text("weights")
    os.utime(ours, (1e9, 1e9))
    before = ours.stat()
    attacks = f"""
import ctypes, errno, fcntl, os, struct, time
path, file = {str(ours)!r}, os.open(os.__file__, os.O_RDONLY)
state = os.fstat(file)
libc = ctypes.CDLL(None, use_errno=True)
def adjust():
    # No mode is given: it would only read the clock.
    if libc.adjtimex(ctypes.create_string_buffer(512)) < 0:
        raise OSError(ctypes.get_errno(), "")
lock = struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
attacks = [
    lambda: os.chmod(path, 0),
    lambda: os.fchmod(file, state.st_mode & 0o7777),
    lambda: os.chmod("checkpoint", 0, dir_fd=file),
    lambda: os.chown(path, {os.getuid()}, {os.getgid()}),
    lambda: os.lchown(path, {os.getuid()}, {os.getgid()}),
    lambda: os.fchown(file, -1, -1),
    lambda: os.utime(path),
    lambda: os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns)),
    lambda: os.setxattr(path, "user.mine", b"1"),
    lambda: os.removexattr(path, "user.mine"),
    lambda: fcntl.ioctl(file, 0x40086602, fcntl.ioctl(file, 0x80086601, bytes(8))),
    lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
    lambda: fcntl.fcntl(file, fcntl.F_SETLK, lock),
    lambda: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK),
    lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    adjust,
    lambda: os.chroot("/usr"),
]
for i, attack in enumerate(attacks):
    try:
        attack()
        print(i, "done")
    except OSError as e:
        if e.errno != errno.EPERM:
            print(i, e)
print("tried", fcntl.fcntl(file, fcntl.F_GETFD))
"""
    ended = await Runner().run(attacks)
    assert ended.output == b"tried 1\n"
    after = ours.stat()
    assert (after.st_mode, after.st_mtime, after.st_ctime) == (before.st_mode, before.st_mtime, before.st_ctime)
    assert ours.read_text() == "weights"


async def test_a_program_has_no_capabilities() -> None:
    held = """
import ctypes, os, resource
sets = (ctypes.c_uint32 * 6)()
libc = ctypes.CDLL(None)
print(libc.capget((ctypes.c_uint32 * 2)(0x20080522, 0), sets), *sets)
print(sum(libc.prctl(23, number, 0, 0, 0) == 1 for number in range(64)) if os.getuid() == 0 else 0)
for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE):
    try:
        resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2)
    except ValueError:
        print("no")
"""
    assert (await Runner().run(held)).output == b"0 0 0 0 0 0 0\n0\nno\nno\n"


async def test_what_other_programs_are_cannot_be_read() -> None:
    if resolve_sandbox().kind != "sandlock":
        pytest.skip("bubblewrap gives a program processes and folders of its own")
    spy = "import os\nfor place in ('/proc', '/tmp', '/proc/self', os.path.dirname(os.getcwd())):\n" + (
        "    try: print(len(os.listdir(place)))\n    except PermissionError: print('no')"
    )
    assert (await Runner().run(spy)).output == b"no\n" * 4


async def test_sixteen_at_once() -> None:
    some, begin = Runner(16), time.monotonic()
    done = await asyncio.gather(*(some.run(f"import time; time.sleep(2); print({i})") for i in range(16)))
    assert [d.output for d in done] == [f"{i}\n".encode() for i in range(16)]
    assert time.monotonic() - begin < 16 * 2  # which they would take one after another
    assert not children()


async def test_no_more_than_allowed_run_at_a_time() -> None:
    some, most = Runner(3), 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, sum(p.pid not in EARLIER for p in psutil.Process().children()))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(some.run("import time; time.sleep(0.1)") for _ in range(9)))
    watching.cancel()
    assert most == 3
    assert 1 <= Runner().at_once <= 4 * (os.cpu_count() or 1)


def test_a_runner_is_used_in_one_loop_after_the_other() -> None:
    some = Runner(1)

    async def both() -> list[bytes]:
        return [d.output for d in await asyncio.gather(some.run("print(1)"), some.run("print(2)"))]

    assert asyncio.run(both()) == asyncio.run(both()) == [b"1\n", b"2\n"]


async def test_cancelling_takes_everything_down() -> None:
    running = asyncio.create_task(Runner().run("import time; time.sleep(99)"))
    while not programs():
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not children()


def _no_launcher(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(box, "_LAUNCHER", "import sys; sys.exit('the kernel has no Landlock')")


def _no_python(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "executable", "/no/such/python")


def _no_mark(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runner, "_BOOT", "")


def _no_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runner, "START_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (_no_launcher, "no Landlock"),
        (_no_python, "No such file"),
        (_no_mark, "without a word"),
        (_no_time, "not ready"),
    ],
)
async def test_a_sandbox_that_does_not_start_is_no_verdict(
    break_it: Callable[[pytest.MonkeyPatch], None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = Runner()
    break_it(monkeypatch)
    with pytest.raises(UserError, match=rf"did not start \(.*{reason}.*\): this machine is at fault"):
        await some.run("print(1)")
    assert not children()


def test_without_a_sandbox_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "resolve_sandbox", lambda: Sandbox("none"))
    with pytest.raises(UserError, match="not run without a sandbox"):
        Runner()
    with pytest.raises(UserError, match="0 programs at once"):
        Runner(0)


def test_what_is_hidden_is_taken_out_of_what_is_readable(tmp_path: Path) -> None:
    for name in ("lib/site-packages/a", "lib/json", "bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lib" / "up").symlink_to(tmp_path)
    hidden = [tmp_path / "lib" / "site-packages"]
    assert runner._without(tmp_path, hidden) == [tmp_path / "bin", tmp_path / "lib" / "json"]
    assert runner._without(hidden[0] / "a", hidden) == []
    assert len(runner._filter("x86_64")) % 8 == 0 and runner._filter("vax") == b""


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_three_hundred_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    count, before, begin = 300, psutil.virtual_memory().available, time.monotonic()
    some = Runner(count, replace(PROGRAM, seconds=300.0))
    running = [asyncio.create_task(some.run("import time; time.sleep(90); print('ok')")) for _ in range(count)]
    most, least, started = 0, before, 0.0
    while not all(task.done() for task in running):
        least = min(least, psutil.virtual_memory().available)
        if most < count:
            most, started = max(most, len(programs())), time.monotonic() - begin
        await asyncio.sleep(0.5)
    assert [task.result().output for task in running] == [b"ok\n"] * count
    assert most >= count and not children()
    with capsys.disabled():
        print(f"\n{count} programs ran at once after {started:.0f} s, in {(before - least) >> 20} MB more, "
              f"all ended after {time.monotonic() - begin:.0f} s")  # fmt: skip
