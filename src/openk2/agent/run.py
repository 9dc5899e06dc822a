"""`openk2 agent`: a request, or a conversation at the terminal, from the options to the exit status."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from openk2.agent import review
from openk2.agent.past import staged
from openk2.agent.request import check_workspace
from openk2.agent.review import Accept, Entry, Review
from openk2.agent.servers import Servers
from openk2.agent.session import Outcome, Session, SessionWorld
from openk2.agent.setup import acquire_policy, acquire_sandbox, ask_consent, speaker_of, warn
from openk2.agent.store import create, find
from openk2.agent.tools import SYSTEM, AskUser, Profile, Todo, Tool, search_tools, unclear
from openk2.agent.view import ConsoleView, print_json, print_object
from openk2.core import NANO_SYSTEM, Limits, Policy, Trajectory, UserError
from openk2.core.errors import Interrupted
from openk2.core.messages import is_unicode
from openk2.core.progress import new_console
from openk2.core.trajectory import StopReason
from openk2.sandbox import Sandbox
from openk2.sandbox.box import UNCONFINED

FINISHED, GAVE_UP, BAD_INPUT = 0, 1, 2

Confinement = Literal["read-only", "workspace", "off"]
Network = Literal["off", "ask", "on"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asked for. `interactive`: after an answer, the person may say something more."""

    task: str
    workspace: Path
    model: str = "nano"
    steps: int | None = None
    seconds: float | None = None
    assume_yes: bool = False
    device: str = "cpu"
    as_json: bool = False
    interactive: bool = False
    confinement: Confinement = "workspace"
    network: Network = "off"
    resume: str | None = None
    profile: Profile | None = None
    servers: Path | None = None


def run_agent(settings: Settings) -> int:
    """Run a session; print it (or its events as JSON), leave the record, return the exit status.

    Raises UserError for a workspace or a model that cannot be used, Interrupted on Ctrl-C.
    """
    earlier = None if settings.resume is None else find(settings.resume, settings.workspace.resolve())
    workspace = check_workspace(settings.workspace if earlier is None else Path(earlier.about.workspace))
    request = settings.task.strip()
    if not request and not settings.interactive:
        raise UserError("the task is empty: say what is to be done")
    if not is_unicode(request):
        raise UserError("the task is not UTF-8 text: write it in another encoding, or leave the odd bytes out")
    servers = Servers.read(settings.servers) if settings.servers is not None else Servers({})
    sandbox = _sandbox(settings)
    policy = acquire_policy(settings.model, device=settings.device)
    view = ConsoleView(new_console(), speaker=speaker_of(settings.model))
    profile = settings.profile or _profile(policy)
    least = LIMITS[profile]
    limits = replace(least, steps=settings.steps or least.steps, seconds=settings.seconds or least.seconds)
    stored = earlier or create(workspace, settings.model, time.strftime("%Y-%m-%dT%H:%M:%S"))
    with staged(stored, workspace) as stage, asyncio.Runner() as runner:
        stage.refresh()
        world = SessionWorld(stage, sandbox, NANO_SYSTEM if profile == "nano" else SYSTEM)
        session = Session(policy, world, limits, stored, print_json if settings.as_json else view)
        talk = _Talk(runner, session, view, settings)
        try:
            if earlier is not None:
                session.go_on(earlier.trajectory())
            with view:
                runner.run(talk.offer(profile, servers))
                trajectory = talk.run(request)
        except KeyboardInterrupt as e:
            raise _interrupted(session.record, settings.as_json, talk.outcomes) from e
        finally:
            runner.run(world.end())
            runner.run(servers.close())
            runner.run(policy.close())
    if settings.as_json:
        _print_result(session.record, trajectory, session.bad_input, talk.outcomes)
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


LIMITS: dict[Profile, Limits] = {
    "nano": Limits(),
    "full": Limits(steps=100, tokens=16_384, seconds=3600.0),
}
"""What a request may spend unless it is said otherwise."""


def _profile(policy: Policy) -> Profile:
    """Models of nano's kind know the five tools of a machine and no others."""
    engine = getattr(policy, "engine", None)
    return "nano" if engine is not None and engine.tokenizer.of_nano else "full"


def _sandbox(settings: Settings) -> Sandbox:
    """What programs of the model are confined by. Raises UserError as `acquire_sandbox`."""
    if settings.confinement == "off":
        warn(f"{UNCONFINED} (--sandbox off)")
        return Sandbox("none", notice=UNCONFINED, network=True)
    found = acquire_sandbox(settings.assume_yes)
    network = settings.network == "on" or (
        settings.network == "ask" and ask_consent("May programs that the model runs use the network?")
    )
    return replace(found, network=network, frozen=settings.confinement == "read-only")


class _Talk:
    """The request and, in a conversation, what the person says next."""

    def __init__(self, runner: asyncio.Runner, session: Session, view: ConsoleView, settings: Settings) -> None:
        self._runner, self._session, self._view = runner, session, view
        self._interactive, self._as_json = settings.interactive, settings.as_json
        self._accept = self._way_to_accept(settings)
        self.outcomes: list[Outcome] = []

    async def offer(self, profile: Profile, servers: Servers) -> None:
        """Give the model what it has beside the machine's five tools. Raises UserError for a server that is no use."""
        world = self._session.world
        tools: list[Tool] = []
        if profile == "full":
            tools = [*search_tools(world.workspace, world.scratch, world.sandbox), Todo(), AskUser(self._answer)]
        tools += await servers.open({tool.name for tool in world.tools} | {tool.spec.name for tool in tools})
        world.offer(tools)
        for remark in [*servers.remarks, *unclear(world.tools)]:
            warn(remark)

    def _answer(self, question: str) -> str | None:
        if not self._interactive:
            return None
        self._view.rest()
        return _listen(self._view.console, f"{question}\nyou     ")

    def run(self, request: str) -> Trajectory | None:
        """The last trajectory; None: nothing was asked."""
        trajectory: Trajectory | None = None
        while True:
            if request:
                trajectory = self._turn(request)
            if not self._interactive:
                return trajectory
            if trajectory is None:
                self._view.note("Say what is to be done; an empty line ends.")
            elif trajectory.stop == "context":
                self._view.note("A new conversation begins; files and Python's variables stay.", "yellow")
                self._session.forget()
            self._view.rest()
            said = _listen(self._view.console)
            if said is None:
                return trajectory
            request = said

    def _turn(self, request: str) -> Trajectory | None:
        session = self._session
        try:
            trajectory = self._runner.run(session.ask(request))
        except KeyboardInterrupt:
            if not self._interactive:
                self._settle(request)
                raise
            # Of a conversation only the turn is stopped; the next Ctrl-C, at the prompt, ends it.
            self._view.note("stopped", "yellow")
            self._settle(request)
            return session.last
        if not trajectory.finished and not self._as_json:
            self._view.note(f"gave up: {WHY[trajectory.stop]}", "yellow")
        self._settle(request)
        return trajectory

    def _settle(self, request: str) -> None:
        self._view.rest()
        outcome = self._runner.run(self._session.settle(request, self._accept))
        if not (outcome.taken or outcome.refused):
            return
        self.outcomes.append(outcome)
        if self._as_json:
            print_object({"event": "changes"} | outcome.to_json())
            return
        review.show_conflicts(self._view, outcome.conflicts)

    def _way_to_accept(self, settings: Settings) -> Accept:
        if settings.assume_yes:
            return self._shown(review.take_all)
        if settings.interactive:
            return review.ask(self._view, lambda question: _listen(self._view.console, question))

        def nobody(found: Review) -> Sequence[Entry]:
            self._shown(review.take_none)(found)
            warn("nothing of it was taken over, as nobody was asked: add --yes, or talk on a terminal")
            return ()

        return nobody

    def _shown(self, accept: Accept) -> Accept:
        """Show a person what is decided for them."""

        def accept_and_show(found: Review) -> Sequence[Entry]:
            if not self._as_json:
                review.show(self._view, found)
            return accept(found)

        return accept_and_show


def _listen(console: Console, question: str = "you     ") -> str | None:
    """What the person types; None at the end of input or for an empty line."""
    with suppress(ImportError):
        importlib.import_module("readline")  # gives `input` editing and a history
    # The marks tell readline that colours take no room on the line.
    label = (
        f"\001\033[1;34m\002{question}\001\033[0m\002" if console.color_system and not console.no_color else question
    )
    try:
        return input(label).strip() or None
    except EOFError:
        console.print()
        return None


def _interrupted(record: Path, as_json: bool, outcomes: Sequence[Outcome]) -> Interrupted:
    if not record.exists():
        return Interrupted("interrupted before anything was done")
    if as_json:
        _print_result(record, None, (), outcomes)
    return Interrupted(f"interrupted: what was done so far is recorded in {record}")


def _print_result(
    record: Path, trajectory: Trajectory | None, bad_input: Sequence[str], outcomes: Sequence[Outcome]
) -> None:
    """The last event; `finished` says whether the agent ended by itself, `stop` why it ended (see `StopReason`)."""
    print_object(
        {
            "event": "result",
            "answer": trajectory.answer if trajectory else "",
            "trajectory": str(record),
            "finished": trajectory.finished if trajectory else False,
            "stop": trajectory.stop if trajectory else "interrupted",
            "bad_input": list(bad_input),
            "taken": [entry.path for outcome in outcomes for entry in outcome.taken],
            "refused": [entry.path for outcome in outcomes for entry in outcome.refused],
            "conflicts": [conflict.change.path for outcome in outcomes for conflict in outcome.conflicts],
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
