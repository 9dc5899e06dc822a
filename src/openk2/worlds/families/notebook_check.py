"""Judging what the user was told: the numbers and labels of an answer against what code computed.

An expectation is plain JSON:

    {"facts": [{"label": "Adelie", "numbers": [38.79, 18.35]}, ...],   one fact without a label: {"numbers": [44]}
     "texts": ["2021-05-04"],          strings that must be said
     "ordered": false,                 labels must come in this order
     "others": ["Gentoo"],             labels that must not be said
     "names": ["bill_length_mm"],      names whose digits are no numbers
     "allowed": [3]}                   numbers that may be repeated from the request

An integer must be said exactly; a fraction may be rounded: it must agree to half a unit of the last digit shown, and to
half a percent. Every number said that is none of these makes the answer wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openk2.core import Message, Verdict

_NUMBER = re.compile(r"(?<![\w.,])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)
_NOTHING = re.compile(r"\b(no|none|zero|nothing)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """A number in a text: where it stands, its value and how many decimals were shown."""

    start: int
    value: float
    decimals: int


def said_numbers(text: str) -> list[Said]:
    """All numbers of a text, `1,234.5` too."""
    found = []
    for match in _NUMBER.finditer(text):
        written = match.group().replace(",", "")
        mantissa = written.lower().partition("e")[0]
        found.append(Said(match.start(), float(written), len(mantissa.partition(".")[2])))
    return found


def agrees(said: Said, expected: float) -> bool:
    """Whether a number said is the expected one, as far as its digits go."""
    if isinstance(expected, int):
        return abs(said.value - expected) < 1e-6
    tolerance = min(0.5 * 10.0**-said.decimals, max(0.005, 0.005 * abs(expected)))
    return abs(said.value - expected) <= tolerance + 1e-9 * max(1.0, abs(expected))


def _places(text: str, name: str) -> list[tuple[int, int]]:
    """Where a name stands as a word of its own."""
    pattern = rf"(?<![\w]){re.escape(name)}(?![\w])"
    return [m.span() for m in re.finditer(pattern, text, re.IGNORECASE)]


def _mask(text: str, spans: Sequence[tuple[int, int]]) -> str:
    for start, end in spans:
        text = text[:start] + "_" * (end - start) + text[end:]
    return text


def final_answer(messages: Sequence[Message]) -> str:
    """The last thing the user was told; empty if the conversation does not end with it."""
    if messages and messages[-1].role == "assistant" and not messages[-1].tool_calls:
        return messages[-1].content
    return ""


def check_answer(answer: str, expect: Mapping[str, Any]) -> Verdict:
    """Judge an answer. The reason says what is missing or wrong."""
    text = re.sub(r"[*`]", "", answer).replace("\u2212", "-")
    if not text.strip():
        return Verdict(False, "there is no final answer")
    facts: list[dict[str, Any]] = list(expect.get("facts", ()))
    labels = [str(f["label"]) for f in facts if f.get("label") is not None]

    for wanted in expect.get("texts", ()):
        spans = _places(text, wanted)
        if not spans:
            return Verdict(False, f"{wanted!r} is not in the answer")
        text = _mask(text, spans)

    # Labels, longest first so that "north coast" is not taken for "north".
    found: list[tuple[int, int, str]] = []
    masked = text
    for label in sorted(labels, key=len, reverse=True):
        spans = _places(masked, label)
        if not spans:
            return Verdict(False, f"{label!r} is not in the answer")
        found += [(start, end, label) for start, end in spans]
        masked = _mask(masked, spans)
    for other in expect.get("others", ()):
        if _places(masked, str(other)):
            return Verdict(False, f"{other!r} is in the answer but does not belong there")
    for name in sorted(expect.get("names", ()), key=len, reverse=True):
        masked = _mask(masked, _places(masked, str(name)))
    found.sort()
    if expect.get("ordered"):
        first = {label: min(s for s, _, other in found if other == label) for label in labels}
        if sorted(labels, key=lambda label: first[label]) != labels:
            return Verdict(False, f"the order is not {', '.join(labels)}")

    numbers = said_numbers(masked)
    required = [n for f in facts for n in f.get("numbers", ())]
    for said in numbers:
        if not any(agrees(said, n) for n in required) and said.value not in expect.get("allowed", ()):
            return Verdict(False, f"{said.value:g} is not the answer")
    if len(labels) > 1:
        after = _by_segment(found, numbers, len(masked), after=True)
        before = _by_segment(found, numbers, len(masked), after=False)
        for fact in facts:
            label = str(fact["label"])
            if not any(_holds(fact["numbers"], segment) for segment in (*after[label], *before[label])):
                wanted = ", ".join(f"{n:g}" for n in fact["numbers"])
                return Verdict(False, f"the numbers for {label!r} are not {wanted}")
        return Verdict(True, "the numbers are right")
    if not _holds(required, numbers) and not (required == [0] and _NOTHING.search(masked)):
        return Verdict(False, f"expected {', '.join(f'{n:g}' for n in required)}")
    return Verdict(True, "the answer is right")


def _by_segment(
    found: Sequence[tuple[int, int, str]], numbers: Sequence[Said], length: int, after: bool
) -> dict[str, list[list[Said]]]:
    """For each label the numbers that stand between it and the next (or previous) label."""
    segments: dict[str, list[list[Said]]] = {}
    for i, (start, end, label) in enumerate(found):
        low = end if after else (found[i - 1][1] if i else 0)
        high = (found[i + 1][0] if i + 1 < len(found) else length) if after else start
        segments.setdefault(label, []).append([n for n in numbers if low <= n.start < high])
    return segments


def _holds(required: Sequence[float], said: Sequence[Said]) -> bool:
    """All required numbers are said, in this order."""
    position = 0
    for n in required:
        while position < len(said) and not agrees(said[position], n):
            position += 1
        if position == len(said):
            return False
        position += 1
    return True
