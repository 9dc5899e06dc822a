"""`openk2 bench`: the measured comparisons of the repository."""

from __future__ import annotations

import os
import sys

import typer

from openk2.cli.test import ROOT
from openk2.core.errors import UserError


def bench(
    context: typer.Context,
    name: str = typer.Argument(
        metavar="NAME",
        help="bfcl, engine, generate, optimizer, qk_clip, rl, rl_explore, rl_gain, serve, synth or train.",
    ),
) -> None:
    """Measure this project beside others, on equal work.

    Each benchmark checks first that both sides compute the same, and writes its result to bench/results. What stands
    behind the name goes to it: `bench NAME --help` says what it takes. Nothing else should run meanwhile.

    Example: ./k2 bench serve --model nano --json
    """
    if name in ("-h", "--help"):
        typer.echo(context.get_help())
        return
    names = sorted(path.stem for path in (ROOT / "bench").glob("[a-z]*.py"))
    if not names:
        raise UserError(f"there are no benchmarks beside {ROOT / 'src'}: run this from a clone of the repository")
    if name not in names:
        raise UserError(f"there is no benchmark {name!r}: use {', '.join(names)}")
    os.execv(sys.executable, [sys.executable, str(ROOT / "bench" / f"{name}.py"), *context.args])
