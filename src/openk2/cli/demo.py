"""`openk2 demo`: the embedded model acts on real input with real tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import MODEL_HELP, DeviceOption, YesOption, given_path


def demo(
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Also ask about this CSV of yours.",
            show_default=False,
            parser=given_path,
        ),
    ] = None,
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help=MODEL_HELP)] = "nano",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when any verdict is 'failed'.")] = False,
    yes: YesOption = False,
    device: DeviceOption = "cpu",
    json: Annotated[bool, typer.Option("--json", help="One JSON event a line; the last is the summary.")] = False,
) -> None:
    """Watch nano act on a CSV, on files and with functions; code judges.

    Everything runs on this machine: no server, no key, no network.
    """
    from openk2.evals.demo import run_demo

    raise typer.Exit(run_demo(csv=csv, model=model, assume_yes=yes, strict=strict, device=device, as_json=json))
