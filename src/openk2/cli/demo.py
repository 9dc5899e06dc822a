"""`openk2 demo`: the embedded model acts on real input with real tools."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def demo(
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Ask about this CSV of yours, too.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option("--model", help="nano, a model FOLDER, random:PRESET or script:FILE.")] = "nano",
    yes: Annotated[bool, typer.Option("--yes", help="Go on without a question where no sandbox is available.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 when any verdict is 'failed'.")] = False,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, mps. Not yet run on a GPU.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="One JSON event a line; the last is the summary.")] = False,
) -> None:
    """Watch openk2-nano answer questions about a CSV, do jobs on files and call functions; code judges each.

    Everything runs on this machine: no server, no key, no network.
    """
    from openk2.evals.demo import run_demo

    raise typer.Exit(
        asyncio.run(run_demo(csv=csv, model=model, assume_yes=yes, strict=strict, device=device, as_json=json))
    )
