"""Examples of patterns and endings of numbers are right where they can be checked."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.engine.hints import Multiple, example_of, hints_of, least_length


@pytest.mark.parametrize(
    ("pattern", "example"),
    [
        (r"\.py$", ".py"),
        (r"^(foo|ba).*baz$", "babaz"),
        (r".{5,}\.py$", "aaaaa.py"),
        (r"^[^@\s]+@[^@\s]+\.[^@\s]+$", "a@a.a"),
        (r"^\p{Lu}\p{Ll}+ \pN$", "Aa 0"),
        (r"^[\u4e00-\u9fff]{2}$", "\u4e00\u4e00"),
        (r"^[^a-zA-Z]\W[\d][\s]?(?:x|yy)*?$", "0 0"),
        (r"(?=a)a", "a"),
        ("", ""),
        (r"^(x{1000}){1000}$", None),
        (r"(", None),
        ("(" * 5000, None),
    ],
)
def test_examples(pattern: str, example: str | None) -> None:
    assert example_of(pattern) == example


@given(st.lists(st.sampled_from(["[a-f]", r"\d{2,}", "(?:x|yz)", "-", ".", "[^ab]+", r"\w?", "(q{3})"]), max_size=6))
def test_an_example_has_its_pattern(parts: list[str]) -> None:
    example = example_of(f"^{''.join(parts)}$")
    assert example is not None and re.search(f"^{''.join(parts)}$", example)


@given(st.integers(2, 10**6), st.integers(-(10**9), 10**9))
def test_digits_make_a_multiple_of_what_is_begun(of: int, begun: int) -> None:
    endings = list(Multiple(of, None, None).endings(str(begun)))
    assert all(int(f"{begun}{ending}") % of == 0 for ending in endings)
    # Any rest is reached with as many digits as the divisor has.
    assert endings or begun == 0


def test_numbers_beyond_what_is_read_have_no_endings() -> None:
    assert list(Multiple(7, None, None).endings("1" * 5000)) == []


def test_multiples_of_nothing_begun_are_within_bounds() -> None:
    def first(**schema: float) -> set[str]:
        (found,) = hints_of({"multipleOf": 60, **schema}).multiples
        return set(found.endings(""))

    assert first() == {"0", "60", "-60"}
    assert first(minimum=61) == {"0", "60", "-60", "120"}
    assert first(exclusiveMinimum=120) == {"0", "60", "-60", "180"}
    assert first(exclusiveMaximum=-120) == {"0", "60", "-60", "-180"}


def test_hints_are_written_as_json_writes_them_from_each_letter_on() -> None:
    schema = {"anyOf": [{"pattern": 'b"c'}, {"properties": {"x": {"format": "date"}}}], "multipleOf": 0.5}
    hints = hints_of(schema)
    assert {b'b\\"c', b'\\"c', b"c", b"2000-01-01", b"1"} <= set(hints.texts)
    assert list(hints.texts) == sorted(hints.texts, key=len) and not hints.multiples


def test_of_many_examples_the_short_ones_are_kept() -> None:
    patterns = [f"^{chr(97 + i)}{{{10 * (i + 1)}}}$" for i in range(26)]
    texts = hints_of([{"pattern": pattern} for pattern in reversed(patterns)]).texts
    assert b"a" * 10 in texts and b"m" * 130 not in texts
    assert len(texts) <= 1024


@pytest.mark.parametrize(
    ("pattern", "least"), [(r"^a+b?\p{Lu}$", 2), (r"^(x{1000}){1000}$", 10**6), ("(", 0), ("(" * 5000, 0)]
)
def test_least_length(pattern: str, least: int) -> None:
    assert least_length(pattern) == least
