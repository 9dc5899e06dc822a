"""Small jobs on files: the shell family.

The user's side is worded by a wide grammar. The expert uses one short command, or the file tools where they fit; a file
that the request only names (`notes.txt`, no folder, not "here") is looked for first. What counts as right is the final
state of the folder, computed without a shell, or the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from openk2.core import Demonstration, Message, Split, Task, Verdict, World
from openk2.worlds.families import lexicon
from openk2.worlds.families.expert import Expert, demonstrated
from openk2.worlds.families.mix import draw_skill
from openk2.worlds.families.notebook_check import check_answer, final_answer
from openk2.worlds.families.phrasing import request
from openk2.worlds.families.scratch import check_folder, write_folder
from openk2.worlds.families.shell_jobs import JOBS, Maker

SKILLS = tuple(JOBS)


def answer(say: str, printed: str) -> str:
    """The expert's answer, with what the last call printed."""
    lines = printed.split("\n")
    filled = {
        "{line}": lines[0],
        "{list}": ", ".join(lines),
        "{value}": re.split(r"\s*[=:]\s*", lines[0], maxsplit=1)[-1],
        "{number}": lines[0].partition(":")[0],
    }
    return re.sub(r"\{(?:line|list|value|number)\}", lambda match: filled[match.group()], say)


def setup(task: Task, folder: Path) -> None:
    """Make the scratch folder."""
    write_folder(folder, task.data["files"], task.data["folders"])


def verify(task: Task, folder: Path, messages: Sequence[Message]) -> Verdict:
    """The folder must be as wanted, and the answer right where something was asked."""
    end = task.data["end"]
    state = check_folder(folder, task.data["files"], end)
    if not state.passed and task.data.get("beside") is not None:
        state = check_folder(folder, task.data["files"], end | {"files": task.data["beside"]})
    if not state.passed:
        return state
    said = final_answer(messages)
    if task.data["expect"] is None:
        return state if said.strip() else Verdict(False, "there is no final answer")
    return check_answer(said, task.data["expect"])


def run_expert(task: Task, folder: Path) -> tuple[Message, ...]:
    """The expert's conversation in a folder that is set up."""
    expert = Expert(task.request, folder)
    printed = ""
    for tool, arguments in task.data["calls"]:
        printed = expert.call(tool, **arguments)
    expert.say(answer(task.data["say"], printed))
    return tuple(expert.messages)


class ShellFamily:
    """Small jobs on files in scratch folders."""

    name = "shell"
    needs_sandbox = True
    skills: Sequence[str] = SKILLS

    def sample(self, split: Split, seed: int) -> Task:
        rng = lexicon.make_rng(self.name, split, seed)
        skill = draw_skill(rng, self.name, split)
        maker = Maker(rng, split)
        job = JOBS[skill](maker)
        start = maker.scratch.files
        if job.expect is not None:
            job.expect = {"names": sorted({*start, *(PurePosixPath(p).name for p in start)})} | job.expect
        data = {
            "files": start,
            "folders": maker.scratch.folders,
            "calls": [[tool, arguments] for tool, arguments in job.calls],
            "say": job.say,
            "end": {"files": start if job.end is None else job.end, "folders": job.made, "gone": job.gone},
            "beside": job.beside,
            "expect": job.expect,
        }
        text = request(rng, split, job.phrase, aside=False)
        return Task(f"{self.name}/{split}/{seed}", self.name, skill, seed, text, data, split)

    def world(self, task: Task) -> World:
        from openk2.worlds.machine import TaskMachineWorld

        return TaskMachineWorld(setup, verify)

    def demonstrate(self, task: Task) -> Demonstration:
        return demonstrated(task, setup, lambda folder: run_expert(task, folder))
