"""What a server behind is asked: all that the client said, and as it said it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.played import Played, call, chunk

pytest.importorskip("fastapi")

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


def test_what_a_client_says_is_sent_on(behind: Callable[..., tuple[Any, Played]]) -> None:
    server, played = behind((200, [chunk({"content": "{}"}, "stop")]))

    def sent(body: dict[str, Any], path: str = "/v1/chat/completions") -> dict[str, Any]:
        server.post(path, body)
        kept: dict[str, Any] = played.asked[-1]
        return {k: v for k, v in kept.items() if k not in ("messages", "model", "stream", "stream_options")}

    # Also what is our default: the server behind may have another one.
    usual = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "presence_penalty": 0.0,
             "frequency_penalty": 0.0, "repetition_penalty": 1.0}  # fmt: skip
    assert sent({"messages": ASK} | usual) == usual
    # What only that server knows, and limits under the older name, which all servers know.
    other = {"reasoning_effort": "high", "chat_template_kwargs": {"thinking": True}, "thinking": {"type": "enabled"},
             "user": "u", "metadata": {"a": "b"}}  # fmt: skip
    limit = {"max_completion_tokens": 7}
    assert sent({"messages": ASK} | other | limit) == other | {"max_tokens": 7}
    form = {"name": "x", "description": "d", "schema": {"type": "object"}, "strict": True}
    wanted = {"response_format": {"type": "json_schema", "json_schema": form}}
    assert sent({"messages": ASK} | wanted) == wanted
    form = {"name": "y", "schema": {"type": "object"}, "strict": False}
    asked = {"input": "hi", "reasoning": {"effort": "low"}, "top_p": 1.0, "max_output_tokens": 9,
             "text": {"format": {"type": "json_schema"} | form}}  # fmt: skip
    assert sent(asked, "/v1/responses") == {
        "reasoning_effort": "low", "top_p": 1.0, "max_tokens": 9,
        "response_format": {"type": "json_schema", "json_schema": form},
    }  # fmt: skip
    assert sent({"messages": ASK, "max_tokens": 80, "temperature": 0.5, "top_k": 0}, "/v1/messages") == {
        "max_tokens": 80, "temperature": 0.5, "top_k": -1}  # fmt: skip
    answer = server.http.post(
        "/v1/chat/completions", content=b'{"messages": [{"role": "user", "content": "hi"}], "metadata": {"a": 1e999}}'
    )
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "metadata"


def test_a_begun_answer_is_begun_again(behind: Callable[..., tuple[Any, Played]], tools: list[Any]) -> None:
    server, played = behind(
        (
            200,
            [chunk({"content": "see."}), call(0, id="a", name="get_weather", arguments="{}"), chunk({}, "tool_calls")],
        ),
        (200, [call(0, id="a", name="get_weather", arguments='{"city":"Paris"}'), chunk({}, "tool_calls")]),
    )
    begun = {"role": "assistant", "content": "Let me ", "partial": True}
    reply = server.post("/v1/chat/completions", {"messages": [*ASK, begun], "tools": tools[:1]})
    assert len(reply["choices"][0]["message"]["tool_calls"]) == 1
    first, second = (body["messages"] for body in played.asked)
    assert first == [*ASK, begun]
    assert second[1] == {"role": "assistant", "content": "Let me see."} and second[-1] == begun
    assert second[2]["role"] == "user" and "'city' is a required property" in second[2]["content"]
