"""The `openk2` command: one file per subcommand, no logic here.

Heavy rooms (torch, pandas) are imported inside the commands, so that `openk2 --help` stays instant.
"""

from __future__ import annotations

import errno
import inspect
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from openk2 import __version__
from openk2.cli import agent, bench, demo, deploy, evaluate, export, model, rl, serve, synth, test, train, view, worlds
from openk2.core import command
from openk2.core.errors import DISK_FULL, Interrupted, UserError, printable
from openk2.core.extras import extra_with

CLOSED_PIPE = 128 + signal.SIGPIPE
"""The exit status that a shell gives a program which SIGPIPE has ended."""

LONGEST_SENTENCE = 1000
"""Characters of an error; of a longer one the beginning and the end are shown."""


class Commands(TyperGroup):
    """The subcommands. Ctrl-C in any of them is an error with a sentence; typer alone would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                result = super().invoke(ctx)
            except typer.Exit:
                _flush()
                raise
            except SystemExit as e:
                # Rich ends the program by itself when the reader of what it prints has gone; nothing else here does.
                raise BrokenPipeError from e
            _flush()
            return result
        except KeyboardInterrupt as e:
            raise Interrupted("interrupted") from e
        except BrokenPipeError:
            # Whoever read has gone, as `head` does. Typer would exit with 1, which here says that the agent gave up.
            _leave_stdout()
            sys.exit(CLOSED_PIPE)


app = typer.Typer(
    name="openk2",
    cls=Commands,
    help="The whole Kimi K2 system, from tokenizer to agent, small enough to train on two CPU cores.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain text: it wraps well, and reads the same on a narrow terminal, without colours and in a pipe.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("demo")(demo.demo)
app.add_typer(agent.app, name="agent")
app.command("view")(view.view)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("serve")(serve.serve)
app.command("deploy")(deploy.deploy)
app.command("export")(export.export)
app.add_typer(model.app, name="model")
app.add_typer(synth.app, name="synth")
app.add_typer(rl.app, name="rl")
app.add_typer(worlds.app, name="worlds")
OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("test", context_settings=OPEN)(test.test)
# Help behind the name is the benchmark's own.
app.command("bench", context_settings=OPEN | {"help_option_names": []})(bench.bench)


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
    # Not for what a command starts.
    command.typed = os.environ.pop("OPENK2_COMMAND", "openk2")
    app.info.epilog = f"Begin with: {command.typed} demo"
    groups = (app, agent.app, model.app, synth.app, rl.app, rl.gym, worlds.app, worlds.mcp)
    for info in (one for group in groups for one in group.registered_commands):
        info.help = str(inspect.getdoc(info.callback)).replace("./k2", command.typed)
    for stream in (sys.stdout, sys.stderr):
        # What a model or a file says may not fit the terminal's encoding, and must not end the program.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end_in_order)
    try:
        app(prog_name=command.typed)
    except UserError as e:
        _fail(str(e), e.exit_code)
    except ModuleNotFoundError as e:
        # What an extra brings is not there for whoever has installed the package without it.
        extra = extra_with(e.name)
        if extra is None:
            raise
        _fail(f"this needs the package {e.name}: pip install 'openk2[{extra}]'", UserError.exit_code)
    except OSError as e:
        if e.errno in DISK_FULL:
            _fail("no space left on the disk: free some and run the same command again", UserError.exit_code)
        if not _has_working_folder():
            _fail("the folder that you are in is gone: go to another", UserError.exit_code)
        # Without a name of a file there is nothing that a person could mend.
        if e.filename is None or e.strerror is None:
            raise
        way_out = f"; {_WAYS_OUT[e.errno]}" if e.errno in _WAYS_OUT else ""
        _fail(f"{e.filename} cannot be used: {e.strerror}{way_out}", UserError.exit_code)


_MOVE = "something else stands where a folder belongs: move it away, or name another place"
_WAYS_OUT = {
    errno.EEXIST: _MOVE,
    errno.ENOTDIR: _MOVE,
    errno.EISDIR: "a folder stands where a file belongs: move it away, or name another place",
    errno.EACCES: "you may not use it: name another place, or ask whom it belongs to",
    errno.EPERM: "you may not use it: name another place, or ask whom it belongs to",
    errno.EROFS: "nothing can be written there: name another place",
}
"""What a person can do about an error of the system."""


def _has_working_folder() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _end_in_order(number: int, frame: object) -> None:
    """Ctrl-C by another name: kernels, workers and scratch folders go the same way."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(f"openk2: {_readable(sentence)}", err=True)
    try:
        _flush()
    except OSError:
        _leave_stdout()
    sys.exit(code)


def _readable(sentence: str) -> str:
    """One line of bounded length that a terminal shows as it is, whatever input a sentence quotes."""
    if len(sentence) > LONGEST_SENTENCE:
        sentence = f"{sentence[: LONGEST_SENTENCE * 3 // 4]} ... {sentence[-LONGEST_SENTENCE // 4 :]}"
    return printable(sentence)


def _flush() -> None:
    """Also for a program that was started without a stdout."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _leave_stdout() -> None:
    """Its disk is full or its reader has gone: Python must not complain of it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
