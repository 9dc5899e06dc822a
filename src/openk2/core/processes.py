"""Processes of a pool: Ctrl-C is for the process that was started, and those that it starts itself end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait


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


def begin_process() -> None:
    """What each process of a pool does first. What it starts itself can hear of Ctrl-C again.

    It ends with the one that has started it, however that ends: an idle one would wait for work for good.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
