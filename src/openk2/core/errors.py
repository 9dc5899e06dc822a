"""Errors that a person can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Bad input or environment: one sentence that says what was wrong, where, and what to do.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 2


class ContextOverflow(UserError):
    """The prompt does not fit into the context that the model was trained for."""


class EndedAtOnce(KeyboardInterrupt):
    """A second Ctrl-C: what was under way was not saved."""


class Interrupted(UserError):
    """The person stopped it. The sentence says what of the work is kept, and where."""

    exit_code = 130


def why(error: BaseException) -> str:
    """The first line of what an error says; its kind too where it is not made for a person."""
    said = str(error).splitlines()
    first = said[0][:200] if said else ""
    if isinstance(error, UserError):
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def printable(text: str) -> str:
    """On one line, as a terminal shows it, whatever is in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def first_invalid(error: ValidationError) -> tuple[str, str]:
    """Where pydantic's first complaint is, keys joined by dots, and what it says. For the whole there is no place."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])), first["msg"]


@contextmanager
def first_alone() -> Iterator[None]:
    """The first failure in a task group has ended the others: it alone says what was wrong, so it is raised for all."""
    try:
        yield
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What OSError.errno says when nothing more can be written."""
