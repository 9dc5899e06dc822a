"""The machine as a model meets it: real kernel, real shell, real files, in the sandbox."""

import asyncio
import contextlib
import gc
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import openk2
from openk2.core import (
    NANO_SYSTEM,
    Message,
    Task,
    ToolCall,
    ToolResult,
    ToolSpec,
    Turn,
    UserError,
    Verdict,
    compact_json,
)
from openk2.rollout import rollout
from openk2.sandbox import Caps, Sandbox, resolve_sandbox
from openk2.worlds.machine import MACHINE_TOOLS, MachineWorld, TaskMachineWorld

TASK = Task("t", "machine", "any", 0, "tidy up")
CAPS = Caps(seconds=100)


@pytest.fixture(scope="module")
def box() -> Sandbox:
    return resolve_sandbox(consent=True)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
async def world(box: Sandbox, work: Path) -> AsyncIterator[MachineWorld]:
    world = MachineWorld(work, box, CAPS)
    yield world
    await world.close()


async def use(world: MachineWorld, name: str, **arguments: str) -> ToolResult:
    return await world.call(ToolCall("functions.x:0", name, json.dumps(arguments)))


def test_declarations_are_frozen() -> None:
    """Trained models know these words by heart: a change here needs new weights."""
    assert compact_json([tool.to_openai() for tool in MACHINE_TOOLS]) == (
        '[{"type":"function","function":{"description":"Run Python code.","name":"python","parameters":'
        '{"type":"object","properties":{"code":{"type":"string"}},"required":["code"]}}},'
        '{"type":"function","function":{"description":"Run a shell command.","name":"shell","parameters":'
        '{"type":"object","properties":{"command":{"type":"string"}},"required":["command"]}}},'
        '{"type":"function","function":{"description":"Read a file.","name":"read_file","parameters":'
        '{"type":"object","properties":{"path":{"type":"string"}},"required":["path"]}}},'
        '{"type":"function","function":{"description":"Write a file.","name":"write_file","parameters":'
        '{"type":"object","properties":{"path":{"type":"string"},"content":{"type":"string"}},'
        '"required":["path","content"]}}},'
        '{"type":"function","function":{"description":"Replace text in a file.","name":"edit_file","parameters":'
        '{"type":"object","properties":{"path":{"type":"string"},"old":{"type":"string"},"new":{"type":"string"}},'
        '"required":["path","old","new"]}}}]'
    )


async def test_opening_messages(world: MachineWorld) -> None:
    assert await world.start(TASK) == [Message("system", NANO_SYSTEM), Message("user", "tidy up")]
    assert await world.verify([]) == Verdict(None)


async def test_tools_work_on_the_same_folder(world: MachineWorld, work: Path) -> None:
    assert (await use(world, "write_file", path="a.txt", content="one\ntwo\n")).content == "wrote a.txt"
    assert (await use(world, "shell", command="wc -l < a.txt")).content == "2"
    assert (await use(world, "python", code="text = open('a.txt').read()\nlen(text)")).content == "8"
    assert (await use(world, "edit_file", path="a.txt", old="two", new="three")).content == "edited a.txt"
    assert (await use(world, "read_file", path="a.txt")).content == "one\nthree"
    assert (await use(world, "python", code="text")).content == "'one\\ntwo\\n'", "variables stay between calls"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("python", r'{"code":"\ud800"}', "code of python holds half a character"),
        ("shell", r'{"command":"echo \udfff"}', "command of shell holds half a character"),
        ("write_file", r'{"path":"a.txt","content":"\ud800"}', "content of write_file holds half a character"),
        ("python", '{"code":"\ud800"}', "half a character"),
        ("python", r'{"code":"1","\ud800":"1"}', "has no argument ?"),
        ("\ud800", "{}", "no tool named ?"),
        ("python", '{"code":' + "[" * 100_000, "nested too deeply"),
    ],
)
async def test_calls_that_cannot_be_written_are_error_results(
    world: MachineWorld, work: Path, name: str, arguments: str, words: str
) -> None:
    result = await world.call(ToolCall("functions.x:0", name, arguments))
    assert result.error and words in result.content
    result.content.encode()
    assert not list(work.iterdir())


async def test_dead_python_is_restarted_once_and_told(world: MachineWorld) -> None:
    await use(world, "python", code="x = 1")
    died = await use(world, "python", code="import os; os._exit(3)")
    assert died == ToolResult("Python died (exit code 3) and its variables are gone", error=True)
    assert (await use(world, "python", code="x")).content == "NameError: name 'x' is not defined"
    died = await use(world, "python", code="import os; os.kill(os.getpid(), 9)")
    assert died.content == "Python died (killed, perhaps out of memory) and its variables are gone"
    off = await use(world, "python", code="1")
    assert off.error and "off" in off.content
    assert (await use(world, "shell", command="echo still here")).content == "still here"


async def test_a_death_between_calls_is_told_with_the_next(world: MachineWorld) -> None:
    code = "import threading, os\nthreading.Timer(0.2, os._exit, [5]).start()"
    await use(world, "python", code=code)
    while world._kernel is not None and world._kernel.alive:
        await asyncio.sleep(0.05)
    result = await use(world, "python", code="print('new')")
    assert result.content == "Python died (exit code 5) and its variables are gone\nnew" and not result.error


async def test_time_limits(box: Sandbox, work: Path) -> None:
    world = MachineWorld(work, box, replace(CAPS, seconds=3))
    result = await use(world, "shell", command="echo a; sleep 60")
    assert result.error and result.content.endswith("stopped after 3 seconds")
    result = await use(world, "python", code="print('b')\nimport time\ntime.sleep(60)")
    assert result.error and "stopped after 3 seconds" in result.content
    await world.close()


async def test_memory_limit(box: Sandbox, work: Path) -> None:
    world = MachineWorld(work, box, replace(CAPS, memory_bytes=1 << 30))
    assert (await use(world, "python", code="x = bytearray(2 << 30)")).content == "MemoryError"
    assert (await use(world, "python", code="1 + 1")).content == "2"
    await world.close()


async def test_huge_and_binary_output(world: MachineWorld) -> None:
    for result in (
        await use(world, "shell", command="seq 100000"),
        await use(world, "python", code="for i in range(100000): print(i)"),
        await use(world, "python", code="list(range(100000)), 'x' * 5000"),
    ):
        assert "characters left out" in result.content and len(result.content) < 1600 and not result.error
    flood = await use(world, "shell", command="yes")
    assert flood.error and flood.content.endswith("stopped after 8 MB of output")
    assert (await use(world, "shell", command="head -c 300 /dev/urandom")).content == "(binary data, 300 bytes)"
    noise = await use(world, "python", code="print('a' + bytes(range(32)).decode() + 'b')")
    assert "a" in noise.content and noise.content.replace("\n", "").replace("\t", "").isprintable()


async def test_files_never_leave_the_workspace(world: MachineWorld, work: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    (work / "link").symlink_to(secret)
    (work / "up").symlink_to(tmp_path)
    (work / "in.txt").write_text("inside")
    (work / "fine").symlink_to("in.txt")
    for path in ("../secret", str(secret), "link", "up/secret", "a/../../secret", "/etc/passwd", "up/new", "."):
        for result in (
            await use(world, "read_file", path=path),
            await use(world, "write_file", path=path, content="x"),
            await use(world, "edit_file", path=path, old="key", new="x"),
        ):
            assert result.error and "key" not in result.content, (path, result)
    assert secret.read_text() == "key" and not (tmp_path / "new").exists()
    assert (await use(world, "read_file", path="fine")).content == "inside"
    assert (await use(world, "read_file", path=str(work / "in.txt"))).content == "inside"


def test_a_world_that_nobody_closed_leaves_no_folder(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    world = TaskMachineWorld(setup, verify, box)
    assert list(tmp_path.iterdir())
    del world
    gc.collect()
    assert not list(tmp_path.iterdir())


async def test_closing_ends_programs_and_removes_traces(box: Sandbox, work: Path) -> None:
    world = MachineWorld(work, box, CAPS)
    await use(world, "python", code="import os; open('pid', 'w').write('x'); home = os.environ['HOME']")
    scratch = Path((await use(world, "python", code="print(home)")).content)
    assert scratch.exists()
    await world.close()
    assert not scratch.exists() and work.exists() and (work / "pid").exists()


@contextlib.contextmanager
def not_root() -> Iterator[None]:
    """Permissions do not bind root: act as somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_a_workspace_that_cannot_be_used(box: Sandbox, open_folder: Path) -> None:
    with pytest.raises(UserError, match=r"none does not exist: create it"):
        MachineWorld(open_folder / "none", box)
    (open_folder / "file").write_text("")
    with pytest.raises(UserError, match=r"file is a file: choose"):
        MachineWorld(open_folder / "file", box)
    with not_root():
        (open_folder / "locked").mkdir(mode=0)
        with pytest.raises(UserError, match=r"cannot be read: change"):
            MachineWorld(open_folder / "locked", box)
        with pytest.raises(UserError, match=r"cannot be used .*Permission denied"):
            MachineWorld(open_folder / "locked" / "below", box)
        (open_folder / "locked").chmod(0o700)
    for strange in ("x" * 5000, "a\0b", "file/below"):
        with pytest.raises(UserError, match="workspace"):
            MachineWorld(open_folder / strange, box)


def test_a_workspace_that_holds_this_program(box: Sandbox) -> None:
    for folder in (Path(openk2.__file__).parent, Path(sys.prefix)):
        with pytest.raises(UserError, match="OpenK2 itself could be changed"):
            MachineWorld(folder, box)


async def test_files_without_permission(box: Sandbox, open_folder: Path) -> None:
    with not_root():
        (open_folder / "hidden.txt").write_text("a")
        (open_folder / "hidden.txt").chmod(0)
        (open_folder / "fixed").mkdir()
        (open_folder / "fixed").chmod(0o555)
        (open_folder / "read.txt").write_text("a")
        (open_folder / "read.txt").chmod(0o444)
        world = MachineWorld(open_folder, box)
        results = [
            await use(world, "read_file", path="hidden.txt"),
            await use(world, "write_file", path="fixed/new.txt", content="b"),
            await use(world, "write_file", path="read.txt", content="b"),
            await use(world, "edit_file", path="read.txt", old="a", new="b"),
        ]
        await world.close()
        (open_folder / "fixed").chmod(0o755)
    assert [r.content.split(" for ")[0] for r in results] == ["no permission"] * 4 and all(r.error for r in results)
    assert (open_folder / "read.txt").read_text() == "a"


def setup(task: Task, folder: Path) -> None:
    (folder / "count.txt").write_text("1\n")


def verify(task: Task, folder: Path, messages: Sequence[Message]) -> Verdict:
    return Verdict((folder / "count.txt").read_text() == "2\n" and "2" in messages[-1].content)


class Scripted:
    name = "scripted"

    def __init__(self, *turns: Turn) -> None:
        self.turns = list(turns)

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        return self.turns.pop(0)

    async def close(self) -> None: ...


def acts(name: str, **arguments: str) -> Turn:
    call = ToolCall(f"functions.{name}:0", name, json.dumps(arguments))
    return Turn(Message("assistant", "", (call,)), "tool_calls")


@pytest.mark.parametrize("command, passed", [("echo 2 > count.txt", True), ("echo 3 > count.txt", False)])
async def test_a_task_is_judged_by_what_became_of_the_folder(box: Sandbox, command: str, passed: bool) -> None:
    world = TaskMachineWorld(setup, verify, box)
    policy = Scripted(acts("shell", command=command), Turn(Message("assistant", "It is 2."), "stop"))
    done = await rollout(policy, world, TASK)
    assert done.verdict.passed is passed and not world.workspace.parent.exists()


async def test_worlds_run_side_by_side(box: Sandbox) -> None:
    async def one(number: int) -> str:
        world = TaskMachineWorld(lambda task, folder: None, verify, box, CAPS)
        await world.start(TASK)
        await use(world, "python", code=f"x = {number}; open('x', 'w').write(str(x))")
        text = (await use(world, "python", code="print(open('x').read(), x)")).content
        await world.close()
        return text

    assert await asyncio.gather(one(1), one(2), one(3)) == ["1 1", "2 2", "3 3"]


def test_no_consent_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse() -> Sandbox:
        raise UserError("no sandbox works here")

    monkeypatch.setattr("openk2.worlds.machine.resolve_sandbox", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UserError):
        TaskMachineWorld(setup, verify)
    assert not list(tmp_path.iterdir())
