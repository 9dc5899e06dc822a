"""How requests travel: aiohttp under the clients' httpx.

With hundreds of requests at a time httpx's own transport looks through all its connections at each, and its reader of
HTTP is written in Python: together more than half of what a turn costs here.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import getproxies, proxy_bypass

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
        self._proxies: dict[tuple[str, str], tuple[URL | None, dict[str, str]]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As httpx asks for it. Raises httpx's RequestErrors."""
        body = await request.aread()
        if self._session is None:
            # How many requests there are at a time is for those to say who send them.
            connector = aiohttp.TCPConnector(limit=0, ssl=httpx2.create_ssl_context())
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False)
        limits = request.extensions.get("timeout", {})
        with _as_httpx(request):
            proxy, to_proxy = self._proxy(request.url.scheme, request.url.host, request.url.port)
            response = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                proxy=proxy,
                proxy_headers=to_proxy,
                # A proxy is told who asks when a tunnel is opened, and without one with the request.
                headers=[*request.headers.multi_items(), *(to_proxy.items() if request.url.scheme == "http" else ())],
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

    def _proxy(self, scheme: str, host: str, port: int | None) -> tuple[URL | None, dict[str, str]]:
        """The proxy that the environment names for a host, looked up once, and what it is told of who asks. Raises
        ValueError if it is none that can be used.

        aiohttp asks the environment in threads, two for each request, and sends what a .netrc says in place of a key.
        """
        key = scheme, f"{host if ':' not in host else f'[{host}]'}:{port or (443 if scheme == 'https' else 80)}"
        if key not in self._proxies:
            proxies = {} if proxy_bypass(key[1]) else getproxies()
            name = next((name for name in (scheme, "all") if proxies.get(name)), "")
            self._proxies[key] = _read_proxy(f"{name}_proxy", proxies[name]) if name else (None, {})
        return self._proxies[key]

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


def _read_proxy(variable: str, text: str) -> tuple[URL, dict[str, str]]:
    try:
        url = URL(text if "://" in text else f"http://{text}")
        right = url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        right = False
    if not right:
        shown = text if "@" not in text else "its value"
        raise ValueError(f"the environment's {variable} ({shown}) is no HTTP proxy: correct it, or unset it")
    headers = {}
    if url.user is not None:
        said = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
        headers["Proxy-Authorization"] = f"Basic {said}"
    return url.with_user(None), headers


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
    except aiohttp.ClientProxyConnectionError as e:
        raise httpx2.ProxyError(f"the proxy {e.host}:{e.port} does not answer", request=request) from e
    except aiohttp.ClientHttpProxyError as e:
        raise httpx2.ProxyError(f"the proxy answers {e.status} {e.message}".rstrip(), request=request) from e
    except aiohttp.ClientConnectorError as e:
        number = e.os_error.errno or 0
        raise httpx2.ConnectError(os.strerror(number) if number > 0 else str(e.os_error), request=request) from e
    except (aiohttp.InvalidURL, ValueError) as e:
        raise httpx2.UnsupportedProtocol(str(e), request=request) from e
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as e:
        raise httpx2.RemoteProtocolError(str(e), request=request) from e
    except (aiohttp.ClientError, OSError) as e:
        raise httpx2.ReadError(str(e), request=request) from e
