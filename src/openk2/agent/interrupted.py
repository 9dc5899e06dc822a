"""Ctrl-C as an ending that says what was kept."""

from __future__ import annotations

from openk2.core.errors import UserError


class Interrupted(UserError):
    """The person stopped it. The sentence says what of the work is kept, and where."""

    exit_code = 130
