"""A small server that plays answers of other servers, as they were recorded or as they might be."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Played:
    """Gives its answers in order, the last one for ever: (status, body or chunks, headers), or what makes one of the
    body that was asked. Bytes are a stream as it is sent. Keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.begin(*answers)

    def begin(self, *answers: Any) -> None:
        """From now on these answers."""
        self.answers = list(answers)
        self.asked: list[Any] = []
        self.gone = threading.Event()


@contextmanager
def served(played: Played) -> Iterator[str]:
    """The address of the server while it is there."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            played.asked.append(asked)
            answer = played.answers.pop(0) if len(played.answers) > 1 else played.answers[0]
            status, body, *more = answer(asked) if callable(answer) else answer
            self.send_response(status)
            headers = more[0] if more else {}
            for name, value in headers.items():
                self.send_header(name, value)
            if isinstance(body, dict):
                data = json.dumps(body).encode()
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return
            if "content-type" not in headers:
                self.send_header("content-type", "text/event-stream")
            self.end_headers()
            try:
                if isinstance(body, bytes):
                    self.wfile.write(body)
                    return
                for chunk in body:
                    text = chunk if isinstance(chunk, str) else json.dumps(chunk)
                    kind = f"event: {chunk['type']}\n" if isinstance(chunk, dict) and "type" in chunk else ""
                    self.wfile.write(f"{kind}data: {text}\n\n".encode())
                    self.wfile.flush()
            except OSError:
                played.gone.set()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One of OpenAI's chunks."""
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}  # fmt: skip


def call(index: int | None, **function: Any) -> dict[str, Any]:
    """A chunk with a piece of a call."""
    identifier = function.pop("id", None)
    piece = {"function": function, "type": "function"} | ({} if index is None else {"index": index})
    return chunk({"tool_calls": [piece | ({"id": identifier} if identifier else {})]})
