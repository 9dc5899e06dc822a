"""Calls that a server left in the text, in K2's own markers.

Only a whole section is one, with which the text ends:

    <|tool_calls_section_begin|>
    (<|tool_call_begin|> ID <|tool_call_argument_begin|> ARGUMENTS <|tool_call_end|>)+
    <|tool_calls_section_end|>

Behind the beginning of a call one without an end is a broken section, and so is one that ends the text and cannot be
read. Anything else is text: one may write about these markers.
"""

from __future__ import annotations

import itertools

import regex

from openk2.chat import tokenizer as tk
from openk2.chat import tool_name
from openk2.policy.draft import json_end

_CALL = (
    rf"\s{{0,16}}{regex.escape(tk.CALL_BEGIN)}\s{{0,16}}([^<\s]{{1,200}})\s{{0,16}}{regex.escape(tk.ARGUMENT_BEGIN)}\s*"
)
_NEXT = regex.compile(_CALL)
_FIRST = regex.compile(regex.escape(tk.SECTION_BEGIN) + _CALL)
_MOST_LETTERS = 1 << 22
"""Longer than this no section is."""
_MOST_LOOKED_AT = 16
"""So many beginnings of a section are looked at: reading each to the end of a long text takes time."""


class LeakReader:
    """Reads a text piece by piece. What may become a section waits until that is decided.

    Args:
        offered: whether there are tools; without them all is text.
    """

    def __init__(self, offered: bool) -> None:
        self._offered = offered
        self._held = ""
        self._section: list[str] = []
        """The pieces from the beginning of a first call on: only at the end of the text it shows what they are."""
        self._letters = 0

    def feed(self, piece: str) -> str:
        """What is text for sure."""
        if not self._offered:
            return piece
        if self._section:
            return self._more(piece)
        text, self._held = self._held + piece, ""
        found = _FIRST.search(text, partial=True)
        if found is None:
            return text
        before, rest = text[: found.start()], text[found.start() :]
        if found.partial:
            self._held = rest
            return before
        return before + self._more(rest)

    def close(self) -> tuple[str, list[dict[str, str]], bool]:
        """The rest of the text, the calls behind it, and whether there is a broken section behind them."""
        text = self._held + "".join(self._section)
        self._held, self._section = "", []
        broken: tuple[str, list[dict[str, str]]] | None = None
        for found in itertools.islice(_FIRST.finditer(text), _MOST_LOOKED_AT):
            calls, whole = _calls(text, found.start() + len(tk.SECTION_BEGIN))
            if whole:
                return text[: found.start()], calls, False
            section = text[found.start() :].strip().removesuffix(tk.IM_END).rstrip()
            if broken is None and (tk.SECTION_END not in section or section.endswith(tk.SECTION_END)):
                broken = text[: found.start()], calls
        return (text, [], False) if broken is None else (*broken, True)

    def _more(self, piece: str) -> str:
        self._section.append(piece)
        self._letters += len(piece)
        if self._letters <= _MOST_LETTERS:
            return ""
        text, self._section, self._offered = "".join(self._section), [], False
        return text


def _calls(text: str, at: int) -> tuple[list[dict[str, str]], bool]:
    """The calls from `at` on, and whether they are all of a section that ends the text."""
    calls: list[dict[str, str]] = []
    while found := _NEXT.match(text, at):
        behind = json_end(text, found.end())
        end = text.find(tk.CALL_END, behind)
        arguments = text[found.end() : end]
        if end < 0 or tk.CALL_BEGIN in text[behind:end]:
            return calls, False
        calls.append({"id": found[1], "name": tool_name(found[1]), "arguments": arguments.strip()})
        at = end + len(tk.CALL_END)
    rest = text[at:].strip()
    ended = rest.removeprefix(tk.SECTION_END)
    return calls, bool(calls) and rest != ended and ended.strip() in ("", tk.IM_END)
