"""Code that a fresh kernel runs before anything else: a cell that prints without end is stopped inside the kernel.

Output travels in messages, and one of hundreds of megabytes would break the kernel or flood us. This file is sent as
text, because the package itself need not be readable in the sandbox.
"""

import contextlib
import os
import sys
import threading
from typing import Any

SLACK = 1 << 20
"""What other threads may print past the limit before it is thrown away: they cannot be stopped by an exception."""


def lead_group() -> None:
    """Make the kernel the head of its process group, so that an interrupt also reaches what a cell has started."""
    with contextlib.suppress(PermissionError):  # it already leads a session
        os.setpgid(0, 0)


def limit_output(limit: int) -> None:
    """Stop a cell with `OutputLimit` when it has printed or shown more than `limit` characters."""
    from IPython.core.getipython import get_ipython

    class OutputLimit(BaseException):
        """Not an Exception: code that catches everything shall not catch this."""

    total = 0

    def count(text: str, room_past: int = 0) -> str:
        """The part of the text that there is room for."""
        nonlocal total
        room = max(0, limit + room_past - total)
        total += len(text)
        return text[:room]

    stream = type(sys.stdout)
    write = stream.write

    def guarded(self: Any, text: str) -> int:
        if threading.current_thread() is not threading.main_thread():
            write(self, count(text, SLACK))
            return len(text)
        fits = count(text)
        write(self, fits)
        if len(fits) < len(text):
            raise OutputLimit
        return len(text)

    stream.write = guarded  # type: ignore[method-assign]  # that is what this function is for

    def reset(*_: object) -> None:
        nonlocal total
        total = 0
        # For its history IPython puts a `write` of its own on the object, around the one it found there.
        for stream in (sys.stdout, sys.stderr):
            vars(stream).pop("write", None)

    shell: Any = get_ipython()
    shell.events.register("pre_run_cell", reset)
    plain = shell.display_formatter.formatters["text/plain"]

    class Guarded(type(plain)):  # type: ignore[misc]  # the class is known only at run time
        def __call__(self, value: object) -> Any:
            shown = super().__call__(value)
            if isinstance(shown, str) and len(count(shown)) < len(shown):
                raise OutputLimit
            return shown

    plain.__class__ = Guarded
