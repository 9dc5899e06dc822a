"""One session of the agent: requests, a folder of yours, a policy, and the record that stays."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from openk2.agent.setup import acquire_policy, acquire_sandbox, record_name, records_folder, speaker_of, warn
from openk2.agent.view import ConsoleView, print_json, print_object
from openk2.core import Event, Limits, Message, OnEvent, Policy, Step, Task, Trajectory, UserError
from openk2.core.atif import write_atif
from openk2.core.errors import Interrupted
from openk2.core.messages import is_unicode
from openk2.core.progress import new_console
from openk2.core.trajectory import StopReason
from openk2.rollout import rollout
from openk2.sandbox import Sandbox, touched
from openk2.worlds.csv_file import check_csv
from openk2.worlds.machine import MachineWorld

FINISHED, GAVE_UP, BAD_INPUT = 0, 1, 2


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


class SessionWorld(MachineWorld):
    """A person's own folder over several requests: Python's variables and what was said stay until `end`."""

    def __init__(self, workspace: Path, sandbox: Sandbox) -> None:
        super().__init__(workspace, sandbox=sandbox)
        self.said: list[Message] = []

    async def start(self, task: Task) -> list[Message]:
        opening = await super().start(task)
        return [*self.said, *opening[-1:]] if self.said else opening

    async def close(self) -> None:
        """The end of one request is not the end of the session."""

    async def end(self) -> None:
        await super().close()


class Session:
    """Requests one after the other, each with the whole of the limits; one record for all of them."""

    def __init__(self, policy: Policy, world: SessionWorld, limits: Limits, record: Path, watch: OnEvent) -> None:
        self.policy, self.world, self.limits, self.watch = policy, world, limits, watch
        self.record = record
        self._first: Task | None = None
        self._steps: list[Step] = []
        self._seconds = 0.0
        self.bad_input: list[str] = []
        """Why the CSVs that the last request was about are no tables, if nothing but Python worked on them."""

    async def ask(self, request: str) -> Trajectory:
        """Work on a request; the trajectory, like the record, is that of the conversation up to here."""
        no_tables = await asyncio.to_thread(csvs_that_are_no_tables, request, self.world.workspace)
        for sentence in no_tables:
            warn(sentence)
        again = self._first is not None
        if not again and self.record.exists():
            self.record = self.record.with_name(f"{record_name()}.json")
        task = Task(f"agent/{self.record.stem}", "agent", "agent", seed=0, request=request)

        def show(event: Event) -> None:
            # The earlier requests are on the screen already, and nothing can verify what a person wanted.
            if event.kind != "verdict" and not (again and event.kind == "user"):
                self.watch(event)

        trajectory = await rollout(self.policy, self.world, task, self.limits, on_event=show, record=self.record)
        used = {call.name for step in trajectory.steps for call, _ in step.results}
        self.bad_input = no_tables if used <= {"python"} else []
        if self._first is not None:
            trajectory.task = self._first
            trajectory.steps[:0] = self._steps
            trajectory.seconds += self._seconds
            write_atif(self.record, trajectory)
        self._first, self._steps, self._seconds = trajectory.task, trajectory.steps, trajectory.seconds
        self.world.said = trajectory.messages
        return trajectory

    def forget(self) -> None:
        """Begin a new conversation, with a record of its own. Files and Python's variables stay."""
        self._first, self._steps, self._seconds = None, [], 0.0
        self.world.said = []


_DEEPER = re.compile(r"""[^\s"'`,;:?!()\[\]{}<>]+/[^\s"'`,;:?!()\[\]{}<>]+\.csv\b""", re.IGNORECASE)


def csvs_that_are_no_tables(request: str, workspace: Path) -> list[str]:
    """A sentence for every CSV in the workspace that the request means and no reader takes for a table.

    It means those that it names, with the folder if they lie deeper; if it speaks of a CSV without a name, the only
    one that is there.
    """
    there = sorted(
        path for path in workspace.glob("*.[cC][sS][vV]") if path.is_file() and path.resolve().is_relative_to(workspace)
    )
    meant, rest = [], request
    # The longest first, so that `data.csv` is not found in `old data.csv`.
    for path in sorted(there, key=lambda path: -len(path.name)):
        without = _named(path.name).sub(" ", rest)
        if without != rest:
            meant.append(path)
        rest = without
    for name in dict.fromkeys(_DEEPER.findall(request)):
        with suppress(OSError, ValueError, RuntimeError):
            path = (workspace / name).resolve()
            if path.is_relative_to(workspace) and path.is_file() and path not in meant:
                meant.append(path)
    if not meant and re.search(r"\bcsv\b", request, re.IGNORECASE) and len(there) == 1:
        meant = there
    sentences = []
    for path in meant:
        try:
            check_csv(path)
        except UserError as e:
            sentences.append(str(e))
    return sentences


def _named(name: str) -> re.Pattern[str]:
    """A file's name in a request, whole: `data.csv` is not in `old-data.csv` or `data.csv.gz`."""
    return re.compile(rf"(?<![\w./-])(\./)?{re.escape(name)}(?!\.?[\w-])", re.IGNORECASE)


def check_workspace(workspace: Path) -> Path:
    """The absolute workspace. Raises UserError if it is not a folder that can be read, or one of OpenK2's own."""
    advice = "name a folder with --workspace"
    try:
        found = workspace.resolve(strict=True)
        is_folder = found.is_dir()
    except FileNotFoundError as e:
        raise UserError(f"the workspace {workspace} does not exist: {advice}") from e
    except NotADirectoryError as e:
        raise UserError(f"the workspace {workspace} lies below a file: {advice}") from e
    except (OSError, RuntimeError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise UserError(f"the workspace {workspace} cannot be reached ({reason}): {advice}") from e
    if not is_folder:
        raise UserError(f"the workspace {workspace} is not a folder: {advice}")
    if not os.access(found, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UserError(f"the workspace {workspace} cannot be read by you: change its permissions, or {advice}")
    if found == Path(found.anchor):
        raise UserError(f"the workspace {workspace} is the whole system: {advice}")
    if not is_unicode(str(found)):
        raise UserError(f"the workspace {str(found)!r} has a name that is not UTF-8: rename it, or {advice}")
    if own := touched(found):
        raise UserError(f"in the workspace {found} OpenK2 itself could be changed ({own}): {advice}")
    return found


def run_agent(settings: Settings) -> int:
    """Run a session; print it (or its events as JSON), leave the record, return the exit status.

    Raises UserError for a workspace or a model that cannot be used, Interrupted on Ctrl-C.
    """
    workspace = check_workspace(settings.workspace)
    request = settings.task.strip()
    if not request and not settings.interactive:
        raise UserError("the task is empty: say what is to be done")
    if not is_unicode(request):
        raise UserError("the task is not UTF-8 text: write it in another encoding, or leave the odd bytes out")
    sandbox = acquire_sandbox(settings.assume_yes)
    policy = acquire_policy(settings.model, device=settings.device)
    view = ConsoleView(new_console(), speaker=speaker_of(settings.model))
    limits = Limits(steps=settings.steps, seconds=settings.seconds)
    record = records_folder() / f"{record_name()}.json"
    session = Session(
        policy, SessionWorld(workspace, sandbox), limits, record, print_json if settings.as_json else view
    )
    try:
        with asyncio.Runner() as runner:
            try:
                with view:
                    trajectory = _talk(runner, session, view, request, settings.interactive)
            finally:
                runner.run(session.world.end())
                runner.run(policy.close())
    except KeyboardInterrupt as e:
        raise _interrupted(session.record, settings.as_json) from e
    if settings.as_json:
        _print_result(session.record, trajectory, session.bad_input)
        if trajectory is not None and not trajectory.finished:
            warn(f"gave up: {WHY[trajectory.stop]}")
    elif trajectory is not None:
        # Never broken, so that it can be copied.
        view.console.print(f"record: {session.record}", style="dim", markup=False, soft_wrap=True)
    if session.bad_input:
        return BAD_INPUT
    if trajectory is None or trajectory.finished:
        return FINISHED
    too_long = trajectory.stop == "context" and all(message.role != "assistant" for message in trajectory.messages)
    return BAD_INPUT if too_long else GAVE_UP


def _talk(
    runner: asyncio.Runner, session: Session, view: ConsoleView, request: str, interactive: bool
) -> Trajectory | None:
    """The request and, if `interactive`, what the person says next; the last trajectory. None: nothing was asked."""
    trajectory: Trajectory | None = None
    while True:
        if request:
            trajectory = runner.run(session.ask(request))
            if not trajectory.finished and session.watch is view:
                view.note(f"gave up: {WHY[trajectory.stop]}", "yellow")
        if not interactive:
            return trajectory
        if trajectory is None:
            view.note("Say what is to be done; an empty line ends.")
        elif trajectory.stop == "context":
            view.note("A new conversation begins; files and Python's variables stay.", "yellow")
            session.forget()
        view.rest()
        said = _listen(view.console)
        if said is None:
            return trajectory
        request = said


def _listen(console: Console) -> str | None:
    """What the person types; None at the end of input or for an empty line."""
    with suppress(ImportError):
        importlib.import_module("readline")  # gives `input` editing and a history
    # The marks tell readline that colours take no room on the line.
    label = "\001\033[1;34m\002you\001\033[0m\002     " if console.color_system and not console.no_color else "you     "
    try:
        return input(label).strip() or None
    except EOFError:
        console.print()
        return None


def _interrupted(record: Path, as_json: bool) -> Interrupted:
    if not record.exists():
        return Interrupted("interrupted before anything was done")
    if as_json:
        _print_result(record, None)
    return Interrupted(f"interrupted: what was done so far is recorded in {record}")


def _print_result(record: Path, trajectory: Trajectory | None, bad_input: Sequence[str] = ()) -> None:
    """The last event; `finished` says whether the agent ended by itself, `stop` why it ended (see `StopReason`)."""
    print_object(
        {
            "event": "result",
            "answer": trajectory.answer if trajectory else "",
            "trajectory": str(record),
            "finished": trajectory.finished if trajectory else False,
            "stop": trajectory.stop if trajectory else "interrupted",
            "bad_input": list(bad_input),
        }
    )


WHY: dict[StopReason, str] = {
    "answered": "",
    "steps": "the limit of turns was reached (--steps)",
    "seconds": "the time limit was reached (--seconds)",
    "length": "an answer did not end within the tokens of one turn",
    "context": "the conversation does not fit into the model's context",
    "malformed": "the model wrote a call that cannot be read",
    "repeated": "the model repeated the same failing call",
    "interrupted": "interrupted",
}
