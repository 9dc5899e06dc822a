"""The real tables: every question can be answered, by the expert and against an independent computation."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from openk2.core import Message, Task, UserError
from openk2.evals import real
from openk2.evals.real import QUESTIONS, RealFamily
from openk2.worlds.families.notebook import run_expert

FAMILY = RealFamily()


def test_thirty_questions_three_for_each_file() -> None:
    assert len(QUESTIONS) == 30
    for file in real.FILES:
        assert sum(q.file == file for q in QUESTIONS) == 3
    assert len(FAMILY.tasks()) + 3 * len(FAMILY.skipped()) == 30


@pytest.mark.parametrize("task", FAMILY.tasks(), ids=lambda task: task.id)
def test_the_expert_answers_and_a_wrong_number_fails(task: Task) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real.setup(task, folder)
        messages = run_expert(task, folder, QUESTIONS[task.data["question"]].query)
        assert real.verify(task, folder, messages).passed, messages[-1].content
        assert not real.verify(task, folder, (*messages[:-1], Message("assistant", "It is 123456789."))).passed
        (folder / task.data["file"]).write_text("gone")
        assert not real.verify(task, folder, messages).passed


def test_known_numbers() -> None:
    """The first question is the one in the README; these means are published with the data."""
    facts = {f["label"]: f["numbers"] for f in FAMILY.tasks()[0].data["expect"]["facts"]}
    assert facts["Adelie"] == pytest.approx([38.791, 18.346], abs=1e-3)
    assert facts["Gentoo"] == pytest.approx([47.505, 14.982], abs=1e-3)


def test_not_for_training() -> None:
    with pytest.raises(UserError, match="evaluation only"):
        FAMILY.sample("train", 0)
    assert FAMILY.sample("test", 0) == FAMILY.tasks()[0]


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(real.FILES, "msft.csv", ("no_such_package", "x.csv"))
    assert FAMILY.skipped() == ["msft.csv: the package no_such_package is not installed, its questions are left out"]
