"""`openk2 worlds`: simulated apps to look at and to serve, and MCP servers to take in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import given_path

app = typer.Typer(
    help="Simulated apps and MCP servers: what agents act on.", no_args_is_help=True, rich_markup_mode=None
)
mcp = typer.Typer(help="Take in MCP servers.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(mcp, name="mcp")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A world of the list, or a declaration file (.json or .toml).")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Another seed makes other tools and another state.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON, for machines.")]
_LONGEST_WAIT = 3600


@app.command("list")
def list_worlds(seed: SeedOption = 0, json: JsonOption = False) -> None:
    """All simulated worlds, with name, category, title and tools.

    They are made anew each time, which takes some seconds. With --json there is one object a line.

    Example: ./k2 worlds list
    """
    from openk2.worlds.mcp.catalogue import print_list

    print_list(seed, as_json=json)


@app.command("describe")
def describe(name: NameArgument, seed: SeedOption = 0, json: JsonOption = False) -> None:
    """Entities of a simulated world, and tools with guards and effects.

    Example: ./k2 worlds describe dairy_farm
    """
    from openk2.worlds.mcp.catalogue import print_description

    print_description(name, seed, as_json=json)


@app.command("serve")
def serve(name: NameArgument, seed: SeedOption = 0) -> None:
    """Serve a simulated world to any MCP client over stdio.

    The state lives as long as the session. A client's settings name this command, such as
    {"command": "openk2", "args": ["worlds", "serve", "dairy_farm"]}

    Example: ./k2 worlds serve dairy_farm --seed 7
    """
    from openk2.worlds.mcp.serve import serve

    serve(name, seed)
