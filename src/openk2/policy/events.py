"""Server-sent events, read from a stream in whatever pieces it comes.

OpenAI's own reader takes an event without data for one with it (an id, a name or a time to retry alone), passes over a
first event behind a mark (U+FEFF), and keeps to itself whether the stream said that it was done.
"""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

_REST = 0.1
"""Seconds that the connection has to end behind the last word, which lets it carry the next question."""
_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """What was sent, and what kind of event it is, where the server names one."""

    name: str
    data: str

    @property
    def is_last(self) -> bool:
        """Whether it is OpenAI's word for the end."""
        return self.data.startswith("[DONE]")


async def read_events(response: Any) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of an HTTP client's response, up to the one that says that it is the last.

    Raises UnicodeDecodeError if they are no text, and what the client raises if the stream is cut off.
    """
    reader = EventReader()
    async with aclosing(response.aiter_bytes()) as parts:
        async for part in parts:
            for event in reader.feed(part):
                yield event
                if event.is_last:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_REST):
                            async for _ in parts:
                                pass
                    return
    for event in reader.close():
        yield event


class EventReader:
    """Takes the pieces of one stream."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._at_start = True
        self._after_cr = False
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """The events with data that are complete with this piece. Raises UnicodeDecodeError if it is no text."""
        if not piece:
            return
        if self._after_cr:
            piece = piece.removeprefix(b"\n")
        self._after_cr = piece.endswith(b"\r")
        first, *others = _LINE_END.split(piece)
        self._line += first
        for other in others:
            line, self._line = bytes(self._line), bytearray(other)
            if (event := self._take(line)) is not None:
                yield event

    def close(self) -> Iterator[ServerSentEvent]:
        """The event behind which the stream ended without the empty line, if there is one."""
        yield from self.feed(b"\n\n")

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if self._at_start:
            line, self._at_start = line.removeprefix(codecs.BOM_UTF8), False
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            elif field == b"event":
                self._name = value.removeprefix(b" ")
            return None
        name, data = self._name.decode(), b"\n".join(self._data).decode()
        self._name, self._data = b"", []
        return ServerSentEvent(name, data) if data.strip() else None
