"""Word problems: what is asked can be worked out, and one right number passes, however it is written."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.core import Split, Task, UserError, Verdict
from openk2.core.families import get_family
from openk2.rl.gym.word_problem_templates import TEMPLATES
from openk2.rl.gym.word_problems import INSTRUCTION, WordProblemsFamily, read_problems

FAMILY = WordProblemsFamily()
SPLITS: tuple[Split, ...] = ("train", "test")
ROW = {"question": "Ada has 2 pens and 3 more. How many?", "answer": "2 + 3 = <<2+3=5>>5 pens\n#### 5"}


def asked(answer: str) -> Task:
    return replace(FAMILY.sample("train", 0), data={"level": 1, "answer": answer, "steps": []})


def test_gold_passes_and_is_the_same_for_the_same_seed() -> None:
    for split in SPLITS:
        for seed in range(300):
            task = FAMILY.sample(split, seed)
            assert task == WordProblemsFamily().sample(split, seed)
            assert task == replace(task, data=json.loads(json.dumps(task.data)))
            assert FAMILY.check(task, FAMILY.gold(task)) == Verdict(True, "", 1.0)
            assert len(task.request.split()) < 100
            assert len(task.data["steps"]) == task.data["level"]


def test_every_step_is_right() -> None:
    for seed in range(300):
        task = FAMILY.sample("train", seed)
        for step in task.data["steps"]:
            left, _, right = step.partition(" = ")
            value = eval(re.sub(r"([0-9]+)%", r"\1 / 100", left).replace("of", "*"))
            assert value == pytest.approx(float(right))


def test_at_least_25_templates_differ_in_their_arithmetic() -> None:
    shapes: dict[tuple[str, ...], str] = {}
    for seed in range(2000):
        task = FAMILY.sample(SPLITS[seed % 2], seed)
        signs = tuple(re.findall(r" ([-+*/]) |(%|[0-9]/[0-9]+) of", "|".join(task.data["steps"])))
        shape = tuple(sign or ("%" if part == "%" else "part") for sign, part in signs)
        assert shapes.setdefault(shape, task.skill) == task.skill
    assert len(shapes) == len(TEMPLATES) >= 25


def test_held_out_templates_and_words_are_of_the_test_split_alone() -> None:
    train, test = ([FAMILY.sample(split, seed) for seed in range(500)] for split in SPLITS)
    held_out = {name for name, template in TEMPLATES.items() if template.held_out}
    assert len(held_out) >= 4
    assert held_out.isdisjoint(task.skill for task in train)
    assert held_out <= {task.skill for task in test}
    assert {task.request for task in train}.isdisjoint(task.request for task in test)


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ("1250", "$1,250.00"),
        ("1250", "1250"),
        ("1250", "So \\boxed{1,250}."),
        ("1250", "3 * 5 = 15\nThe answer is: **1250 dollars**"),
        ("1250", "1000 + 250\n#### 1250"),
        ("1250", "Answer: \\boxed{1250}"),
        ("3.50", "Answer: 7/2"),
        ("3.50", "\\boxed{\\frac{7}{2}}"),
        ("7/2", "Answer: 3.5 kg"),
        ("25", "Answer: 25%"),
        ("-4", "Answer: −4"),
        ("-4", "Answer: -$4.00"),
        ("72", "She has 72 clips left."),
    ],
)
def test_a_right_number_passes_however_it_is_written(gold: str, said: str) -> None:
    assert FAMILY.check(asked(gold), said) == Verdict(True, "", 1.0)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Answer:",
        "Answer: 71",
        "Answer: -72",
        "Answer: 0.72",
        "Answer: 720",
        "Answer: 72 or 73",
        "Answer: 72, 73",
        "Answer: 71 72 73",
        "Answer: 72/73",
        "Answer: 71\nAnswer: 72",
        "Answer: 72\nAnswer: 72",
        "Answer: 72\nor maybe more",
        "Answer: not 72",
        "Answer: 72 or more",
        "Answer: \\boxed{72} 73",
        "\\boxed{72} \\boxed{71}",
        "\\boxed{72}\nAnswer: 72",
        "70 + 2 = 72",
        "1\n2\n72",
        "Answer: 72e0 1",
        "Answer: 1/0",
        "Answer: seventy-two",
        "Answer: -(72)",
        "Answer: √72",
        "Answer: 72!",
        "Answer: >72",
        " ".join(str(n) for n in range(200)),
        "Answer: " + "7" * 100_000,
        "Answer: 72" + " " * 5000,
        "\\boxed{" * 500 + "72",
        "\ud800",
    ],
)
def test_other_numbers_and_more_than_one_fail(said: str) -> None:
    verdict = FAMILY.check(asked("72"), said)
    assert verdict.passed is False
    assert verdict.score == 0
    assert verdict.reason


def test_the_problem_said_again_is_no_answer() -> None:
    for seed in range(100):
        task = FAMILY.sample("train", seed)
        assert FAMILY.check(task, task.request).passed is False


@given(st.text(st.characters(exclude_categories=[])) | st.text("0123456789.,/-$%\\{}boxedfracAnswer:# \n"))
def test_any_text_is_judged(text: str) -> None:
    for answer in (text, f"Answer: {text}", f"\\boxed{{{text}}}"):
        assert FAMILY.check(asked("123456789123"), answer).score == 0


def test_judges_outside_of_the_main_thread() -> None:
    verdicts: list[Verdict] = []
    task = asked("1234567")
    thread = Thread(target=lambda: verdicts.append(asyncio.run(FAMILY.judge(task, "Answer: 1,234,567.0"))))
    thread.start()
    thread.join()
    assert verdicts == [Verdict(True, "", 1.0)]


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_reads_problems_of_a_file(tmp_path: Path) -> None:
    [task] = read_problems(write(tmp_path / "some.jsonl", [ROW]))
    assert task.request == f"{ROW['question']} {INSTRUCTION}"
    assert FAMILY.gold(task) == "2 + 3 = 5 pens\nAnswer: 5"
    assert FAMILY.check(task, FAMILY.gold(task)) == Verdict(True, "", 1.0)
    assert FAMILY.check(task, "Answer: 6").score == 0


def test_a_file_is_a_family_whose_splits_share_no_question(tmp_path: Path) -> None:
    path = write(tmp_path / "many.jsonl", [ROW | {"question": f"{n} and {n}?"} for n in range(60)])
    family = get_family(f"math:{path}")
    train, test = ({family.sample(split, seed).request for seed in range(200)} for split in SPLITS)
    assert train and test and train.isdisjoint(test)
    assert family.sample("test", 3) == family.sample("test", 3)
    assert family.sample("test", 3).id == "math/test/3"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "there are no problems in"),
        (b"\xff\xfe", "is not a text file in UTF-8"),
        (b'{"question": ', "line 1 of .* is not JSON"),
        (b"[" * 100_000, "line 1 of .* is not JSON"),
        (b'\n["a"]', "line 2 of .* is not an object"),
        (b'{"question": "a"}', "is not an object with the texts"),
        (b'{"question": "a", "answer": 5}', "is not an object with the texts"),
        (b'{"question": "a", "answer": "5"}', "has no final answer"),
        (b'{"question": "a", "answer": "#### five"}', "has no number behind"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_problems(path)


def test_a_file_that_is_missing_or_too_small_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        get_family(f"math:{tmp_path}/none.jsonl")
    with pytest.raises(UserError, match="cannot be read: it has more than"):
        get_family("math:/dev/zero")
    with pytest.raises(UserError, match="is too small"):
        WordProblemsFamily(str(write(tmp_path / "one.jsonl", [ROW])))


@pytest.mark.parametrize("name", ["train", "test"])
def test_every_problem_of_gsm8k_is_read_and_its_solution_passes(name: str, data_pack: Path) -> None:
    tasks = read_problems(data_pack / "gsm8k" / f"{name}.jsonl")
    assert len(tasks) > 1000
    assert all(FAMILY.check(task, FAMILY.gold(task)).passed for task in tasks)
