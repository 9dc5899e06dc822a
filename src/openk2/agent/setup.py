"""What every acting command does first: a sandbox or consent to go without, a policy, a place for records."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import cache
from pathlib import Path

from rich.text import Text

from openk2.core import Policy
from openk2.core.progress import new_console
from openk2.sandbox import Sandbox, resolve_sandbox


def acquire_sandbox(assume_yes: bool) -> Sandbox:
    """The sandbox of this system; what a person must know about it is said on stderr.

    Raises UserError if there is none and neither `assume_yes` nor a person at a terminal agrees to go without.
    """
    sandbox = resolve_sandbox(True if assume_yes else ask_consent)
    if sandbox.notice:
        warn(sandbox.notice)
    return sandbox


def ask_consent(question: str) -> bool:
    """Ask on the terminal; the answer without one is no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def warn(text: str) -> None:
    """A remark on stderr that does not stop anything."""
    # Never broken, so that a path in it can be copied.
    new_console(stderr=True).print(Text(text, style="yellow"), soft_wrap=True)


def acquire_policy(model: str, *, device: str, grammar: bool = True) -> Policy:
    """The policy that `--model` names; while it loads, a terminal says so. Raises UserError as `resolve_policy`."""
    console = new_console(stderr=True)
    with console.status(Text("loading the model ...", style="dim")) if console.is_terminal else nullcontext():
        # Threads that wait for each other look again and again, and keep their cores meanwhile: where other programs
        # are busy, that makes generation ten times as slow. Not to look at all makes it half as fast where none are.
        # Some microseconds are right for both. libgomp reads this when torch is imported.
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        # Here and not above: this is what takes the time.
        from openk2.policy.resolve import resolve_policy

        return resolve_policy(model, device=device, grammar=grammar)


def speaker_of(model: str) -> str:
    """How the model's words are labelled."""
    return "nano" if model == "nano" else "model"


def record_name() -> str:
    """A name that is new and sorts by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def records_folder() -> Path:
    """Where single trajectories are kept; it exists afterwards."""
    folder = state_folder() / "trajectories"
    folder.mkdir(exist_ok=True)
    return folder


def state_folder() -> Path:
    """What is kept for this user: their state folder, which exists afterwards.

    Where there is none that can be written, as in some containers, a fresh temporary folder.
    """
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        folder = Path(state).absolute() / "openk2"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except (OSError, RuntimeError):
        # No home folder at all, or one that belongs to somebody else.
        pass
    return _temporary_state()


@cache
def _temporary_state() -> Path:
    return Path(tempfile.mkdtemp(prefix="openk2-state-"))
