"""What a reader says piece by piece adds up to what `parse_completion` reads, for any ids, cuts and chunks."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openk2.chat import (
    ArgumentsPart,
    CallBegin,
    CallEnd,
    CompletionReader,
    Event,
    TextPart,
    TextReader,
    Tokenizer,
    fold,
    nano_tokenizer,
    parse_completion,
)
from openk2.chat import tokenizer as tk
from openk2.core import Message

NANO = nano_tokenizer()
MARKERS = (tk.SECTION_BEGIN, tk.SECTION_END, tk.CALL_BEGIN, tk.ARGUMENT_BEGIN, tk.CALL_END, tk.IM_END, tk.BOS)
STRUCTURE = [NANO.specials[name] for name in MARKERS]


def body(content: str, *calls: tuple[str, str]) -> list[int]:
    s = NANO.specials
    ids = NANO.encode(content)
    if calls:
        ids.append(s[tk.SECTION_BEGIN])
        for identifier, arguments in calls:
            ids += [s[tk.CALL_BEGIN], *NANO.encode(identifier), s[tk.ARGUMENT_BEGIN], *NANO.encode(arguments)]
            ids.append(s[tk.CALL_END])
        ids.append(s[tk.SECTION_END])
    return [*ids, s[tk.IM_END]]


def say(reader: CompletionReader, chunks: list[list[int]]) -> list[Event]:
    return [event for chunk in chunks for event in reader.feed(chunk)] + reader.close()


def chunked(ids: list[int], cuts: list[int]) -> list[list[int]]:
    places = sorted({min(c, len(ids)) for c in cuts} | {0, len(ids)})
    return [ids[a:b] for a, b in pairwise(places)]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.from_regex(r"functions\.[a-z_]{1,8}:[0-9]{1,2}", fullmatch=True)
cuts = st.lists(st.integers(0, 60), max_size=12)
good = st.builds(
    lambda content, calls: body(content, *calls), texts, st.lists(st.tuples(names, texts.map(json.dumps)), max_size=3)
)
anything = st.lists(st.integers(0, NANO.base_size - 1) | st.sampled_from(STRUCTURE), max_size=30)


@settings(max_examples=300, deadline=None)
@given(ids=good | anything, cuts=cuts, end=st.integers(0, 80))
def test_events_add_up_to_the_message(ids: list[int], cuts: list[int], end: int) -> None:
    ids = ids[:end]
    events = say(CompletionReader(NANO, whole_calls=True), chunked(ids, cuts))
    wanted = parse_completion(ids, NANO).message
    assert fold(events) == Message("assistant", wanted.content, wanted.tool_calls)
    assert all(event.text for event in events if isinstance(event, TextPart | ArgumentsPart))
    # Told as they come, calls are the same; only an unfinished one is there besides.
    early = say(CompletionReader(NANO), chunked(ids, cuts))
    ended = {event.index for event in early if isinstance(event, CallEnd)}
    message = fold(early)
    assert message.content == wanted.content
    assert tuple(call for i, call in enumerate(message.tool_calls) if i in ended) == wanted.tool_calls
    assert len(message.tool_calls) - len(ended) in (0, 1)


@settings(max_examples=200, deadline=None)
@given(ids=good | anything, cuts=cuts)
def test_chunks_change_nothing_but_the_pieces(ids: list[int], cuts: list[int]) -> None:
    for whole in (True, False):
        once = fold(say(CompletionReader(NANO, whole_calls=whole), [ids]))
        assert fold(say(CompletionReader(NANO, whole_calls=whole), chunked(ids, cuts))) == once


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab|é中 ", max_size=20), stops=st.lists(st.text("ab|é中", min_size=1, max_size=4), max_size=3))
@example(text="a中a", stops=["中", "a中a"])
@example(text="a中", stops=["中", "a中"])
def test_text_ends_before_the_stop_text_that_is_complete_first(text: str, stops: list[str]) -> None:
    ends = [(end, end - len(stop)) for end in range(len(text) + 1) for stop in stops if text[:end].endswith(stop)]
    wanted = text[: min(ends)[1]] if ends else text
    whole = TextReader(stops)
    assert whole.feed(text.encode()) + whole.close() == wanted
    reader = CompletionReader(NANO, stop=stops)
    said = ""
    for token in NANO.encode(text):
        said += fold(reader.feed([token])).content
        # Nothing of a stop text is ever shown.
        assert text.startswith(said) and not any(stop in said for stop in stops)
    said += fold(reader.close()).content
    assert said == wanted


def test_events_of_a_turn_in_order() -> None:
    ids = body("Look: ", ("functions.find:3", '{"q":"é"}'), ("functions.stop:4", "{}"))
    events = say(CompletionReader(NANO), [[token] for token in ids])
    kinds = [type(event) for event in events if not isinstance(event, TextPart | ArgumentsPart)]
    assert kinds == [CallBegin, CallEnd, CallBegin, CallEnd]
    assert CallBegin(1, "functions.stop:4", "stop") in events
    assert "".join(e.text for e in events if isinstance(e, ArgumentsPart) and e.index == 1) == "{}"
    message = fold(events)
    assert (message.content, [c.arguments for c in message.tool_calls]) == ("Look: ", ['{"q":"é"}', "{}"])


def test_a_marker_in_letters_is_text() -> None:
    text = "<|tool_calls_section_begin|>functions.find:0"
    assert fold(say(CompletionReader(NANO), [NANO.encode(text)])) == Message("assistant", text)


@pytest.mark.parametrize("text", ["é", "中文 and 😀", "plain"])
def test_pieces_are_the_bytes_of_the_text(text: str) -> None:
    tokenizer: Tokenizer = NANO
    assert b"".join(map(tokenizer.piece, tokenizer.encode(text))) == text.encode()
