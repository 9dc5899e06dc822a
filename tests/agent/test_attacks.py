"""What a model could try, with the real sandbox: each ends with nothing lost and a plain message."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from openk2.agent.session import SessionWorld
from openk2.agent.staging import Stage
from openk2.agent.undo import Turn
from openk2.core import ToolCall, ToolResult
from openk2.sandbox import Caps, resolve_sandbox

pytestmark = pytest.mark.skipif(resolve_sandbox(True).kind == "none", reason="nothing is confined without a sandbox")


class Attacked:
    """A person's folder, something beside it that is not to be touched, and a world over the staged copy."""

    def __init__(self, place: Path) -> None:
        self.home, self.outside = place / "work", place / "outside"
        self.home.mkdir()
        self.outside.mkdir()
        (self.home / "mine.txt").write_text("mine\n")
        (self.outside / "secret").write_text("the key is 12345\n")
        self.stage = Stage(self.home, place / "stage")
        self.stage.refresh()
        self.world = SessionWorld(self.stage, resolve_sandbox(True))
        self.world._caps = Caps(seconds=5, memory_bytes=1 << 30, file_bytes=64 << 20, processes=32)

    async def call(self, name: str, **arguments: str) -> ToolResult:
        return await self.world.call(ToolCall("c", name, json.dumps(arguments)))

    def unharmed(self) -> None:
        assert (self.home / "mine.txt").read_text() == "mine\n"
        assert (self.outside / "secret").read_text() == "the key is 12345\n"
        assert [path.name for path in self.outside.iterdir()] == ["secret"]


@pytest.fixture
async def attacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Attacked]:
    monkeypatch.setenv("MOONSHOT_API_KEY", "sk-12345")
    made = Attacked(tmp_path)
    yield made
    made.unharmed()
    await made.world.end()


async def test_reading_outside(attacked: Attacked) -> None:
    secret = attacked.outside / "secret"
    (attacked.stage.folder / "link").symlink_to(secret)
    for result in (
        await attacked.call("shell", command=f"env; cat {secret} link ../../outside/secret"),
        await attacked.call("read_file", path=str(secret)),
        await attacked.call("read_file", path="link"),
        await attacked.call("read_file", path="../outside/secret"),
        await attacked.call("python", code=f"print(open({str(secret)!r}).read())"),
    ):
        assert "12345" not in result.content and result.error, result


async def test_reading_what_other_programs_were_given(attacked: Attacked) -> None:
    run = ["/bin/sh", "-c", "echo begun; read _"]
    with subprocess.Popen(run, env={"SECRET": "12345"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == b"begun\n"
            assert b"12345" in Path(f"/proc/{other.pid}/environ").read_bytes()
            result = await attacked.call("shell", command=f"tr '\\0' ' ' < /proc/{other.pid}/environ")
        finally:
            other.kill()
    assert result.error and "12345" not in result.content


async def test_writing_outside(attacked: Attacked) -> None:
    target = attacked.outside / "evil"
    (attacked.stage.folder / "out").symlink_to(attacked.outside)
    for result in (
        await attacked.call(
            "shell", command=f"echo x > {target}; echo x > out/evil; rm -rf {attacked.outside}/*; false"
        ),
        await attacked.call("write_file", path=str(target), content="x"),
        await attacked.call("write_file", path="out/evil", content="x"),
        await attacked.call("edit_file", path="out/secret", old="12345", new="x"),
        await attacked.call("shell", command=f"echo x > {attacked.home}/mine.txt"),
        await attacked.call("shell", command=f"ln {attacked.outside}/secret hard && echo x > hard"),
    ):
        assert result.error, result


async def test_everything_is_deleted(attacked: Attacked, tmp_path: Path) -> None:
    await attacked.call("shell", command="rm -rf ./* .[a-z]* /root/* / 2>/dev/null; true")
    attacked.unharmed()
    (change,) = attacked.stage.changes()
    assert (change.word, change.path) == ("deleted", "mine.txt")
    # Even where a person says yes to it.
    turn = Turn(tmp_path / "turn")
    assert attacked.stage.merge([change], turn) == [] and not (attacked.home / "mine.txt").exists()
    assert turn.take_back() == {}


async def test_a_fork_bomb_and_programs_that_never_end(attacked: Attacked) -> None:
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    (attacked.stage.folder / "bomb.py").write_text(bomb)
    result = await attacked.call("shell", command="python3 bomb.py")
    assert result.error and "stopped after 5 seconds" in result.content
    result = await attacked.call("shell", command="trap '' TERM INT HUP; while true; do sleep 1; done")
    assert result.error and "stopped after 5 seconds" in result.content
    assert (await attacked.call("shell", command="echo alive")).content == "alive"


async def test_too_much_of_everything(attacked: Attacked) -> None:
    result = await attacked.call("shell", command="yes | head -c 50000000")
    assert result.error and len(result.content) < 3000
    result = await attacked.call("shell", command="dd if=/dev/zero of=large bs=1M count=100")
    assert result.error and (attacked.stage.folder / "large").stat().st_size <= 64 << 20
    result = await attacked.call("python", code="x = bytearray(3 << 30)")
    assert result.error and "MemoryError" in result.content
    with open(attacked.stage.folder / "sparse", "wb") as file:
        file.truncate(1 << 30)
    result = await attacked.call("read_file", path="sparse")
    assert result.error and "is not a text file" in result.content


async def test_what_a_terminal_would_obey_is_taken_out(attacked: Attacked) -> None:
    result = await attacked.call(
        "shell", command=r"printf '\033]0;title\007\033[2J\033[31mred\033[0m\033]52;c;aGk=\007'"
    )
    assert result.content == "red"
    (attacked.stage.folder / "seq").write_text("\x1b[2Jtext\x1b]8;;http://x\x07")
    assert (await attacked.call("read_file", path="seq")).content == "text"


async def test_pipes_sockets_and_devices_are_no_files(attacked: Attacked) -> None:
    os.mkfifo(attacked.stage.folder / "pipe")
    for name in ("pipe", "/dev/zero"):
        assert (await attacked.call("read_file", path=name)).error
        assert (await attacked.call("write_file", path=name, content="x")).error
    assert attacked.stage.changes() == []
