"""`openk2 worlds`: simulated apps to look at and to serve, and MCP servers to take in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import ForceOption, given_path
from openk2.core import UserError

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
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@app.command("list")
def list_worlds(seed: SeedOption = 0, json: JsonOption = False) -> None:
    """All simulated worlds, with name, category, title and tools.

    They are made anew each time, which takes some seconds. With --json there is one object a line.

    Example: ./k2 worlds list
    """
    from openk2.synth.catalogue import print_list

    print_list(seed, as_json=json)


@app.command("describe")
def describe(name: NameArgument, seed: SeedOption = 0, json: JsonOption = False) -> None:
    """Entities of a world, and tools with guards and effects.

    Example: ./k2 worlds describe dairy_farm
    """
    from openk2.synth.catalogue import print_description

    print_description(name, seed, as_json=json)


@app.command("serve")
def serve(
    name: NameArgument,
    seed: SeedOption = 0,
    imported: Annotated[
        Path | None,
        typer.Option(
            "--imported",
            metavar="FILE",
            help="Serve a server in a file of `worlds mcp import --out`: what of it is simulated.",
            show_default=False,
            parser=given_path,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="M",
            help="Plays the imported tools whose meaning is not known, such as openai:NAME@URL.",
            show_default=False,
        ),
    ] = "",
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="FILE",
            help="Keep the records of the tools that the model plays there (SQLite).",
            show_default="as long as the session",
            parser=given_path,
        ),
    ] = None,
) -> None:
    """Serve a simulated world to any MCP client over stdio.

    The state lives as long as the session. A client's settings name this command, such as
    {"command": "openk2", "args": ["worlds", "serve", "dairy_farm"]}

    Imported tools are inferred, or with --model model-backed: _meta of each says which ("openk2/label"). A model's
    answers are kept in FILE.asked: the same calls, in their order, from the same first records, with the same --model
    and --seed, give the same results, even if its endpoint is gone.

    Example: ./k2 worlds serve dairy_farm --seed 7
    """
    if model and imported is None:
        raise UserError("--model plays tools that were imported: name their file with --imported")
    if state is not None and not model:
        raise UserError("--state is for the records of tools that a model plays: name it with --model")
    from openk2.serve.mcp import serve

    serve(name, seed, imported, model, state)


@app.command("play")
def play(
    name: NameArgument,
    task: Annotated[
        int | None,
        typer.Option(
            "--task", min=0, metavar="SEED", help="A user with a task.", show_default="nobody, a free session"
        ),
    ] = None,
    tools: Annotated[
        int | None,
        typer.Option(
            "--tools",
            min=1,
            metavar="N",
            help="At most so many tools, beside those that the task needs.",
            show_default="all of the agent's",
        ),
    ] = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Be the agent yourself, and get the verdict.

    Commands come from the terminal or through a pipe; help names them. The exit code is 0 for a task that was passed
    and for a free session, else 1. With --json every event is a line.

    Example: ./k2 worlds play dairy_farm --task 3
    """
    from openk2.synth.play import play

    if not play(name, seed, task, tools, as_json=json):
        raise typer.Exit(1)


@mcp.command("add")
def add(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="What starts the server, behind --.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="What to call it.", show_default="the program's name")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The world file.", show_default="NAME.json", parser=given_path),
    ] = None,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="A server on the network (streamable HTTP).")] = "",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="For the server; may be repeated.", show_default=False),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, max=3600, metavar="S", help="Seconds that it may take to answer.")
    ] = 30.0,
    json: JsonOption = False,
) -> None:
    """Start an MCP server, list its tools, write a world file.

    The server sees HOME, PATH and the like of the environment, and what --env gives it: the file has those values.
    Tools whose schemas are wrong are left out, with the reason in the file.

    Example: ./k2 worlds mcp add --name memory -- npx @modelcontextprotocol/server-memory
    """
    if bool(command) == bool(url):
        raise UserError("name a server: a command behind --, or --url URL, and not both")
    if url and not re.match(r"https?://[^/]", url):
        raise UserError(f"--url is {url[:80]!r}: give one that begins with http:// or https://")
    pairs = [pair.partition("=") for pair in env or []]
    if wrong := [pair for pair, (key, equals, _) in zip(env or [], pairs, strict=True) if not key or not equals]:
        raise UserError(f"--env is {wrong[0][:80]!r}: write NAME=VALUE")
    called = name or (Path(command[0]).name if command else "server")
    if not _NAME.fullmatch(called):
        raise UserError(f"the name {called[:80]!r} cannot be a file's: give another one with --name, such as notes")
    import asyncio
    from json import dumps

    from openk2.worlds.mcp.live import Launch
    from openk2.worlds.mcp.world import add

    path = out or Path(f"{called}.json")
    launch = Launch(tuple(command or ()), url, {key: value for key, _, value in pairs})
    file = asyncio.run(add(launch, called, path, timeout=timeout))
    if json:
        typer.echo(dumps({"file": str(path), "name": called, "tools": len(file.tools), "left_out": file.left_out}))
        return
    typer.echo(f"{path}: {file.server or called}, {len(file.tools)} tools")
    for tool, reason in file.left_out.items():
        typer.echo(f"left out {tool}: {reason}")


@mcp.command("import")
def take_in(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, one server each.", parser=given_path)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write the accepted servers there, one a line.",
            show_default=False,
            parser=given_path,
        ),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Take in specs of MCP servers, without running one.

    A line is {"server", "domain", "tools": [{"name", "description", "input_schema"}]}. Tools with a name that can be
    written and a valid schema are accepted, unless one before is nearly the same. Those whose meaning follows from
    names and schemas are simulated (inferred), others need a model (model-backed).

    Example: ./k2 worlds mcp import servers.jsonl --out imported.jsonl
    """
    from openk2.worlds.mcp.imports import import_file

    import_file(file, out, as_json=json, force=force)
