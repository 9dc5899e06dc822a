"""Families by name: those that are here, and those of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openk2.core import UserError
from openk2.core.families import (
    FAMILIES,
    FIXED,
    beside,
    get_family,
    identity,
    is_verified,
    look_in,
    needs_sandbox,
    own_file,
    sample_task,
    trainable,
)
from openk2.rl.gym.catalogue import samples
from openk2.rl.gym.question import QuestionFamily

EXAMPLES = Path(__file__).parents[2] / "examples"
MINE = """
import asyncio, sys
from openk2.core import Task, Verdict
from openk2.rl.gym.question import QuestionFamily

class Mine(QuestionFamily):
    name = "mine"
    skills = ("one",)
    def sample(self, split, seed): return Task(f"mine/{split}/{seed}", "mine", "one", seed, f"Say {seed}.", {}, split)
    def gold(self, task): return str(task.seed)
    def check(self, task, answer): return Verdict(answer == str(task.seed))

class Broken(Mine):
    def sample(self, split, seed): return 1 / 0

class Wrong(Mine):
    def check(self, task, answer): return 1 / 0

class Asks(Mine):
    def __init__(self, what): ...

class Exits(Mine):
    def sample(self, split, seed): sys.exit(3)

class NoTask(Mine):
    def sample(self, split, seed): return None

class NoWorld(Mine):
    def world(self, task): return None

class WorldRaises(Mine):
    def world(self, task): return 1 / 0

class Cancelled(Mine):
    def check(self, task, answer): raise asyncio.CancelledError

class NoText(Mine):
    def gold(self, task): return 3

class Other: ...
number = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_found_once_and_says_what_it_is(name: str) -> None:
    family = get_family(name)
    assert family is get_family(name) and family.name == name and family.skills
    assert is_verified(name) == (name != "reports")
    assert needs_sandbox(name) == (name in ("notebook", "shell", "code", *FIXED))


def test_a_family_of_a_file(mine: Path) -> None:
    name = f"{mine}:Mine"
    task = sample_task(name, "train", 4)
    family = trainable(name)
    assert family is get_family(name)
    assert (task.request, family.demonstrate(task).messages[-1].content) == ("Say 4.", "4")


def test_two_files_of_one_name_do_not_meet(mine: Path, tmp_path: Path) -> None:
    other = tmp_path / "folder" / "mine.py"
    other.parent.mkdir()
    other.write_text(MINE.replace("Say", "Write"))
    assert sample_task(f"{other}:Mine", "train", 1).request == "Write 1."
    assert sample_task(f"{mine}:Mine", "train", 1).request == "Say 1."


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chess", "there is no task family 'chess': use one of functions, "),
        ("safety:x", "safety takes no option"),
        ("code:x", "code takes no option"),
        ("apps:x", "apps:single"),
        ("{folder}/none.py:Mine", "there is no file "),
        ("{folder}/mine.py", "has to be followed by the name of the family's class"),
        ("{folder}/mine.py:Nobody", "has no class 'Nobody'"),
        ("{folder}/mine.py:number", "has no class 'number'"),
        ("{folder}/mine.py:Other", "is no task family, it lacks name, skills, sample, world, demonstrate: "),
        ("{folder}/mine.py:Asks", "cannot be made without arguments (TypeError"),
        ("{folder}/wrong.py:Mine", "cannot be imported (SyntaxError"),
    ],
)
def test_names_of_nothing(mine: Path, name: str, words: str) -> None:
    (mine.parent / "wrong.py").write_text("class Mine(:")
    with pytest.raises(UserError) as refused:
        get_family(name.format(folder=mine.parent))
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_what_cannot_be_trained_on_or_makes_no_task(mine: Path) -> None:
    with pytest.raises(UserError, match="real is for evaluation only"):
        trainable("real")
    with pytest.raises(UserError, match=r"cannot make the test task 3 \(ZeroDivisionError"):
        sample_task(f"{mine}:Broken", "test", 3)


def test_a_verifier_that_raises_is_one_sentence(mine: Path) -> None:
    with pytest.raises(UserError, match=r"the world of mine/train/0 could not be verified \(ZeroDivisionError"):
        list(samples(f"{mine}:Wrong", 1, 0, "train"))
    with pytest.raises(UserError, match=r"cannot make the test task"):
        list(samples(f"{mine}:Broken", 1, 0, "test"))


def test_the_reward_of_the_examples_counts_words() -> None:
    name = f"{EXAMPLES / 'reward.py'}:Brief"
    family, task = get_family(name), sample_task(name, "train", 0)
    assert isinstance(family, QuestionFamily)
    number = family.gold(task).split()[-1]
    short, long = (family.check(task, text) for text in (f"Answer: {number}", f"So then. Answer: {number}"))
    assert short.passed and long.passed and short.reward > long.reward > 0
    assert not family.check(task, "no").penalties


def test_a_declared_app_is_a_family_whose_test_requests_are_others() -> None:
    file = EXAMPLES / "tool_library.toml"
    name = f"apps:{file}"
    assert (own_file(name), beside(name)) == (file, "apps:tool_library.toml")
    assert all(one["verdict"]["passed"] for one in samples(name, 20, 0, "test"))
    tasks = {split: [sample_task(name, split, i) for i in range(100)] for split in ("train", "test")}
    asked = {split: {task.request for task in found} for split, found in tasks.items()}
    assert min(map(len, asked.values())) > 5 and not asked["train"] & asked["test"]
    # By the name of its tasks a family can be asked for.
    assert {task.family for task in tasks["test"]} == {name}


def test_the_file_of_an_option_is_one_of_the_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openk2.core.families._FOLDERS", [])
    file = tmp_path / "problems.jsonl"
    lines = [json.dumps({"question": f"What is {i} and 1?", "answer": f"#### {i + 1}"}) for i in range(200)]
    file.write_text("\n".join(lines))
    assert own_file(f"math:{tmp_path}/problems") == tmp_path / "problems"
    assert own_file(f"math:{file}") == file and own_file("math") is None and own_file("functions:ask") is None
    assert [beside(name) for name in (f"math:{file}", f"{file.parent}/a.py:B", "apps:single")] == [
        "math:problems.jsonl", "a.py:B", "apps:single"
    ]  # fmt: skip
    # A file whose name is in the family's own.
    monkeypatch.chdir(tmp_path)
    Path("m").write_text("\n".join(lines))
    assert identity("math:m") == identity("math:./m") == (tmp_path / "m", "math:") and beside("math:./m") == "math:m"
    look_in(tmp_path)
    assert sample_task("math:problems.jsonl", "train", 0).request.startswith("What is ")


def test_the_example_with_tools_and_a_user() -> None:
    found = list(samples(f"{EXAMPLES / 'world.py'}:Vending", 8, 0, "test"))
    assert {one["skill"] for one in found} == {"buy", "ask"}
    for one in found:
        assert one["verdict"]["passed"], one
        assert ("User: The" in one["answer"]) == (one["skill"] == "ask")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Exits", "cannot make the train task 1 (SystemExit: 3)"),
        ("NoTask", "cannot make the train task 1 (AttributeError: 'NoneType'"),
        ("NoWorld", "could not be made (NoneType is no World)"),
        ("WorldRaises", "could not be made (ZeroDivisionError: division by zero)"),
        ("Cancelled", "could not be verified (CancelledError)"),
        ("NoText", "cannot demonstrate mine/train/1 (TypeError: the messages of a demonstration are texts)"),
    ],
)
def test_what_a_family_does_wrong_is_one_sentence(mine: Path, name: str, words: str) -> None:
    with pytest.raises(UserError) as found:
        list(samples(f"{mine}:{name}", 1, 1, "train"))
    assert words in str(found.value)


def test_a_file_in_a_folder_with_a_colon(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    assert get_family(f"{folder / 'mine.py'}:Mine").name == "mine"
    (tmp_path / "loop.py").symlink_to("loop.py")
    with pytest.raises(UserError, match="there is no file"):
        get_family(f"{tmp_path / 'loop.py'}:Mine")
