"""One session of the agent: a task, a folder of yours, a policy, and the record that stays."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from openk2.agent.view import ConsoleView, print_json
from openk2.core import Event, Limits, Message, Task, Trajectory, UserError
from openk2.rollout import rollout
from openk2.sandbox import Sandbox, resolve_sandbox
from openk2.worlds.machine import MachineWorld

FINISHED, GAVE_UP = 0, 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asked for. `interactive`: after an answer, the person may say something more."""

    task: str
    workspace: Path
    model: str = "nano"
    steps: int = 12
    seconds: float = 120.0
    assume_yes: bool = False
    device: str = "cpu"
    as_json: bool = False
    interactive: bool = False


class AgentWorld(MachineWorld):
    """A person's own folder. The person is the user: `reply` asks them for the next message."""

    def __init__(self, workspace: Path, sandbox: Sandbox, *, console: Console | None = None) -> None:
        super().__init__(workspace, sandbox=sandbox)
        self._console = console

    async def reply(self, message: Message) -> Message | None:
        if self._console is None:
            return None
        try:
            said = await asyncio.to_thread(self._console.input, "[bold blue]you    [/]")
        except EOFError:
            return None
        return Message("user", said.strip()) if said.strip() else None


def trajectory_path() -> Path:
    """Where a session's record goes: the state folder of this user, outside of every workspace."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}.json"
    return Path(state) / "openk2" / "trajectories" / name


def ask_consent(question: str) -> bool:
    """Ask on the terminal; the answer without one is no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def check_workspace(workspace: Path) -> Path:
    """The absolute workspace. Raises UserError if it is not a folder that can be read and written."""
    if not workspace.exists():
        raise UserError(f"the workspace {workspace} does not exist: name a folder with --workspace")
    if not workspace.is_dir():
        raise UserError(f"the workspace {workspace} is not a folder: name a folder with --workspace")
    if not os.access(workspace, os.R_OK | os.W_OK | os.X_OK):
        raise UserError(f"the workspace {workspace} cannot be read and written by you: change its permissions")
    return workspace.resolve()


async def run_agent(settings: Settings) -> int:
    """Run one session; print it (or its events as JSON), leave the trajectory file, return the exit status.

    Raises UserError for a workspace or a model that cannot be used.
    """
    if not settings.task.strip():
        raise UserError("the task is empty: say what is to be done")
    workspace = check_workspace(settings.workspace)
    console = Console(highlight=False)
    sandbox = resolve_sandbox(True if settings.assume_yes else ask_consent)
    if sandbox.notice:
        Console(stderr=True).print(f"[yellow]{sandbox.notice}[/]")

    from openk2.policy import resolve_policy

    policy = resolve_policy(settings.model, device=settings.device)
    world = AgentWorld(workspace, sandbox, console=console if settings.interactive else None)
    task = Task(id=f"agent/{secrets.token_hex(4)}", family="agent", skill="agent", seed=0, request=settings.task)
    path = trajectory_path()
    view = print_json if settings.as_json else ConsoleView(console)

    def show(event: Event) -> None:
        if event.kind != "verdict":  # nothing here can verify what a person wanted
            view(event)

    try:
        limits = Limits(steps=settings.steps, seconds=settings.seconds)
        trajectory = await rollout(policy, world, task, limits, on_event=show, record=path)
    finally:
        await policy.close()
    _say_end(trajectory, path, console, settings.as_json)
    return FINISHED if trajectory.finished else GAVE_UP


def _say_end(trajectory: Trajectory, path: Path, console: Console, as_json: bool) -> None:
    if as_json:
        result = {
            "event": "result",
            "answer": trajectory.answer,
            "trajectory": str(path),
            "finished": trajectory.finished,
        }
        print(json.dumps(result, ensure_ascii=False), flush=True)
        return
    if not trajectory.finished:
        console.print(f"[yellow]gave up: {WHY[trajectory.stop]}[/]")
    console.print(f"[dim]record: {path}[/]", soft_wrap=True)


WHY = {
    "answered": "",
    "steps": "the limit of turns was reached (--steps)",
    "seconds": "the time limit was reached (--seconds)",
    "length": "an answer did not end within the tokens of one turn",
    "context": "the conversation no longer fits into the model's context",
    "malformed": "the model wrote a call that cannot be read",
    "repeated": "the model repeated the same failing call",
    "interrupted": "interrupted",
}
