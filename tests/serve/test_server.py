"""The server around the routes: keys, the queue, bad bodies, clients that leave, the end."""

from __future__ import annotations

import codecs
import contextlib
import http.client
import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openk2.core import UserError
from openk2.serve.server import ServeOptions, make_service, read_keys
from shared.played import Played, chunk, served

httpx2 = pytest.importorskip("httpx2")
PATH = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "hi"}]}
LONG = ASK | {"max_tokens": 1500, "logit_bias": {}, "temperature": 1.0, "tool_choice": "none", "seed": 1}
TOOL = {"type": "function", "function": {"name": "act", "parameters": {"type": "object", "properties": {}}}}


def with_parameters(parameters: Any) -> dict[str, Any]:
    return ASK | {"tools": [{"type": "function", "function": {"name": "act", "parameters": parameters}}]}


def nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b"{", None, "not JSON"),
        (b"\xff\xfe", None, "not JSON"),
        (b"[]", None, "object"),
        (b"null", None, "object"),
        (b"[" * 100_000, None, "not JSON"),
        (b"", None, "not JSON"),
        ({}, "messages", "required"),
        ({"messages": "hi"}, "messages", "array"),
        ({"messages": []}, "messages", "none"),
        ({"messages": [{}] * 50_001}, "messages", "there are 50001, and at most 50000"),
        (ASK | {"logit_bias": {str(i): 1 for i in range(50_001)}}, "logit_bias", "at most 50000"),
        (ASK | {"temperature": "1"}, "temperature", "number"),
        (ASK | {"temperature": True}, "temperature", "number"),
        ({"messages": [{"role": "pirate", "content": "x"}]}, "messages.0", "pirate"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0", "content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0", "text"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, None, "answers no call"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None, "not JSON"),
        ({"messages": [{"role": "user", "content": "word " * 4000}]}, "messages", "context"),
        ({"messages": [{"role": "user", "content": "x" * 10_000_000}]}, "messages", "context"),
        (ASK | {"messages": [{"role": "user", "content": "x", "partial": True}]}, "messages.0.partial", "assistant"),
        (
            {"messages": [*ASK["messages"], {"role": "assistant", "content": "", "partial": True, "tool_calls": [
                {"id": "x", "type": "function", "function": {"name": "act", "arguments": "{}"}}]}]},
            "messages.1.partial", "calls",
        ),
        (
            {"messages": [*ASK["messages"], {"role": "assistant", "content": "", "partial": "yes"}]},
            "messages.1.partial", "true or false",
        ),
        (ASK | {"temperature": 3}, "temperature", "2"),
        (ASK | {"temperature": "hot"}, "temperature", "number"),
        (ASK | {"top_p": 0}, "top_p", "greater"),
        (ASK | {"n": 9}, "n", "5"),
        (ASK | {"n": 2, "temperature": 0}, "n", "same"),
        (ASK | {"max_tokens": 0}, "max_tokens", "1"),
        (ASK | {"max_tokens": 1.5}, "max_tokens", "integer"),
        (ASK | {"stop": ["a"] * 6}, "stop", "at most 5"),
        (ASK | {"stop": "x" * 33}, "stop", "32"),
        (ASK | {"stop": [""]}, "stop", "1 to 32"),
        (ASK | {"logit_bias": {"x": 1}}, "logit_bias", "token id"),
        (ASK | {"logit_bias": {"9" * 5000: 1}}, "logit_bias", "token id"),
        (ASK | {"logit_bias": {"3": 101}}, "logit_bias", "-100 to 100"),
        (ASK | {"logit_bias": {"999999": 1}}, "logit_bias", "no id 999999: its ids are 0 to 4095"),
        (ASK | {"stop_token_ids": [-1]}, "stop_token_ids", "no id -1"),
        (ASK | {"top_logprobs": 3}, "top_logprobs", "logprobs"),
        (ASK | {"functions": []}, "functions", "tools"),
        (ASK | {"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing"),
        (
            ASK | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 3}}},
            "response_format.json_schema.schema", "be an object",
        ),
        (
            ASK | {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
            "response_format.json_schema.name", "required",
        ),
        (ASK | {"response_format": {"type": "xml"}}, "response_format.type", "json_object"),
        (ASK | {"tool_choice": "required"}, "tool_choice", "no tool is declared"),
        (ASK | {"tool_choice": "any"}, "tool_choice", "'any' is not served here: use 'none', 'auto' or 'required'"),
        (ASK | {"tool_choice": 5}, "tool_choice", "should be"),
        (ASK | {"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type", "'allowed_tools' is not served here"),
        (ASK | {"tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name", "required"),
        ({"messages": [{"role": "user", "contents": "hi"}]}, "messages.0.content", "missing"),
        (ASK | {"tools": [TOOL, TOOL]}, "tools.1.function.name", "twice"),
        (ASK | {"tools": [TOOL] * 129}, "tools", "128"),
        (ASK | {"tools": [{"type": "builtin_function", "function": {"name": "x"}}]}, "tools.0.type", "function"),
        (
            ASK | {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "tool_choice", "'other'",
        ),
        (ASK | {"tools": [TOOL], "tool_choice": "required", "max_tokens": 2}, "max_tokens", "raise max_tokens"),
        (
            ASK | {"tools": [TOOL], "tool_choice": "required", "max_completion_tokens": 2},
            "max_completion_tokens", "raise max_completion_tokens or shorten",
        ),
        (with_parameters({"type": "array"}), "tools.0.function.parameters", "object"),
        (with_parameters({"properties": {"x": {"type": "wat"}}}), "tools.0.function.parameters", "wat"),
        (
            with_parameters({"type": "object", "properties": {"x": {"not": {"const": 1}}}}),
            "tools.0.function.parameters", "not",
        ),
        (
            with_parameters({"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}),
            "tools.0.function.parameters", "uniqueItems",
        ),
        (with_parameters({"$ref": "#/nowhere"}), "tools.0.function.parameters", "act"),
        (with_parameters({"properties": {"x": {"enum": ["x" * 300_000]}}}), "messages", "context"),
        (
            ASK | {"response_format": {"type": "json_schema", "json_schema": {
                "name": "x", "schema": {"enum": ["x" * 300_000]}}}},
            "response_format", "at most 262144",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_field(random_server: Any, body: Any, field: str | None, words: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = random_server.http.post(PATH, content=data)
    assert answer.status_code == 400, answer.text[:300]
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and words in error["message"]
    if field is not None:
        assert error["param"] == field and error["message"].startswith(field)
    assert random_server.http.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/messages", {"max_tokens": 1, "messages": ASK["messages"] * 50_001}, "messages: there are 50001"),
        ("/v1/messages/count_tokens", {"messages": ASK["messages"] * 50_001}, "messages: there are 50001"),
        ("/v1/tokenizers/estimate-token-count", {"messages": ASK["messages"] * 50_001}, "messages: there are 50001"),
        ("/v1/responses", {"input": [{}] * 50_001}, "input: there are 50001"),
        ("/v1/completions", {"prompt": ["a"] * 65}, "prompt: there are 65 prompts"),
        ("/v1/completions", {"prompt": [1] * 3000}, "prompt: it is longer than the context of 2048"),
        ("/v1/completions", {"prompt": [1, "a"]}, "prompt: a list of ids"),
        ("/v1/completions", {"prompt": [[1], [2.5]]}, "prompt: a list of ids"),
        ("/v1/completions", {"prompt": [[1], [4096]]}, "prompt: the model has no id 4096"),
        ("/v1/completions", {"prompt": "a", "stop_token_ids": [4096]}, "stop_token_ids: the model has no id 4096"),
        ("/v1/completions", {"prompt": {"a": 1}}, "prompt: it must be a text"),
        ("/v1/completions", {"prompt": "a", "best_of": 2}, "best_of: choosing among completions is not served"),
        ("/v1/completions", {"prompt": ""}, "prompt: the text is empty"),
        (
            "/v1/responses",
            {
                "input": "x",
                "max_output_tokens": 2,
                "text": {"format": {"type": "json_schema", "name": "x", "schema": {"const": "longer than two"}}},
            },
            "max_output_tokens: what is asked for takes",
        ),
    ],
)
def test_what_is_too_much_or_no_prompt_is_refused_at_once(
    random_server: Any, path: str, body: dict[str, Any], words: str
) -> None:
    answer = random_server.http.post(path, json=body)
    assert answer.status_code == 400 and answer.json()["error"]["message"].startswith(words), answer.text


def test_a_body_may_begin_with_a_byte_order_mark(random_server: Any) -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"prompt": "hi"}).encode()
    assert random_server.http.post("/tokenize", content=body).status_code == 200


def test_other_routes_and_methods(random_server: Any) -> None:
    for method, path, status in (("GET", "/nope", 404), ("GET", PATH, 405), ("GET", "/v1/models/other", 404)):
        answer = random_server.http.request(method, path)
        assert answer.status_code == status and answer.json()["error"]["message"]
    head = random_server.http.head("/health")
    assert head.status_code == 200 and head.content == b""
    answer = random_server.http.get("/anthropic/v1/messages")
    assert answer.status_code == 405 and answer.json()["type"] == "error" and answer.headers["allow"] == "POST"
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.slow
def test_a_connection_is_kept_through_a_pause(random_server: Any) -> None:
    """Longer than clients keep theirs: what closes first must not be the server."""
    address = httpx2.URL(random_server.url)
    connection = http.client.HTTPConnection(address.host, address.port)
    for pause in (0, 8):
        time.sleep(pause)
        assert connection.sock is not None or pause == 0
        connection.request("GET", "/health")
        assert connection.getresponse().read()
    connection.close()


def test_a_schema_that_is_not_strict_is_enforced_as_far_as_possible(random_server: Any) -> None:
    body = with_parameters({"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}})
    body["tools"][0]["function"]["strict"] = False
    assert random_server.post(PATH, body | {"tool_choice": "required", "max_tokens": 60})["choices"][0]["message"][
        "tool_calls"
    ]
    for strict, status in ((True, 400), (False, 200)):
        schema = {"name": "x", "schema": {"type": "object", "minProperties": 1}, "strict": strict}
        asked = ASK | {"response_format": {"type": "json_schema", "json_schema": schema}, "max_tokens": 60}
        assert random_server.http.post(PATH, json=asked).status_code == status


def test_keys(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\n\ntwo\n")
    (tmp_path / "keys").chmod(0o600)
    server = start("--model", "random:test", "--api-key-file", str(tmp_path / "keys"))
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer three"}, 401),
        ({"x-api-key": "\u00e9".encode()}, 401),
        ({"Authorization": "Bearer one"}, 200),
        ({"Authorization": "bearer one"}, 200),
        ({"x-api-key": "two"}, 200),
    ):
        answer = server.http.post(PATH, json=ASK | {"max_tokens": 1}, headers=headers)
        assert answer.status_code == status
        if status == 401:
            assert answer.json()["error"]["type"] == "invalid_authentication_error"
    assert server.http.get("/v1/models").status_code == 401
    assert server.http.get("/health").status_code == 200


def test_the_queue_is_bounded_and_who_leaves_makes_room(start: Callable[..., Any]) -> None:
    server = start("--model", "random:test", "--max-running", "1", "--max-queued", "1")

    def running() -> list[float]:
        lines = server.http.get("/metrics").text.splitlines()
        return [float(line.split()[1]) for line in lines if line.startswith("openk2_engine_requests")]

    with (
        server.http.stream("POST", PATH, json=LONG | {"stream": True}) as first,
        httpx2.Client(base_url=server.url, timeout=60) as other,
        other.stream("POST", PATH, json=LONG | {"stream": True}) as second,
    ):
        assert first.status_code == second.status_code == 200
        refused = httpx2.post(f"{server.url}{PATH}", json=LONG)
        assert refused.status_code == 429
        # For what never has a place there is no use in trying again.
        never = httpx2.post(f"{server.url}{PATH}", json=LONG | {"n": 3})
        assert never.status_code == 400 and "has 2 places" in never.text
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "rate_limit_reached_error"
    deadline = time.monotonic() + 30
    while running() != [0, 0]:
        assert time.monotonic() < deadline, "the clients have left, and their requests go on"
        time.sleep(0.05)
    assert server.post(PATH, ASK | {"max_tokens": 3})["usage"]["completion_tokens"] <= 3


def test_a_client_that_does_not_wait_for_a_whole_answer_makes_room(start: Callable[..., Any]) -> None:
    server = start("--model", "random:test", "--max-running", "1", "--max-queued", "0")
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(LONG).encode()
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (PATH.encode(), len(body), body))
        time.sleep(0.2)
    deadline = time.monotonic() + 30
    while server.http.post(PATH, json=ASK | {"max_tokens": 1}).status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_half_a_request_holds_up_nobody(random_server: Any) -> None:
    host, port = random_server.url.removeprefix("http://").split(":")
    halves = [socket.create_connection((host, int(port))) for _ in range(20)]
    for half in halves:
        half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    assert random_server.post(PATH, ASK | {"max_tokens": 2})
    for half in halves:
        half.close()
    assert random_server.post(PATH, ASK | {"max_tokens": 2})


def test_a_stream_is_finished_at_the_end(start: Callable[..., Any]) -> None:
    server = start("--model", "random:test")
    got: list[str] = []
    begun = threading.Event()

    def read() -> None:
        with server.http.stream("POST", PATH, json=LONG | {"max_tokens": 300, "stream": True}) as answer:
            for line in answer.iter_lines():
                got.append(line)
                begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    begun.wait(30)
    server.process.terminate()
    reader.join(60)
    assert server.process.wait(60) == 0
    assert got[-2:] == ["data: [DONE]", ""] and '"finish_reason":"' in got[-4]


def test_a_second_interrupt_ends_it_at_once(start: Callable[..., Any]) -> None:
    server = start("--model", "random:test")
    with server.http.stream("POST", PATH, json=LONG | {"max_tokens": 2000, "n": 5, "stream": True}) as answer:
        lines = answer.iter_lines()
        assert "data: {" in next(lines)
        server.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 10
        while "5 running: 20 s to finish, Ctrl-C again ends at once" not in server.log:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.process.send_signal(signal.SIGINT)
        rest = [line for line in lines if line]
        assert server.process.wait(60) == 0
    assert "the server is shutting down" in rest[-1]


@pytest.mark.parametrize(
    ("signals", "most"),
    [([signal.SIGINT] * 2, 19), pytest.param([signal.SIGTERM], 30, marks=pytest.mark.slow)],
)
def test_who_does_not_read_holds_up_nobody_at_the_end(
    start: Callable[..., Any], signals: list[signal.Signals], most: int
) -> None:
    def answers(asked: dict[str, Any]) -> Any:
        much = asked["messages"][0]["content"] == "much"
        return 200, (chunk({"content": "word " * 1000}) for _ in range(3000)) if much else silent()

    def silent() -> Iterator[Any]:
        yield chunk({"content": ""})
        assert ended.wait(60)

    ended = threading.Event()
    with served(Played(answers)) as url, contextlib.closing(socket.socket()) as reader:
        server = start("--model", f"openai:m@{url}")
        host, port = server.url.removeprefix("http://").split(":")
        reader.connect((host, int(port)))
        body = json.dumps({"messages": [{"role": "user", "content": "much"}], "stream": True}).encode()
        reader.sendall(
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (PATH.encode(), len(body), body)
        )
        assert reader.recv(100).startswith(b"HTTP/1.1 200")
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(httpx2.post, f"{server.url}{PATH}", json=ASK, timeout=60)
            time.sleep(1)
            began = time.monotonic()
            for one in signals:
                server.process.send_signal(one)
                time.sleep(0.5)
            answer = waiting.result()
            assert server.process.wait(60) == 0 and time.monotonic() - began < most
        ended.set()
    assert answer.status_code == 503 and "shutting down" in answer.json()["error"]["message"]
    assert "Traceback" not in server.log and server.log.count("20 s to finish") == 1


def test_logs_say_nothing_of_what_was_said(random_server: Any) -> None:
    random_server.post(PATH, {"messages": [{"role": "user", "content": "a very private word"}], "max_tokens": 2})
    wanted = {"method": "POST", "path": PATH, "status": 200}.items()
    deadline = time.monotonic() + 10
    # The line is written when the answer has been sent.
    while not any(wanted <= json.loads(line).items() for line in random_server.log.splitlines()):
        assert time.monotonic() < deadline, random_server.log
        time.sleep(0.05)
    assert "private" not in random_server.log


BASE: dict[str, Any] = {"model": "random:test", "host": "127.0.0.1", "port": 0, "api_key_file": None, "max_running": 4,
                        "max_queued": 4, "context": None}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "script:x"}, "no model|cannot be|script"),
        ({"model": "nowhere"}, "there is no model"),
        ({"context": 10**9}, "context is"),
        ({"api_key_file": Path("/nowhere")}, "key file"),
        ({"host": ""}, "--host is empty"),
        ({"cache_gb": math.inf}, "--cache-gb inf is no amount"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_service(ServeOptions(**(BASE | options)))


def test_keys_are_lines_of_text_however_an_editor_saves_it(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(codecs.BOM_UTF8 + b"one\r\n  \n two \n")
    assert read_keys(tmp_path / "keys") == {"one", "two"}


@pytest.mark.parametrize(("model", "scale"), [("moonshotai/Kimi-K2-Instruct", 0.6), ("gpt-oss", 1.0)])
def test_anthropics_temperatures_are_scaled_for_k2(model: str, scale: float) -> None:
    pytest.importorskip("openai")
    service = make_service(ServeOptions(**(BASE | {"model": f"openai:{model}@http://127.0.0.1:1"})))
    assert service.settings.anthropic_scale == scale


def test_a_key_file_that_others_may_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys").write_text("one\ntwo\n")
    for mode, told in ((0o644, True), (0o600, False)):
        (tmp_path / "keys").chmod(mode)
        assert read_keys(tmp_path / "keys") == {"one", "two"}
        assert ("chmod 600" in capsys.readouterr().err) == told


def test_an_empty_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n \n")
    with pytest.raises(UserError, match="is empty"):
        read_keys(tmp_path / "keys")


def test_a_key_that_nobody_can_send_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\nclé\n", encoding="utf-8")
    with pytest.raises(UserError, match="has a key that is not plain ASCII"):
        read_keys(tmp_path / "keys")


def test_a_port_that_is_taken_is_one_sentence(random_server: Any) -> None:
    port = random_server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "openk2", "serve", "--model", "random:test", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert "cannot listen" in done.stderr and done.stderr.count("\n") == 1
