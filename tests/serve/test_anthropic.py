"""Anthropic's route, with Anthropic's own client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

anthropic = pytest.importorskip("anthropic")

TOOLS: list[Any] = [
    {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city."}},
            "required": ["city"],
        },
    }
]
HOT: Any = {"extra_body": {"temperature": 1.0}}
ASK: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]


def as_sent(block: Any) -> dict[str, Any]:
    """Without what the client adds."""
    return {key: value for key, value in block.model_dump().items() if key in ("type", "text", "id", "name", "input")}


def client_of(server: Any, path: str = "") -> Any:
    return anthropic.Anthropic(base_url=server.url + path, api_key="none")


@pytest.mark.parametrize("path", ["", "/anthropic"])
def test_a_tool_loop_with_the_real_client(nano_server: Any, path: str) -> None:
    with client_of(nano_server, path) as client:
        first = client.messages.create(model="any", max_tokens=200, messages=ASK, tools=TOOLS)
        assert first.stop_reason == "tool_use"
        call = first.content[-1]
        assert (call.type, call.name, call.input) == ("tool_use", "get_weather", {"city": "Paris"})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
        messages = [*ASK, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        second = client.messages.create(model="any", max_tokens=200, messages=messages, tools=TOOLS)
        assert second.stop_reason == "end_turn" and "sunny" in second.content[0].text
        assert second.usage.cache_read_input_tokens > 0
        count = client.messages.count_tokens(model="any", messages=messages, tools=TOOLS)
        assert count.input_tokens == second.usage.input_tokens + second.usage.cache_read_input_tokens


@pytest.mark.parametrize("limit", [1, 4, 30, 200])
def test_streamed_and_whole_are_the_same(nano_server: Any, limit: int) -> None:
    with client_of(nano_server) as client:
        asked: dict[str, Any] = {"model": "any", "max_tokens": limit, "messages": ASK, "tools": TOOLS}
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_message()
    assert [as_sent(block) for block in final.content] == [as_sent(block) for block in whole.content]
    assert (final.stop_reason, final.stop_sequence) == (whole.stop_reason, whole.stop_sequence)
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == len(whole.content)


def test_required_and_single_calls_of_random_weights(random_server: Any) -> None:
    with client_of(random_server) as client:
        for choice in (
            {"type": "any", "disable_parallel_tool_use": True},
            {"type": "tool", "name": "get_weather"},
        ):
            answer = client.messages.create(
                model="any", max_tokens=60, messages=ASK, tools=TOOLS, tool_choice=choice, **HOT
            )
            assert [block.type for block in answer.content] == ["tool_use"]
        answer = client.messages.create(
            model="any", max_tokens=20, messages=ASK, tools=TOOLS, tool_choice={"type": "none"}
        )
        assert all(block.type == "text" for block in answer.content)


def test_a_beginning_of_the_answer_and_a_stop_sequence(random_server: Any) -> None:
    with client_of(random_server) as client:
        messages = [*ASK, {"role": "assistant", "content": "The weather"}]
        with_beginning = client.messages.count_tokens(model="any", messages=messages).input_tokens
        assert with_beginning > client.messages.count_tokens(model="any", messages=ASK).input_tokens
        for seed in range(20):
            answer = client.messages.create(
                model="any", max_tokens=60, messages=messages, **HOT, stop_sequences=["e", "t"]
            )
            if answer.stop_reason == "stop_sequence":
                text = answer.content[0].text if answer.content else ""
                assert answer.stop_sequence in ("e", "t") and "e" not in text and "t" not in text, seed
                return
    pytest.fail("random text has an e or a t")


def test_the_asynchronous_client(nano_server: Any) -> None:
    async def ask() -> list[Any]:
        async with anthropic.AsyncAnthropic(base_url=nano_server.url, api_key="none") as client:
            one = client.messages.create(model="any", max_tokens=200, messages=ASK, tools=TOOLS)
            return await asyncio.gather(one, *(
                client.messages.create(model="any", max_tokens=200, messages=ASK, tools=TOOLS) for _ in range(5)
            ))  # fmt: skip

    answers = asyncio.run(ask())
    assert len({str(answer.content) for answer in answers}) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": []}, "messages: there is none"),
        ({"tool_choice": {"type": "any"}}, "tool_choice: a call is required"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, r"messages.0.content.0: .*image"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temperature": 2}}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]}, "answers no call"),
    ],
)  # fmt: skip
def test_errors_have_anthropics_shape(random_server: Any, fields: dict[str, Any], words: str) -> None:
    with client_of(random_server) as client, pytest.raises(anthropic.BadRequestError, match=words) as caught:
        client.messages.create(**({"model": "any", "max_tokens": 5, "messages": ASK} | fields))
    assert caught.value.body["type"] == "error" and caught.value.body["error"]["type"] == "invalid_request_error"
