"""Anthropic's route, with Anthropic's own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from openk2.chat import ArgumentsPart, CallBegin, CallEnd
from openk2.serve.answer import End, Ready, Said
from openk2.serve.anthropic import whole

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
        ({"extra_body": {"system": [{"type": "text", "text": "a"}, {"type": "text"}]}}, "system.1.text: it is missing"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages.0.content.0.type: it is missing"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temperature": 2}}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
         "messages: .*answers no call"),
        ({"extra_body": {"mcp_servers": [{"type": "url", "url": "http://x", "name": "x"}]}}, "mcp_servers: "),
        ({"extra_body": {"container": "c"}}, "container: "),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
         "tools.0.type: tools of type 'web_search_20250305' are not served"),
        ({"tools": [{"name": "a", "input_schema": {"type": "array"}}]},
         "tools.0.input_schema: the parameters of tool a are"),
    ],
)  # fmt: skip
def test_errors_have_anthropics_shape(random_server: Any, fields: dict[str, Any], words: str) -> None:
    with client_of(random_server) as client, pytest.raises(anthropic.BadRequestError, match=words) as caught:
        client.messages.create(**({"model": "any", "max_tokens": 5, "messages": ASK} | fields))
    assert caught.value.body["type"] == "error" and caught.value.body["error"]["type"] == "invalid_request_error"


def test_the_clients_tool_runner_goes_on_without_a_thread(random_server: Any) -> None:
    def add(a: int, b: int) -> str:
        """Add.

        Args:
            a: One.
            b: The other.
        """
        return str(a + b)

    asked: dict[str, Any] = {"model": "any", "max_tokens": 100, "tools": [anthropic.beta_tool(add)], "messages": ASK}
    with client_of(random_server) as client:
        runner = client.beta.messages.tool_runner(**asked, tool_choice={"type": "any"}, max_iterations=3)
        assert [message.stop_reason for message in runner] == ["tool_use"] * 3
        with pytest.raises(anthropic.BadRequestError, match="thread: ") as caught:
            client.messages.create(model="any", max_tokens=5, messages=ASK, extra_body={"thread": {"type": "create"}})
    assert caught.value.body["error"]["details"] == {
        "error_code": "thread_unsupported_request",
        "unsupported": ["thread"],
    }


class Place(BaseModel):
    city: Literal["Paris", "Rome"]
    people: int


def test_answers_in_json(random_server: Any) -> None:
    asked: Any = {"model": "any", "max_tokens": 100, "messages": ASK} | HOT
    schema = anthropic.transform_schema(Place)
    wanted = {"type": "json_schema", "schema": schema}
    with client_of(random_server) as client:
        assert isinstance(client.messages.parse(output_format=Place, **asked).parsed_output, Place)
        with client.messages.stream(output_format=Place, **asked) as stream:
            assert isinstance(stream.get_final_message().parsed_output, Place)
        answer = client.messages.create(output_config={"format": wanted}, **asked)
        Place.model_validate_json(answer.content[0].text)
        body = asked | {"extra_body": {"output_format": wanted, "temperature": 1.0}}
        Place.model_validate_json(client.messages.create(**body).content[0].text)
        unknown = {"type": "object", "properties": {"x": {"not": {"const": 1}}}}
        with pytest.raises(anthropic.BadRequestError, match=r"output_config.format.schema: .*: simplify it'"):
            client.messages.create(output_config={"format": wanted | {"schema": unknown}}, **asked)
        with pytest.raises(anthropic.BadRequestError, match=r"output_format.schema: .*: simplify it'"):
            client.messages.create(**asked | {"extra_body": {"output_format": wanted | {"schema": unknown}}})
        begun = asked | {"messages": [*ASK, {"role": "assistant", "content": "{"}]}
        with pytest.raises(anthropic.BadRequestError, match="cannot be mixed"):
            client.messages.create(output_config={"format": wanted}, **begun)


def test_arguments_that_are_not_json_are_passed_on_as_they_are() -> None:
    events = (CallBegin(0, "functions.act:0", "act"), ArgumentsPart(0, '{"a":'), CallEnd(0))

    class Cut(Ready):
        model = "any"
        n = 1

        async def say(self, *, streamed: bool) -> AsyncGenerator[tuple[int, Said], None]:
            yield 0, Said(events, end=End("length"))

    answer = asyncio.run(whole(Cut()))
    assert answer["content"][0]["input"] == {"INVALID_JSON": '{"a":'} and answer["stop_reason"] == "max_tokens"
