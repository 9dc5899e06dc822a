"""Ctrl-C is for the process that was started: those that it starts itself end with it, and say nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_start() -> Iterator[None]:
    """Processes that are started inside do not hear Ctrl-C from their first moment. This one hears it afterwards: one
    that is begun by half would wait for the rest forever."""
    heard: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    # Another thread can be given the signal although this one has blocked it, and Python then tells the main thread.
    put_off = callable(handler) and threading.current_thread() is threading.main_thread()
    if put_off:
        signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if put_off:
            signal.signal(signal.SIGINT, handler)
    if heard:
        signal.raise_signal(signal.SIGINT)


def ignore_interrupts() -> None:
    """For the beginning of a process that was started so. What it starts itself can hear of Ctrl-C again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
