"""OpenAI's newer route, with OpenAI's own client."""

from __future__ import annotations

import json
from typing import Any

import pytest

openai = pytest.importorskip("openai")

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "The city."}},
        "required": ["city"],
    },
}
ASK = "What is the weather in Paris?"


def client_of(server: Any) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")


def said(response: Any) -> list[Any]:
    """The items without their ids."""
    return [
        (item.type, item.content[0].text if item.type == "message" else (item.call_id, item.name, item.arguments))
        for item in response.output
    ]


def test_a_tool_loop(nano_server: Any) -> None:
    with client_of(nano_server) as client:
        first = client.responses.create(model="any", input=ASK, tools=[WEATHER])
        call = first.output[-1]
        assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Paris"})
        assert (first.status, call.call_id) == ("completed", "functions.get_weather:0")
        items = [{"role": "user", "content": ASK}, *(item.model_dump() for item in first.output)]
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
        second = client.responses.create(model="any", input=items, tools=[WEATHER])
        assert "sunny" in second.output_text and second.usage.input_tokens_details.cached_tokens > 0
        # The same conversation as on the chat route has the same tokens.
        chat = [{"role": "user", "content": ASK}]
        function = {"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}
        counted = nano_server.post("/tokenize", {"messages": chat, "tools": [function]})["count"]
        assert counted == first.usage.input_tokens


@pytest.mark.parametrize("limit", [1, 4, 30, 200])
def test_streamed_and_whole_are_the_same(nano_server: Any, limit: int) -> None:
    asked: dict[str, Any] = {"model": "any", "input": ASK, "tools": [WEATHER], "max_output_tokens": limit}
    with client_of(nano_server) as client:
        whole = client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            events = list(stream)
    # (The client's own helper for the end knows complete responses alone.)
    final = events[-1].response
    assert said(final) == said(whole)
    assert (final.status, final.usage.output_tokens) == (whole.status, whole.usage.output_tokens)
    assert whole.status == ("incomplete" if limit < 10 else "completed")
    if whole.output and whole.output[-1].type == "message":
        assert whole.output[-1].status == final.output[-1].status == whole.status
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == f"response.{whole.status}"
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == len(whole.output)


def test_required_calls_and_json_of_random_weights(random_server: Any) -> None:
    with client_of(random_server) as client:
        choice = {"type": "function", "name": "get_weather"}
        named = client.responses.create(
            model="any", input=ASK, tools=[WEATHER], tool_choice=choice, max_output_tokens=60
        )
        assert [item.type for item in named.output] == ["function_call"]
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        form = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
        answer = client.responses.create(model="any", input=ASK, text=form, max_output_tokens=40, temperature=1.0)
        assert isinstance(json.loads(answer.output_text)["a"], int)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"previous_response_id": "x"}, "keeps no conversations"),
        ({"input": []}, "input: there is none"),
        ({"input": [5]}, "input.0: input should be an object"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type: 'web_search' is not served here: use 'function'"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type: 'allowed_tools' is not served here"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name: "),
        ({"input": [{"type": "computer_call"}]}, "input.0.type"),
        ({"input": [{"role": "pirate", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input_image"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input: .*answers no call"),
        ({"tool_choice": "required"}, "no tool is declared"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "text.format.name"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_tool_calls": 1}, "max_tool_calls: "),
        ({"prompt": {"id": "x"}}, "prompt: "),
        ({"truncation": "auto"}, "truncation: 'auto' is not served here: use 'disabled'"),
        ({"top_logprobs": 2}, "top_logprobs: "),
        ({"include": ["message.output_text.logprobs"]}, "include: "),
    ],
)
def test_what_is_wrong_is_said(random_server: Any, fields: dict[str, Any], words: str) -> None:
    with client_of(random_server) as client, pytest.raises(openai.BadRequestError, match=words):
        client.responses.create(**({"model": "any", "input": "hi"} | fields))
