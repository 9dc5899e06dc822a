"""An answer that is put together from the pieces that servers send."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from openk2.chat import call_id
from openk2.core import FinishReason, Message, ToolCall, Turn, Usage
from openk2.core.messages import compact_json
from openk2.policy.failures import Unreadable
from openk2.policy.leaked import Leaked, LeakReader

Kind = Literal["reasoning", "content", "refusal"]
"""The texts of an answer."""
_FIRST_HALF, _SECOND_HALF = re.compile("[\ud800-\udbff]"), re.compile("[\udc00-\udfff]")
"""Of a character, as JSON may cut it in two."""


@dataclass(slots=True)
class Draft:
    """An answer that is put together. `stop` is the stop text that ended it, where the server says which."""

    calls: list[dict[str, str]] = field(default_factory=list)
    finish: str | None = None
    stop: str | None = None
    usage: Usage | None = None
    _by_index: dict[int, dict[str, str]] = field(default_factory=dict)
    # Of each text its pieces, and how many of them have been told: a long one is not copied with each piece.
    _pieces: dict[Kind, list[str]] = field(default_factory=dict)
    _told: dict[Kind, int] = field(default_factory=dict)

    def add_text(self, kind: Kind, more: Any) -> None:
        """More of a text. Raises Unreadable for what is none."""
        if not isinstance(more, str):
            raise Unreadable("a text in it is something else")
        if not more:
            return
        pieces = self._pieces.setdefault(kind, [])
        if pieces and _FIRST_HALF.fullmatch(pieces[-1]):
            more = _joined(pieces.pop(), more)
        # The half of a character waits for the other as a piece of its own.
        if len(more) > 1 and _FIRST_HALF.match(more[-1]):
            pieces.append(more[:-1])
            more = more[-1]
        pieces.append(more)

    def text(self, kind: Kind) -> str:
        """A text as far as it is there."""
        return "".join(self._pieces.get(kind, ()))

    def news(self, kind: Kind, *, whole: bool) -> str:
        """What has come of a text since the last time, as far as it is sure: unless it is whole, the half of a
        character at its end is yet to be joined."""
        pieces, since = self._pieces.get(kind, []), self._told.get(kind, 0)
        sure = len(pieces) - (1 if pieces and not whole and _FIRST_HALF.fullmatch(pieces[-1]) else 0)
        self._told[kind] = sure
        return "".join(pieces[since:sure])

    def add_call(self, index: Any, identifier: Any, function: Mapping[str, Any]) -> None:
        """A piece of a call, or a whole one: a new one for a new index or id, or if it is whole behind a whole one.

        Some servers repeat the name with every piece, some the whole call at the end, some send arguments as an object.
        """
        if isinstance(identifier, int):
            identifier = str(identifier)
        if not isinstance(index, int | None) or not isinstance(identifier, str | None):
            raise Unreadable("the index of a call is a number, and its id a text")
        name, arguments = function.get("name"), function.get("arguments")
        name = name if isinstance(name, str) else ""
        if not isinstance(arguments, str):
            arguments = "" if arguments is None else compact_json(arguments)
        call = self._known(index, identifier)
        if call is not None and name and arguments and _is_object(call["arguments"]):
            if (name, arguments) == (call["name"], call["arguments"]) and (identifier or index is not None):
                return
            if not identifier or index is None:
                call = None
        if call is None:
            call = {"id": "", "name": "", "arguments": ""}
            self.calls.append(call)
        if index is not None:
            self._by_index[index] = call
        call["id"] = identifier or call["id"]
        if not (call["name"] and call["arguments"]):
            call["name"] = name if name.startswith(call["name"]) else call["name"] + name
        call["arguments"] = _joined(call["arguments"], arguments)

    def _known(self, index: int | None, identifier: str | None) -> dict[str, str] | None:
        same_id = [call for call in self.calls if identifier and call["id"] == identifier]
        if index is None:
            return same_id[-1] if same_id else None if identifier or not self.calls else self.calls[-1]
        found = self._by_index.get(index)
        if found is not None and identifier and found["id"] not in ("", identifier):
            # Every call has the same index.
            return same_id[-1] if same_id else None
        return found

    def turn(self, model: str, first_index: int, *, offered: bool) -> Turn:
        """The turn; tools are `offered` or not. Calls without an id get the one that K2 would give them."""
        finish: FinishReason = "length" if self.finish in ("length", "max_tokens") else "stop"
        content, leaked = _read(self.text("content"), offered, cut=finish == "length")
        if not (self.calls or leaked.calls or leaked.broken or content.strip()):
            # Some servers take what comes before the end of a thought for a part of it.
            _, leaked = _read(self.text("reasoning"), offered, cut=finish == "length")
        calls = self.calls or leaked.calls
        malformed = None if self.calls else leaked.rest.strip() or None
        ids = [call["id"] for call in calls]
        own = self.calls or len(set(ids)) == len(ids)
        made = tuple(
            ToolCall(call["id"] if own and call["id"] else call_id(call["name"], first_index + i), call["name"],
                     call["arguments"] or "{}")
            for i, call in enumerate(calls)
            if call["name"]
        )  # fmt: skip
        lost = [call for call in calls if not call["name"] and (call["id"] or call["arguments"])]
        if lost and malformed is None:
            malformed = compact_json(lost)
        if made and finish == "stop":
            finish = "tool_calls"
        return Turn(Message("assistant", content, made), finish, malformed=malformed, model=model, usage=self.usage)


def _read(text: str, offered: bool, *, cut: bool) -> tuple[str, Leaked]:
    """What of a text is text, and the calls in it."""
    reader = LeakReader(offered)
    begun = reader.feed(text)
    leaked = reader.close(cut=cut)
    return begun + leaked.text, leaked


def _is_object(text: str) -> bool:
    """Whether a text is a whole JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _joined(text: str, more: str) -> str:
    """One text behind the other, with the character that was cut in two between them."""
    if _FIRST_HALF.match(text[-1:]) and _SECOND_HALF.match(more):
        both = text[-1] + more[0]
        return text[:-1] + both.encode("utf-16", "surrogatepass").decode("utf-16") + more[1:]
    return text + more
