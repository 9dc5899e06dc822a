"""`openk2 eval stream` finds nothing at our server, and what is wrong at others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

pytest.importorskip("httpx2")

from openk2.core import UserError
from openk2.evals.stream import CHECKS, Case, make_cases, run_stream_test, test_streams
from shared.played import Played, served

ask = test_streams
del test_streams  # it is no test of this file's
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}


def other_server(whole: dict[str, Any], chunks: list[Any], last: str = "[DONE]") -> AbstractContextManager[str]:
    """Answers everything in the same way."""
    data = [one if isinstance(one, str) else {"choices": [{"index": 0, **one}]} for one in chunks]
    return served(Played(lambda body: (200, [*data, last] if body.get("stream") else {"choices": [whole]})))


def failed(whole: dict[str, Any], chunks: list[Any], **more: Any) -> set[str]:
    """The checks that do not pass."""
    cases = [case for case in make_cases(14, 1, "m") if case.kind == "auto"]
    with other_server(whole, chunks, **more) as url:
        report = asyncio.run(ask(url, cases))
    assert report.cases == len(cases) == 2 and report.to_json()["passed"] == (not report.failures)
    return {name for name, tally in report.checks.items() if tally.passed < tally.n}


def answer(content: str, calls: list[Any], finish: str) -> dict[str, Any]:
    return {
        "index": 0,
        "message": {"role": "assistant", "content": content, "tool_calls": calls},
        "finish_reason": finish,
    }


def streamed(*deltas: dict[str, Any], finish: str) -> list[Any]:
    return [*({"delta": delta, "finish_reason": None} for delta in deltas), {"delta": {}, "finish_reason": finish}]


def called(function: dict[str, Any], index: int = 0, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": function, **more}]}


FUNCTION: Any = CALL["function"]
WHOLE = called(FUNCTION, id="c1")
ONE = answer("", [CALL], "tool_calls")


def test_an_answer_that_is_cut_off_fails_its_case_alone() -> None:
    cut = {"content-length": "100000"}
    whole = (200, {"choices": [answer("hi", [], "stop")]})
    chunks = [{"choices": [one]} for one in streamed({"content": "hi"}, finish="stop")]
    half = (200, b'{"choices": [', cut | {"content-type": "application/json"})
    for in_whole, in_stream in ((whole, (200, chunks, cut)), (whole, half), (half, (200, [*chunks, "[DONE]"]))):
        played = Played(lambda asked, one=in_whole, other=in_stream: other if asked.get("stream") else one)
        with served(played) as url:
            report = asyncio.run(ask(url, make_cases(4, 1, "m")))
        assert report.checks["events"].n == 4 and report.checks["events"].passed == 0
        assert "breaks off" in report.failures[0]["problem"]


def with_arguments(arguments: str) -> dict[str, Any]:
    return CALL | {"function": {"name": "get_weather", "arguments": arguments}}


@pytest.mark.parametrize(
    ("whole", "chunks", "more", "checks"),
    [
        (answer("hi", [], "stop"), streamed({"content": "h"}, {"content": "i"}, finish="stop"), {}, set()),
        (ONE, streamed(WHOLE, finish="tool_calls"), {}, set()),
        (answer("hi", [], "stop"), streamed({"content": "h"}, finish="stop"), {}, {"same"}),
        (answer("hi", [], "stop"), streamed({"content": "hi"}, finish="length"), {}, {"same"}),
        (answer("hi", [], "stop"), [*streamed({"content": "hi"}, finish="stop"), "{"], {}, {"events"}),
        (answer("hi", [], "stop"), streamed({"content": "hi"}, finish="stop"), {"last": "{}"}, {"events"}),
        (ONE, streamed(called({"arguments": "{}"}, id="c1"), finish="tool_calls"), {},
         {"same", "events", "names"}),
        (ONE, streamed(WHOLE, called({"arguments": "x"}, 5), finish="tool_calls"), {}, {"events"}),
        (answer("", [with_arguments("{")], "tool_calls"),
         streamed(called({"name": "get_weather", "arguments": "{"}, id="c1"), finish="tool_calls"), {}, {"arguments"}),
        (answer("", [CALL, CALL], "tool_calls"),
         streamed(WHOLE, called(FUNCTION, 1, id="c1"), finish="tool_calls"), {}, {"ids"}),
        (answer("<|tool_call_begin|>x", [], "stop"), streamed({"content": "<|tool_call_begin|>x"}, finish="stop"), {},
         {"markers"}),
        (answer("hi", [], "tool_calls"), streamed({"content": "hi"}, finish="tool_calls"), {}, {"finish"}),
    ],
)  # fmt: skip
def test_what_is_wrong_elsewhere_is_found(
    whole: dict[str, Any], chunks: list[Any], more: dict[str, Any], checks: set[str]
) -> None:
    assert failed(whole, chunks, **more) == checks


UNREADABLE = [
    b"",
    b"<html>hi</html>",
    b"[1,2]",
    b'{"choices": []}',
    b'{"choices": [{"message": null, "finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": [{"type": "text", "text": "hi"}]}, "finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": "x", "tool_calls": ["a"]}, "finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": "x"}}]}',
    b'data: {"choices":[{"delta": 5}]}\n\ndata: [DONE]\n\n',
    bytes(range(256)),
]


@pytest.mark.parametrize("body", UNREADABLE)
def test_nonsense_fails_its_case(body: bytes) -> None:
    with served(Played((200, body))) as url:
        report = asyncio.run(ask(url, make_cases(3, 1, "m")))
    assert not report.passed
    assert (report.checks["events"].n, report.checks["events"].passed, report.checks["same"].n) == (3, 0, 0)
    assert report.failures[0]["problem"].startswith("the whole answer cannot be read: ")


def test_nonsense_in_a_stream_fails_its_case() -> None:
    for delta in (5, None, {"content": ["hi"]}, {"tool_calls": ["a"]}, {"tool_calls": [{"index": 0, "id": 7}]}):
        chunks = [{"delta": delta, "finish_reason": None}, *streamed({"content": "hi"}, finish="stop")]
        assert failed(answer("hi", [], "stop"), chunks) == {"events"}


def test_the_first_refusal_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with served(Played((500, {"error": {"message": "boom"}}))) as url:
        report = asyncio.run(ask(url, make_cases(3, 1, "m")))
        run_stream_test(url, model="m", n=3, seed=1, concurrency=1, key="none", as_json=False)
    assert (report.passed, report.refused) == (False, 3)
    assert report.to_json()["first_refusal"] == {"status": 500, "reason": '{"error": {"message": "boom"}}'}
    assert 'first refusal: status 500, \'{"error": {"message": "boom"}}\'' in capsys.readouterr().out


@pytest.mark.parametrize("count", [21, pytest.param(140, marks=pytest.mark.slow)])
def test_our_own_streams_pass(random_server: Any, nano_server: Any, count: int) -> None:
    for server, seed in ((random_server, 1), (nano_server, 2)):
        report = asyncio.run(ask(server.url + "/v1", make_cases(count, seed, "any"), concurrency=16))
        assert report.passed and report.refused == report.unrepeatable == 0, report.failures[:1]
        assert all(tally.n for tally in report.checks.values())


def test_cases_are_repeatable_and_of_every_kind() -> None:
    cases = make_cases(21, 3, "m")
    assert cases == make_cases(21, 3, "m") != make_cases(21, 4, "m")
    assert len({case.kind for case in cases}) == 7
    assert set(CHECKS) == {"same", "events", "names", "arguments", "ids", "markers", "finish"}


def test_no_server_is_one_sentence(start: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="is a server running there"):
        asyncio.run(ask("http://127.0.0.1:1", [Case("text", {})] * 3))
    with pytest.raises(UserError, match="is no address of a server"):
        asyncio.run(ask("http://[::1", []))
    with other_server({}, []) as url, pytest.raises(UserError, match="answers 404"):
        server = start("--model", "random:test")
        asyncio.run(ask(f"{server.url}/elsewhere", make_cases(1, 1, "m")))
        assert url
