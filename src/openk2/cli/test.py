"""`openk2 test`: the tests of this checkout."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import typer

from openk2.core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def test(
    context: typer.Context,
    slow: bool = typer.Option(False, "--slow", help="Also the tests that take minutes (kill tests, long training)."),
) -> None:
    """Run the tests; anything else on the line goes to pytest.

    Examples: ./k2 test, ./k2 test --slow, ./k2 test tests/model -k parity -x
    """
    if not (ROOT / "tests").is_dir():
        raise UserError(f"there are no tests beside {ROOT / 'src'}: run this from a clone of the repository")
    if importlib.util.find_spec("pytest") is None:
        raise UserError("pytest is not installed: use ./k2 test, or pip install 'openk2[dev]'")
    os.chdir(ROOT)
    # Hundreds of tests start programs, and each would compile all sources anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Many tests wait for a process or a clock, so three processes keep two cores at work.
    arguments = ["-n", "3", "--dist", "worksteal", *([] if slow else ["-m", "not slow"]), *context.args]
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])
