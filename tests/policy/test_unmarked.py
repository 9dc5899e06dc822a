"""The mark goes, whatever the pieces, and nothing of the stream below is left open."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

httpx2 = pytest.importorskip("httpx2")

from openk2.policy.unmarked import Unmarked  # noqa: E402 - needs httpx2


class Pieces(httpx2.AsyncByteStream):  # type: ignore[misc]
    """A stream that knows whether it still stands open."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.open = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            for piece in self._pieces:
                yield piece
        finally:
            self.open -= 1


@given(st.booleans(), st.binary(max_size=8), st.lists(st.integers(0, 11), max_size=4))
def test_one_mark_at_the_beginning_goes(marked: bool, text: bytes, cuts: list[int]) -> None:
    whole = codecs.BOM_UTF8 * marked + text
    edges = [0, *sorted(cuts), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(edges)]

    async def read() -> bytes:
        return b"".join([part async for part in Unmarked(Pieces(pieces))])

    assert asyncio.run(read()) == whole.removeprefix(codecs.BOM_UTF8)


def test_a_reader_that_stops_closes_the_stream_below() -> None:
    async def stop() -> None:
        below = Pieces([b"a", b"b"])
        parts = aiter(Unmarked(below))
        assert await anext(parts) == b"a"
        assert below.open == 1
        await parts.aclose()  # type: ignore[attr-defined] # an asynchronous generator
        assert below.open == 0

    asyncio.run(stop())
