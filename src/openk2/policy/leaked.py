"""Calls that a server left in the text, in K2's own markers.

A section is one, with which the text ends; some models write its markers in the singular, or leave them out:

    <|tool_calls_section_begin|>
    (<|tool_call_begin|> ID <|tool_call_argument_begin|> ARGUMENTS <|tool_call_end|>)+
    <|tool_calls_section_end|>

Behind the beginning of a call one without an end is a broken section, and so is one that ends the text and cannot be
read. Markers of an end that end the text are not shown, nor is a section without calls there. Anything else is text:
one may write about these markers. Words between the beginning of a section and its first call are left out.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Literal

import regex

from openk2.chat import tokenizer as tk
from openk2.chat import tool_name

_BEGIN, _END = r"<\|tool_calls?_section_begin\|>", r"<\|tool_calls?_section_end\|>"
_IM_END = regex.escape(tk.IM_END)
_CALL = rf"{regex.escape(tk.CALL_BEGIN)}\s{{0,16}}([^<\s][^<]{{0,200}}?)\s{{0,16}}{regex.escape(tk.ARGUMENT_BEGIN)}\s*"
_NEXT = regex.compile(rf"\s{{0,16}}(?:{_END}\s{{0,16}}{_BEGIN}\s{{0,16}})?{_CALL}")
_SECTION_END = regex.compile(_END)
_LAST = rf"(?:(?:{_BEGIN}\s{{0,16}}{_END}|{_END}|{_IM_END})\s{{0,16}}){{1,4}}"
"""What may stand behind everything."""
_ENDED = regex.compile(rf"\s*(?:{_LAST})?")
_WITH_TOOLS = regex.compile(rf"(?P<section>{_BEGIN}[^<]{{0,200}})?{_CALL}|(?P<last>{_LAST})\Z")
_LIKE_CALL = r"\s{0,16}(?:[{\[]|functions\.|[\w.]{1,64}:\d|<\|tool_call)"
_HELD = regex.compile(rf"{_BEGIN}[^<]{{0,200}}{_CALL}|{_BEGIN}{_LIKE_CALL}|{_CALL}|(?P<last>{_LAST})\Z")
"""Where what may become a section begins."""
_INSIDE = rf"(?!{_END}|{_BEGIN})"
_UNREADABLE = regex.compile(rf"{_BEGIN}\s*{_INSIDE}\S(?:{_INSIDE}.)*{_END}\s*(?:{_LAST})?\Z", regex.S)
_WITHOUT = regex.compile(rf"(?P<last>(?:{_IM_END}\s{{0,16}}){{1,4}})\Z")
_CUT = "<|tool_call"
"""How a call begins, with a section or without."""
_MOST_LETTERS = 1 << 22
"""Longer than this no section is."""
_MOST_LOOKED_AT = 16
"""So many beginnings of a section are looked at: reading each to the end of a long text takes time."""


@dataclass(frozen=True, slots=True)
class Leaked:
    """The end of a text: what of it is text, the calls behind, whether these are in a broken section, and what behind
    them cannot be read."""

    text: str
    calls: list[dict[str, str]] = field(default_factory=list)
    broken: bool = False
    rest: str = ""


class LeakReader:
    """Reads a text piece by piece. What may become a section waits until that is decided.

    Args:
        offered: whether there are tools; without them all is text, but for the marker of an end.
    """

    def __init__(self, offered: bool) -> None:
        self._first, self._all = (_HELD, _WITH_TOOLS) if offered else (_WITHOUT, _WITHOUT)
        self._held = ""
        self._section: list[str] = []
        """The pieces from the beginning of a first call on: only at the end of the text it shows what they are."""
        self._letters = 0

    def feed(self, piece: str) -> str:
        """What is text for sure."""
        if self._section:
            return self._more(piece)
        text, self._held = self._held + piece, ""
        found = self._first.search(text, partial=True)
        if found is None:
            return text
        before, rest = text[: found.start()], text[found.start() :]
        if found.partial or found["last"] is not None:
            self._held = rest
            return before
        return before + self._more(rest)

    def close(self, *, cut: bool = False) -> Leaked:
        """The end of the text, which may have been cut off."""
        text = self._held + "".join(self._section)
        if cut and text.startswith(_CUT) and self._all.fullmatch(text, partial=True):
            text = ""
        self._held, self._section = "", []
        broken: Leaked | None = None
        end = len(text)
        for found in itertools.islice(self._all.finditer(text), _MOST_LOOKED_AT):
            before = text[: found.start()]
            if found["last"] is not None:
                end = found.start()
                break
            section = found["section"]
            calls, how, at = _calls(text, found.start() + len(section or ""), in_section=section is not None)
            # Calls inside of a broken section are not all of it.
            if how == "whole" and (section or broken is None):
                return Leaked(before, calls)
            if how == "broken" and broken is None:
                broken = Leaked(before, calls, True, text[at:])
        if broken is None and self._all is _WITH_TOOLS and (found := _UNREADABLE.search(text)) is not None:
            broken = Leaked(text[: found.start()], [], True, found[0])
        return broken or Leaked(text[:end])

    def _more(self, piece: str) -> str:
        self._section.append(piece)
        self._letters += len(piece)
        if self._letters <= _MOST_LETTERS:
            return ""
        text, self._section = "".join(self._section), []
        self._first = self._all = _WITHOUT
        return text


def _calls(
    text: str, at: int, *, in_section: bool
) -> tuple[list[dict[str, str]], Literal["whole", "broken", "text"], int]:
    """The calls from `at` on, whether they and the end of their section end the text, and where they end."""
    calls: list[dict[str, str]] = []
    lost = False
    while not lost and (found := _NEXT.match(text, at)):
        behind = _json_end(text, found.end())
        end = text.find(tk.CALL_END, behind)
        next_at = end + len(tk.CALL_END)
        if behind > found.end() and _NEXT.match(text, behind):
            # The end was left out.
            end = next_at = behind
        lost = end < 0 or tk.CALL_BEGIN in text[behind:end]
        if not lost:
            arguments = text[found.end() : end].strip()
            calls.append({"id": found[1], "name": tool_name(found[1]), "arguments": arguments})
            at = next_at
    ends = list(_SECTION_END.finditer(text, at))
    if not lost and (not in_section or ends) and _ENDED.fullmatch(text, at):
        return calls, "whole", at
    if not in_section:
        return calls, "broken" if lost else "text", at
    return calls, "broken" if not ends or _ENDED.fullmatch(text, ends[-1].end()) else "text", at


def _json_end(text: str, start: int) -> int:
    """Behind the JSON value that begins at `start`, in whose strings markers are text; `start` if there is none."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return start
