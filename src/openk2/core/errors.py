"""Errors that a person can act on."""

from __future__ import annotations

import errno


class UserError(Exception):
    """Bad input or environment: one sentence that says what was wrong, where, and what to do.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 2


class ContextOverflow(UserError):
    """The prompt does not fit into the context that the model was trained for."""


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What OSError.errno says when nothing more can be written."""
