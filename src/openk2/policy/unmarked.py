"""Streams without the mark (U+FEFF) with which some servers begin: OpenAI's client would pass over a first event."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack

import httpx2


class Unmarked(httpx2.AsyncByteStream):
    """The bytes of a stream, from behind its mark on."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        begin: bytes | None = b""
        async with AsyncExitStack() as closing:
            parts = aiter(self._stream)
            if isinstance(parts, AsyncGenerator):
                # Left to the garbage collector, it would be closed from whichever thread that runs in.
                closing.push_async_callback(parts.aclose)
            async for part in parts:
                if begin is not None:
                    part, begin = begin + part, None
                    if len(part) < len(codecs.BOM_UTF8) and codecs.BOM_UTF8.startswith(part):
                        begin = part
                        continue
                    part = part.removeprefix(codecs.BOM_UTF8)
                yield part
            if begin:
                yield begin

    async def aclose(self) -> None:
        await self._stream.aclose()


async def drop_mark(response: httpx2.Response) -> None:
    """A hook for a client's responses."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = Unmarked(response.stream)
