"""`openk2 agent`: act on a folder of yours, and what was done there before."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from openk2.cli.common import MODEL_HELP, DeviceOption, YesOption, given_path


class Agent(TyperGroup):
    """What is no command is a task. `agent "..."` is `agent run "..."`; `agent resume ID`, `agent run --resume ID`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] == ["resume"]:
            named = len(args) > 1 and not args[1].startswith("-")
            args = ["run", "--resume", args[1] if named else "", *args[1 + named :]]
        elif not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=Agent, help="Do what you ask, in a folder of yours, inside a sandbox.", rich_markup_mode=None)


class Confinement(StrEnum):
    """Where programs of the model may write."""

    read_only = "read-only"
    workspace = "workspace"
    off = "off"


class Profile(StrEnum):
    """Which tools are offered."""

    nano = "nano"
    full = "full"


class Network(StrEnum):
    """Whether programs of the model may use the network."""

    off = "off"
    ask = "ask"
    on = "on"


WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", metavar="DIR", help="The folder to act on.", show_default="this one", parser=given_path
    ),
]
ModelOption = Annotated[str, typer.Option("--model", metavar="MODEL", help=MODEL_HELP)]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", min=1, metavar="N", help="At most so many turns: 12 with nano's tools, else 100."),
]
SecondsOption = Annotated[
    float | None,
    typer.Option("--seconds", min=1, metavar="S", help="At most so long: 120 with nano's tools, else 3600."),
]
ProfileOption = Annotated[
    Profile | None,
    typer.Option("--profile", help="Which tools: the five that nano knows, or more. By default what the model knows."),
]
ServersOption = Annotated[
    Path | None,
    typer.Option("--mcp", metavar="FILE", help="MCP servers of yours, as other clients write them.", parser=given_path),
]
PrintOption = Annotated[
    bool, typer.Option("--print", "-p", help="Do the one task and end, instead of asking what comes next.")
]
EventsOption = Annotated[
    bool, typer.Option("--json", help="Do the one task; one JSON event a line, the last is the result.")
]
AcceptOption = Annotated[
    bool, typer.Option("--yes", help="Take over every change, and go on without asking where no sandbox works.")
]
SandboxOption = Annotated[
    Confinement,
    typer.Option("--sandbox", help="Where programs may write: nowhere, in the folder, or everywhere."),
]
NetworkOption = Annotated[Network, typer.Option("--network", help="May programs use the network? ask: at the start.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON, for machines.")]


@app.command("run")
def run(
    task: Annotated[str, typer.Argument(help="What is to be done, in plain words.", metavar="TASK")] = "",
    workspace: WorkspaceOption = Path(),
    print_mode: PrintOption = False,
    model: ModelOption = "nano",
    profile: ProfileOption = None,
    mcp: ServersOption = None,
    steps: StepsOption = None,
    seconds: SecondsOption = None,
    yes: AcceptOption = False,
    sandbox: SandboxOption = Confinement.workspace,
    network: NetworkOption = Network.off,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="ID", help="Go on with what was said, without Python's variables."),
    ] = None,
    device: DeviceOption = "cpu",
    json: EventsOption = False,
) -> None:
    """Do what you ask, in a folder of yours, inside a sandbox.

    The tools are Python, a shell and reading, writing and editing files. They work on a copy: what they have changed is
    shown when a request is done, and you say what of it goes into your folder. With --yes all of it does; where nobody
    can be asked and it is not given, nothing.

    On a terminal you can go on talking until an empty line, and Ctrl-C stops a request; with -p, --json or in a pipe it
    does the one task. Also: agent sessions, undo, replay, and resume [ID] [TASK], which goes on with a session, without
    an ID the last one of the folder.

    Exit status: 0 the agent finished, 1 it gave up (a limit, a call that cannot be read), 2 bad input, such as a CSV
    that is no table.

    \b
    Example:
    ./k2 agent "how many rows are in data.csv?" -w DIR
    """
    from openk2.agent.run import Settings, run_agent

    settings = Settings(
        task=task,
        workspace=workspace,
        model=model,
        steps=steps,
        seconds=seconds,
        assume_yes=yes,
        device=device,
        as_json=json,
        interactive=_is_terminal() and not (print_mode or json),
        confinement=sandbox.value,
        network=network.value,
        resume=resume,
        profile=None if profile is None else profile.value,
        servers=mcp,
    )
    raise typer.Exit(run_agent(settings))


@app.command("sessions")
def list_sessions(
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", metavar="DIR", help="Those of this folder alone.", parser=given_path),
    ] = None,
    json_lines: JsonOption = False,
) -> None:
    """List the sessions, the newest first; with --json one object a line."""
    from openk2.agent.store import sessions
    from openk2.core.progress import new_console

    found = sessions(None if workspace is None else workspace.resolve())
    if json_lines:
        for stored in found:
            print(json.dumps(stored.to_json()))
        return
    console = new_console()
    for stored in found:
        asked = stored.about.requests[0] if stored.about.requests else "(nothing was asked)"
        console.print(f"{stored.id}  {stored.about.workspace}", markup=False, soft_wrap=True)
        console.print(f"    {' '.join(asked.split())[: console.width - 5]}", markup=False, soft_wrap=True, style="dim")
    if not found:
        console.print("There are no sessions.")


@app.command("undo")
def undo(
    session: Annotated[str, typer.Argument(help="Its id, or how it begins.", metavar="ID")] = "",
    workspace: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Take back what the last request has changed in a folder; again for the one before.

    What you have changed since stays: where both can be had, both are, and else a file is left as it is and named, and
    the exit status is 1.
    """
    from openk2.agent.past import undo as take_back
    from openk2.core.errors import printable
    from openk2.core.progress import new_console

    record, left = take_back(workspace.resolve(), session)
    back = [kept.path for kept in record.kept if kept.path not in left]
    if as_json:
        print(json.dumps({"request": record.request, "workspace": record.workspace, "taken_back": back, "left": left}))
    else:
        console = new_console()
        names = ", ".join(map(printable, back)) or "nothing"
        console.print(f"taken back in {record.workspace}: {names}", markup=False, soft_wrap=True)
        for path, reason in left.items():
            console.print(f"left as it is: {printable(path)}: {reason}", markup=False, soft_wrap=True, style="yellow")
    raise typer.Exit(1 if left else 0)


@app.command("replay")
def replay(
    session: Annotated[str, typer.Argument(help="Its id, or how it begins.", metavar="ID")] = "",
    workspace: WorkspaceOption = Path(),
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Execute the calls of a session again, and say which was the first that gave something else.

    It happens in a copy of the folder as it was before the session. The exit status is 1 if there is such a call.
    """
    import asyncio

    from openk2.agent.past import replay as again
    from openk2.agent.setup import acquire_sandbox
    from openk2.agent.store import find
    from openk2.core.progress import new_console

    stored = find(session, workspace.resolve())
    found = asyncio.run(again(stored, acquire_sandbox(yes)))
    if as_json:
        first = None if found is None else found.to_json()
        print(json.dumps({"session": stored.id, "first_divergence": first}))
    elif found is None:
        print(f"{stored.id}: every call gives what it gave")
    else:
        console = new_console()
        console.print(f"{stored.id}: step {found.step}, {found.tool} {found.arguments}", markup=False, soft_wrap=True)
        console.print(f"was:\n{found.was}\nis:\n{found.now}", markup=False, soft_wrap=True)
    raise typer.Exit(0 if found is None else 1)


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
