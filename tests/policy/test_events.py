"""Events come out whole and in order, whatever the pieces and the ends of lines; what has no data is none."""

from __future__ import annotations

import codecs
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.policy.events import EventReader, ServerSentEvent


def read(stream: bytes, cuts: list[int]) -> list[ServerSentEvent]:
    reader, edges = EventReader(), [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    found = [event for a, b in pairwise(edges) for event in reader.feed(stream[a:b])]
    return [*found, *reader.close()]


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=6)
said = st.lists(words, min_size=1, max_size=3).filter(lambda lines: bool("\n".join(lines).strip()))
sent = st.tuples(st.sampled_from(["", "message", "error"]), said)
nothing = st.sampled_from([": hi", "retry: 5", "id: 7", "event: ping", "data:", "data", "data: ", "id", ""])
ends = st.lists(st.sampled_from(["\n", "\r", "\r\n"]), min_size=1)


@given(
    st.lists(sent | nothing, max_size=6), ends, st.booleans(), st.booleans(), st.lists(st.integers(0, 400), max_size=9)
)
def test_only_what_has_data_is_an_event(
    items: list[tuple[str, list[str]] | str], ends: list[str], marked: bool, closed: bool, cuts: list[int]
) -> None:
    lines, expected = list[str](), list[ServerSentEvent]()
    for item in items:
        if isinstance(item, str):
            lines += [item, ""]
        else:
            name, data = item
            lines += [f"event: {name}"] * bool(name) + [f"data: {line}" for line in data] + [""]
            expected.append(ServerSentEvent(name, "\n".join(data)))
    if not closed and lines:
        lines.pop()
    text = "".join(line + ends[i % len(ends)] for i, line in enumerate(lines))
    # An end of CR and one of LF behind it would be one end.
    if "\r" in ends and "\n" in ends:
        text = "".join(f"{line}\r\n" for line in lines)
    assert read(codecs.BOM_UTF8 * marked + text.encode(), cuts) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_fields_as_they_may_be_written(size: int) -> None:
    stream = b'id: 1\nevent:  odd\n: comment\ndata:{"a":\ndata:  1}\n\nevent: ping\n\ndata: 2\n\ndata: [DONE]'
    events = read(stream, list(range(0, len(stream), size)))
    assert events == [ServerSentEvent(" odd", '{"a":\n 1}'), ServerSentEvent("", "2"), ServerSentEvent("", "[DONE]")]
    assert [event.is_last for event in events] == [False, False, True]
    with pytest.raises(UnicodeDecodeError):
        read(b"data: \xff\n\n", [])
