"""`openk2 agent`: act on a folder of yours."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def agent(
    task: Annotated[str, typer.Argument(help="What is to be done, in plain words.")],
    workspace: Annotated[Path, typer.Option("--workspace", "-w", help="The folder to act on.")] = Path(),
    print_mode: Annotated[
        bool, typer.Option("--print", "-p", help="Do the one task and end; without it you can go on talking.")
    ] = False,
    model: Annotated[str, typer.Option("--model", help="nano, a model FOLDER, random:PRESET or script:FILE.")] = "nano",
    steps: Annotated[int, typer.Option("--steps", min=1, help="At most so many turns.")] = 12,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="At most so long.")] = 120,
    yes: Annotated[bool, typer.Option("--yes", help="Go on without a question where no sandbox is available.")] = False,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, mps. Not yet run on a GPU.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="One JSON event a line; the last is the result.")] = False,
) -> None:
    """Do a task with Python, shell and file tools, inside the sandbox, in a folder of yours.

    Exit status: 0 the agent finished, 1 it gave up (a limit, an unreadable turn), 2 bad input.

    Example: ./k2 agent "what is the average bill by species in penguins.csv?" --workspace DIR
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
        interactive=not (print_mode or json),
    )
    raise typer.Exit(asyncio.run(run_agent(settings)))
