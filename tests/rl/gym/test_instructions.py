"""The family of verifiable instructions: golds, splits, scores, and what a policy would try."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import Split, Task, UserError
from openk2.core.families import get_family
from openk2.rl.gym.constraints import KINDS
from openk2.rl.gym.instructions import InstructionsFamily
from openk2.worlds.families.lexicon import split_of
from shared.hanging import it_ends

FAMILY = InstructionsFamily()
SPLITS: tuple[Split, ...] = ("train", "test")


def task_of(*constraints: dict[str, object]) -> Task:
    task = FAMILY.sample("train", 0)
    return replace(
        task, data={"topic": ["river", "rivers"], "constraints": list(constraints), "gold": "", "level": 1, "said": []}
    )


@pytest.mark.parametrize("split", SPLITS)
def test_gold_passes(split: Split) -> None:
    for seed in range(200):
        task = FAMILY.sample(split, seed)
        verdict = FAMILY.check(task, FAMILY.gold(task))
        assert verdict.passed and verdict.reward == 1, (task.request, FAMILY.gold(task), verdict)
        assert len(task.request.split()) < 120
        assert task.id == f"instructions/{split}/{seed}"
        assert task == FAMILY.sample(split, seed)
        assert json.loads(json.dumps(task.data)) == task.data
        assert len(task.data["constraints"]) == task.data["level"]


def test_the_test_split_has_topics_and_requests_of_its_own() -> None:
    train, test = ([FAMILY.sample(split, seed) for seed in range(200)] for split in SPLITS)
    assert all(split_of(task.data["topic"][0]) == task.split for task in (*train, *test))
    assert not {task.data["topic"][1] for task in train} & {task.data["topic"][1] for task in test}
    assert not {task.request for task in train} & {task.request for task in test}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_request_again_is_no_answer(kind: str) -> None:
    """Though it has the words that must be used, and says what the first or last one is."""
    family = get_family(f"instructions:{kind.replace(' ', '-')}")
    for split in SPLITS:
        for seed in range(10):
            task = family.sample(split, seed)
            for said in (task.request, task.request.lower(), f"Well, {' really '.join(task.data['said'])}"):
                verdict = family.check(task, said)
                assert not verdict.passed and verdict.score == 0, (said, verdict)


def test_a_fixed_number_of_constraints() -> None:
    family = get_family("instructions:3")
    assert all(len(family.sample("train", seed).data["constraints"]) == 3 for seed in range(20))
    for count in ("0", "5", "x", "3 "):
        with pytest.raises(UserError, match="number of constraints"):
            InstructionsFamily(count)


def test_the_score_is_the_share_of_the_constraints_that_hold() -> None:
    task = task_of({"kind": "lower case"}, {"kind": "no commas"}, {"kind": "quotes"}, {"kind": "no digits"})
    assert FAMILY.check(task, '"rivers are long"').passed
    partly = FAMILY.check(task, "rivers are long")
    assert (partly.passed, partly.score, partly.reason) == (False, 0.75, "not kept: quotes")
    off_topic = FAMILY.check(task, '"so it is"')
    assert (off_topic.passed, off_topic.score) == (False, 0.5)


def test_a_false_claim_costs_and_a_true_one_does_not() -> None:
    task = task_of({"kind": "bullets", "least": 2, "most": 2})
    true = FAMILY.check(task, "As requested, here are exactly 2 bullets:\n- rivers\n- lakes")
    assert true.passed and true.reward == 1 and not true.penalties
    false = FAMILY.check(task, "As requested, here are exactly 2 bullets:\n- rivers")
    assert not false.passed and false.penalties == {"false claim": 0.5} and false.reward == -0.5
    plain = FAMILY.check(task, "I could not keep it to 2 bullets.\n- rivers")
    assert not plain.penalties and plain.reward == 0


def test_hacks_score_low() -> None:
    """Without looking at what is asked nothing comes out: the mean over many tasks stays low, and nearly none pass."""
    tasks = [FAMILY.sample(split, seed) for split in SPLITS for seed in range(100)]
    other = FAMILY.gold(FAMILY.sample("train", 999))
    for hack, most in (
        (lambda task: "", 0.0),
        (lambda task: task.data["topic"][1] + " ", 0.5),
        (lambda task: (task.data["topic"][1] + " ") * 30, 0.0),
        (lambda task: " ".join(f"{task.data['topic'][1]}{i}" for i in range(500)), 0.0),
        (lambda task: task.request, 0.5),
        (lambda task: "I have followed all your instructions.", 0.0),
        (lambda task: other, 0.35),
    ):
        verdicts = [FAMILY.check(task, hack(task)) for task in tasks]
        mean = sum(verdict.reward or 0 for verdict in verdicts) / len(verdicts)
        assert mean <= most, (mean, hack(tasks[0]))


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=400), st.integers(0, 50))
def test_any_text_is_judged(text: str, seed: int) -> None:
    verdict = FAMILY.check(FAMILY.sample("train", seed), text)
    assert verdict.passed in (True, False) and verdict.score is not None and 0 <= verdict.score <= 1


@pytest.mark.parametrize(
    "text",
    ["x" * 5_000_000, "[" * 7000, "\n" * 7900 + "a", '"' + "a" * 7000, "." * 7000 + "a", "*" + "a" * 7000, "<<" * 3500,
     "# " + " " * 7000 + "x", "\ud800" * 3000, "a. " * 300 + "\n", "in " + "with " * 380, "```" + "\n" * 7000 + "x"],
    ids=lambda text: text[:4] if text.isascii() else "surrogates",
)  # fmt: skip
def test_awkward_texts_are_judged(text: str) -> None:
    tasks = [FAMILY.sample("train", seed) for seed in range(60)]
    with it_ends():
        for task in tasks:
            assert FAMILY.check(task, text).passed in (True, False)
