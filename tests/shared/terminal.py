"""The command on a terminal of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Sequence

# Colours, movements of the cursor and the like.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, command: Sequence[object]) -> None:
        self._fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*map(str, command)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self._seen = ""

    def until(self, words: str, seconds: float = 500) -> str:
        """Read what is shown until these words come; what came before them."""
        deadline = time.monotonic() + seconds
        while words not in self._seen:
            assert time.monotonic() < deadline, self._seen
            if not select.select([self._fd], [], [], 1)[0]:
                continue
            try:
                data = os.read(self._fd, 4096)
            except OSError:  # nobody writes to the terminal any more
                data = b""
            assert data, self._seen
            self._seen = _CONTROL.sub("", self._seen + data.decode(errors="replace"))
        before, _, self._seen = self._seen.partition(words)
        return before

    def write(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
