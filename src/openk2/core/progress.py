"""How a long run talks to whoever watches: one line per stage, and a bar with the time left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from textwrap import shorten
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.table import Column

PLAIN_SECONDS = 30.0
_BAR, _BESIDE = 12, 52
"""The width of a bar, and of all that stands before its text."""


def new_console(*, stderr: bool = False) -> Console:
    """What is said is printed as it is: `:tea:` of a model or a file is no picture, and numbers have no colours."""
    return Console(stderr=stderr, highlight=False, emoji=False)


class Bar(Protocol):
    """Progress of one stage."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


class Reporter(Protocol):
    """Where a run reports to."""

    def note(self, text: str) -> None:
        """One line that stays."""
        ...

    def stage(self, name: str) -> AbstractContextManager[Bar]:
        """For the time of one stage: its bar."""
        ...


class ConsoleReporter:
    """A live bar on a terminal; elsewhere a line every half minute."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or new_console(stderr=True)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Bar]:
        if not self._console.is_terminal:
            yield _PlainBar(self, name)
            return
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=_BAR),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("left"),
            # Steps of fine-tuning differ in cost; a window of some minutes keeps the estimate calm.
            TimeLeftColumn(compact=True, table_column=Column(no_wrap=True)),
            # Only this gives way where the terminal is narrow, by whole words.
            TextColumn("{task.fields[text]}"),
        )
        with Progress(*columns, console=self._console, transient=True, speed_estimate_period=300) as progress:
            room = max(1, self._console.width - _BESIDE)
            yield _LiveBar(progress, progress.add_task(name, total=None, text=""), room)


class _LiveBar:
    def __init__(self, progress: Progress, task: TaskID, room: int) -> None:
        self._progress, self._task, self._room = progress, task, room

    def __call__(self, done: int, total: int, text: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, text=shorten(text, self._room, placeholder="…"))


class _PlainBar:
    def __init__(self, reporter: ConsoleReporter, name: str) -> None:
        self._reporter = reporter
        self._name = name
        self._said = time.monotonic()
        self._begun: int | None = None
        self._measured_from: tuple[int, float] | None = None

    def __call__(self, done: int, total: int, text: str = "") -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = done
        elif self._measured_from is None and done > self._begun:
            # Only now: before the first step, a run may have prepared for longer than a step takes.
            self._measured_from = done, now
        if now - self._said < PLAIN_SECONDS:
            return
        self._said = now
        left = ""
        if self._measured_from is not None and done > self._measured_from[0]:
            first, started = self._measured_from
            left = f", {(now - started) / (done - first) * (total - done) / 60:.0f} min left"
        self._reporter.note(f"{self._name}: {done}/{total}{left} {text}".rstrip())
