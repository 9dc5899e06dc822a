"""What a person sees: labelled, wrapped beside the label, nothing cut, and safe for the terminal."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from openk2.agent.view import GUTTER, ConsoleView, call_text, print_json, shortened
from openk2.core import Event, Message, Task, ToolCall, ToolResult, Verdict

TASK = Task("t/1", "functions", "chain2", 0, "do it")


def seen(*events: Event, width: int = 80, terminal: bool = False, total: int | None = None) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, force_terminal=terminal, color_system=None)
    with ConsoleView(console, total=total) as view:
        for event in events:
            view(event)
    return out.getvalue()


def says(text: str) -> Event:
    return Event("assistant", TASK, message=Message("assistant", text))


def calls(name: str, arguments: object) -> Event:
    raw = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return Event("call", TASK, call=ToolCall("functions.x:0", name, raw))


def returns(text: str, error: bool = False) -> Event:
    return Event("tool_result", TASK, call=ToolCall("x", "x", "{}"), result=ToolResult(text, error))


def test_a_whole_conversation() -> None:
    shown = seen(
        Event("start", TASK),
        Event("user", TASK, message=Message("user", "How many rows are in stock.csv?")),
        calls("python", {"code": "import pandas as pd\nprint(len(pd.read_csv('stock.csv')))"}),
        returns("44\n"),
        says("There are 44 rows."),
        Event("verdict", TASK, verdict=Verdict(True, "the answer is right")),
    )
    assert shown == (
        "you     How many rows are in stock.csv?\n"
        "call    python\n"
        "        import pandas as pd\n"
        "        print(len(pd.read_csv('stock.csv')))\n"
        "result  44\n"
        "nano    There are 44 rows.\n"
        "verdict passed: the answer is right\n"
        "\n"
    )


def test_tasks_are_numbered() -> None:
    first, second = seen(Event("start", TASK), Event("start", TASK), total=7).splitlines()
    assert first.startswith("1/7 functions: chain2 -") or first.startswith("1/7 functions: chain2 \u2500")
    assert second.startswith("2/7") and len(second) <= 80


def test_failures_say_so_in_words() -> None:
    assert seen(returns("no such file", error=True)) == "error   no such file\n"
    verdict = Event("verdict", TASK, verdict=Verdict(False, "expected [3] or [/x]"))
    assert seen(verdict) == "verdict failed: expected [3] or [/x]\n\n"
    assert seen(Event("verdict", TASK, verdict=Verdict(None))) == "\n"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({}, "send()"),
        ({"to": "Bob", "amount": 2.5, "tags": ["a"]}, 'send(to="Bob", amount=2.5, tags=["a"])'),
        ({"path": "a.txt", "content": "one\ntwo\n"}, 'send(path="a.txt")\ncontent:\none\ntwo'),
        ({"code": "x = [1]\nx"}, "send\nx = [1]\nx"),
        ({"command": "ls [a-z]*"}, "send\nls [a-z]*"),
        ("[1, 2]", "send [1, 2]"),
        ("{cut", "send {cut"),
        ({"code": 3}, "send(code=3)"),
    ],
)
def test_calls(arguments: object, shown: str) -> None:
    raw = arguments if isinstance(arguments, str) else json.dumps(arguments)
    assert call_text(ToolCall("x", "send", raw)).plain == shown


def test_long_results_show_start_and_end() -> None:
    lines = shortened("\n".join(map(str, range(100)))).splitlines()
    assert lines == [*map(str, range(8)), "... 89 more lines ...", "97", "98", "99"]
    assert shortened("\n".join("abcdefghijkl")) == "\n".join("abcdefghijkl")


@settings(max_examples=60, deadline=None)
@given(st.text(), st.text(), st.integers(30, 120))
def test_any_text_fits_and_harms_nothing(name: str, text: str, width: int) -> None:
    shown = seen(
        Event("user", TASK, message=Message("user", text)),
        says(text),
        calls(name, {name: text, "code": text}),
        calls(name, text),
        returns(text),
        Event("verdict", TASK, verdict=Verdict(True, text)),
        width=width,
    )
    assert not any(ord(c) < 32 and c != "\n" for c in shown)
    from rich.cells import cell_len

    assert all(cell_len(line) <= width for line in shown.split("\n"))


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="abc def.,", min_size=1, max_size=600), st.integers(30, 120))
def test_nothing_is_cut(text: str, width: int) -> None:
    lines = seen(says(text), width=width).splitlines()
    assert all(line[:GUTTER] in ("nano    ", " " * GUTTER) or len(line) <= GUTTER for line in lines)
    assert "".join("".join(line[GUTTER:] for line in lines).split()) == "".join(text.split())


def test_on_a_terminal_it_says_what_is_waited_for() -> None:
    shown = seen(Event("start", TASK), calls("python", {"code": "1"}), returns("1"), terminal=True)
    assert "nano is thinking ..." in shown and "python is running ..." in shown
    assert shown.endswith("\x1b[?25h") or "\x1b[?25h" in shown.rpartition("thinking")[2], "the cursor is back"
    assert "thinking" not in seen(Event("start", TASK), says("x"))


def test_notes_wrap_between_words() -> None:
    out = io.StringIO()
    ConsoleView(Console(file=out, width=40)).note("word " * 20 + "end\n")
    lines = out.getvalue().split("\n")
    assert all(len(line) <= 40 and line == line.rstrip() for line in lines)
    assert out.getvalue().split() == ["word"] * 20 + ["end"]


def test_json_events_are_one_line_of_ascii_each(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("line\nbreak", "\u00e4\U0001f600", "\udc80 alone", "\x1b[31m"):
        print_json(says(text))
        out = capsys.readouterr().out
        assert out.isascii() and out.count("\n") == 1
        assert json.loads(out)["content"] == text
