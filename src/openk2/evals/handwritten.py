"""Fifty requests that were written by hand before any training, over the three families.

They are package data (`handwritten.jsonl`): each line has the family, the skill, the request, and `data` in the form of
its family: what to set up, how code can tell that it was done, and a solution that shows that it can be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources

from openk2.core import Demonstration, Split, Task, UserError, World
from openk2.worlds.families import notebook, shell
from openk2.worlds.families.expert import demonstrated
from openk2.worlds.families.functions import FunctionsFamily, FunctionsWorld
from openk2.worlds.families.notebook_query import query_of


@cache
def _tasks() -> tuple[Task, ...]:
    text = resources.files("openk2.evals").joinpath("handwritten.jsonl").read_text(encoding="utf-8")
    tasks = []
    for seed, line in enumerate(text.splitlines()):
        raw = json.loads(line)
        data = raw["data"] | {"kind": raw["family"], "skill": raw["skill"]}
        tasks.append(Task(f"handwritten/{seed}", "handwritten", raw["family"], seed, raw["request"], data, "test"))
    return tuple(tasks)


class HandwrittenFamily:
    """The requests written by hand: a fixed set, reported by the family that each belongs to."""

    name = "handwritten"
    needs_sandbox = True
    skills: Sequence[str] = ("functions", "notebook", "shell")

    def tasks(self) -> list[Task]:
        """All tasks, in the order of the file."""
        return list(_tasks())

    def sample(self, split: Split, seed: int) -> Task:
        """The task of that position, counted around. There are no training tasks: raises UserError for that split."""
        if split == "train":
            raise UserError("the requests written by hand are for evaluation only: use split 'test'")
        tasks = self.tasks()
        return tasks[seed % len(tasks)]

    def world(self, task: Task) -> World:
        if task.data["kind"] == "functions":
            return FunctionsWorld(task)
        from openk2.worlds.machine import TaskMachineWorld

        return TaskMachineWorld(shell.setup, shell.verify)

    def demonstrate(self, task: Task) -> Demonstration:
        if task.data["kind"] == "functions":
            return FunctionsFamily().demonstrate(task)
        if task.data["kind"] == "notebook":
            query = query_of(task.data["query"])
            return demonstrated(task, shell.setup, lambda folder: notebook.run_expert(task, folder, query))
        return demonstrated(task, shell.setup, lambda folder: shell.run_expert(task, folder))
