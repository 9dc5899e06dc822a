"""Options that several subcommands share."""

from __future__ import annotations

from typing import Annotated

import typer

MODEL_HELP = "nano, a model folder, random:PRESET or script:FILE."

DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="cpu, cuda or mps. Not yet run on a GPU.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Go on without asking where no sandbox works.")]
