"""Start the data-parallel workers of a training stage, watch them, and end them together."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openk2.core import UserError
from openk2.core.errors import EndedAtOnce
from openk2.core.runs import write_text
from openk2.train.folder import WORKER_LOG
from openk2.train.worker import WorkerJob

LAST_WORDS_SECONDS = 3.0
ONE_PRESS_SECONDS = 0.1
"""Interrupts so close together are one: `timeout` and the like send it to a process and to its group."""
SCRATCH_PREFIX = ".workers-"
Event = dict[str, Any]
Events = queue.SimpleQueue[tuple[int, Event]]
"""Of a rank, or of nobody (-1): an interrupt."""


def worker_environment() -> dict[str, str]:
    """One thread each, and glibc's allocator told to keep freed memory (a fifth faster for models of this size)."""
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
        "MALLOC_TOP_PAD_": str(256 << 20),
        # All ranks are on this machine; looking up the host's own name may fail, or lead out of it.
        **({"GLOO_SOCKET_IFNAME": loopback} if loopback else {}),
    }


def train_in_workers(job: WorkerJob, on_event: Callable[[Event], None], module: str = "openk2.train.worker") -> Event:
    """Run a job to its end in processes of `module`, and return its last event.

    Raises UserError with a worker's own sentence, or saying that
    a worker was killed. On KeyboardInterrupt the workers finish their step and save; then it is raised again (on a
    second one they end at once, and EndedAtOnce is).
    """
    # The one queue whose put() may be called by a signal's handler while get() waits.
    events: Events = queue.SimpleQueue()
    with _interrupts_in(events), _Workers(job, module, events) as workers:
        try:
            end = workers.watch(on_event)
        except KeyboardInterrupt:
            try:
                on_event({"event": "stopping"})
                workers.stop()
                workers.watch(on_event)
            except KeyboardInterrupt as e:
                raise EndedAtOnce from e
            raise
    while not events.empty():
        if events.get()[1] == INTERRUPT:
            raise KeyboardInterrupt
    return end


INTERRUPT: Event = {"event": "interrupt"}


@contextmanager
def _interrupts_in(events: Events) -> Iterator[None]:
    """Inside, what raises KeyboardInterrupt elsewhere is an event. An exception that can come between any two lines
    leaves locks held and processes running, however carefully they are ended."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    main = threading.current_thread() is threading.main_thread()
    before = {number: handler for number in numbers if main and callable(handler := signal.getsignal(number))}
    last = -math.inf

    def heard(number: int, frame: object) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > ONE_PRESS_SECONDS:
            events.put((-1, INTERRUPT))
        last = now

    for number in before:
        signal.signal(number, heard)
    try:
        yield
    finally:
        # SIGINT last: from then on a Ctrl-C is an exception again.
        for number, handler in reversed(before.items()):
            signal.signal(number, handler)


class _Workers:
    """The processes of one job; leaving the block kills whatever still runs."""

    def __init__(self, job: WorkerJob, module: str, events: Events) -> None:
        self._module = module
        self._scratch = job.scratch
        self._events = events
        self._processes: list[subprocess.Popen[str]] = []
        self._job = job
        self._count = job.workers

    def __enter__(self) -> _Workers:
        for left_by_a_kill in self._scratch.parent.glob(f"{SCRATCH_PREFIX}*"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        job_path = self._scratch / "job.json"
        write_text(job_path, self._job.model_dump_json())
        try:
            for rank in range(self._count):
                self._start(rank, job_path)
        except BaseException:
            self._end()
            raise
        return self

    def _start(self, rank: int, job_path: Path) -> None:
        with open(self._scratch / f"stderr-{rank}", "w", encoding="utf-8") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", self._module, str(job_path), str(rank)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=worker_environment(),
                # A terminal's Ctrl-C goes to its whole process group; only this process decides what it means.
                process_group=0,
            )
        self._processes.append(process)
        threading.Thread(target=self._read, args=(rank, process), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _read(self, rank: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._events.put((rank, json.loads(line)))
        self._events.put((rank, {"event": "exit", "code": process.wait()}))

    def stop(self) -> None:
        """Ask for a checkpoint and an orderly end."""
        stdin = self._processes[0].stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write("stop\n")
            stdin.flush()

    def watch(self, on_event: Callable[[Event], None]) -> Event:
        """Pass events on until all workers have ended well; the "end" event is returned. Raises KeyboardInterrupt when
        that was asked for."""
        end: Event = {}
        running = set(range(self._count))
        while running:
            rank, event = self._events.get()
            match event["event"]:
                case "exit":
                    running.discard(rank)
                    if event["code"] != 0:
                        self._fail(rank, event["code"])
                case "error":
                    raise UserError(event["message"])
                case "interrupt":
                    raise KeyboardInterrupt
                case "end":
                    end = event
                case _:
                    on_event(event)
        return end

    def _fail(self, rank: int, code: int) -> None:
        """A worker died. Another one may know why: when one goes, the rest fail at their next exchange."""
        with contextlib.suppress(queue.Empty):
            while True:
                other, event = self._events.get(timeout=LAST_WORDS_SECONDS)
                if event["event"] == "error":
                    raise UserError(event["message"])
                if event["event"] == "exit" and event["code"] < 0:
                    rank, code = other, event["code"]
                    break
        if code < 0:
            raise UserError(
                f"training worker {rank} was ended from outside ({signal.Signals(-code).name}; out of memory, "
                "perhaps): run the same command again to go on from the last checkpoint"
            )
        log = self._job.folder / WORKER_LOG
        (self._scratch / f"stderr-{rank}").replace(log)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        # The line of a traceback that names the exception starts at the margin.
        reason = next((line for line in reversed(lines) if line[:1].strip()), f"exit code {code}")
        raise UserError(f"training worker {rank} failed ({reason[:300]}): {log} has the whole of it")
