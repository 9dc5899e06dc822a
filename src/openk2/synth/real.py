"""Tasks that are executed for real: small programming jobs on a machine with Python, a shell and files.

The verdict comes from hidden checks: their expressions are evaluated in the sandbox, in the folder that the agent has
left, by a program that never sees what they must give. The planner's calls run in this process (its code is this
package's own); a model's calls and every verification run in the sandbox, with a real kernel.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from openk2.core import Message, Task, ToolCall, ToolResult, ToolSpec, UserError, Verdict
from openk2.sandbox import Caps, Sandbox, resolve_sandbox
from openk2.synth.jobs import KINDS, Job
from openk2.worlds.apps.world import PlannedCall, PlanTurn
from openk2.worlds.families.scratch import write_folder
from openk2.worlds.inline import InlineMachine
from openk2.worlds.machine import MACHINE_TOOLS, SHELL_ENVIRONMENT, TaskMachineWorld

FAMILY = "real"
MACHINE = "machine"
"""What stands in the lake's column of domains. The column of agents has the kind of the job."""
AT_ONCE = 8
"""So many machines with a kernel run at a time, however many attempts do."""
_SYSTEMS = (
    "You work in a folder, with Python, a shell and files. Do what is asked, and check it before you answer.",
    "You are a programmer with a sandboxed machine. Look before you change, and run the tests that there are.",
    "You are a coding agent. Use the tools to do the job in the current folder. Answer in one or two sentences.",
    "You have a machine: a Python kernel, a shell and file tools. Change only what the job needs.",
    "As an engineer's assistant you carry out small jobs with the tools, and say shortly what you did.",
)
_AROUND = (
    "{}", "{}", "{}", "A small job: {}", "Hello! {}", "{} Thank you.", "Could you take this over? {}",
    "{} Tell me when it is done.", "Here is something to do in this folder. {}", "{} Keep it simple.",
)  # fmt: skip
"""What stands around what is asked."""
_CATEGORIES = {"write": "functions", "fix": "bugs", "shell": "folders", "refactor": "refactoring"}
_CHECK_CAPS = Caps(seconds=20.0, cpu_seconds=20, output_bytes=1 << 20)
_UNREPEATABLE = re.compile(
    r"/tmp/|openk2-|\b0x[0-9a-f]{6,}|\bin \d+\.\d+ ?s\b|^(real|user|sys)\s+\d+m|\b[A-Z][a-z]{2} +\d+ \d\d:\d\d\b|"
    r"\b\d\d:\d\d:\d\d\.\d{3}",
    re.M,
)
"""What is other each time that something is run: places of this machine, addresses, durations, dates of files."""

# What is in the sandbox with the expressions: nothing here tells what they must give.
_EVALUATE = r"""
import ast, contextlib, csv, importlib, io, json, os, subprocess, sys

codes = json.loads(sys.argv[1])
sys.path.insert(0, os.getcwd())
sys.dont_write_bytecode = True
out = os.dup(1)


def load(name):
    return importlib.import_module(name)


def text(path):
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def table(path):
    return list(csv.reader(io.StringIO(text(path))))


def data(path):
    return json.loads(text(path))


def tree():
    found = {}
    for root, folders, files in os.walk("."):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        for name in files:
            path = os.path.relpath(os.path.join(root, name), ".")
            found[path] = text(path)
    return dict(sorted(found.items()))


def run(command):
    done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.returncode, done.stdout


def names(path):
    return [node.name for node in ast.parse(text(path)).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


known = dict(load=load, text=text, table=table, data=data, tree=tree, run=run, names=names)
values = []
for code in codes:
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            values.append(repr(eval(code, dict(known))))
    except BaseException as e:
        values.append(f"raises {type(e).__name__}")
os.write(out, ("\n" + json.dumps(values)).encode())
"""


class RealCheck(BaseModel):
    """An expression and the `repr` of what it must give."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    expected: str


class RealTask(BaseModel):
    """The data of a task: the folder, what is asked, what must be so at the end, and a way to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str
    system: str
    say: str
    files: dict[str, str]
    checks: tuple[RealCheck, ...]
    plan: tuple[PlanTurn, ...]


def is_real(share: float, seed: int, number: int) -> bool:
    """Whether the task of this number is one of these; it does not depend on how many there are."""
    return share > 0 and random.Random(f"real {seed} {number}").random() < share


def make_real(seed: int) -> RealTask:
    """The task that a seed stands for."""
    rng = random.Random(f"real task {seed}")
    kind = rng.choice(sorted(KINDS))
    job = KINDS[kind](rng)
    job = replace(job, ask=rng.choice(_AROUND).replace("{}", job.ask))
    return as_task(kind, job, rng.choice(_SYSTEMS))


def as_task(kind: str, job: Job, system: str) -> RealTask:
    """A job as the data of a task."""
    waves = tuple((PlannedCall(name=name, arguments=arguments),) for name, arguments in job.solution)
    return RealTask(
        job=kind,
        system=system,
        say=job.ask,
        files=job.files,
        checks=tuple(RealCheck(code=check.code, expected=check.expected) for check in job.checks),
        plan=(PlanTurn(waves=waves, answer=job.answer),),
    )


def needs_sandbox() -> Sandbox:
    """The sandbox of this system. Raises UserError if there is none: nothing here runs without."""
    try:
        return resolve_sandbox()
    except UserError as e:
        reason = str(e).partition(": install")[0]
        raise UserError(f"{reason}: install bubblewrap, or leave such tasks out with --set real.share=0") from e


async def checked(task: RealTask, folder: Path, sandbox: Sandbox) -> tuple[float, str]:
    """The share of the checks that hold, and the first that does not. The folder is not needed afterwards: what is
    evaluated may change it."""
    argv = [sys.executable, "-I", "-c", _EVALUATE, json.dumps([check.code for check in task.checks])]
    with tempfile.TemporaryDirectory(prefix="openk2-") as scratch:
        ended = await sandbox.run(argv, folder, Path(scratch).resolve(), _CHECK_CAPS, SHELL_ENVIRONMENT)
    try:
        values = json.loads(ended.output.decode("utf-8", "replace").rpartition("\n")[2])
    except ValueError:
        values = None
    if not isinstance(values, list) or len(values) != len(task.checks):
        return 0.0, f"checks failed: they did not come to an end ({ended.note or f'exit code {ended.code}'})"
    failed = [check.code for check, value in zip(task.checks, values, strict=True) if value != check.expected]
    if failed:
        reason = f"checks failed: {len(failed)} of {len(values)}, the first one {failed[0][:120]}"
        return round(1 - len(failed) / len(values), 4), reason
    return 1.0, ""


async def _judged(task: RealTask, folder: Path, sandbox: Sandbox, messages: Sequence[Message]) -> tuple[float, Verdict]:
    for message in messages:
        if message.role == "tool" and (found := _UNREPEATABLE.search(message.content)):
            return 0.0, Verdict(False, f"a result cannot be repeated: it has {found[0][:40]!r}")
    score, reason = await checked(task, folder, sandbox)
    return score, Verdict(not reason, reason)


def _opening(made: RealTask) -> list[Message]:
    return [Message("system", made.system), Message("user", made.say)]


class RealWorld(TaskMachineWorld):
    """The machine of a task, in the sandbox. After `verify`, `score` has the points."""

    def __init__(self, made: RealTask, sandbox: Sandbox | None = None) -> None:
        self._made, self._box, self.score = made, sandbox or needs_sandbox(), 0.0
        super().__init__(lambda task, folder: write_folder(folder, made.files, ()), _undecided, self._box)

    async def start(self, task: Task) -> list[Message]:
        await super().start(task)
        return _opening(self._made)

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        self.score, verdict = await _judged(self._made, self.workspace, self._box, messages)
        return verdict


def _undecided(task: Task, folder: Path, messages: Sequence[Message]) -> Verdict:
    return Verdict(None)


class PlannedWorld:
    """The machine of a task for calls that this package wrote itself: they run here, the checks in the sandbox."""

    tools: Sequence[ToolSpec] = MACHINE_TOOLS

    def __init__(self, made: RealTask, sandbox: Sandbox | None = None) -> None:
        self._made, self._box, self.score = made, sandbox or needs_sandbox(), 0.0
        self._parent = Path(tempfile.mkdtemp(prefix="openk2-task-")).resolve()
        self.workspace = self._parent / "work"
        self.workspace.mkdir()
        self._machine = InlineMachine(self.workspace)

    async def start(self, task: Task) -> list[Message]:
        write_folder(self.workspace, self._made.files, ())
        return _opening(self._made)

    async def call(self, call: ToolCall) -> ToolResult:
        return self._machine.call(call)

    async def reply(self, message: Message) -> Message | None:
        return None

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        self.score, verdict = await _judged(self._made, self.workspace, self._box, messages)
        return verdict

    async def close(self) -> None:
        shutil.rmtree(self._parent, ignore_errors=True)


def task_row(made: RealTask) -> dict[str, Any]:
    """The columns of the lake that are about a task."""
    return {
        "domain": MACHINE, "category": _CATEGORIES.get(made.job.partition("_")[0], "data files"), "agent": made.job,
        "kinds": FAMILY, "data": made.model_dump_json(),
    }  # fmt: skip
