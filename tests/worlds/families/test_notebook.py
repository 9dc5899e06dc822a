"""The notebook family: every demonstration passes its own check, wrong answers do not."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.core import Message, Split, Task
from openk2.worlds.families.notebook import NotebookFamily, run_expert, setup, verify
from openk2.worlds.families.notebook_check import check_answer, said_numbers
from openk2.worlds.families.notebook_query import query_of

FAMILY = NotebookFamily()
SPLITS: tuple[Split, ...] = ("train", "test")


def solve(task: Task, change: str | None = None) -> bool | None:
    """Let the expert solve a task; `change` replaces the answer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup(task, folder)
        messages = run_expert(task, folder, query_of(task.data["query"]))
        if change is not None:
            messages = (*messages[:-1], Message("assistant", change))
        return verify(task, folder, messages).passed


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("start", range(0, 150, 50))
def test_demonstrations_pass(split: Split, start: int) -> None:
    for seed in range(start, start + 50):
        task = FAMILY.sample(split, seed)
        assert solve(task), (task.request, task.data["query"], FAMILY.demonstrate(task).messages[-1].content)


def test_same_seed_same_task_and_demonstration() -> None:
    a, b = FAMILY.sample("test", 11), FAMILY.sample("test", 11)
    assert a == b
    assert FAMILY.demonstrate(a) == FAMILY.demonstrate(b)
    assert FAMILY.sample("train", 11).data != a.data


def test_every_skill_occurs() -> None:
    assert {FAMILY.sample("test", seed).skill for seed in range(150)} == set(FAMILY.skills)


def test_wrong_numbers_fail() -> None:
    for seed in range(25):
        task = FAMILY.sample("test", seed)
        right = FAMILY.demonstrate(task).messages[-1].content
        numbers = [f["numbers"][0] for f in task.data["expect"]["facts"] if f["numbers"]]
        if not numbers:
            continue
        wrong = re.sub(r"-?\d+(?:\.\d+)?(?=\D*$)", "987654.5", right)
        assert solve(task, wrong) is False, (right, wrong)
        assert solve(task, "") is False
        assert solve(task, "I do not know.") is False


def test_a_changed_file_fails() -> None:
    task = FAMILY.sample("test", 3)
    answer = FAMILY.demonstrate(task).messages[-1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup(task, folder)
        assert verify(task, folder, (answer,)).passed
        (folder / task.data["file"]).write_text("x\n1\n")
        assert not verify(task, folder, (answer,)).passed


def test_the_request_names_the_file_or_says_there_is_one() -> None:
    for seed in range(100):
        task = FAMILY.sample("train", seed)
        assert (task.data["file"] in task.request) == task.data["file_named"]


def test_a_shared_word_means_both_columns() -> None:
    """As in "the average bill by species": there are bill_length_mm and bill_depth_mm."""
    tasks = [FAMILY.sample("train", seed) for seed in range(400)]
    grouped = [t for t in tasks if t.data["query"]["by"] and len(t.data["query"]["columns"]) == 2]
    assert grouped
    assert all(solve(task) for task in grouped)


GROUPS = {
    "facts": [{"label": "Adelie", "numbers": [38.7914]}, {"label": "Gentoo", "numbers": [47.5049]}],
    "names": ["bill_length_mm", "birds2.csv"],
}


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        ("The mean of bill_length_mm by species: Adelie 38.79, Gentoo 47.5.", True),
        ("38.8 mm for Adelie and 47.5 mm for Gentoo, in birds2.csv.", True),
        ("| species | mean |\n| **Gentoo** | 47.50 |\n| Adelie | 38.79 |", True),
        ("Adelie 47.5, Gentoo 38.79.", False),
        ("Adelie 38.79.", False),
        ("Adelie 38.79, Gentoo 47.5, Chinstrap 48.83.", False),
        ("Adelie 38, Gentoo 47.5", False),
        ("Adelie and Gentoo differ.", False),
    ],
)
def test_labelled_answers(answer: str, passed: bool) -> None:
    assert check_answer(answer, GROUPS).passed is passed


@pytest.mark.parametrize(
    ("answer", "expect", "passed"),
    [
        ("There are 1,234 rows.", {"facts": [{"numbers": [1234]}]}, True),
        ("There are 1235 rows.", {"facts": [{"numbers": [1234]}]}, False),
        ("There are 12 rows above 30.", {"facts": [{"numbers": [12]}], "allowed": [30]}, True),
        ("There are 12 rows above 31.", {"facts": [{"numbers": [12]}], "allowed": [30]}, False),
        ("There are no missing values.", {"facts": [{"numbers": [0]}]}, True),
        ("The correlation is 0.", {"facts": [{"numbers": [0.31]}]}, False),
        ("The correlation is -0.31", {"facts": [{"numbers": [-0.3149]}]}, True),
        ("The correlation is 0.31", {"facts": [{"numbers": [-0.3149]}]}, False),
        ("from 2 to 9", {"facts": [{"numbers": [2, 9]}]}, True),
        ("from 9 to 2", {"facts": [{"numbers": [2, 9]}]}, False),
        ("On 2021-05-04.", {"texts": ["2021-05-04"]}, True),
        ("On 2021-05-05.", {"texts": ["2021-05-04"]}, False),
        (
            "b 5, a 9",
            {"facts": [{"label": "a", "numbers": [9]}, {"label": "b", "numbers": [5]}], "ordered": True},
            False,
        ),
        ("It is Oslo, not Rome.", {"facts": [{"label": "Oslo", "numbers": []}], "others": ["Rome"]}, False),
    ],
)
def test_answers(answer: str, expect: dict[str, object], passed: bool) -> None:
    assert check_answer(answer, expect).passed is passed


@given(st.integers(-(10**9), 10**9), st.text(max_size=20))
def test_numbers_are_found_in_words(n: int, text: str) -> None:
    assert [said.value for said in said_numbers(f"it is {n:,} ok")] == [n]
    check_answer(text, {"facts": [{"numbers": [n]}]})


async def test_the_world_agrees_with_the_demonstration() -> None:
    """One task in a real kernel: the same text comes back as in the demonstration."""
    task = next(t for t in (FAMILY.sample("test", s) for s in range(50)) if t.skill == "groupby")
    demonstration = FAMILY.demonstrate(task)
    world = FAMILY.world(task)
    try:
        messages = await world.start(task)
        assert messages == list(demonstration.messages[:2])
        for message, result in zip(demonstration.messages[2::2], demonstration.messages[3::2], strict=False):
            messages.append(message)
            for call in message.tool_calls:
                got = await world.call(call)
                assert got.content == result.content
                messages.append(replace(result, content=got.content))
        messages.append(demonstration.messages[-1])
        assert (await world.verify(messages)).passed
    finally:
        await world.close()
