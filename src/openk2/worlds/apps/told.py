"""What an answer tells: values in whatever form people write them, a no, and numbers that nothing says.

An agent is not told how to write a number, a date or a time, so all usual forms of it count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from functools import lru_cache
from typing import Any

REFUSAL = re.compile(
    r"\b(cannot|can't|can not|could not|couldn't|unable|not able|(?:is|are|was|were)n't able|not possible|impossible|"
    r"not allowed|isn't allowed|may not|must not|not permitted|not eligible|"
    r"against (?:the |our |my )?(?:polic|rule)\w*|no tool|no way to|no permission|"
    r"(?:don't|do not) have (?:a |the |any )?(?:tool|way|permission)|refuse|won't|will not|prohibit\w*|forbid\w*|"
    r"(?:not|isn't) something (?:that )?I can|(?:is|was|been|be) (?:denied|declined|refused))\b|"
    r"(?:^|[.,!;:]\s)no(?=[.,!;]|$)",
    re.I,
)
_DIGITS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
_A_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_WHOLE = re.compile(r"(?<![\w.-])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!-?\d)")
_NUMBER = re.compile(r"(?<![\w.:#-])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w:-]*\d)(?!\w)")
_LINE_NUMBER = re.compile(r"^\s*\d+[.)]\s", re.M)
_DENIED = re.compile(r"\b(no|not|never|none|neither|cannot|un(?:available|able|used|paid))\b|n't\b", re.I)
_SENTENCE = 3
"""Fewer words say neither yes nor no without the word."""
_NOT = re.compile(
    r"(?:\b(?:not(?! only)|no longer|never|rather than|instead of|except|excluding|neither|nor|other than)|n't) "
    r"(?:(?:yet|fully|currently|really|exactly|at|in|a|an|the|all|any) ){0,3}(?:\w+ )?$"
)
"""What stands before a value that is denied."""
_BEFORE = 100
"""So many letters before a value are looked at."""
_WORDS = (
    "no|none|nothing|zero", "one|a single|once", "two|twice", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty",
)  # fmt: skip
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_HOURS = 12
_CLOCK = re.compile(r"\b(\d\d):\d\d\b")
_AS_TYPED = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "\u2212": "-", "\u00a0": " ", "\u202f": " "})
_MARKUP = re.compile(r"[*`\"]+|(?<!\w)_+|_+(?!\w)")
_THOUSANDS = re.compile(r"(?<=\d)[\u00a0\u202f\u2009](?=\d{3}(?!\d))")
_MINUS = re.compile(r"\b(?:minus|negative) (?=\d)|-[$€£](?=\d)", re.I)
_YES_OR_NO = {"yes": re.compile(r"\b(?:yes|true)\b", re.I), "no": re.compile(r"\b(?:no|false)\b", re.I)}


@lru_cache(maxsize=256)
def plain(text: str) -> str:
    """A text without emphasis and quotes, with the apostrophes, blanks and signs that keyboards have."""
    text = _THOUSANDS.sub("", text).translate(_AS_TYPED)
    return _MINUS.sub("-", _MARKUP.sub("", text))


def refuses(texts: Sequence[str]) -> bool:
    """Whether one of the answers of a turn is a no."""
    return any(REFUSAL.search(plain(text)) for text in texts)


def names(text: str, value: str) -> bool:
    """Whether a text names a value, and does not deny it.

    A number in digits or, up to twenty, in words (0 also as `no` or `none`); `2026-02-27` also as February 27 or
    27/2/2026; `13:45` also as 1:45 PM; words as words, `in_repair` also as `in repair`; and `yes` and `no` by whether
    something is denied.
    """
    text, value = plain(text), plain(value)
    if value in _YES_OR_NO:
        if _YES_OR_NO[value].search(text):
            return True
        if _YES_OR_NO["no" if value == "yes" else "yes"].search(text):
            return False
        return bool(_DENIED.search(text)) == (value == "no") and len(text.split()) >= _SENTENCE
    for match in found(text, value):
        before = text[max(0, match.start() - _BEFORE) : match.start()]
        if not _NOT.search(_spaced(before) + " "):
            return True
    return False


def found(text: str, value: str) -> Iterator[re.Match[str]]:
    """Where a value stands in a text, denied or not; both are `plain`."""
    # Not whatever Python reads as a number: an infinity edge is none.
    if not _A_NUMBER.fullmatch(value):
        yield from _pattern(value).finditer(text)
        return
    wanted = float(value)
    # The parts of a date or of an id are no numbers.
    for match in _WHOLE.finditer(text):
        if abs(float(match[0].replace(",", "")) - wanted) < 0.005:
            yield match
    if wanted.is_integer() and 0 <= wanted < len(_WORDS):
        yield from re.finditer(rf"\b(?<!-)(?:{_WORDS[int(wanted)]})\b(?!-)", text, re.I)


@lru_cache(maxsize=4096)
def _pattern(value: str) -> re.Pattern[str]:
    """A value that is no number, in its forms."""
    forms = [r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", value.strip())))]
    with suppress(ValueError):
        forms += _dates(date.fromisoformat(value))
    if match := re.fullmatch(r"(\d\d):(\d\d)(?::00)?", value):
        hour, minute = int(match[1]), match[2]
        half = "a" if hour < _HOURS else "p"
        minutes = rf"(?:[:.]{minute})?" if minute == "00" else f"[:.]{minute}"
        forms += ["noon"] if value.startswith("12:00") else ["midnight"] if value.startswith("00:00") else []
        forms += [rf"{(hour - 1) % _HOURS + 1}{minutes}\s*{half}\.?m\b", rf"0?{hour}[:.]{minute}"]
    return re.compile(rf"(?<!\w)(?:{'|'.join(forms)})(?!\w)", re.I)


def _dates(day: date) -> list[str]:
    """How people write a day."""
    name = _MONTHS[day.month - 1]
    month, number = rf"(?:{name}|{name[:3]}t?\.?)", day.day
    ending = r"(?:st|nd|rd|th)?"
    return [
        rf"{month} 0?{number}{ending}(?:,? {day.year})?",
        rf"0?{number}{ending} (?:of )?{month}(?:,? {day.year})?",
        rf"0?{day.month}[/.]0?{number}[/.]{day.year}",
        rf"0?{number}[/.]0?{day.month}[/.]{day.year}",
        rf"{day.year}/0?{day.month}/0?{number}",
    ]


def _spaced(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text.lower()).rstrip()


class Numbers:
    """The numbers of a conversation so far, with how many there are in lists, and which of a text are not among them.

    An answer with a number that neither the user nor a tool has said is invented, also where nobody asked for it. Taken
    for said are a number rounded, as a share or in percent. Ids, dates, times and the numbers of a list's lines are no
    numbers.
    """

    def __init__(self) -> None:
        self._found: set[float] = set()
        self._unread: list[tuple[str, bool]] = []
        """What was not looked through yet: most answers have no numbers."""

    def add(self, text: str) -> None:
        """All numbers in a text, also parts of other things."""
        self._unread.append((text, False))

    def add_result(self, text: str) -> None:
        """As `add`, and the lengths of the lists in it, which is JSON."""
        self._unread.append((text, True))

    def _read(self) -> None:
        for text, is_json in self._unread:
            self._found.update(float(number.replace(",", "")) for number in _DIGITS.findall(text))
            self._found.update((int(hour) - 1) % _HOURS + 1 for hour in _CLOCK.findall(text))
            if is_json:
                with suppress(ValueError, RecursionError):
                    self._count(json.loads(text))
        self._unread.clear()

    def _count(self, value: Any) -> None:
        if isinstance(value, dict):
            for part in value.values():
                self._count(part)
        elif isinstance(value, list):
            self._found.add(len(value))
            for part in value:
                self._count(part)

    def others(self, text: str) -> list[str]:
        """The numbers in a text that are none of these."""
        return [number for number in _NUMBER.findall(_LINE_NUMBER.sub("", plain(text))) if not self._said(number)]

    def _said(self, number: str) -> bool:
        self._read()
        plain = number.replace(",", "")
        value, digits = abs(float(plain)), len(plain.partition(".")[2])
        if value in self._found:
            return True
        close = 0.5 * 10**-digits + 1e-9
        return any(abs(abs(one) * scale - value) <= close for one in self._found for scale in (1, 100, 0.01))
