"""How requests travel: aiohttp under the clients' httpx.

With hundreds of requests at a time httpx's own transport looks through all its connections at each, and its reader of
HTTP is written in Python: together more than half of what a turn costs here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import httpx2
from yarl import URL

_AT_ONCE = 1 << 16
"""Bytes of an answer that are read at a time."""


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends through one session of aiohttp, which is begun with the first request and keeps its connections.

    An answer that is closed before its end closes its connection, so that a server hears that nobody listens.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As httpx asks for it. Raises httpx's RequestErrors."""
        body = await request.aread()
        if self._session is None:
            # How many requests there are at a time is for those to say who send them.
            connector = aiohttp.TCPConnector(limit=0, ssl=httpx2.create_ssl_context())
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=jar, auto_decompress=False, trust_env=True
            )
        limits = request.extensions.get("timeout", {})
        with _as_httpx(request):
            response = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=body or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=limits.get("connect"), sock_read=limits.get("read")
                ),
            )
        reason = {"reason_phrase": response.reason.encode()} if response.reason else {}
        return httpx2.Response(
            response.status, headers=response.raw_headers, stream=_Stream(response, request), extensions=reason
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx(self._request):
            async for piece in self._response.content.iter_chunked(_AT_ONCE):
                yield piece

    async def aclose(self) -> None:
        # After the end the connection is already back with the others.
        self._response.close()


@contextmanager
def _as_httpx(request: httpx2.Request) -> Iterator[None]:
    """Raises aiohttp's errors as httpx's."""
    kind: Any
    try:
        yield
    except (TimeoutError, aiohttp.ConnectionTimeoutError) as e:
        connecting = isinstance(e, aiohttp.ConnectionTimeoutError)
        kind = httpx2.ConnectTimeout if connecting else httpx2.ReadTimeout
        raise kind(str(e), request=request) from e
    except aiohttp.ClientConnectorError as e:
        number = e.os_error.errno or 0
        raise httpx2.ConnectError(os.strerror(number) if number > 0 else str(e.os_error), request=request) from e
    except (aiohttp.InvalidURL, ValueError) as e:
        raise httpx2.UnsupportedProtocol(str(e), request=request) from e
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as e:
        raise httpx2.RemoteProtocolError(str(e), request=request) from e
    except (aiohttp.ClientError, OSError) as e:
        raise httpx2.ReadError(str(e), request=request) from e
