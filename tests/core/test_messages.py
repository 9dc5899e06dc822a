"""Messages from outside: what does not fit is named, whatever it is."""

from typing import Any

import pytest

from openk2.core import Message, ToolCall, UserError


def test_an_openai_message_comes_back_as_it_was() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for raw in (
        {"role": "user", "content": "hi", "name": "ada"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "x", "tool_call_id": "a"},
    ):
        assert Message.from_openai(raw).to_openai() == raw


def test_arguments_may_be_an_object() -> None:
    raw = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1]}}}]}
    assert Message.from_openai(raw).tool_calls == (ToolCall("", "f", '{"a":[1]}'),)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tool_calls": ["x"]}, "a tool call must be .* got x"),
        ({"tool_calls": [None]}, "a tool call must be"),
        ({"tool_calls": [{"function": "f"}]}, "a tool call must be"),
        ({"tool_calls": [{}]}, "a tool call must be"),
        ({"tool_calls": 5}, "tool_calls must be a list, not int"),
        ({"tool_calls": {"function": {}}}, "tool_calls must be a list, not dict"),
        ({"tool_calls": [{"function": {"name": 3}}]}, "name must be text, not int"),
        ({"tool_calls": [{"id": ["a"], "function": {"name": "f"}}]}, "id must be text, not list"),
        ({"tool_call_id": 7}, "tool_call_id must be text, not int"),
        ({"name": {}}, "name must be text, not dict"),
        ({"content": 5}, "content must be text"),
        ({"role": ["user"]}, "role .* is unknown"),
    ],
)
def test_what_does_not_fit_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Message.from_openai({"role": "assistant", **fields})


def test_arguments_that_are_nested_too_deeply_are_no_object() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        ToolCall("1", "deep", '{"a":' * 100_000 + "1" + "}" * 100_000).parsed()
