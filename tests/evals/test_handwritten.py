"""The requests written by hand: each can be solved, and each check can fail."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest

from openk2.core import Message, Task, UserError
from openk2.evals.handwritten import HandwrittenFamily
from openk2.worlds.families import notebook, shell
from openk2.worlds.families.functions import FunctionsWorld
from openk2.worlds.families.notebook_query import query_of

FAMILY = HandwrittenFamily()
TASKS = FAMILY.tasks()


def test_fifty_over_three_families() -> None:
    assert len(TASKS) == 50
    assert min(Counter(t.skill for t in TASKS).values()) >= 15
    assert len({t.request for t in TASKS}) == 50
    assert len({t.id for t in TASKS}) == 50


@pytest.mark.parametrize("task", [t for t in TASKS if t.skill != "functions"], ids=lambda task: task.id)
def test_machine_requests(task: Task) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shell.setup(task, folder)
        idle = shell.verify(task, folder, (Message("assistant", "The answer is 987654."),))
        assert not idle.passed
        if task.skill == "notebook":
            messages = notebook.run_expert(task, folder, query_of(task.data["query"]))
        else:
            messages = shell.run_expert(task, folder)
        verdict = shell.verify(task, folder, messages)
        assert verdict.passed, (verdict.reason, messages[-1].content)


@pytest.mark.parametrize("task", [t for t in TASKS if t.skill == "functions"], ids=lambda task: task.id)
def test_function_requests(task: Task) -> None:
    demonstration = FAMILY.demonstrate(task)
    world = FunctionsWorld(task)
    for message in demonstration.messages:
        if message.role == "assistant":
            for call in message.tool_calls:
                world.execute(call)
            if not message.tool_calls:
                world.answer(message)
    verdict = world.judge(demonstration.messages)
    assert verdict.passed, verdict.reason
    idle = FunctionsWorld(task).judge((Message("assistant", "The answer is 987654."),))
    assert not idle.passed


def test_not_for_training() -> None:
    with pytest.raises(UserError, match="evaluation only"):
        FAMILY.sample("train", 0)
    assert FAMILY.sample("test", 51) == TASKS[1]
