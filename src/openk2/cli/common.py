"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from openk2.core import UserError
from openk2.core.runs import nano_folder

HOST_HELP = "The address to listen on."
_LONGEST_HOST = 253
_SHOWN = 80
MODEL_HELP = "nano, a model folder, random:PRESET, openai:NAME@URL, anthropic:NAME[@URL], moonshot:NAME or script:FILE."

DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="cpu, cuda or mps. Not yet run on a GPU.")
]


def given_path(path: str | Path) -> Path:
    """A path as it was typed. Raises UserError for an empty one: an unset variable must not mean this folder."""
    if path == "":
        raise UserError("an empty path was given: name a file or a folder (is a variable of your script not set?)")
    try:
        Path(path).resolve()
    except RuntimeError as e:
        raise UserError(f"{path} leads round in a circle of symbolic links: name what is meant") from e
    return Path(path)


def given_model(path: str | Path) -> Path:
    """As `given_path`; `nano` is the folder of the embedded model."""
    # A folder of that name is written ./nano.
    return nano_folder() if path == "nano" else given_path(path)


def given_host(text: str) -> str:
    """An address to listen on. Raises UserError for what no machine is called."""
    if "/" in text:
        raise UserError(f"--host is {text[:_SHOWN]!r}: name an address without http:// and without a path")
    if len(text) > _LONGEST_HOST:
        raise UserError(f"--host has {len(text)} characters, and no address is so long: name one such as 127.0.0.1")
    return text


ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Go on without asking where no sandbox works.")]
RecipeRunOption = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="DIR",
        help="The run folder.",
        show_default="runs/NAME, by the recipe's name",
        parser=given_path,
    ),
]


def set_option(example: str) -> Any:
    """The option that changes keys of a recipe."""
    return typer.Option(
        "--set", metavar="KEY=VALUE", help=f"Another value, say {example}; may be repeated.", show_default=False
    )
