"""The shell family: the expert's commands give the wanted folder, and nothing else passes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from openk2.core import Message, Split, Task
from openk2.worlds.families import lexicon
from openk2.worlds.families.scratch import new_scratch, read_folder, write_folder
from openk2.worlds.families.shell import ShellFamily, answer, run_expert, setup, verify

FAMILY = ShellFamily()
SPLITS: tuple[Split, ...] = ("train", "test")


def solve(task: Task, spoil: Callable[[Path], None] | None = None) -> bool | None:
    """Let the expert solve a task; `spoil` then does something to the folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup(task, folder)
        messages = run_expert(task, folder)
        if spoil is not None:
            spoil(folder)
        return verify(task, folder, messages).passed


def judge_untouched(task: Task, said: str) -> bool | None:
    """The verdict when nothing is done and something is said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup(task, folder)
        return verify(task, folder, (Message("assistant", said),)).passed


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("start", range(0, 150, 50))
def test_demonstrations_pass(split: Split, start: int) -> None:
    for seed in range(start, start + 50):
        task = FAMILY.sample(split, seed)
        assert solve(task), (task.request, task.data["calls"])


def test_same_seed_same_task_and_demonstration() -> None:
    a, b = FAMILY.sample("test", 4), FAMILY.sample("test", 4)
    assert a == b
    assert FAMILY.demonstrate(a) == FAMILY.demonstrate(b)


def test_every_skill_occurs() -> None:
    assert {FAMILY.sample("test", seed).skill for seed in range(300)} == set(FAMILY.skills)


def test_doing_nothing_fails() -> None:
    for seed in range(100):
        task = FAMILY.sample("test", seed)
        if task.data["expect"] is not None:
            continue
        idle = task.data["end"]["files"] == task.data["files"] and not task.data["end"]["folders"]
        assert idle or judge_untouched(task, "Done.") is False, task.request


def test_wrong_answers_fail() -> None:
    for seed in range(100):
        task = FAMILY.sample("test", seed)
        if task.data["expect"] is not None:
            assert judge_untouched(task, "The answer is 987654.") is False, task.request
            assert judge_untouched(task, "") is False


def test_any_other_change_fails() -> None:
    def litter(folder: Path) -> None:
        (folder / "extra_file.txt").write_text("x")

    def clobber(folder: Path) -> None:
        files, _ = read_folder(folder)
        for name in files:
            (folder / name).write_text("spoiled")

    for seed in range(20):
        task = FAMILY.sample("test", seed)
        assert solve(task, litter) is False
        assert solve(task, clobber) is False


@pytest.mark.parametrize("split", SPLITS)
def test_file_names_are_of_the_split(split: Split) -> None:
    for seed in range(80):
        task = FAMILY.sample(split, seed)
        for path in task.data["files"]:
            for part in path.rpartition(".")[0].replace("/", "_").split("_"):
                assert lexicon.split_of(part.rstrip("0123456789")) == split, path


def test_what_was_printed_goes_into_the_answer() -> None:
    assert answer("Found {list}.", "./a\n./b") == "Found ./a, ./b."
    assert answer("Found {list}.", "./a") == "Found ./a."
    assert answer("port is {value}.", "port = 80") == "port is 80."
    assert answer("It is on line {number}.", "4:x: y") == "It is on line 4."


def test_a_folder_comes_back_as_it_was_written(tmp_path: Path) -> None:
    scratch = new_scratch(lexicon.make_rng("scratch", "train", 1), "train", folders=2)
    scratch.fill(12)
    write_folder(tmp_path, scratch.files, scratch.folders)
    files, folders = read_folder(tmp_path)
    assert files == scratch.files
    assert set(scratch.folders) <= folders


async def test_the_world_agrees_with_the_demonstration() -> None:
    task = next(t for t in (FAMILY.sample("test", s) for s in range(50)) if t.skill == "rename")
    demonstration = FAMILY.demonstrate(task)
    world = FAMILY.world(task)
    try:
        messages = await world.start(task)
        for message in demonstration.messages[2:]:
            messages.append(message)
            for call in message.tool_calls:
                got = await world.call(call)
                assert not got.error, got.content
        assert (await world.verify(messages)).passed
    finally:
        await world.close()
