"""What a person sees of a rollout: the request, each call, what came back, the answer, the verdict."""

from __future__ import annotations

import json

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from openk2.core import Event, ToolCall

RESULT_LINES = 12


class ConsoleView:
    """Prints events as they happen. `numbers` shows 'task i of n' before each request."""

    def __init__(self, console: Console, total: int | None = None) -> None:
        self.console = console
        self.total = total
        self._started = 0

    def __call__(self, event: Event) -> None:
        if event.kind == "start":
            self._started += 1
            if self.total is not None:
                name = f"{event.task.family}: {event.task.skill}"
                self.console.rule(f"[bold]{self._started}/{self.total}[/] [dim]{escape(name)}[/]", align="left")
        elif event.kind == "user" and event.message is not None:
            self.console.print(Text.assemble(("you    ", "bold blue"), event.message.content))
        elif event.kind == "assistant" and event.message is not None and event.message.content:
            self.console.print(Text.assemble(("nano   ", "bold green"), event.message.content))
        elif event.kind == "call" and event.call is not None:
            self.console.print(Text.assemble(("call   ", "bold magenta"), (event.call.name, "magenta")))
            self.console.print(Padding(_call_body(event.call), (0, 0, 0, 7)))
        elif event.kind == "result" and event.result is not None:
            lines = event.result.content.rstrip("\n").splitlines() or [""]
            shown = lines[:RESULT_LINES]
            if len(lines) > RESULT_LINES:
                shown.append(f"... {len(lines) - RESULT_LINES} more lines")
            style = "red" if event.result.error else "dim"
            body = Text("\n".join(shown), style=style)
            self.console.print(Padding(body, (0, 0, 0, 7)))
        elif event.kind == "verdict" and event.verdict is not None and event.verdict.passed is not None:
            word, style = ("passed", "bold green") if event.verdict.passed else ("failed", "bold red")
            reason = f"  {event.verdict.reason}" if event.verdict.reason else ""
            self.console.print(Text.assemble(("verdict ", "bold"), (word, style), (reason, "dim")))
            self.console.print()


def _call_body(call: ToolCall) -> RenderableType:
    """Code as code, everything else as `name: value` lines; arguments that are no JSON as they are."""
    try:
        arguments = call.parsed()
    except ValueError:
        return Text(call.arguments, style="red")
    rows: list[RenderableType] = []
    for name, value in arguments.items():
        if name in ("code", "command") and isinstance(value, str):
            rows.append(
                Syntax(value, "python" if name == "code" else "bash", background_color="default", word_wrap=True)
            )
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append(Text.assemble((f"{name}: ", "dim"), text))
    return Group(*rows)


def print_json(event: Event) -> None:
    """One JSON event a line, flushed, for machines."""
    print(json.dumps(event.to_json(), ensure_ascii=False), flush=True)
