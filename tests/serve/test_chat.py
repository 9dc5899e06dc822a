"""OpenAI's chat route, with OpenAI's own client and without it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

openai = pytest.importorskip("openai")

PATH = "/v1/chat/completions"
Tools = list[dict[str, Any]]


def folded(chunks: list[Any]) -> dict[int, dict[str, Any]]:
    """What a client makes of a stream, per choice."""
    out: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            kept = out.setdefault(
                choice["index"], {"content": "", "calls": [], "finish": None, "ids": [], "logprobs": []}
            )
            assert kept["finish"] is None, "nothing comes behind the end"
            delta = choice["delta"]
            kept["content"] += delta.get("content") or ""
            for call in delta.get("tool_calls", []):
                if call["index"] == len(kept["calls"]):
                    kept["calls"].append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
                kept["calls"][call["index"]]["arguments"] += call["function"]["arguments"]
            kept["finish"] = choice["finish_reason"]
            kept["ids"] += choice.get("token_ids", [])
            kept["logprobs"] += (choice.get("logprobs") or {}).get("content", [])
    return out


def told(choice: dict[str, Any]) -> dict[str, Any]:
    """The same of a whole answer."""
    message = choice["message"]
    return {
        "content": message.get("content") or "",
        "calls": [{"id": c["id"], **c["function"]} for c in message.get("tool_calls", [])],
        "finish": choice["finish_reason"],
        "ids": choice.get("token_ids", []),
        "logprobs": (choice.get("logprobs") or {}).get("content", []),
    }


def assert_calls_are_good(told: dict[str, Any], tools: Tools, first: int = 0) -> None:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    for index, call in enumerate(told["calls"], first):
        assert call["id"] == f"functions.{call['name']}:{index}"
        Draft202012Validator(schemas[call["name"]]).validate(json.loads(call["arguments"]))
    if told["calls"]:
        assert told["finish"] == "tool_calls"
    assert "<|tool_call" not in told["content"]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    max_tokens=st.integers(1, 120),
    choice=st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "order"}}]),
    parallel=st.booleans(),
    stop=st.lists(st.sampled_from(["e", " t", "on", "zz"]), max_size=2),
    logprobs=st.booleans(),
)
def test_streamed_and_whole_are_the_same(random_server: Any, tools: Tools, **fields: Any) -> None:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "order something"}],
        "tools": tools,
        "seed": fields["seed"],
        "temperature": fields["temperature"],
        "max_tokens": fields["max_tokens"],
        "tool_choice": fields["choice"],
        "parallel_tool_calls": fields["parallel"],
        "stop": fields["stop"],
        "logprobs": fields["logprobs"],
        "return_token_ids": True,
    }
    answer = random_server.http.post(PATH, json=body)
    if answer.status_code == 400:
        assert fields["choice"] not in ("auto", "none") and "raise max_tokens" in answer.text
        return
    (choice,) = answer.json()["choices"]
    whole = told(choice)
    chunks = random_server.chunks(PATH, body | {"stream_options": {"include_usage": True}})
    streamed = folded(chunks)[0]
    logprobs = [pytest.approx(entry["logprob"], abs=1e-3) for entry in whole.pop("logprobs")]
    assert [entry["logprob"] for entry in streamed.pop("logprobs")] == logprobs
    assert streamed == whole
    usage = answer.json()["usage"]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == usage["total_tokens"]
    assert usage["completion_tokens"] == len(whole["ids"]) <= fields["max_tokens"]
    assert_calls_are_good(whole, tools)
    if fields["choice"] not in ("auto", "none"):
        assert whole["calls"] and (fields["parallel"] or len(whole["calls"]) == 1)
    if fields["choice"] == "none":
        assert not whole["calls"]
    assert not any(stop in whole["content"] for stop in fields["stop"])


def test_many_at_once_are_as_one_by_one(random_server: Any, tools: Tools) -> None:
    bodies = [
        {"messages": [{"role": "user", "content": f"request {i}"}], "tools": tools, "seed": i, "temperature": 1.0,
         "max_tokens": 60, "tool_choice": "required" if i % 2 else "auto"}
        for i in range(24)
    ]  # fmt: skip
    alone = [told(random_server.post(PATH, body)["choices"][0]) for body in bodies]

    async def together() -> list[dict[str, Any]]:
        async with openai.AsyncOpenAI(base_url=f"{random_server.url}/v1", api_key="none") as client:

            async def one(i: int, body: dict[str, Any]) -> dict[str, Any]:
                if i % 3 == 0:
                    chunks = [c.model_dump() async for c in await client.chat.completions.create(
                        model="any", stream=True, **body)]  # fmt: skip
                    for chunk in chunks:
                        for choice in chunk["choices"]:
                            choice["delta"]["tool_calls"] = choice["delta"]["tool_calls"] or []
                    return folded(chunks)[0]
                answer = await client.chat.completions.create(model="any", **body)
                return told(answer.choices[0].model_dump(exclude_none=True))

            return await asyncio.gather(*(one(i, body) for i, body in enumerate(bodies)))

    for got, wanted in zip(asyncio.run(together()), alone, strict=True):
        assert (got["content"], got["calls"], got["finish"]) == (wanted["content"], wanted["calls"], wanted["finish"])


def test_a_tool_loop_with_the_real_client(nano_server: Any, tools: Tools) -> None:
    with openai.OpenAI(base_url=f"{nano_server.url}/v1", api_key="none") as client:
        assert client.models.list().data[0].id == client.models.retrieve(nano_server.name).id == "openk2-nano"
        messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
        first = client.chat.completions.create(model="openk2-nano", messages=messages, tools=tools[:1])
        assert first.choices[0].finish_reason == "tool_calls"
        (call,) = first.choices[0].message.tool_calls
        assert (call.id, json.loads(call.function.arguments)) == ("functions.get_weather:0", {"city": "Paris"})
        messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        second = client.chat.completions.create(model="openk2-nano", messages=messages, tools=tools[:1])
        assert second.choices[0].finish_reason == "stop" and "sunny" in second.choices[0].message.content
        cached = second.usage.prompt_tokens_details.cached_tokens
        assert first.usage.prompt_tokens < cached < second.usage.prompt_tokens
        # The helper that adds chunks up.
        with client.chat.completions.stream(model="openk2-nano", messages=messages[:1], tools=tools[:1]) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.tool_calls[0].function.arguments == call.function.arguments


def test_foreign_ids_and_names_are_mapped(random_server: Any) -> None:
    tool = {"type": "function", "function": {"name": "a.b", "parameters": {"type": "object", "properties": {}}}}
    past = {"id": "call_xyz", "type": "function", "function": {"name": "a.b", "arguments": '{ "x": 1}'}}
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [past]},
        {"role": "tool", "tool_call_id": "call_xyz", "content": "done"},
    ]
    ids = random_server.post("/tokenize", {"messages": messages, "tools": [tool]})["tokens"]
    text = random_server.post("/v1/completions", {"prompt": ids, "echo": True, "max_tokens": 0})["choices"][0]["text"]
    assert 'functions.a_b:0<|tool_call_argument_begin|>{"x":1}' in text
    assert "## Return of functions.a_b:0\ndone" in text and '"name":"a_b"' in text and "call_xyz" not in text
    body = {"messages": messages, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    (call,) = random_server.post(PATH, body)["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "a.b" and call["id"] == "functions.a_b:1"
    named = body | {"tool_choice": {"type": "function", "function": {"name": "a.b"}}}
    assert random_server.post(PATH, named)["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "a.b"


def test_a_partial_message_is_continued(random_server: Any) -> None:
    messages = [{"role": "user", "content": "tell"}, {"role": "assistant", "content": "Once upon", "partial": True}]
    ids = random_server.post("/tokenize", {"messages": messages})["tokens"]
    whole = random_server.post("/tokenize", {"messages": messages[:1]})["tokens"]
    assert ids[: len(whole)] == whole and len(ids) > len(whole)
    body = {"messages": messages, "max_tokens": 5, "temperature": 0, "return_token_ids": True}
    answer = random_server.post(PATH, body)
    assert answer["prompt_token_ids"] == ids
    assert not answer["choices"][0]["message"]["content"].startswith("Once upon")


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {
            "a": {"type": "integer"}, "b": {"type": "array", "items": {"enum": ["é", "y"]}}}, "required": ["a", "b"]}}},
    ],
)  # fmt: skip
def test_answers_in_json(random_server: Any, wanted: dict[str, Any]) -> None:
    for seed in range(5):
        body = {"messages": [{"role": "user", "content": "JSON please"}], "response_format": wanted, "seed": seed,
                "temperature": 1.0, "max_tokens": 40}  # fmt: skip
        choice = random_server.post(PATH, body)["choices"][0]
        value = json.loads(choice["message"]["content"])
        assert choice["finish_reason"] == "stop" and isinstance(value, dict)
        if "schema" in wanted.get("json_schema", {}):
            Draft202012Validator(wanted["json_schema"]["schema"]).validate(value)


def test_choices_differ_and_a_seed_repeats_them(random_server: Any) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "n": 3, "temperature": 1.0, "max_tokens": 12, "seed": 5}
    first, second = (random_server.post(PATH, body) for _ in range(2))
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert [choice["message"]["content"] for choice in second["choices"]] == texts
    assert len(set(texts)) == 3
    assert {i: kept["content"] for i, kept in folded(random_server.chunks(PATH, body)).items()} == dict(
        enumerate(texts)
    )
    del body["seed"]
    assert random_server.post(PATH, body)["choices"][0]["message"] != first["choices"][0]["message"]


def test_logprobs_name_the_likeliest(random_server: Any) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "top_logprobs": 3, "max_tokens": 6,
            "temperature": 0, "tool_choice": "none"}  # fmt: skip
    choice = random_server.post(PATH, body)["choices"][0]
    content = choice["logprobs"]["content"]
    said = bytes(byte for entry in content for byte in entry["bytes"] if not entry["token"].startswith("<|"))
    assert said.decode("utf-8", "replace") == choice["message"]["content"]
    for entry in content:
        assert len(entry["top_logprobs"]) == 3
        values = [top["logprob"] for top in entry["top_logprobs"]]
        assert values == sorted(values, reverse=True)


def test_token_ids_score_as_they_were_sampled(random_server: Any) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "max_tokens": 8, "seed": 1,
            "temperature": 1.0, "return_token_ids": True}  # fmt: skip
    answer = random_server.post(PATH, body)
    prompt, said = answer["prompt_token_ids"], answer["choices"][0]["token_ids"]
    logprobs = [entry["logprob"] for entry in answer["choices"][0]["logprobs"]["content"]]
    scored = random_server.post(
        "/v1/completions", {"prompt": prompt + said, "echo": True, "logprobs": 0, "max_tokens": 0}
    )["choices"][0]["logprobs"]["token_logprobs"]
    assert scored[0] is None
    assert scored[len(prompt) :] == pytest.approx(logprobs, abs=1e-3)
