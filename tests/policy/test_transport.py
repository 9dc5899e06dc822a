"""How requests travel: through the proxy that the environment names, with the key that was given."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

pytest.importorskip("openai")

import httpx2

from openk2.core import Message, UserError
from openk2.policy.endpoint import OpenAIPolicy
from openk2.policy.transport import AiohttpTransport


@pytest.fixture
def heard() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server's host and port, and what it hears: the path as it stands in the request, and the headers."""
    requests: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append({"path": self.path} | {name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", requests
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def get(url: str) -> str:
    async def asked() -> str:
        async with httpx2.AsyncClient(transport=AiohttpTransport()) as client:
            return (await client.get(url, headers={"authorization": "Bearer k"})).text

    return asyncio.run(asked())


def test_the_environments_proxy_is_used(
    heard: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    at, requests = heard
    monkeypatch.setenv("http_proxy", f"http://me:se%40cret@{at}")
    assert get("http://nowhere.invalid/v1") == "ok"
    assert requests[0]["path"] == "http://nowhere.invalid/v1"
    assert requests[0]["proxy-authorization"] == "Basic " + base64.b64encode(b"me:se@cret").decode()
    assert requests[0]["authorization"] == "Bearer k"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert get(f"http://{at}/v1") == "ok" and requests[1]["path"] == "/v1"
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv("all_proxy", at)
    assert get("http://nowhere.invalid/v1") == "ok" and "proxy-authorization" not in requests[2]


@pytest.mark.parametrize(
    "proxy, words",
    [
        ("http://127.0.0.1:1", r"cannot be reached: the proxy 127\.0\.0\.1:1 does not answer$"),
        (
            "socks5://127.0.0.1:1080",
            r"http_proxy \(socks5://127\.0\.0\.1:1080\) is no HTTP proxy: correct it",
        ),
        ("http://", r"http_proxy \(http://\) is no HTTP proxy"),
        ("://", "is no HTTP proxy"),
        ("http://[bad", "is no HTTP proxy"),
        ("http://host:port", "is no HTTP proxy"),
        ("socks5://me:secret@host", r"http_proxy \(its value\) is no HTTP proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(proxy: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)

    async def asked() -> None:
        policy = OpenAIPolicy("m", "http://nowhere.invalid/v1", retries=0)
        try:
            await policy.act([Message("user", "hello")], (), max_tokens=8)
        finally:
            await policy.close()

    with pytest.raises(UserError, match=words):
        asyncio.run(asked())


def test_no_proxy_may_name_a_port(heard: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    at, requests = heard
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", at)
    assert get(f"http://{at}/v1") == "ok" and requests[0]["path"] == "/v1"


def test_a_netrc_does_not_speak_for_the_key(
    heard: tuple[str, list[dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, requests = heard
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert get(f"http://{at}/v1") == "ok" and requests[0]["authorization"] == "Bearer k"
