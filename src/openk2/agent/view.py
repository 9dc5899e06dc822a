"""What a person sees of a rollout: the request, each call, what came back, the answer, the verdict.

Every entry is a label and a text beside it, wrapped to the width of the terminal:

    you     How many rows are in stock.csv?
    call    python
            import pandas as pd
            print(len(pd.read_csv('stock.csv')))
    result  44
    nano    There are 44 rows.
    verdict passed: the answer is right

The labels say it all; colours only help.
"""

from __future__ import annotations

import json
from types import TracebackType

from rich.console import Console
from rich.status import Status
from rich.syntax import Syntax
from rich.text import Text

from openk2.core import Event, ToolCall
from openk2.worlds.text import clean

GUTTER = 8
HEAD_LINES, TAIL_LINES = 8, 3
"""Of a longer result the start and the end are shown; the end often says how it went."""
# An argument longer than this, or of several lines, is shown as a block of its own.
INLINE_CHARS = 60
_LEXERS = {"code": "python", "command": "bash"}


class ConsoleView:
    """Prints events as they happen.

    Use it as a context manager: on a terminal it keeps a last line that says what is being waited for, and leaving the
    block takes that line away. `speaker` labels the model's words, `total` numbers the tasks.
    """

    def __init__(self, console: Console, *, speaker: str = "nano", total: int | None = None) -> None:
        self.console = console
        self.speaker = speaker
        self.total = total
        self._started = 0
        self._status: Status | None = None

    def __enter__(self) -> ConsoleView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rest()

    def __call__(self, event: Event) -> None:
        if event.kind == "start":
            self._start(event)
        elif event.kind == "user" and event.message is not None:
            self.entry("you", "bold blue", Text(clean(event.message.content)))
        elif event.kind == "assistant" and event.message is not None:
            if event.message.content:
                self.entry(self.speaker, "bold green", Text(clean(event.message.content)))
        elif event.kind == "call" and event.call is not None:
            self.entry("call", "bold magenta", call_text(event.call))
            self.wait(f"{event.call.name} is running")
        elif event.kind == "tool_result" and event.result is not None:
            label, style = ("error", "red") if event.result.error else ("result", "dim")
            self.entry(label, style, Text(shortened(clean(event.result.content)), style=style))
        elif event.kind == "verdict" and event.verdict is not None:
            self.rest()
            if event.verdict.passed is not None:
                word, style = ("passed", "bold green") if event.verdict.passed else ("failed", "bold red")
                reason = f": {clean(event.verdict.reason)}" if event.verdict.reason else ""
                self.entry("verdict", "bold", Text.assemble((word, style), (reason, "dim")))
            self.console.print()
        if event.kind in ("start", "user", "tool_result"):
            self.wait(f"{self.speaker} is thinking")

    def wait(self, text: str) -> None:
        """Say on a terminal what is being waited for, until the next entry or `rest`."""
        if not self.console.is_terminal:
            return
        if self._status is None:
            self._status = self.console.status("")
        self._status.update(Text(f"{clean(text)} ...", style="dim"))
        self._status.start()

    def rest(self) -> None:
        """Nothing is being waited for."""
        if self._status is not None:
            self._status.stop()

    def note(self, text: str, style: str = "dim") -> None:
        """A remark that is not part of the conversation; it is wrapped between words only."""
        self.rest()
        for line in Text(clean(text), style=style).wrap(self.console, self.console.width):
            line.rstrip()
            self.console.print(line, soft_wrap=True)

    def _start(self, event: Event) -> None:
        self._started += 1
        if self.total is not None:
            title = Text.assemble(
                (f"{self._started}/{self.total}", "bold"), (f" {event.task.family}: {event.task.skill}", "dim")
            )
            self.console.rule(title, align="left", style="dim")

    def entry(self, label: str, style: str, body: Text) -> None:
        """A label and what is beside it."""
        self.rest()
        width = max(20, self.console.width - GUTTER)
        for number, line in enumerate(body.wrap(self.console, width, overflow="fold") or [Text()]):
            head = label if number == 0 else ""
            whole = Text.assemble((head.ljust(GUTTER), style), line)
            whole.rstrip()
            self.console.print(whole, soft_wrap=True)


def shortened(result: str) -> str:
    """The first and the last lines of a result, and how many are between them."""
    lines = result.rstrip("\n").split("\n")
    left_out = len(lines) - HEAD_LINES - TAIL_LINES
    if left_out > 1:
        lines[HEAD_LINES:-TAIL_LINES] = [f"... {left_out} more lines ..."]
    return "\n".join(lines)


def call_text(call: ToolCall) -> Text:
    """A call as a person reads it: code as code below the name, short arguments in brackets, long ones as blocks.

    Arguments that are not a JSON object are shown as they were written.
    """
    text = Text(clean(call.name), style="magenta")
    try:
        arguments = call.parsed()
    except (ValueError, RecursionError):
        return text.append(f" {clean(call.arguments)}", style="red")
    short: list[str] = []
    blocks: list[Text] = []
    for name, value in arguments.items():
        if name in _LEXERS and isinstance(value, str):
            source = clean(value).strip("\n")
            blocks.append(Syntax("", _LEXERS[name], theme="ansi_dark", background_color="default").highlight(source))
        elif isinstance(value, str) and ("\n" in value or len(value) > INLINE_CHARS):
            blocks.append(Text.assemble((f"{clean(name)}:\n", "dim"), clean(value).strip("\n")))
        else:
            short.append(clean(f"{name}={json.dumps(value, ensure_ascii=False)}"))
    if short or not blocks:
        text.append(f"({', '.join(short)})", style="default")
    for block in blocks:
        block.rstrip()
        text.append("\n").append_text(block)
    return text


def print_json(event: Event) -> None:
    """One JSON event a line, flushed, for machines."""
    print_object(event.to_json())


def print_object(value: object) -> None:
    """One JSON line in ASCII: a result may hold anything, and standard output may be set to any encoding."""
    print(json.dumps(value), flush=True)
