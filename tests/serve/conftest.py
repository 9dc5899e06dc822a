"""A real server in its own process, and a plain HTTP client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import conftest as of_the_engine
from shared.played import Played, served

tokenizer, small_model = of_the_engine.tokenizer, of_the_engine.small_model

httpx2 = pytest.importorskip("httpx2")
pytest.importorskip("fastapi")

EXPECTED = re.compile(r"\{|\d+ running: 20 s to finish")
READY = re.compile(r"openk2 serves (\S+) at (http://\S+)\n")


class Server:
    """`openk2 serve` with some options, at any free port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._log = folder / "serve.log"
        with open(self._log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "openk2", "serve", "--port", "0", *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = READY.fullmatch(line)
        assert found, (line, self.log)
        self.name, self.url = found[1], found[2]
        self.http = httpx2.Client(base_url=self.url, timeout=600)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def post(self, path: str, body: Any, **options: Any) -> Any:
        """The answer, which must be JSON with status 200."""
        answer = self.http.post(path, json=body, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def chunks(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The chunks of a stream. OpenAI's routes say that they are done."""
        with self.http.stream("POST", path, json=body | {"stream": True}) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"].startswith("text/event-stream")
            data = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        if "messages" not in path or "chat" in path:
            assert data.pop() == "[DONE]"
        return [json.loads(one) for one in data]

    def stop(self) -> int:
        """End it as a service manager does; its exit code."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers, and at the end stops them; none may have said anything unexpected."""
    servers: list[Server] = []

    def begin(*options: str) -> Server:
        servers.append(Server(tmp_path_factory.mktemp("serve"), *options))
        return servers[-1]

    try:
        yield begin
        for server in servers:
            if server.process.poll() is None:
                assert server.stop() == 0
            lines = [line for line in server.log.splitlines() if not EXPECTED.match(line)]
            assert lines == [], lines
    finally:
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                server.process.kill()


@pytest.fixture(scope="session")
def random_server(start: Callable[..., Server]) -> Server:
    """Weights that say anything."""
    return start("--model", "random:test")


@pytest.fixture(scope="session")
def nano_server(start: Callable[..., Server]) -> Server:
    return start()


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city."}},
            "required": ["city"],
        },
    },
}
ORDER = {
    "type": "function",
    "function": {
        "name": "order",
        "description": "Order things.",
        "parameters": {
            "type": "object",
            "properties": {
                "items": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"what": {"enum": ["thé", "café", 'a "quote"']}, "n": {"type": "integer"}},
                        "required": ["what", "n"],
                    },
                    "minItems": 1,
                    "maxItems": 3,
                },
                "note": {"type": "string", "maxLength": 20},
            },
            "required": ["items"],
        },
    },
}


@pytest.fixture(scope="session")
def tools() -> list[dict[str, Any]]:
    """A tool that nano can call, and one with a nested schema."""
    return [WEATHER, ORDER]


@pytest.fixture(scope="module")
def pair(start: Callable[..., Any]) -> Iterator[tuple[Any, Played]]:
    """Ours in front of a server that plays answers."""
    pytest.importorskip("openai")
    played = Played()
    with served(played) as url:
        yield start("--model", f"openai:m@{url}"), played


@pytest.fixture
def behind(pair: tuple[Any, Played]) -> Callable[..., tuple[Any, Played]]:
    """Both servers, with the answers that are to be played."""
    server, played = pair

    def begin(*answers: Any) -> tuple[Any, Played]:
        played.begin(*answers)
        return server, played

    return begin
