"""Three versions into one: what both agree on stays, what one changed is taken, and nothing is ever lost silently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.agent.merge import merge_texts, unified

texts = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "", "d"]), max_size=12).map("".join)


@given(base=texts, other=texts)
def test_what_one_side_changed_is_taken(base: str, other: str) -> None:
    assert merge_texts(base, base, other) == merge_texts(base, other, base) == merge_texts(base, other, other) == other


@given(head=texts, tail=texts, ours=st.text(max_size=9), theirs=st.text(max_size=9))
def test_changes_apart_from_each_other_both_count(head: str, tail: str, ours: str, theirs: str) -> None:
    middle = "".join(f"line {number}\n" for number in range(5))

    def whole(first: str, last: str) -> str:
        return f"first {first!r}\n{head}\n{middle}{tail}\nlast {last!r}\n"

    merged = merge_texts(whole("", ""), whole(ours, ""), whole("", theirs))
    assert merged == whole(ours, theirs)


@given(base=texts, ours=texts, theirs=texts)
def test_both_sides_are_alike(base: str, ours: str, theirs: str) -> None:
    assert merge_texts(base, ours, theirs) == merge_texts(base, theirs, ours)


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        ("a\nb\nc\n", "a\nB\nc\n", "a\nbb\nc\n"),
        ("a\nb\nc\n", "a\nc\n", "a\nB\nc\n"),
        # Nobody can say which of two lines comes first.
        ("a\nb\n", "a\nx\nb\n", "a\ny\nb\n"),
        ("a\nb\n", "A\nb\n", "a\nB\n"),
        ("", "x\n", "y\n"),
    ],
)
def test_what_cannot_be_merged_is_said(base: str, ours: str, theirs: str) -> None:
    assert merge_texts(base, ours, theirs) is None


def test_a_long_text_of_few_words_is_merged_line_by_line() -> None:
    base = "".join(f"{number * number % 3}\n" for number in range(20_000))

    def edited(*lines: int) -> str:
        changed = base.splitlines(keepends=True)
        for line in lines:
            changed[line] = "x\n"
        return "".join(changed)

    merged = merge_texts(base, edited(5, 9000), edited(7000, 19_990))
    assert merged == edited(5, 9000, 7000, 19_990)
    assert sum(line.startswith("+") for line in unified(base, edited(5, 19_990))) == 2


@given(before=texts, after=texts)
def test_a_difference_says_what_was_taken_and_put(before: str, after: str) -> None:
    lines = list(unified(before, after))
    taken = [line[1:].rstrip("\n") for line in lines if line.startswith("-")]
    put = [line[1:].rstrip("\n") for line in lines if line.startswith("+")]
    assert len(before.splitlines()) - len(taken) == len(after.splitlines()) - len(put)
    assert (not lines) == (before == after)
