"""A completion while it is being said: ids in, events out, which add up to what `parse_completion` reads at the end.

Events come from the structure of the ids, never from text: a marker that a model spells in ordinary letters is text.
Nothing is said that would have to be taken back: half a character, and the beginning of what may become a stop text,
wait for the ids behind them.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from openk2.chat import tokenizer as tk
from openk2.chat.format import tool_name
from openk2.chat.tokenizer import Tokenizer
from openk2.core import Message, ToolCall


@dataclass(frozen=True, slots=True)
class TextPart:
    """More of the text before the calls."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """The next call of the turn, the number `index` of it from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsPart:
    """More of the arguments of a call."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The call is complete."""

    index: int


Event = TextPart | CallBegin | ArgumentsPart | CallEnd


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the stop text begins that is complete first, and which it is; of two that end together the longer one.

    So it does not matter in which pieces the text came.
    """
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    return min(found)[1:] if found else None


class TextReader:
    """Bytes to text, piece by piece, up to the stop text that is complete first."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        """Whether a stop text was found."""

    def feed(self, piece: bytes) -> str:
        """What can be said now."""
        return self._more(self._decoder.decode(piece))

    def close(self) -> str:
        """What was held back, when no more comes."""
        text = self._more(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _more(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        if (found := first_stop(text, self._stop)) is not None:
            self._held, self.stopped = "", True
            return text[: found[0]]
        kept = max((_overlap(text, stop) for stop in self._stop), default=0)
        text, self._held = text[: len(text) - kept], text[len(text) - kept :]
        return text


class _State(Enum):
    TEXT = 1
    SECTION = 2
    HEADER = 3
    ARGUMENTS = 4
    OVER = 5


class CompletionReader:
    """Reads one assistant body.

    Args:
        tokenizer: of the ids.
        stop: texts before which the text ends.
        whole_calls: say nothing of a call before it is complete. For ids that no grammar held together: such a call
            may never be.
    """

    def __init__(self, tokenizer: Tokenizer, *, stop: Sequence[str] = (), whole_calls: bool = False) -> None:
        self._tokenizer = tokenizer
        self._whole_calls = whole_calls
        self._state = _State.TEXT
        self._text = TextReader(stop)
        self._begin: CallBegin | None = None
        self._arguments: list[str] = []
        self._header: list[int] = []
        self._count = 0

    def feed(self, ids: Iterable[int]) -> list[Event]:
        """What these ids say. Ids behind the end of the turn, or behind what cannot be read, say nothing."""
        events: list[Event] = []
        for token in ids:
            events += self._structure(token) if token >= self._tokenizer.base_size else self._piece(token)
        return events

    def close(self) -> list[Event]:
        """What was held back, when no more ids come."""
        if self._state is _State.TEXT:
            return self._end_text()
        if self._state is _State.ARGUMENTS and not self._whole_calls:
            return self._more_arguments(self._text.close())
        return []

    def _piece(self, token: int) -> list[Event]:
        if self._state is _State.HEADER:
            self._header.append(token)
        elif self._state is _State.TEXT:
            text = self._text.feed(self._tokenizer.piece(token))
            return [TextPart(text)] if text else []
        elif self._state is _State.ARGUMENTS:
            return self._more_arguments(self._text.feed(self._tokenizer.piece(token)))
        else:
            self._state = _State.OVER
        return []

    def _structure(self, token: int) -> list[Event]:
        specials = self._tokenizer.specials
        before, self._state = self._state, _State.OVER
        if before is _State.TEXT:
            if token == specials[tk.SECTION_BEGIN] and not self._text.stopped:
                self._state = _State.SECTION
            return self._end_text()
        if before is _State.SECTION and token == specials[tk.CALL_BEGIN]:
            self._state, self._header = _State.HEADER, []
        elif before is _State.HEADER and token == specials[tk.ARGUMENT_BEGIN]:
            return self._begin_call(self._tokenizer.decode(self._header))
        elif before is _State.ARGUMENTS and token == specials[tk.CALL_END]:
            return self._end_call()
        return []

    def _end_text(self) -> list[Event]:
        text = self._text.close()
        return [TextPart(text)] if text else []

    def _begin_call(self, identifier: str) -> list[Event]:
        name = tool_name(identifier)
        if not name:
            return []
        self._begin, self._arguments = CallBegin(self._count, identifier, name), []
        self._state = _State.ARGUMENTS
        self._text = TextReader()
        return [] if self._whole_calls else [self._begin]

    def _more_arguments(self, text: str) -> list[Event]:
        if not text:
            return []
        if self._whole_calls:
            self._arguments.append(text)
            return []
        return [ArgumentsPart(self._count, text)]

    def _end_call(self) -> list[Event]:
        events = self._more_arguments(self._text.close())
        if self._whole_calls and self._begin is not None:
            events = [self._begin, *([ArgumentsPart(self._count, "".join(self._arguments))] if self._arguments else [])]
        events.append(CallEnd(self._count))
        self._count += 1
        self._state = _State.SECTION
        return events


def fold(events: Iterable[Event]) -> Message:
    """The message that events add up to. Calls that have not ended are in it as far as they got."""
    content: list[str] = []
    begun: list[CallBegin] = []
    arguments: list[list[str]] = []
    for event in events:
        if isinstance(event, TextPart):
            content.append(event.text)
        elif isinstance(event, CallBegin):
            begun.append(event)
            arguments.append([])
        elif isinstance(event, ArgumentsPart):
            arguments[event.index].append(event.text)
    calls = (ToolCall(b.id, b.name, "".join(parts)) for b, parts in zip(begun, arguments, strict=True))
    return Message("assistant", "".join(content), tuple(calls))


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
