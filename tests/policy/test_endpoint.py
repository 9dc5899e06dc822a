"""Endpoint policies, against what servers get wrong: recorded answers, played by a small server."""

from __future__ import annotations

import asyncio
import codecs
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("anthropic")

from openk2.core import ContextOverflow, Message, ToolCall, ToolSpec, Turn, Usage, UserError
from openk2.policy.endpoint import AnthropicPolicy, OpenAIPolicy
from shared.played import Played, call, chunk, served

TOOLS = [ToolSpec("get_weather", "", {"type": "object", "properties": {"city": {"type": "string"}}})]
ASK = [Message("system", "s"), Message("user", "hi")]


def ask(played: Played, messages: list[Message] = ASK, *, anthropic: bool = False, **options: Any) -> Turn:
    async def turn(url: str) -> Turn:
        policy: Any = AnthropicPolicy("m", url, **options) if anthropic else OpenAIPolicy("m", f"{url}/v1", **options)
        try:
            result: Turn = await policy.act(messages, TOOLS, max_tokens=20)
            return result
        finally:
            await policy.close()

    with served(played) as url:
        return asyncio.run(turn(url))


def whole(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **more}


PARIS = ToolCall("c1", "get_weather", '{"city":"Paris"}')
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "prompt_tokens_details": {"cached_tokens": 5}}
K2_TEXT = (
    "Let me see.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
    '{"city":"Paris"}<|tool_call_end|><|tool_calls_section_end|>'
)


@pytest.mark.parametrize(
    ("chunks", "content", "calls", "finish"),
    [
        ([chunk({"role": "assistant", "content": "he"}), chunk({"content": "y"}), chunk({}, "stop"), "[DONE]"],
         "hey", [], "stop"),
        ([call(0, id="c1", name="get_weather", arguments='{"city"'), call(0, arguments=':"Paris"}'),
          chunk({}, "tool_calls"), "[DONE]"], "", [PARIS], "tool_calls"),
        # The end says stop although there are calls; the name comes with every piece; no index at all.
        ([call(None, id="c1", name="get_weather", arguments='{"city":'),
          call(None, name="get_weather", arguments='"Paris"}'), chunk({}, "stop"), "[DONE]"],
         "", [PARIS], "tool_calls"),
        # Two calls in one chunk each, without an index.
        ([call(None, id="c1", name="get_weather", arguments='{"city":"Paris"}'),
          call(None, id="c2", name="get_weather", arguments="{}"), chunk({}, "tool_calls"), "[DONE]"],
         "", [PARIS, ToolCall("c2", "get_weather", "{}")], "tool_calls"),
        # Every call has the index 0; an index that begins at 1; ids that come with every piece, in turns.
        ([call(0, id="c1", name="get_weather", arguments='{"city":"Paris"}'),
          call(0, id="c2", name="get_weather", arguments="{}"), chunk({}, "tool_calls"), "[DONE]"],
         "", [PARIS, ToolCall("c2", "get_weather", "{}")], "tool_calls"),
        ([call(1, id="c1", name="get_weather", arguments='{"city":"Paris"}'), chunk({}, "tool_calls"), "[DONE]"],
         "", [PARIS], "tool_calls"),
        ([call(None, id="c1", name="get_weather", arguments='{"city":'), call(None, id="c2", name="get_weather"),
          call(None, id="c1", arguments='"Paris"}'), chunk({}, "tool_calls"), "[DONE]"],
         "", [PARIS, ToolCall("c2", "get_weather", "{}")], "tool_calls"),
        # Two whole calls side by side, without anything to tell them apart; text in parts.
        ([chunk({"tool_calls": [{"function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}, {"function":
          {"name": "get_weather", "arguments": "{}"}}]}), chunk({}, "stop"), "[DONE]"], "",
         [ToolCall("functions.get_weather:0", "get_weather", '{"city":"Paris"}'),
          ToolCall("functions.get_weather:1", "get_weather", "{}")], "tool_calls"),
        ([chunk({"content": [{"type": "text", "text": "hey"}]}), chunk({}, "stop"), "[DONE]"], "hey", [], "stop"),
        # No id, and no arguments: both are made up.
        ([call(0, name="get_weather"), chunk({}, "tool_calls"), "[DONE]"], "",
         [ToolCall("functions.get_weather:0", "get_weather", "{}")], "tool_calls"),
        # K2's markers in the text.
        ([chunk({"content": K2_TEXT[:70]}), chunk({"content": K2_TEXT[70:]}), chunk({}, "stop"), "[DONE]"],
         "Let me see.", [ToolCall("functions.get_weather:0", "get_weather", '{"city":"Paris"}')], "tool_calls"),
        ([chunk({"content": "cut"}), chunk({}, "length"), "[DONE]"], "cut", [], "length"),
        # No end, and the last word.
        ([chunk({"content": "hey"}), "[DONE]"], "hey", [], "stop"),
        ([call(0, id="c1", name="get_weather", arguments='{"city":"Paris"}'), "[DONE]"], "", [PARIS], "tool_calls"),
        # Ids that are numbers; names in pieces, and ones that grow.
        ([chunk({"tool_calls": [{"index": 0, "id": 5, "function": {"name": "get_weather", "arguments": "{}"}}]}),
          chunk({}, "tool_calls")], "", [ToolCall("5", "get_weather", "{}")], "tool_calls"),
        ([call(0, id="c1", name="get_"), call(0, name="weather"), call(0, arguments='{"city":"Paris"}'),
          chunk({}, "tool_calls")], "", [PARIS], "tool_calls"),
        ([call(0, id="c1", name="get_"), call(0, name="get_weather", arguments='{"city":"Paris"}'),
          chunk({}, "tool_calls")], "", [PARIS], "tool_calls"),
        # The whole call once more at the end; two calls with one id and no index.
        ([call(0, id="c1", name="get_weather", arguments='{"city"'), call(0, arguments=':"Paris"}'),
          call(0, name="get_weather", arguments='{"city":"Paris"}'), chunk({}, "tool_calls")],
         "", [PARIS], "tool_calls"),
        ([call(None, id="c1", name="get_weather", arguments='{"city":"Paris"}'),
          call(None, id="c1", name="get_weather", arguments="{}"), chunk({}, "tool_calls")],
         "", [PARIS, ToolCall("c1", "get_weather", "{}")], "tool_calls"),
        # What OpenAI had before.
        ([chunk({"function_call": {"name": "get_weather", "arguments": '{"city"'}}),
          chunk({"function_call": {"arguments": ':"Paris"}'}}), chunk({}, "function_call")],
         "", [ToolCall("functions.get_weather:0", "get_weather", '{"city":"Paris"}')], "tool_calls"),
        # Characters that were cut in two.
        ([chunk({"content": "a\ud83d"}), chunk({"content": "\ude00b"}), chunk({}, "stop")], "a\U0001f600b", [], "stop"),
        ([call(0, id="c1", name="get_weather", arguments='{"city":"\ud83d'), call(0, arguments='\ude00"}'),
          chunk({}, "stop")], "", [ToolCall("c1", "get_weather", '{"city":"\U0001f600"}')], "tool_calls"),
    ],
)  # fmt: skip
def test_streams_as_servers_send_them(chunks: list[Any], content: str, calls: list[ToolCall], finish: str) -> None:
    turn = ask(Played((200, chunks)))
    assert (turn.message.content, list(turn.message.tool_calls), turn.finish_reason) == (content, calls, finish)
    assert turn.malformed is None


@pytest.mark.parametrize(
    "last",
    [chunk({}, "stop", usage=USAGE), chunk({}, "stop") | {"usage": USAGE}],
    ids=["in the choice", "beside it"],
)
def test_usage_is_found(last: dict[str, Any]) -> None:
    turn = ask(Played((200, [chunk({"content": "hey"}), last, "[DONE]"])))
    assert turn.usage == Usage(9, 4, 5)
    separate = chunk({}, "stop"), {**chunk({}), "choices": [], "usage": USAGE}
    assert ask(Played((200, [chunk({"content": "hey"}), *separate, "[DONE]"]))).usage == Usage(9, 4, 5)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 5.0, "completion_tokens": "4"}, Usage(5, 4, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 10}}, Usage(5, 4, 5)),
        ({"prompt_tokens": 5, "completion_tokens": -1, "prompt_tokens_details": {"cached_tokens": "x"}}, Usage(5, 0)),
        ({"prompt_tokens": "many"}, None),
        ({"prompt_tokens": "9" * 5000}, None),
        ({"prompt_tokens": 10**30, "completion_tokens": 4}, None),
        ({"prompt_tokens": 5, "completion_tokens": 10**30}, Usage(5, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2**53}, Usage(5, 2**53)),
    ],
)
def test_odd_counts_are_read(usage: dict[str, Any], counts: Usage | None) -> None:
    assert ask(Played((200, [chunk({"content": "hey"}, "stop"), {"choices": [], "usage": usage}]))).usage == counts


@pytest.mark.parametrize("end", ["abort", "error"])
def test_an_end_that_is_none_is_asked_for_again(end: str) -> None:
    aborted = (200, [chunk({"content": "he"}), chunk({}, end), "[DONE]"])
    played = Played(aborted, (200, HEY))
    assert ask(played).message.content == "hey" and len(played.asked) == 2
    with pytest.raises(UserError, match=f"broke off in the middle of its answer: its end is '{end}'"):
        ask(Played(aborted, aborted, (200, whole({"content": "he"}, end))))


@pytest.mark.parametrize("kind", ["application/json", "text/html", "application/x-ndjson", "text/plain"])
def test_a_stream_may_be_called_something_else(kind: str) -> None:
    events = [chunk({"content": "hey"}), chunk({}, "stop"), "[DONE]"]
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    stream = "".join(f"data: {line}\n\n" for line in lines).encode()
    played = Played((200, stream, {"content-type": kind}))
    assert ask(played).message.content == "hey"
    assert len(played.asked) == 1


def test_a_whole_answer_to_a_streamed_request_is_read() -> None:
    played = Played((200, whole({"content": "hey"}, usage=USAGE)))
    turn = ask(played)
    assert (turn.message.content, turn.usage, len(played.asked)) == ("hey", Usage(9, 4, 5), 1)


def test_a_name_in_an_error_alone_changes_nothing() -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "max_tokens" not in body:
            return 400, {"error": {"message": "unknown argument max_completion_tokens"}}
        quoted = {"error": {"message": "no 'max_completion_tokens' for reasoning_effort; max_tokens is too large"}}
        return (400, quoted) if len(played.asked) == 1 else (200, HEY)

    async def turns(url: str) -> None:
        policy = OpenAIPolicy("m", f"{url}/v1", retries=0)
        with pytest.raises(UserError, match="no 'max_completion_tokens' for reasoning_effort"):
            await policy.act(ASK, [], max_tokens=20)
        assert (await policy.act(ASK, [], max_tokens=20)).message.content == "hey"
        await policy.close()

    played = Played(answer)
    with served(played) as url:
        asyncio.run(turns(url))
    assert "max_tokens" in played.asked[-1]


@pytest.mark.parametrize("status", [400, 422])
def test_the_limit_has_the_name_that_the_model_takes(status: int) -> None:
    problem = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."

    def answer(body: dict[str, Any]) -> Any:
        return (status, {"error": {"message": problem}}) if "max_tokens" in body else (200, HEY)

    async def turns(url: str) -> None:
        policy = OpenAIPolicy("m", f"{url}/v1")
        await asyncio.gather(*(policy.act(ASK, [], max_tokens=20) for _ in range(2)))
        await policy.act(ASK, [], max_tokens=20)
        await policy.close()

    played = Played(answer)
    with served(played) as url:
        asyncio.run(turns(url))
    assert [body["max_completion_tokens"] for body in played.asked if "max_tokens" not in body] == [20] * 3
    assert sum("max_tokens" in body for body in played.asked[:-1]) in (1, 2) and "max_tokens" not in played.asked[-1]


def said(text: str) -> Turn:
    return ask(Played((200, [chunk({"content": text}), chunk({}, "stop"), "[DONE]"])))


def test_half_a_call_in_the_text_is_malformed() -> None:
    text = K2_TEXT.replace("<|tool_call_end|>", "")
    turn = said(text)
    assert turn.message.content == "Let me see." and not turn.message.tool_calls
    assert turn.malformed is not None and "functions.get_weather:0" in turn.malformed


def test_k2s_markers_inside_of_arguments_are_text() -> None:
    paths = ["a<|tool_call_end|>b", 'c"<|tool_calls_section_end|>']
    calls = "".join(
        f"<|tool_call_begin|>functions.cut:{i}<|tool_call_argument_begin|> {path} <|tool_call_end|>"
        for i, path in enumerate(json.dumps({"path": path}) for path in paths)
    )
    turn = said(f"So.<|tool_calls_section_begin|>{calls}<|tool_call_begin|>functions.cut:2<|tool_call_argu")
    assert turn.message.content == "So."
    assert [json.loads(call.arguments)["path"] for call in turn.message.tool_calls] == paths
    assert turn.malformed == "<|tool_call_begin|>functions.cut:2<|tool_call_argu"
    unfinished = '<|tool_call_begin|>functions.cut:0<|tool_call_argument_begin|>{"path": <|tool_call_end|>'
    [call] = said("<|tool_calls_section_begin|>" + unfinished).message.tool_calls
    assert call.arguments == '{"path":'


def test_calls_in_the_text_that_are_nearly_right() -> None:
    begin, argument, end = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
    section = "<|tool_calls_section_begin|>"
    # Brackets without an end.
    deep = '{"x":' + "[" * 5000
    turn = said(f"{section}{begin}functions.a:0{argument}{deep}{end}")
    assert turn.message.tool_calls[0].arguments == deep
    # A line break in a string; an end that was left out; a second section.
    calls = [f'functions.a:0{argument}{{"x":"1\n2 {end}"}}', f'functions.b:1{argument}{{"y":1}}{end}']
    turn = said(f"{section}{begin}{calls[0]}{begin}{calls[1]}<|tool_calls_section_end|>{section}{begin}{calls[1]}")
    assert [(call.name, call.arguments) for call in turn.message.tool_calls] == [
        ("a", f'{{"x":"1\n2 {end}"}}'),
        ("b", '{"y":1}'),
        ("b", '{"y":1}'),
    ]
    assert turn.malformed is None
    # What cannot be read is no answer.
    turn = said(f"So.{section}{begin}functions.a:0{{}}{end}<|tool_calls_section_end|>")
    assert (turn.message.content, turn.message.tool_calls) == ("So.", ()) and "functions.a:0" in (turn.malformed or "")
    # Ids that do not tell calls apart are made anew; calls in a thought count where there is nothing else.
    twice = f"{section}{begin}get{argument}{{}}{end}{begin}get{argument}{{}}{end}<|tool_calls_section_end|>"
    turn = ask(Played((200, [chunk({"reasoning_content": f"Hm.{twice}"}), chunk({}, "stop"), "[DONE]"])))
    assert [call.id for call in turn.message.tool_calls] == ["functions.get:0", "functions.get:1"]


def test_a_stream_that_breaks_off_is_asked_for_again_as_a_whole() -> None:
    played = Played((200, [chunk({"content": "he"})]), (200, ["{"]), (200, whole({"content": "hey"}, usage=USAGE)))
    turn = ask(played)
    assert (turn.message.content, turn.usage) == ("hey", Usage(9, 4, 5))
    assert [request.get("stream") for request in played.asked] == [True, True, False]


@pytest.mark.parametrize("anthropic", [False, True])
def test_a_connection_that_breaks_is_asked_for_again(anthropic: bool) -> None:
    """The length that is promised is longer than what comes."""
    answer = {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hey"}],
        "usage": {"input_tokens": 4, "output_tokens": 4},
    }
    cut = (200, EVENTS[:4] if anthropic else [chunk({"content": "he"})], {"content-length": "100000"})
    played = Played(cut, cut, (200, answer if anthropic else whole({"content": "hey"})))
    assert ask(played, anthropic=anthropic).message.content == "hey"
    assert len(played.asked) == 3


def test_whole_answers_may_have_arguments_as_objects() -> None:
    calls = [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]
    turn = ask(Played((200, []), (200, []), (200, whole({"content": None, "tool_calls": calls}, "tool_calls"))))
    assert turn.message.tool_calls == (ToolCall("functions.get_weather:0", "get_weather", '{"city":"Paris"}'),)


HEY = [chunk({"content": "he"}), chunk({"content": "y"}, "stop"), "[DONE]"]


def stream(pieces: list[Any], end: str = "\n") -> bytes:
    texts = (piece if isinstance(piece, str) else json.dumps(piece) for piece in pieces)
    return "".join(f"data: {text}{end}{end}" for text in texts).encode()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (stream(HEY, "\r\n"), {}),
        (stream(HEY, "\r"), {}),
        (codecs.BOM_UTF8 + stream(HEY), {}),
        (b": comment\n\nretry: 5\nevent: message\nid: 7\n" + stream(HEY), {}),
        (b"retry: 5\n\nid: 7\n: comment\n\nevent: ping\n\ndata:\n\n" + stream(HEY), {}),
        (stream(HEY[:1]) + b'event: ping\ndata: {"type":"ping"}\n\n' + stream(HEY[1:]), {}),
        (stream([chunk({"content": "hey"})]) + b"data: [DONE]", {}),
        (stream(HEY[:2]), {}),
        (stream(HEY[:2]) + b"data: {not json\n\n", {}),
        (stream([*HEY[:2], {"error": {"message": "too late"}}]), {}),
        (stream(HEY[:2]), {"content-length": "100000"}),
        (gzip.compress(stream(HEY)), {"content-encoding": "gzip"}),
        (gzip.compress(stream(HEY)) + b"and more", {"content-encoding": "gzip"}),
    ],
)
def test_streams_as_they_are_sent(body: bytes, headers: dict[str, str]) -> None:
    played = Played((200, body, headers))
    assert ask(played).message.content == "hey"
    assert len(played.asked) == 1


def test_what_only_paying_can_change_is_not_tried_again() -> None:
    quota = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    played = Played((429, quota, {"retry-after-ms": "1"}))
    with pytest.raises(UserError, match="answers 429: You exceeded your quota"):
        ask(played)
    assert len(played.asked) == 1


def test_too_many_requests_and_failures_are_tried_again() -> None:
    busy = {"error": {"message": "busy"}}
    good = [chunk({"content": "hey"}), chunk({}, "stop"), "[DONE]"]
    played = Played((429, busy, {"retry-after-ms": "1"}), (503, busy, {"retry-after-ms": "1"}), (200, good))
    assert ask(played).message.content == "hey"
    assert len(played.asked) == 3


@pytest.mark.parametrize(
    ("status", "message", "error", "words"),
    [
        (401, "no", UserError, "API key"),
        (400, "this model's maximum context length is 8 tokens", ContextOverflow, "maximum context"),
        (400, "temperature is wrong", UserError, "answers 400: temperature is wrong"),
        (400, "Your request exceeded model token limit: 131072", ContextOverflow, "token limit"),
        (400, "Invalid schema for function 'get_context'", UserError, "answers 400: Invalid schema"),
        (404, "no such model", UserError, "answers 404: no such model"),
        (500, "broken", UserError, "answers 500"),
    ],
)
@pytest.mark.parametrize("anthropic", [False, True])
def test_refusals_are_one_sentence(
    status: int, message: str, error: type[Exception], words: str, anthropic: bool
) -> None:
    body = {"type": "error", "error": {"type": "x", "message": message}}
    with pytest.raises(error, match=words):
        ask(Played((status, body)), anthropic=anthropic, retries=0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((400, {"error": "text"}), "answers 400: text"),
        ((400, {"detail": "no"}), "answers 400: no"),
        ((422, {"detail": [{"loc": ["body", "tools"], "msg": "missing"}, {"msg": "b"}]}), "body.tools: missing; b"),
        ((400, {"object": "error", "message": "bad", "code": 400}), "answers 400: bad"),
        ((400, {}), "answers 400: Error code: 400"),
        ((500, b"<html><head><title>502 Bad\nGateway</title>", {"content-type": "text/html"}),
         r"a page of HTML \(502 Bad Gateway\): is the address right"),
        ((200, b"<!DOCTYPE html><body><h1>Log&nbsp;in</h1>now", {"content-type": "text/html"}), r"HTML \(Log in now\)"),
        ((200, {"error": {"message": "quota gone"}}), "answers with an error: quota gone"),
        ((200, [{"error": "text"}]), "answer: text"),
        ((200, [chunk({"content": "x"}), {"object": "error", "message": "bad"}]), "answer: bad"),
        ((200, b'event: error\ndata: {"message": "bad"}\n\n'), "answer: bad"),
        ((200, [{"error": {"code": 5}}]), "answer: an error without a word"),
    ],
)  # fmt: skip
def test_the_servers_own_words_are_kept(answer: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ask(Played(answer), retries=0)


@pytest.mark.parametrize("answer", [{"a": 1}, {"choices": [None]}, {"choices": [{"message": {"tool_calls": "x"}}]}])
def test_no_error_is_told_in_pythons_words(answer: Any) -> None:
    with pytest.raises(UserError) as e:
        ask(Played((200, answer)), retries=0)
    assert str(e.value).endswith("gives answers that cannot be read: they are not in the form of the API")


def test_no_server_is_one_sentence() -> None:
    async def turn(policy: Any) -> None:
        await policy.act(ASK, [], max_tokens=1)

    for policy in (
        OpenAIPolicy("m", "http://127.0.0.1:1/v1", retries=0),
        AnthropicPolicy("m", "http://127.0.0.1:1", retries=0),
    ):
        with pytest.raises(UserError, match="cannot be reached"):
            asyncio.run(turn(policy))


def test_what_cannot_be_read_is_one_sentence() -> None:
    for played in (
        Played((200, {"choices": []})),
        Played((200, [chunk({"content": "x"}) | {"choices": [{"index": 1, "delta": {"content": "x"}}]}])),
        Played((200, whole({"content": "x"}) | {"choices": [{"index": 1, "message": {"content": "x"}}]})),
        Played((200, stream(HEY).replace(b"he", b"\xff"))),
        Played((200, b"no gzip" * 9, {"content-encoding": "gzip"})),
    ):
        with pytest.raises(UserError, match="cannot be read"):
            ask(played, retries=0)
    # The server's own word for it, if there is one.
    with pytest.raises(UserError, match="out of memory"):
        ask(Played((200, [{"error": {"message": "out of memory"}}])))


def test_a_cancelled_turn_hangs_up() -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield chunk({"content": "la " * 1000})

    played = Played((200, endless()))

    async def give_up(url: str) -> None:
        policy = OpenAIPolicy("m", f"{url}/v1")
        turn = asyncio.create_task(policy.act(ASK, [], max_tokens=5))
        await asyncio.sleep(0.5)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        await policy.close()

    with served(played) as url:
        asyncio.run(give_up(url))
        assert played.gone.wait(20)


EVENTS = [
    {"type": "message_start", "message": {"id": "1", "type": "message", "role": "assistant", "model": "m",
     "content": [], "stop_reason": None, "stop_sequence": None,
     "usage": {"input_tokens": 4, "output_tokens": 1, "cache_read_input_tokens": 5}}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me see."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "c1", "name": "get_weather",
     "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"Paris"}'}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
     "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]  # fmt: skip


def test_anthropics_events_and_what_is_sent() -> None:
    dialog = [
        *ASK,
        Message("assistant", "", (ToolCall("c0", "get_weather", "{}"), ToolCall("c9", "get_weather", "not json"))),
        Message("tool", "sunny", tool_call_id="c0"),
        Message("tool", "rain", tool_call_id="c9"),
        Message("user", "and in Paris?"),
    ]
    played = Played((200, EVENTS))
    turn = ask(played, dialog, anthropic=True, temperature=0.3)
    assert turn.message == Message("assistant", "Let me see.", (PARIS,))
    assert (turn.finish_reason, turn.usage) == ("tool_calls", Usage(9, 4, 5))
    (sent,) = played.asked
    assert (sent["system"], sent["temperature"]) == ("s", 0.3)
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in sent["messages"][2]["content"]] == ["tool_result", "tool_result", "text"]
    assert sent["messages"][1]["content"][1]["input"] == {"unreadable": "not json"}


def test_anthropics_odd_counts_are_none() -> None:
    answer = {"id": "1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
              "content": [{"type": "text", "text": "hey"}],
              "usage": {"input_tokens": 4, "cache_read_input_tokens": "x", "output_tokens": 10**30}}  # fmt: skip
    assert ask(Played((200, EVENTS[:2]), (200, answer)), anthropic=True).usage == Usage(4, 0, 0)


def test_anthropics_broken_stream_is_asked_for_as_a_whole() -> None:
    answer = {"id": "1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use",
              "content": [{"type": "text", "text": "Let me see."},
                          {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Paris"}}],
              "usage": {"input_tokens": 4, "output_tokens": 4}}  # fmt: skip
    turn = ask(Played((200, EVENTS[:5]), (200, EVENTS[:2]), (200, answer)), anthropic=True)
    assert turn.message == Message("assistant", "Let me see.", (PARIS,))
    assert turn.usage == Usage(4, 4, 0)
