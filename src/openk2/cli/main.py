"""The `openk2` command: one file per subcommand, no logic here.

Heavy rooms (torch, pandas) are imported inside the commands, so that `openk2 --help` stays instant.
"""

from __future__ import annotations

import errno
import os
import sys

import typer

from openk2 import __version__
from openk2.cli import agent, demo, evaluate, test, train
from openk2.core.errors import UserError

app = typer.Typer(
    name="openk2",
    help="The whole Kimi K2 system, from tokenizer to agent, small enough to train on two CPU cores.",
    epilog="Begin with: ./k2 demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("demo")(demo.demo)
app.command("agent")(agent.agent)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(test.test)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"openk2 {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Options before the subcommand."""


def main() -> None:
    """Run the command; bad input ends in one sentence on stderr and a non-zero exit, never in a traceback."""
    try:
        app()
    except UserError as e:
        typer.echo(f"openk2: {e}", err=True)
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        typer.echo("openk2: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing is left to say, not even when Python flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        typer.echo("openk2: no space left on the disk: free some and run the same command again", err=True)
        sys.exit(2)
