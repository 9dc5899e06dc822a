"""Our API in front of other servers: of our own, and of some that get their calls wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
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


def tool(name: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": properties, "required": list(properties), **more}}}  # fmt: skip


TOOLS = [
    tool("get_weather", {"city": {"type": "string"}}),
    tool("add", {"a": {"type": "integer"}, "b": {"type": "number"}}),
]


@pytest.fixture(scope="module")
def pair(start: Callable[..., Any]) -> Iterator[tuple[Any, Played]]:
    """Ours in front of a server that plays answers."""
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


@pytest.fixture(scope="module")
def front(start: Callable[..., Any], nano_server: Any) -> Any:
    """Ours in front of ours."""
    return start("--model", f"openai:openk2-nano@{nano_server.url}")


def said(*pieces: Any) -> tuple[int, list[Any]]:
    return 200, [*pieces, *END]


def weather(arguments: str, name: str = "get_weather") -> Any:
    return call(0, id="call_abc", name=name, arguments=arguments)


def message(server: Any, **more: Any) -> tuple[dict[str, Any], str]:
    """The message, which must be the same streamed and not, and why it ended."""
    body = ASK | {"tools": TOOLS} | more
    whole = server.post("/v1/chat/completions", body)["choices"][0]
    content, calls, finish = "", [], None
    for one in server.chunks("/v1/chat/completions", body):
        for choice in one["choices"]:
            content += choice["delta"].get("content") or ""
            for piece in choice["delta"].get("tool_calls", []):
                if "id" in piece:
                    calls.append({"id": piece["id"], "type": "function", "function": piece["function"]})
                else:
                    calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
            finish = choice["finish_reason"] or finish
    assert (content, calls, finish) == (
        whole["message"]["content"] or "",
        whole["message"].get("tool_calls", []),
        whole["finish_reason"],
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
    (chunk({"content": MARKED[:-60]}), "cannot be read as a call"),
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
        ([(401, {"error": {"message": "who are you"}})], 502, "does not accept the API key"),
        ([(400, {"error": {"message": "tools: no"}})], 400, "tools: no"),
        ([(400, {"error": {"message": "maximum context length is 9"}})], 400, "maximum context length is 9"),
        ([(429, {"error": {"message": "slow"}}, {"retry-after-ms": "1", "retry-after": "7"})], 429, "slow"),
        ([(500, {"error": {"message": "oops"}}, {"retry-after-ms": "1"})], 502, "oops"),
        ([(200, [chunk({"content": "be"})])], 502, "broke off in the middle"),
    ],
)
def test_failures_behind_have_a_status_and_a_sentence(
    behind: Callable[..., tuple[Any, Played]], answers: list[Any], status: int, said_: str
) -> None:
    server, _ = behind(*answers)
    answer = server.http.post("/v1/chat/completions", json=ASK)
    assert answer.status_code == status and said_ in answer.json()["error"]["message"]
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
    if "broke off" not in said_:
        # Nothing was said yet, so a stream is refused in the same way.
        streamed = server.http.post("/v1/chat/completions", json=ASK | {"stream": True})
        assert (streamed.status_code, streamed.json()) == (status, answer.json())
    assert server.http.get("/health").status_code == 200


NONSENSE: list[Any] = [
    (200, {"object": "html"}),
    (200, ["{not json"]),
    (200, [None]),
    (200, [[1, 2]]),
    (200, [{"choices": [None]}]),
    (200, [chunk({"tool_calls": [None]}), *END]),
    (200, [chunk({"tool_calls": "x"}), *END]),
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
    hard = [tool("get_weather", {"city": {"type": "string", "pattern": r"^(\w+\s?)+$(?<=x)"}})]
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
