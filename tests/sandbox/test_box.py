"""A confined program does its work, keeps inside, and leaves nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from openk2.sandbox import Caps, Ended, Sandbox, box

CAPS = Caps(seconds=100)


async def sh(sandbox: Sandbox, folder: Path, scratch: Path, command: str, caps: Caps = CAPS) -> Ended:
    return await sandbox.run(["/bin/sh", "-c", command], folder, scratch, caps)


def living(mark: str) -> list[str]:
    """Processes with `mark` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark in line and state != "Z" and int(entry.name) != os.getpid():
                found.append(line)
    return found


async def test_output_and_exit_code(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    ended = await sh(sandbox, tmp_path, scratch, "echo out; echo err >&2; pwd; exit 3")
    assert ended == Ended(f"out\nerr\n{tmp_path}\n".encode(), 3)
    assert (await sh(sandbox, tmp_path, scratch, "kill -9 $$")).code == 128 + signal.SIGKILL


async def test_writes_stay_in_the_folder(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    ended = await sh(sandbox, tmp_path, scratch, "echo a > made; echo b > $TMPDIR/made; cat made $TMPDIR/made")
    assert ended.output == b"a\nb\n" and (tmp_path / "made").read_text() == "a\n"


async def test_other_folders_are_out_of_reach(confined: Sandbox, tmp_path: Path, scratch: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("key")
    (inside / "link").symlink_to(outside / "secret")
    command = f"cat {outside}/secret; cat link; echo x > {outside}/new; echo x > link; rm {outside}/secret"
    ended = await sh(confined, inside, scratch, command)
    assert b"key" not in ended.output
    assert [p.name for p in outside.iterdir()] == ["secret"] and (outside / "secret").read_text() == "key"


def test_a_python_in_the_home_folder_does_not_open_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for part in ("bin", "lib", "share/keyrings", "Documents"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "bin" / "python").touch()
    for name in ("prefix", "base_prefix", "exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    found = [Path(path) for path in box.readable.__wrapped__()]
    assert {tmp_path / "bin", tmp_path / "lib"} <= set(found)
    for hidden in (tmp_path, tmp_path / "share" / "keyrings", tmp_path / "Documents"):
        assert not any(hidden.is_relative_to(path) for path in found)


async def test_the_system_is_read_only(confined: Sandbox, tmp_path: Path, scratch: Path) -> None:
    ended = await sh(confined, tmp_path, scratch, "echo x > /usr/openk2; echo x >> /etc/passwd; cat /etc/shadow")
    assert not Path("/usr/openk2").exists() and ended.code != 0
    assert b"root:" not in ended.output


async def test_little_of_the_power_of_root_is_left(confined: Sandbox, tmp_path: Path, scratch: Path) -> None:
    ended = await sh(confined, tmp_path, scratch, "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status")
    held = 0
    for line in ended.output.splitlines():
        name, value = line.split()
        held |= int(value, 16) if name != b"CapBnd:" or os.getuid() == 0 else 0
    assert len(ended.output.splitlines()) == 3 and not held & ~sum(1 << number for number in box._CAPABILITIES)


async def test_root_works_in_the_folder_of_another_user(confined: Sandbox, tmp_path: Path, scratch: Path) -> None:
    if os.getuid() or confined.kind != "sandlock":
        pytest.skip("root alone may work there, and bubblewrap does not let it")
    (tmp_path / "theirs").write_text("a")
    (tmp_path / "theirs").chmod(0o600)
    for path in (tmp_path / "theirs", tmp_path):
        os.chown(path, 65534, 65534)
    ended = await sh(confined, tmp_path, scratch, "cat theirs; echo b > theirs && chmod 644 theirs && rm theirs")
    assert ended == Ended(b"a", 0) and not list(tmp_path.iterdir())


async def test_no_network(confined: Sandbox, tmp_path: Path, scratch: Path) -> None:
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
    async with server:
        ended = await confined.run([sys.executable, "-c", code], tmp_path, scratch, CAPS)
    assert ended.code == 1 and b"Error" in ended.output


async def test_our_environment_stays_outside(
    sandbox: Sandbox, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2")
    ended = await sh(sandbox, tmp_path, scratch, f"env; echo $HOME; cat /proc/{os.getpid()}/environ | tr '\\0' '\\n'")
    assert b"hunter2" not in ended.output.split(str(scratch).encode())[0]
    if sandbox.kind != "none":
        assert b"hunter2" not in ended.output


async def test_time_limit_takes_everything_down(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    ended = await sh(sandbox, tmp_path, scratch, "echo a; setsid sleep 4711 & sleep 4711", replace(CAPS, seconds=2))
    assert ended.output in (b"a\n", b"") and ended.note == "stopped after 2 seconds"
    assert not living("sleep 4711")


async def test_background_programs_end_with_the_command(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    ended = await sh(sandbox, tmp_path, scratch, "sleep 4712 & setsid sleep 4712 & echo started")
    assert ended.output == b"started\n" and not living("sleep 4712")


async def test_output_limit(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    ended = await sh(sandbox, tmp_path, scratch, "yes", replace(CAPS, output_bytes=1 << 20))
    assert ended.note == "stopped after 1 MB of output" and len(ended.output) < 2 << 20


async def test_memory_limit(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    argv = [sys.executable, "-c", "bytearray(1 << 30)"]
    ended = await sandbox.run(argv, tmp_path, scratch, replace(CAPS, memory_bytes=512 << 20))
    assert ended.code == 1 and b"MemoryError" in ended.output


async def test_file_limit(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    ended = await sh(sandbox, tmp_path, scratch, "head -c 100000 /dev/zero > big", replace(CAPS, file_bytes=5000))
    assert ended.code != 0 and (tmp_path / "big").stat().st_size == 5000


async def test_processor_limit(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    ended = await sh(sandbox, tmp_path, scratch, "while :; do :; done", replace(CAPS, cpu_seconds=1))
    assert ended.code in (128 + signal.SIGXCPU, 128 + signal.SIGKILL) and not ended.note


async def test_process_limit(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    if sandbox.kind != "sandlock" and os.getuid() == 0:
        pytest.skip("the system does not limit the processes of root")
    command = "for i in $(seq 100); do sleep 9 & done; wait"
    ended = await sh(sandbox, tmp_path, scratch, command, replace(CAPS, processes=20))
    assert ended.code != 0 and not ended.note


async def test_cancelling_takes_everything_down(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    running = asyncio.create_task(sh(sandbox, tmp_path, scratch, "touch started; sleep 4713"))
    while not (tmp_path / "started").exists():
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not living("sleep 4713")


def test_a_killed_parent_leaves_nothing(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from openk2.sandbox import Caps, Sandbox
box = Sandbox({sandbox.kind!r}, bwrap={sandbox.bwrap!r})
command = ["/bin/sh", "-c", "touch started; setsid sleep 4714 & sleep 4714"]
asyncio.run(box.run(command, Path({str(tmp_path)!r}), Path({str(scratch)!r}), Caps(seconds=100)))
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    while not (tmp_path / "started").exists():
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while living("sleep 4714") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not living("sleep 4714")


async def test_a_program_that_does_not_exist(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    ended = await sandbox.run(["/no/such/program"], tmp_path, scratch, CAPS)
    assert ended.code != 0


async def test_many_at_once(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    done = await asyncio.gather(*(sh(sandbox, tmp_path, scratch, f"echo {i}") for i in range(6)))
    assert [d.output for d in done] == [f"{i}\n".encode() for i in range(6)]
