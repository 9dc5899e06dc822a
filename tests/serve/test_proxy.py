"""Our API in front of other servers: of our own, and of some that get their calls wrong."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from shared.played import Played, call, chunk, served

pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
httpx2 = pytest.importorskip("httpx2")

ASK = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "max_tokens": 80}
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "prompt_tokens_details": {"cached_tokens": 5}}
END = [chunk({}, "tool_calls"), {"choices": [], "usage": USAGE}, "[DONE]"]
MARKED = (
    "Let me see.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:7<|tool_call_argument_begin|>"
    '{"city":"Paris"}<|tool_call_end|><|tool_calls_section_end|>'
)


SECTION = re.compile(r"<\|tool_calls_section_\w+\|>")


def tool(name: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": properties, "required": list(properties), **more}}}  # fmt: skip


TOOLS = [
    tool("get_weather", {"city": {"type": "string"}}),
    tool("add", {"a": {"type": "integer"}, "b": {"type": "number"}}),
]


@pytest.fixture(scope="module")
def front(start: Callable[..., Any], nano_server: Any) -> Any:
    """Ours in front of ours."""
    return start("--model", f"openai:openk2-nano@{nano_server.url}")


def said(*pieces: Any) -> tuple[int, list[Any]]:
    called = any(choice["delta"].get("tool_calls") for piece in pieces for choice in piece["choices"])
    return 200, [*pieces, *(END if called else [chunk({}, "stop"), *END[1:]])]


def weather(arguments: str, name: str = "get_weather") -> Any:
    return call(0, id="call_abc", name=name, arguments=arguments)


def message(server: Any, **more: Any) -> tuple[dict[str, Any], str]:
    """The message, which must be the same streamed and not, and why it ended."""
    body = ASK | {"tools": TOOLS} | more
    whole = server.post("/v1/chat/completions", body)["choices"][0]
    texts = {"content": "", "reasoning_content": "", "refusal": ""}
    calls, finish, stop = [], None, None
    for one in server.chunks("/v1/chat/completions", body):
        for choice in one["choices"]:
            for kind in texts:
                texts[kind] += choice["delta"].get(kind) or ""
            for piece in choice["delta"].get("tool_calls", []):
                if "id" in piece:
                    calls.append({"id": piece["id"], "type": "function", "function": piece["function"]})
                else:
                    calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
            finish, stop = choice["finish_reason"] or finish, choice.get("stop_reason") or stop
    assert (texts, calls, finish, stop) == (
        {kind: whole["message"].get(kind) or "" for kind in texts},
        whole["message"].get("tool_calls", []),
        whole["finish_reason"],
        whole.get("stop_reason"),
    )
    return whole["message"], whole["finish_reason"]


def calls_of(reply: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in reply.get("tool_calls", [])]


def test_our_own_server_behind_gives_the_same(front: Any, nano_server: Any) -> None:
    assert front.name == "openk2-nano"
    for more in ({}, {"tools": []}, {"tool_choice": "required"}, {"stop": [" "], "tools": []}):
        assert message(front, **more) == message(nano_server, **more)
    body = ASK | {"tools": TOOLS}
    assert front.post("/v1/chat/completions", body)["usage"] == nano_server.post("/v1/chat/completions", body)["usage"]
    # A second turn, with ids that are not K2's.
    made = calls_of(message(nano_server, tool_choice="required")[0])[0]
    turns = [
        *ASK["messages"],
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "x9", "type": "function", "function": {"name": made[1], "arguments": made[2]}}]},
        {"role": "tool", "tool_call_id": "x9", "content": "sunny"},
        {"role": "user", "content": "And in Rome?"},
    ]  # fmt: skip
    reply, _ = message(front, messages=turns, tool_choice="required")
    assert reply == message(nano_server, messages=turns, tool_choice="required")[0]
    assert [identifier for identifier, *_ in calls_of(reply)] == ["functions.get_weather:1"]


def test_anthropics_client_in_front_of_openais_server(front: Any, nano_server: Any) -> None:
    body: dict[str, Any] = {
        "model": "any",
        "max_tokens": 80,
        "messages": ASK["messages"],
        "tools": [{"name": "get_weather", "input_schema": TOOLS[0]["function"]["parameters"]}],
        "tool_choice": {"type": "any"},
    }
    answers = []
    for server in (nano_server, front):
        client = anthropic.Anthropic(base_url=server.url, api_key="none")
        whole = client.messages.create(**body)
        with client.messages.stream(**body) as stream:
            final = stream.get_final_message()
        assert final.content == whole.content and final.stop_reason == whole.stop_reason == "tool_use"
        assert final.usage.output_tokens == whole.usage.output_tokens > 0
        counted = client.messages.count_tokens(**{k: v for k, v in body.items() if k != "max_tokens"})
        answers.append((whole.content, whole.usage, counted.input_tokens))
    ours, theirs = answers
    assert ours[0] == theirs[0] and ours[2] == theirs[2]
    assert ours[1].output_tokens == theirs[1].output_tokens


def test_anthropics_answers_in_json_are_held_to_their_schema(behind: Callable[..., tuple[Any, Played]]) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    asked: dict[str, Any] = {"model": "any", "max_tokens": 80, "messages": ASK["messages"]}
    form = {"format": {"type": "json_schema", "schema": schema}}
    server, played = behind(said(chunk({"content": "no JSON"})), said(chunk({"content": '{"a": 1}'})))
    with anthropic.Anthropic(base_url=server.url, api_key="none") as client:
        assert json.loads(client.messages.create(output_config=form, **asked).content[0].text) == {"a": 1}
    assert [body["response_format"]["json_schema"]["schema"] for body in played.asked] == [schema] * 2


@pytest.mark.parametrize(
    ("pieces", "content", "calls"),
    [
        # Ids, indices, repeated names, objects instead of text.
        ([weather('{"city": "Paris"}')], None, [("get_weather", '{"city": "Paris"}')]),
        ([call(None, name="functions.get_weather:3", arguments={"city": "Paris"})], None,
         [("get_weather", '{"city":"Paris"}')]),
        ([weather('{"city":"Paris"}', "GetWeather")], None, [("get_weather", '{"city":"Paris"}')]),
        # Calls in the text, whose marker comes in pieces.
        ([chunk({"content": part}) for part in (MARKED[:15], MARKED[15:30], MARKED[30:])], "Let me see.",
         [("get_weather", '{"city":"Paris"}')]),
        # Without a section, and with one in the singular; in the thoughts, where there is nothing else; OpenAI's older
        # way; a character that was cut in two.
        ([chunk({"content": SECTION.sub("", MARKED)})], "Let me see.", [("get_weather", '{"city":"Paris"}')]),
        ([chunk({"content": MARKED.replace("calls_section", "call_section")})], "Let me see.",
         [("get_weather", '{"city":"Paris"}')]),
        ([chunk({"reasoning_content": part}) for part in (MARKED[:20], MARKED[20:])], None,
         [("get_weather", '{"city":"Paris"}')]),
        ([chunk({"function_call": {"name": "get_weather", "arguments": '{"city":"Paris"}'}})], None,
         [("get_weather", '{"city":"Paris"}')]),
        ([weather('{"city":"\ud83d'), call(0, arguments='\ude00"}')], None, [("get_weather", '{"city":"\U0001f600"}')]),
        # What is no JSON but plain: quotes, commas, fences, words of Python.
        ([weather("{'city': 'Paris',}")], None, [("get_weather", '{"city":"Paris"}')]),
        ([weather('```json\n{"city":"Paris"}\n```')], None, [("get_weather", '{"city":"Paris"}')]),
        ([weather(json.dumps('{"city":"Paris"}'))], None, [("get_weather", '{"city":"Paris"}')]),
        # Whole calls without anything to tell them apart; all with one index; all with one id.
        ([call(None, name="get_weather", arguments='{"city":"a"}'),
          call(None, name="get_weather", arguments="{'city':'b'}")],
         None, [("get_weather", '{"city":"a"}'), ("get_weather", '{"city":"b"}')]),
        ([call(0, name="get_weather", arguments='{"city":"a"}'), call(0, name="get_weather", arguments='{"city":"b"}')],
         None, [("get_weather", '{"city":"a"}'), ("get_weather", '{"city":"b"}')]),
        ([call(0, id="x", name="get_weather", arguments='{"city":"a"}'),
          call(7_000_000, id="x", name="get_weather", arguments='{"city":"b"}')],
         None, [("get_weather", '{"city":"a"}'), ("get_weather", '{"city":"b"}')]),
        # What is valid keeps its digits.
        ([weather('{"a":12345678901234567890,"b":0.12345678901234567890123}', "add")], None,
         [("add", '{"a":12345678901234567890,"b":0.12345678901234567890123}')]),
        # Numbers as texts and texts as numbers.
        ([weather('{"a":"3","b":"0.5"}', "add")], None, [("add", '{"a":3,"b":0.5}')]),
        ([weather('{"a":3.0,"b":2}', "add"), call(1, id="x", name="get_weather", arguments='{"city":75001}')], None,
         [("add", '{"a":3.0,"b":2}'), ("get_weather", '{"city":"75001"}')]),
    ],
)  # fmt: skip
def test_what_is_plain_is_repaired(
    behind: Callable[..., tuple[Any, Played]], pieces: list[Any], content: str | None, calls: list[tuple[str, str]]
) -> None:
    server, played = behind(said(*pieces))
    reply, finish = message(server)
    assert (reply["content"], finish) == (content, "tool_calls")
    assert calls_of(reply) == [(f"functions.{name}:{i}", name, text) for i, (name, text) in enumerate(calls)]
    assert len(played.asked) == 2


BROKEN = [
    (weather('{"city":"Par'), "no JSON"),
    (weather("{}"), "'city' is a required property"),
    (weather('{"city":["Paris"]}'), "is not of type 'string'"),
    (weather('{"a":1.5,"b":1}', "add"), "is not of type 'integer'"),
    (weather("Paris, please"), "no JSON"),
    # Nothing is guessed: not where a text ends, which of two calls is meant, nor the digits of a number.
    (weather('{"city":"a"}{"city":"b"}'), "no JSON"),
    (weather('{"city": "the "old" town"}'), "no JSON"),
    (weather('{"city": /usr//bin}'), "no JSON"),
    (weather('{"city": "a" "b"}'), "no JSON"),
    (weather("{'city': b'a'}"), "no JSON"),
    (weather('{"city":3.10}'), "is not of type 'string'"),
    (weather('{"city":"a","city":"b"}'), "a key twice"),
    (weather('{"a":"1e3","b":1}', "add"), "is not of type 'integer'"),
    (weather('{"a":"1","b":0.12345678901234567890123}', "add"), "is not of type 'integer'"),
    (weather('{"a":1,"b":NaN}', "add"), "no number of JSON's"),
    (weather(json.dumps("[" * 5000)), "cannot be"),
    (weather("[]"), "not an object"),
    (weather("{}", "get_news"), "the tool 'get_news' is not there: the tools are get_weather, add"),
    (chunk({"content": MARKED.replace('"}', "")}), "no JSON"),
    (call(0, id="x", arguments='{"city":"Paris"}'), "has no name"),
]


@pytest.mark.parametrize(("piece", "problem"), BROKEN)
def test_what_is_not_plain_is_asked_for_again(
    behind: Callable[..., tuple[Any, Played]], piece: Any, problem: str
) -> None:
    good = said(chunk({"content": "Again."}), weather('{"city":"Paris"}'))
    server, played = behind(said(piece), good, said(piece), good)
    reply, _ = message(server)
    assert calls_of(reply) == [("functions.get_weather:0", "get_weather", '{"city":"Paris"}')]
    assert reply["content"] == ("Let me see." if "content" in piece["choices"][0]["delta"] else "Again.")
    asked = played.asked[1]["messages"]
    assert asked[-1]["role"] == "user" and problem in asked[-1]["content"]
    assert len(played.asked) == 4


@pytest.mark.parametrize(("piece", "problem"), BROKEN[:3])
def test_what_stays_wrong_is_refused(behind: Callable[..., tuple[Any, Played]], piece: Any, problem: str) -> None:
    server, played = behind(said(piece))
    body = ASK | {"tools": TOOLS}
    answer = server.http.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 502 and error["code"] == "invalid_tool_call_upstream"
    assert problem in error["message"] and len(played.asked) == 3
    streamed = server.http.post("/v1/chat/completions", json=body | {"stream": True})
    assert (streamed.status_code, streamed.json()) == (502, {"error": error})
    # Behind a text that has been said it is the stream's last event.
    played.begin(said(chunk({"content": "Let me see."}), piece))
    with server.http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as stream:
        data = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
    assert json.loads(data[-1]) == {"error": error} and "Let me see." in data[1]
    assert not any("tool_calls" in line for line in data)


def test_a_call_without_room_is_left_out(behind: Callable[..., tuple[Any, Played]]) -> None:
    pieces = [weather('{"city":"Paris"}'), call(1, id="b", name="get_weather", arguments='{"city":"Ro')]
    server, played = behind((200, [*pieces, chunk({}, "length"), "[DONE]"]))
    reply, finish = message(server)
    assert calls_of(reply) == [("functions.get_weather:0", "get_weather", '{"city":"Paris"}')]
    assert finish == "length" and len(played.asked) == 2


def test_a_leaked_call_that_is_broken_is_asked_for_again_or_left_out(behind: Callable[..., tuple[Any, Played]]) -> None:
    cut = [chunk({"content": MARKED.partition('"Paris')[0]})]
    server, played = behind((200, [*cut, chunk({}, "length"), "[DONE]"]))
    reply, finish = message(server)
    assert reply["content"] == "Let me see." and not reply.get("tool_calls") and finish == "length"
    played.begin(said(*cut), said(weather('{"city":"Paris"}')))
    reply = server.post("/v1/chat/completions", ASK | {"tools": TOOLS})["choices"][0]["message"]
    assert (reply["content"], len(calls_of(reply))) == ("Let me see.", 1)
    assert "does not end as one" in played.asked[-1]["messages"][-1]["content"]


def test_an_end_in_a_call_that_is_not_there(behind: Callable[..., tuple[Any, Played]]) -> None:
    lost = (200, [chunk({"content": "Let me see."}), chunk({}, "tool_calls"), "[DONE]"])
    server, played = behind(lost, said(weather('{"city":"Paris"}')))
    reply = server.post("/v1/chat/completions", ASK | {"tools": TOOLS})["choices"][0]["message"]
    assert (reply["content"], len(calls_of(reply))) == ("Let me see.", 1)
    assert "it ends in a call, and there is none" in played.asked[-1]["messages"][-1]["content"]
    played.begin((200, [chunk({}, "tool_calls"), "[DONE]"]))
    answer = server.http.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "invalid_tool_call_upstream")


def test_markers_of_the_end_are_not_shown(behind: Callable[..., tuple[Any, Played]]) -> None:
    for text in (
        "hi<|im_end|>",
        "hi<|tool_calls_section_end|>",
        "hi<|tool_calls_section_begin|><|tool_calls_section_end|>",
    ):
        server, _ = behind(said(*(chunk({"content": text[i : i + 5]}) for i in range(0, len(text), 5))))
        assert message(server) == ({"role": "assistant", "content": "hi"}, "stop")
    # Thoughts with calls before an answer are thoughts, without the calls.
    server, _ = behind(
        said(chunk({"reasoning_content": MARKED}), chunk({"content": "\ud83d"}), chunk({"content": "\ude00"}))
    )
    assert message(server)[0] == {
        "role": "assistant", "content": "\U0001f600", "reasoning_content": "Let me see."}  # fmt: skip


def test_choices_of_the_client_are_kept(behind: Callable[..., tuple[Any, Played]]) -> None:
    two = said(weather('{"city":"Paris"}'), call(1, id="b", name="get_weather", arguments='{"city":"Rome"}'))
    server, played = behind(two, two, said(chunk({"content": "hi"})))
    reply, _ = message(server, parallel_tool_calls=False, seed=3, top_k=5, temperature=0.3, logit_bias={"4": 2})
    assert len(calls_of(reply)) == 1
    asked = played.asked[0]
    assert asked["parallel_tool_calls"] is False and asked["tools"] == TOOLS and asked["model"] == "m"
    assert (asked["seed"], asked["top_k"], asked["temperature"], asked["max_tokens"]) == (3, 5, 0.3, 80)
    assert asked["logit_bias"] == {"4": 2} and "top_p" not in asked and "tool_choice" not in asked
    # Required, and none comes: asked for again, and refused.
    answer = server.http.post("/v1/chat/completions", json=ASK | {"tools": TOOLS, "tool_choice": "required"})
    assert answer.status_code == 502 and "a tool call is required" in answer.text
    assert "temperature" not in played.asked[-1]
    choices = server.post("/v1/chat/completions", ASK | {"n": 3, "seed": 7, "temperature": 1})["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["hi"] * 3
    assert sorted(one["seed"] for one in played.asked[-3:]) == [7, 8, 9]


def test_calls_that_nobody_may_make_are_dropped(behind: Callable[..., tuple[Any, Played]]) -> None:
    server, _ = behind(said(chunk({"content": "Sunny."}), weather('{"city":"Paris"}')))
    assert message(server, tool_choice="none") == ({"role": "assistant", "content": "Sunny."}, "stop")


@pytest.mark.parametrize(
    ("answers", "status", "said_"),
    [
        ([(401, {"error": {"message": "who are you"}})], 502, "the key of this server, which is not the client's"),
        ([(403, {"error": {"message": "not you"}})], 502, "which is not the client's, is refused: http"),
        ([(404, {"error": {"message": "The model `m` does not exist."}})], 502, "has no model 'm': it answers"),
        ([(404, {"detail": "Not Found"})], 502, "where the model 'm' should be: is the address right?"),
        ([(400, {"error": {"message": "\ud800 no"}})], 400, "? no"),
        ([(307, {}, {"location": "/chat/completions"})], 502, "sends from address to address without an end"),
        ([(200, [chunk({"content": "x"}) | {"choices": [{"index": 1, "delta": {"content": "x"}}]}])], 502,
         "another choice than the only one"),
        ([(200, [chunk({"content": "be"}), {"error": {"message": "out of memory"}}])], 502,
         "broke off in the middle of its answer: out of memory"),
        ([(400, {"error": {"message": "tools: no"}})], 400, "tools: no"),
        ([(400, {"error": {"message": "maximum context length is 9"}})], 400, "maximum context length is 9"),
        ([(429, {"error": {"message": "slow"}}, {"retry-after-ms": "1", "retry-after": "7"})], 429, "slow"),
        ([(500, {"error": {"message": "oops"}}, {"retry-after-ms": "1"})], 502, "oops"),
        ([(200, [chunk({"content": "be"})])], 502, "broke off in the middle"),
        ([(200, [chunk({"content": "be"}), chunk({}, "abort"), "[DONE]"])], 502, "broke off in the middle"),
        ([(503, {"error": "busy"}, {"retry-after-ms": "1", "retry-after": "6.5"})], 503, "busy"),
    ],
)  # fmt: skip
def test_failures_behind_have_a_status_and_a_sentence(
    behind: Callable[..., tuple[Any, Played]], answers: list[Any], status: int, said_: str
) -> None:
    server, played = behind(*answers)
    answer = server.http.post("/v1/chat/completions", json=ASK)
    assert answer.status_code == status and said_ in answer.json()["error"]["message"]
    # Who gets the answer as a whole has heard nothing of it yet.
    assert len(played.asked) == 3 or "broke off" not in said_
    assert answer.headers.get("retry-after") == ("7" if status in (429, 503) else None)
    if "broke off" not in said_:
        # Nothing was said yet, so a stream is refused in the same way.
        streamed = server.http.post("/v1/chat/completions", json=ASK | {"stream": True})
        assert (streamed.status_code, streamed.json()) == (status, answer.json())
    assert server.http.get("/health").status_code == 200


def test_a_whole_answer_that_broke_off_is_asked_for_again(behind: Callable[..., tuple[Any, Played]]) -> None:
    server, _ = behind((200, [chunk({"content": "be"})]), said(chunk({"content": "whole"})))
    assert server.post("/v1/chat/completions", ASK)["choices"][0]["message"]["content"] == "whole"


def test_what_was_refused_and_what_failed_stays_in_the_history(behind: Callable[..., tuple[Any, Played]]) -> None:
    server, played = behind(said(chunk({"content": "ok"})))
    turns = [
        ASK["messages"][0],
        {"role": "assistant", "content": None, "refusal": "I cannot."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Rules."}]},
        {"role": "user", "content": "Well."},
    ]
    server.post("/v1/chat/completions", {"messages": turns})
    assert [turn["content"] for turn in played.asked[-1]["messages"]][1::2] == ["I cannot.", "Rules."]
    blocks = [{"type": "tool_result", "tool_use_id": "t", "content": "boom", "is_error": True}]
    turns = [
        ASK["messages"][0],
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "get_weather", "input": {}}]},
        {"role": "user", "content": blocks},
    ]
    tools = [{"name": "get_weather", "input_schema": TOOLS[0]["function"]["parameters"]}]
    server.post("/v1/messages", {"max_tokens": 5, "messages": turns, "tools": tools})
    assert played.asked[-1]["messages"][-1]["content"] == "Error: boom"


def test_who_has_too_much_to_do_says_until_when(behind: Callable[..., tuple[Any, Played]]) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    server, played = behind((529, {"error": "busy"}, {"retry-after-ms": "1", "retry-after": soon}))
    answer = server.http.post("/v1/messages", json=ASK)
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "overloaded_error")
    assert 30 < int(answer.headers["retry-after"]) <= 60
    played.begin((429, {"error": {"message": "pay", "code": "insufficient_quota"}}, {"retry-after-ms": "1"}))
    answer = server.http.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
    assert "retry-after" not in answer.headers and len(played.asked) == 1


def test_an_end_that_is_none_is_no_fault_of_a_call(behind: Callable[..., tuple[Any, Played]]) -> None:
    cut = (200, [weather('{"city":"Par'), chunk({}, "abort"), "[DONE]"])
    server, played = behind(cut, said(weather('{"city":"Paris"}')))
    reply = server.post("/v1/chat/completions", ASK | {"tools": TOOLS})["choices"][0]["message"]
    assert len(calls_of(reply)) == 1 and [body["messages"] for body in played.asked] == [ASK["messages"]] * 2
    played.begin(cut)
    answer = server.http.post("/v1/chat/completions", json=ASK | {"tools": TOOLS})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")


NONSENSE: list[Any] = [
    (200, {"object": "html"}),
    (200, ["{not json"]),
    (200, [None]),
    (200, [[1, 2]]),
    (200, [{"choices": [None]}]),
    (200, [chunk({"tool_calls": [None]}), *END]),
    (200, [chunk({"tool_calls": "x"}), *END]),
    (200, [chunk({"content": {"text": "x"}}), *END]),
    (200, [chunk({"content": 5}), *END]),
    (200, [chunk({"content": "x"}) | {"choices": {"0": {}}}, *END]),
    (200, [chunk({"content": "x"}) | {"choices": chunk({})["choices"] * 2}, *END]),
    (200, [call(0, id=[1], name="get_weather", arguments="{}"), *END]),
    (200, [chunk({"tool_calls": [{"index": 0, "function": "f"}]}), *END]),
    (200, [chunk({"tool_calls": [{"index": 0, "function": {"name": 5, "arguments": "{}"}}]}), *END]),
]


@pytest.mark.parametrize("answer", NONSENSE)
def test_nonsense_behind_is_a_failure_of_the_server_behind(
    behind: Callable[..., tuple[Any, Played]], answer: Any
) -> None:
    server, _ = behind(answer)
    body = ASK | {"tools": TOOLS}
    whole = server.http.post("/v1/chat/completions", json=body)
    assert whole.status_code == 502, whole.text
    streamed = server.http.post("/v1/chat/completions", json=body | {"stream": True})
    assert (streamed.status_code, streamed.json()) == (502, whole.json())


@pytest.mark.parametrize(
    ("answer", "content", "calls"),
    [
        # Nothing where something may be; the end as it may be.
        ([chunk({"role": "assistant", "content": None, "tool_calls": None, "refusal": None, "reasoning_content": None}),
          chunk({"content": "hi"}, "stop")], "hi", []),
        ([chunk({"content": "hi"}, "stop"), {"choices": None}, {"choices": [], "usage": None}], "hi", []),
        ([chunk({"content": "hi"}, "stop"), {"error": {"message": "too late"}}], "hi", []),
        ([call(0, id="x", name="now", arguments=""), call(0, name=None, arguments=None), *END], None, ["{}"]),
        ([call(0, id="x", name="now"), call(0, id="x", name="now", arguments="null"), *END], None, ["{}"]),
        ([call(0, id=None, name="now", arguments={}), call(1, id=None, name="now", arguments={}), *END], None,
         ["{}", "{}"]),
        ([call(0, id="x", name="now", arguments="{}"), chunk({"tool_calls": [{"index": 0, "function": None}]}), *END],
         None, ["{}"]),
    ],
)  # fmt: skip
def test_what_is_odd_but_plain_is_read(
    behind: Callable[..., tuple[Any, Played]], answer: list[Any], content: str | None, calls: list[str]
) -> None:
    server, played = behind((200, answer))
    reply, _ = message(server, tools=[tool("now", {})])
    assert reply["content"] == content
    if not calls:
        # What is not known is not said to be nothing.
        body = ASK | {"stream_options": {"include_usage": True}}
        assert server.post("/v1/chat/completions", ASK)["usage"] is None
        assert server.chunks("/v1/chat/completions", body)[-1]["usage"] is None
        assert server.post("/v1/responses", {"input": "x"})["usage"] is None
        return
    assert calls_of(reply) == [(f"functions.now:{i}", "now", arguments) for i, arguments in enumerate(calls)]
    assert len(played.asked) == 2


SHAPE = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
AS_SHAPE = {"type": "json_schema", "json_schema": {"name": "x", "schema": SHAPE}}


@pytest.mark.parametrize(
    ("wanted", "text", "content"),
    [
        (AS_SHAPE, ' {"n": 1}', '{"n": 1}'),
        (AS_SHAPE, '```json\n{"n":1}\n```', '{"n":1}'),
        (AS_SHAPE, "{'n': '1'}", '{"n":1}'),
        ({"type": "json_object"}, '{"x":0.10}', '{"x":0.10}'),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}, "[1]", "[1]"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string"}}}, '"[1]"', '"[1]"'),
    ],
)
def test_an_answer_in_json_is_what_was_asked_for(
    behind: Callable[..., tuple[Any, Played]], wanted: Any, text: str, content: str
) -> None:
    server, played = behind((200, [*(chunk({"content": letter}) for letter in text), chunk({}, "stop"), "[DONE]"]))
    assert message(server, tools=[], response_format=wanted) == ({"role": "assistant", "content": content}, "stop")
    assert played.asked[0]["response_format"]["type"] == wanted["type"] and len(played.asked) == 2


@pytest.mark.parametrize(
    ("wanted", "text", "problem"),
    [
        (AS_SHAPE, '{"n": "one"}', "at $.n: 'one' is not of type 'integer'"),
        (AS_SHAPE, 'Here it is: {"n": 1}', "it is no JSON"),
        (AS_SHAPE, "", "it is no JSON"),
        (AS_SHAPE, '{"n": 1, "n": 2}', "a key twice"),
        ({"type": "json_object"}, "[]", "is not of type 'object'"),
        ({"type": "json_object"}, '"{}"', "is not of type 'object'"),
    ],
)
def test_a_wrong_answer_in_json_is_asked_for_again_and_then_refused(
    behind: Callable[..., tuple[Any, Played]], wanted: Any, text: str, problem: str
) -> None:
    wrong = (200, [chunk({"reasoning_content": "Hm."}), chunk({"content": text}, "stop"), "[DONE]"])
    good = (200, [chunk({"content": '{"n":1}'}, "stop"), "[DONE]"])
    server, played = behind(wrong, good, wrong, good)
    reply, finish = message(server, tools=[], response_format=wanted)
    assert (reply["content"], reply["reasoning_content"], finish) == ('{"n":1}', "Hm.", "stop")
    assert problem in played.asked[1]["messages"][-1]["content"]
    played.begin(wrong)
    answer = server.http.post("/v1/chat/completions", json=ASK | {"response_format": wanted})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "invalid_answer_upstream")
    assert problem in answer.json()["error"]["message"] and len(played.asked) == 3


def test_json_that_was_cut_or_refused_is_passed_on(behind: Callable[..., tuple[Any, Played]]) -> None:
    server, played = behind((200, [chunk({"content": '{"n"'}, "length"), "[DONE]"]))
    assert message(server, tools=[], response_format=AS_SHAPE)[1] == "length"
    played.begin((200, [chunk({"refusal": "I cannot"}), chunk({"refusal": " do that."}, "stop"), "[DONE]"]))
    reply, finish = message(server, tools=[], response_format=AS_SHAPE)
    assert reply == {"role": "assistant", "content": None, "refusal": "I cannot do that."} and finish == "stop"
    played.begin(said(chunk({"content": "Let me see."}), weather('{"city":"Paris"}')))
    reply, finish = message(server, response_format=AS_SHAPE)
    assert (reply["content"], len(calls_of(reply)), finish) == ("Let me see.", 1, "tool_calls")
    # Beside calls that nobody may make it is checked all the same.
    played.begin(said(chunk({"content": "Let me see."}), weather('{"city":"Paris"}')),
                 said(chunk({"content": '{"n":1}'})))  # fmt: skip
    answer = server.post("/v1/chat/completions", ASK | {"response_format": AS_SHAPE})["choices"][0]
    assert answer["message"]["content"] == '{"n":1}' and answer["finish_reason"] == "stop"
    refused = server.http.post("/v1/chat/completions", json=ASK | {"response_format": {
        "type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "text"}}}})  # fmt: skip
    assert refused.status_code == 400 and "response_format: the schema cannot be used" in refused.text


def test_thoughts_refusals_and_filters_are_not_lost(behind: Callable[..., tuple[Any, Played]]) -> None:
    thought = [chunk({"reasoning_content": "Let me "}), chunk({"reasoning": "think."})]
    server, played = behind((200, [*thought, chunk({"content": "So"}), chunk({}, "content_filter"), "[DONE]"]))
    reply, finish = message(server, tools=[])
    assert reply == {"role": "assistant", "content": "So", "reasoning_content": "Let me think."}
    assert finish == "content_filter"
    client = anthropic.Anthropic(base_url=server.url, api_key="none")
    asked: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": ASK["messages"], "stop_sequences": ["END"]}
    for text, pieces in (
        ("So", [*thought, chunk({"content": "So"}), chunk({}, "content_filter"), "[DONE]"]),
        ("No, sorry.", [chunk({"content": "No, "}), chunk({"refusal": "sorry."}, "stop"), "[DONE]"]),
    ):
        played.begin((200, pieces))
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            final = stream.get_final_message()
        assert (
            [(b.type, b.text) for b in whole.content] == [(b.type, b.text) for b in final.content] == [("text", text)]
        )
        assert whole.stop_reason == final.stop_reason == "refusal"
    # Of a call that the filter cut off nothing is left, and what it let through stays.
    pieces = [weather('{"city":"Paris"}'), call(1, id="b", name="get_weather", arguments='{"city":"Ro')]
    played.begin((200, [*pieces, chunk({}, "content_filter"), "[DONE]"]))
    reply, finish = message(server)
    assert len(calls_of(reply)) == 1 and finish == "content_filter" and len(played.asked) == 2


@pytest.mark.parametrize("field", ["stop_reason", "matched_stop"])
def test_the_stop_text_that_ended_it_is_known(behind: Callable[..., tuple[Any, Played]], field: str) -> None:
    server, played = behind((200, [chunk({"content": "So"}), chunk({}, "stop", **{field: "END"}), "[DONE]"]))
    client = anthropic.Anthropic(base_url=server.url, api_key="none")
    asked: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": ASK["messages"], "stop_sequences": ["END"]}
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    for one in (whole, final):
        assert (one.stop_reason, one.stop_sequence) == ("stop_sequence", "END")
    choice = server.post("/v1/chat/completions", ASK | {"stop": "END"})["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")
    assert message(server, tools=[], stop="END")[1] == "stop"
    # An id, and a text that the client has not named, are no stop text.
    played.begin((200, [chunk({"content": "So"}), chunk({}, "stop", **{field: 163586}), "[DONE]"]))
    assert client.messages.create(**asked).stop_reason == "end_turn"


def test_the_responses_route_tells_of_thoughts_and_refusals(behind: Callable[..., tuple[Any, Played]]) -> None:
    openai = pytest.importorskip("openai")
    pieces = [chunk({"reasoning_content": "Hm."}), chunk({"content": "No: "}), chunk({"refusal": "I"}),
              chunk({"refusal": " cannot."}), chunk({}, "content_filter"), "[DONE]"]  # fmt: skip
    server, played = behind((200, pieces))
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        whole = client.responses.create(model="m", input="hi")
        with client.responses.stream(model="m", input="hi") as stream:
            events = list(stream)
        for response in (whole, events[-1].response):
            thought, text = response.output
            assert (thought.type, thought.content[0].type, thought.content[0].text) == (
                "reasoning", "reasoning_text", "Hm.")  # fmt: skip
            assert (text.content[0].text, text.content[1].type, text.content[1].refusal) == (
                "No: ", "refusal", "I cannot.")  # fmt: skip
            assert (response.status, response.incomplete_details.reason) == ("incomplete", "content_filter")
            assert (thought.status, text.status) == ("completed", "incomplete")
        kinds = [event.type.removeprefix("response.") for event in events]
        assert kinds == [
            "created", "in_progress",
            "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
            "content_part.done", "output_item.done",
            "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
            "content_part.added", "refusal.delta", "refusal.delta", "refusal.done", "content_part.done",
            "output_item.done", "incomplete",
        ]  # fmt: skip
        # What was said comes back as history.
        items = [{"role": "user", "content": "hi"}, *(item.model_dump() for item in whole.output)]
        client.responses.create(model="m", input=[*items, {"role": "user", "content": "why"}])
        assert [m["content"] for m in played.asked[-1]["messages"]] == ["hi", "No: I cannot.", "why"]


def test_text_about_the_markers_is_text(behind: Callable[..., tuple[Any, Played]]) -> None:
    about = MARKED + " is how K2 calls."
    for text, more in ((about, {}), (MARKED, {"tools": []}), (MARKED, {"tool_choice": "none"})):
        server, played = behind(
            (200, [*(chunk({"content": part}) for part in text.split(" ")), chunk({}, "stop"), *END[1:]])
        )
        reply, finish = message(server, **more)
        assert (reply, finish) == ({"role": "assistant", "content": text.replace(" ", "")}, "stop")
        assert len(played.asked) == 2
    # Calls that are known, and written out in the text once more, are made once.
    server, played = behind(said(chunk({"content": MARKED}), weather('{"city":"Paris"}')))
    reply, _ = message(server)
    assert reply["content"] == "Let me see." and len(calls_of(reply)) == 1
    # What might have become a marker is said at the end, also before calls.
    for text, shown in (("Is 1 <", "Is 1 <"), (f"So {MARKED[:-20]}", "So Let me see.")):
        played.begin(said(chunk({"content": text}), weather('{"city":"Paris"}')))
        reply, _ = message(server)
        assert reply["content"] == shown and len(calls_of(reply)) == 1
    # Required, and there is only talk of it.
    played.begin(said(chunk({"content": about})))
    answer = server.http.post("/v1/chat/completions", json=ASK | {"tools": TOOLS, "tool_choice": "required"})
    assert answer.status_code == 502 and "a tool call is required" in answer.text


def test_errors_spell_tools_as_the_client_does(behind: Callable[..., tuple[Any, Played]]) -> None:
    named = [tool("get weather!", {"city": {"type": "string"}}), tool("länge", {})]
    server, played = behind(said(weather("{}", "get_weather_")))
    answer = server.http.post("/v1/chat/completions", json=ASK | {"tools": named})
    assert answer.status_code == 502 and "the arguments of get weather!: at $: 'city'" in answer.text
    assert "the arguments of get_weather_: at $: 'city'" in played.asked[-1]["messages"][-1]["content"]
    played.begin(said(weather("{}", "get_news")))
    answer = server.http.post("/v1/chat/completions", json=ASK | {"tools": named})
    assert "'get_news' is not there: the tools are get weather!, länge" in answer.json()["error"]["message"]
    assert "the tools are get_weather_, l_nge" in played.asked[-1]["messages"][-1]["content"]
    chosen = {"type": "function", "function": {"name": "länge"}}
    played.begin(said(weather('{"city":"x"}', "get_weather_")))
    answer = server.http.post("/v1/chat/completions", json=ASK | {"tools": named, "tool_choice": chosen})
    assert "the tool 'get weather!' may not be called: the tools are länge" in answer.json()["error"]["message"]
    answer = server.http.post("/v1/chat/completions", json=ASK | {"tools": [tool("zu lang", {"a": {"type": "text"}})]})
    assert answer.status_code == 400 and "the parameters of zu lang cannot be used" in answer.text


def test_schemas_of_other_drafts_are_understood(behind: Callable[..., tuple[Any, Played]]) -> None:
    place = tool("place", {
        "at": {"type": "array", "items": [{"type": "number"}, {"type": "number"}], "additionalItems": False},
        "label": {"type": "string", "nullable": True},
        "size": {"type": "number", "minimum": 0, "multipleOf": 0.1},
    }, **{"$schema": "http://json-schema.org/draft-07/schema#"})  # fmt: skip
    good = weather('{"at":[1,2],"label":null,"size":0.3}', "place")
    server, played = behind(said(weather('{"at":[1,2,3],"label":null,"size":0.3}', "place")), said(good))
    [(_, _, arguments)] = calls_of(message(server, tools=[place])[0])
    assert arguments == '{"at":[1,2],"label":null,"size":0.3}' and len(played.asked) == 3
    assert "Additional items are not allowed" in played.asked[1]["messages"][-1]["content"]


def test_a_stream_without_its_last_word_ends(behind: Callable[..., tuple[Any, Played]]) -> None:
    def silent() -> Iterator[Any]:
        yield chunk({"content": "hi"}, "stop")
        time.sleep(40)

    server, _ = behind((200, silent()))
    began = time.monotonic()
    assert server.post("/v1/chat/completions", ASK)["choices"][0]["message"]["content"] == "hi"
    assert time.monotonic() - began < 30


def test_a_long_silence_is_no_failure(behind: Callable[..., tuple[Any, Played]]) -> None:
    """What is between here and the client hears that the stream has begun; what is wrong is then said in it."""
    begun, asked = threading.Barrier(7), {"model": "m", "max_tokens": 80, "stream": True}
    heard = threading.Event()

    def answer(body: dict[str, Any]) -> Any:
        def pieces() -> Iterator[Any]:
            yield weather('{"city":')
            assert heard.wait(60)
            yield call(0, arguments='"Paris"}' if body["messages"][0]["content"] == "good" else "null}")
            yield from END

        return 200, pieces()

    function = TOOLS[0]["function"]
    routes: list[tuple[str, Callable[[str], dict[str, Any]]]] = [
        ("chat/completions", lambda text: {"messages": [{"role": "user", "content": text}], "tools": TOOLS}),
        ("responses", lambda text: {"input": text, "tools": [{"type": "function"} | function | {"strict": False}]}),
        ("messages", lambda text: {"messages": [{"role": "user", "content": text}], "tools": [
            {"name": function["name"], "input_schema": function["parameters"]}]}),
    ]  # fmt: skip
    server, _ = behind(answer)

    def ask(path: str, body: dict[str, Any]) -> list[Any]:
        with server.http.stream("POST", f"/v1/{path}", json=body | asked) as stream:
            begun.wait(60)
            assert stream.status_code == 200, stream.read()
            data = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
        return [json.loads(one) for one in data if one != "[DONE]"]

    with ThreadPoolExecutor(6) as pool:
        good, bad = ([pool.submit(ask, path, body(text)) for path, body in routes] for text in ("good", "bad"))
        begun.wait(60)
        heard.set()
    for told in good:
        assert "functions.get_weather:0" in json.dumps(told.result()) and "error" not in told.result()[-1]
    for told in bad:
        [error] = told.result()
        assert "is not of type 'string'" in error["error"]["message"]


def test_counts_that_nobody_waits_for_are_given_up(start: Callable[..., Any]) -> None:
    def slow(_: Any) -> Any:
        time.sleep(2)
        return said(chunk({"content": "hi"}))

    played = Played(slow)
    with served(played) as url:
        server = start("--model", f"openai:m@{url}", "--max-running", "1", "--max-queued", "2")
        body = {"messages": ASK["messages"], "max_tokens": 5}
        for _ in range(3):
            with pytest.raises(httpx2.ReadTimeout):
                server.http.post("/v1/messages/count_tokens", json=body, timeout=0.5)
        began = time.monotonic()
        played.begin(said(chunk({"content": "hi"})))
        assert server.http.post("/v1/messages/count_tokens", json=body).json() == {"input_tokens": 9}
        assert time.monotonic() - began < 60
        assert server.stop() == 0


def test_a_pattern_cannot_hold_the_server_up(behind: Callable[..., tuple[Any, Played]]) -> None:
    hard = [tool("get_weather", {"city": {"type": "string", "pattern": r"^(a|aa|[a-z])*[0-9]$"}})]
    server, _ = behind(said(weather(json.dumps({"city": "a" * 40 + "!"}))))
    answer = server.http.post("/v1/chat/completions", json=ASK | {"tools": hard})
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "invalid_tool_call_upstream"


def test_what_cannot_be_known_here_is_refused(behind: Callable[..., tuple[Any, Played]]) -> None:
    server, played = behind(said(chunk({"content": "hi"})))
    for path, body, status, words in (
        ("/v1/chat/completions", ASK | {"logprobs": True}, 400, "logprobs: "),
        ("/v1/chat/completions", ASK | {"return_token_ids": True}, 400, "return_token_ids: "),
        ("/v1/chat/completions", ASK | {"tools": [tool("x", {"a": {"$ref": "http://127.0.0.1/x"}})]}, 400, "tools: "),
        ("/v1/chat/completions", ASK | {"tools": [tool("x", {"a": {"type": "text"}})]}, 400, "no JSON Schema"),
        ("/v1/completions", {"prompt": "a"}, 404, "behind another server"),
        ("/tokenize", {"prompt": "a"}, 404, "behind another server"),
    ):
        answer = server.http.post(path, json=body)
        assert answer.status_code == status and words in answer.json()["error"]["message"], answer.text
    assert played.asked == []
    assert "max_model_len" not in server.http.get("/v1/models").json()["data"][0]


def test_a_client_that_leaves_ends_the_answer_behind(behind: Callable[..., tuple[Any, Played]]) -> None:
    server, played = behind((200, (chunk({"content": "word " * 1000}) for _ in range(100_000))))
    with server.http.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as stream:
        assert any("word" in line for line in stream.iter_lines())
    assert played.gone.wait(60)
