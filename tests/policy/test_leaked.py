"""Calls that were left in the text, in whatever pieces it comes."""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("regex")
pytest.importorskip("openai")

from openk2.policy.leaked import LeakReader

BEGIN, END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
SINGULAR = "<|tool_call_section_begin|>", "<|tool_call_section_end|>"
ARGUMENT, CALL_END = "<|tool_call_argument_begin|>", "<|tool_call_end|>"


def call(arguments: str, name: str = "functions.f:0") -> str:
    return f"<|tool_call_begin|>{name}{ARGUMENT}{arguments}{CALL_END}"


def read(text: str, seed: int = 0, *, offered: bool = True, cut: bool = False) -> tuple[str, list[Any]]:
    rng, reader, said, at = random.Random(seed), LeakReader(offered), "", 0
    while at < len(text):
        size = rng.choice([1, 2, 7, 30, 1000])
        said += reader.feed(text[at : at + size])
        at += size
    rest = reader.close(cut=cut)
    calls = [(one["name"], one["arguments"]) for one in rest.calls]
    return said + rest.text, [*calls, *(["broken"] if rest.broken else [])]


TRICKY = f'{{"path": "{CALL_END}{END}{BEGIN}"}}'
LEAKED = [
    (f"So.{BEGIN}{call('{}')}{END}", "So.", [("f", "{}")]),
    (f"So. {BEGIN} {call(' {} ')}\n{call('[1', 'g')} {END}<|im_end|>\n", "So. ", [("f", "{}"), ("g", "[1")]),
    (f"{BEGIN}{call(TRICKY)}{END}", "", [("f", TRICKY)]),
    # One writes about the marker first, and calls then.
    (f"`{BEGIN}` begins it.{BEGIN}{call('{}')}{END}", f"`{BEGIN}` begins it.", [("f", "{}")]),
    (f"{BEGIN}{call('{}')}{END}!{BEGIN}{call('{}', 'g')}{END}", f"{BEGIN}{call('{}')}{END}!", [("g", "{}")]),
    # Markers in the singular, and none around the calls.
    (f"So.{SINGULAR[0]}{call('{}')}{SINGULAR[1]}", "So.", [("f", "{}")]),
    (f"So. {call('{}')}{call(TRICKY, 'g')}", "So. ", [("f", "{}"), ("g", TRICKY)]),
    (f"{call('{}')}{END}<|im_end|>", "", [("f", "{}")]),
    (f"{call('{}')} is one.{call('{}', 'g')}\n", f"{call('{}')} is one.", [("g", "{}")]),
    (f"So.{BEGIN}Calling. {call('{}', 'two words')}{END}", "So.", [("two words", "{}")]),
    # An end that was left out, and a second section.
    (f"{BEGIN}<|tool_call_begin|>f:1{ARGUMENT}{{}}{call('{}', 'g')}{END}", "", [("f", "{}"), ("g", "{}")]),
    (f"So.<|tool_call_begin|>f:1{ARGUMENT}{{}}{call('{}', 'g')}", "So.", [("f", "{}"), ("g", "{}")]),
    (f"{BEGIN}{call('{}')}{END}\n{BEGIN}{call('{}', 'g')}{END}", "", [("f", "{}"), ("g", "{}")]),
]  # fmt: skip
ENDS = [
    ("So.<|im_end|>", "So."),
    (f"So.{END}\n<|im_end|> ", "So."),
    (f"So. {BEGIN} {END}", "So. "),
    (f"{BEGIN}{BEGIN}{END}", BEGIN),
    (f"K2 writes {BEGIN}{call('{}')}{END} and stops.<|im_end|>", f"K2 writes {BEGIN}{call('{}')}{END} and stops."),
]
CUT = [
    (f"So.{BEGIN}<|tool_call_begin|>func", "So."),
    (f"So.{BEGIN}<|tool", "So."),
    (f"So.{BEGIN}", "So."),
    ("So.<|tool_call", "So."),
    ("Is 1 <", "Is 1 <"),
    (f"So.{call('{}')[:-20]}", "So."),
]
TEXTS = [
    "plain < text <|",
    f"The marker {BEGIN} begins a section.",
    f"It ends like this: {BEGIN}",
    "<|im_end|> ends it.",
    f"{END}{END}{END} ends it",
    f"{call('{}')} and more.",
    f"K2 writes {BEGIN}{call('{}')}{END} and stops.",
]


UNREADABLE = [f'<|tool_call_begin|>functions.f:0{{"a":1}}{CALL_END}', '{"name": "f"}', f"f:0{ARGUMENT}{{}}{CALL_END}",
              f"<|tool_call_begin|>{ARGUMENT}{{}}{CALL_END}"]  # fmt: skip
BROKEN = [
    *((f"So.{BEGIN}{inside}{END}<|im_end|>", "So.", ["broken"]) for inside in UNREADABLE),
    (f"So.{BEGIN}<|tool_call_begin|> f:0 {ARGUMENT} {{", "So.", ["broken"]),
    (f"{BEGIN}{call('{}')}", "", [("f", "{}"), "broken"]),
    (f"{BEGIN}{call('{}')}<|tool_call_begin|>f:1{ARGUMENT}{{}}{END}<|im_end|>", "", [("f", "{}"), "broken"]),
    # What is behind a broken call is not all that was meant.
    (f"{BEGIN}<|tool_call_begin|>f:1{ARGUMENT}{{{call('{}', 'g')}{END}", "", ["broken"]),
    (f"So.<|tool_call_begin|>f:1{ARGUMENT}{{", "So.", ["broken"]),
    (f"So.<|tool_call_begin|>f:1{ARGUMENT}{{{call('{}', 'g')}", "So.", ["broken"]),
    (f"{BEGIN}{call('{}')}{END}!{BEGIN}{call('[', 'g')}", f"{BEGIN}{call('{}')}{END}!", [("g", "["), "broken"]),
]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("text", "said", "calls"), LEAKED + BROKEN)
def test_sections_at_the_end_are_calls(text: str, said: str, calls: list[Any], seed: int) -> None:
    assert read(text, seed) == (said, calls)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("text", TEXTS)
def test_anything_else_is_text(text: str, seed: int) -> None:
    assert read(text, seed) == (text, [])


def test_without_tools_all_is_text() -> None:
    assert all(read(text, offered=False) == (text.partition("<|im_end|>")[0], []) for text, *_ in LEAKED)
    assert read("<|im_end|> ends it.<|im_end|>", offered=False) == ("<|im_end|> ends it.", [])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("text", "said"), ENDS)
def test_markers_of_the_end_are_not_shown(text: str, said: str, seed: int) -> None:
    assert read(text, seed) == (said, [])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("text", "said"), CUT)
def test_a_call_that_was_cut_off_is_not_shown(text: str, said: str, seed: int) -> None:
    assert read(text, seed, cut=True)[0] == said


def test_what_is_decided_does_not_wait() -> None:
    reader = LeakReader(True)
    # Behind the marker there may be some words before a call.
    assert reader.feed(f"The marker {BEGIN} is one") == "The marker "
    more = " of many." * 30
    assert reader.feed(more) == f"{BEGIN} is one{more}"
    assert reader.feed(" <|tool_calls") == " "
    assert reader.feed(" no") == "<|tool_calls no"
    assert reader.feed(f"{BEGIN}{call('{}')}") == ""
    # Longer than any section: it is let go.
    assert len(reader.feed("x" * (1 << 23))) > 1 << 23
    assert reader.feed(BEGIN) == BEGIN
