"""`openk2 agent`: act on a folder of yours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import MODEL_HELP, DeviceOption, YesOption, given_path


def agent(
    task: Annotated[str, typer.Argument(help="What is to be done, in plain words.", metavar="TASK")] = "",
    workspace: Annotated[
        Path,
        typer.Option(
            "--workspace",
            "-w",
            metavar="DIR",
            help="The folder to act on.",
            show_default="this one",
            parser=given_path,
        ),
    ] = Path(),
    print_mode: Annotated[
        bool, typer.Option("--print", "-p", help="Do the one task and end, instead of asking what comes next.")
    ] = False,
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help=MODEL_HELP)] = "nano",
    steps: Annotated[int, typer.Option("--steps", min=1, metavar="N", help="At most so many turns per request.")] = 12,
    seconds: Annotated[float, typer.Option("--seconds", min=1, metavar="S", help="At most so long per request.")] = 120,
    yes: YesOption = False,
    device: DeviceOption = "cpu",
    json: Annotated[
        bool, typer.Option("--json", help="Do the one task; one JSON event a line, the last is the result.")
    ] = False,
) -> None:
    """Do what you ask, in a folder of yours, inside a sandbox.

    The tools are Python, a shell and reading, writing and editing files.

    On a terminal you can go on talking until an empty line; with -p, --json or in a pipe it does the one task.

    Exit status: 0 the agent finished, 1 it gave up (a limit, a call that cannot be read), 2 bad input, such as a CSV
    that is no table.

    \b
    Example:
    ./k2 agent "what is the average bill by species in penguins.csv?" -w DIR
    """
    from openk2.agent.session import Settings, run_agent

    settings = Settings(
        task=task,
        workspace=workspace,
        model=model,
        steps=steps,
        seconds=seconds,
        assume_yes=yes,
        device=device,
        as_json=json,
        interactive=not (print_mode or json) and sys.stdin.isatty() and sys.stdout.isatty(),
    )
    raise typer.Exit(run_agent(settings))
