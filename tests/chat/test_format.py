"""The K2 chat format: round trips, masks, and nothing smuggled through text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk2.chat import (
    DEFAULT_SYSTEM,
    Tokenizer,
    call_id,
    canonicalise,
    parse,
    parse_completion,
    render,
    tool_name,
)
from openk2.core import NANO_SYSTEM, Message, ToolCall, ToolSpec, UserError

WEATHER = ToolSpec(
    "get_weather",
    "Weather now",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
SPECIAL_NAMES = ["<|im_end|>", "<|im_user|>", "<|im_middle|>", "<|tool_calls_section_begin|>", "[PAD]", "[BOS]"]
DIALOG = [
    Message("system", "Be brief."),
    Message("user", "Weather in Oslo and Rome?"),
    Message(
        "assistant",
        "",
        (
            ToolCall("functions.get_weather:0", "get_weather", '{"city":"Oslo"}'),
            ToolCall("functions.get_weather:1", "get_weather", '{"city":"Rome"}'),
        ),
    ),
    Message("tool", '{"c":3}', tool_call_id="functions.get_weather:0"),
    Message("tool", '{"c":21}', tool_call_id="functions.get_weather:1"),
    Message("assistant", "3 in Oslo, 21 in Rome."),
]

text = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from([*SPECIAL_NAMES, "## Return of ", "\n", "tool", "é", " x_1 "]), max_size=5).map("".join),
)
names = st.one_of(
    st.none(), st.sampled_from(["system", "tool", "tool_declare", "user", "assistant", "", "ada"]), st.text(max_size=8)
)
function_names = st.one_of(
    st.sampled_from(["f", "a.b", "x:3", "functions.g", "lookup_city"]), st.text("abz_-.:9 ", min_size=1, max_size=8)
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=6,
)
arguments = st.one_of(
    text,
    st.dictionaries(text, json_values, max_size=3).map(json.dumps),
    st.dictionaries(text, json_values, max_size=3).map(lambda v: json.dumps(v, ensure_ascii=False, indent=1)),
)


@st.composite
def dialogs(draw: st.DrawFn) -> list[Message]:
    messages: list[Message] = []
    for _ in range(draw(st.integers(0, 6))):
        role = draw(st.sampled_from(["system", "user", "assistant", "assistant"]))
        calls: tuple[ToolCall, ...] = ()
        if draw(st.booleans()):
            calls = tuple(
                ToolCall(draw(st.sampled_from(["", "call_1", "call_2", "search:0"])), name, draw(arguments))
                for name in draw(st.lists(function_names, max_size=3))
            )
        messages.append(Message(role, draw(text), calls, name=draw(names)))
        if role == "assistant":
            answered = draw(st.permutations(calls))
            messages += [Message("tool", draw(text), tool_call_id=c.id, name=draw(names)) for c in answered]
    return messages


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dialogs())
def test_canonicalising_is_idempotent_and_canonical_messages_survive_the_round_trip(
    tokenizer: Tokenizer, dialog: list[Message]
) -> None:
    canonical = canonicalise(dialog, tokenizer)
    assert canonicalise(canonical, tokenizer) == canonical
    back = parse(render(canonical, [WEATHER], tokenizer=tokenizer).ids, tokenizer=tokenizer)
    assert back.messages == canonical
    assert back.tools == [WEATHER]
    assert back.malformed == {}


@settings(max_examples=200, deadline=None)
@given(text, text, text)
def test_text_never_becomes_structure(tokenizer: Tokenizer, user: str, result: str, name: str) -> None:
    messages = [
        Message("system", user),
        Message("user", user, name=name),
        Message("assistant", "", (ToolCall(user, "f", result),)),
        Message("tool", result, tool_call_id=user),
    ]
    plain = [
        Message("system", "a"),
        Message("user", "a"),
        Message("assistant", "", (ToolCall("a", "f", "a"),)),
        Message("tool", "a", tool_call_id="a"),
    ]

    def structure(dialog: list[Message]) -> list[int]:
        return [i for i in render(dialog, tokenizer=tokenizer).ids if i >= tokenizer.base_size]

    assert structure(messages) == structure(plain)


@pytest.mark.parametrize("kind", ["k2", "nano"])
def test_render_writes_the_k2_template(kind: str, tokenizer: Tokenizer, k2_like: Tokenizer) -> None:
    used, result = (k2_like, "tool") if kind == "k2" else (tokenizer, "get_weather")
    rendered = render(DIALOG, [WEATHER], tokenizer=used, add_generation_prompt=True)
    declaration = json.dumps([WEATHER.to_openai()], separators=(",", ":"))
    assert tokenizer.decode(rendered.ids) == (
        f"<|im_system|>tool_declare<|im_middle|>{declaration}<|im_end|>"
        "<|im_system|>system<|im_middle|>Be brief.<|im_end|>"
        "<|im_user|>user<|im_middle|>Weather in Oslo and Rome?<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|><|tool_calls_section_begin|>"
        '<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city":"Oslo"}<|tool_call_end|>'
        '<|tool_call_begin|>functions.get_weather:1<|tool_call_argument_begin|>{"city":"Rome"}<|tool_call_end|>'
        "<|tool_calls_section_end|><|im_end|>"
        f'<|im_system|>{result}<|im_middle|>## Return of functions.get_weather:0\n{{"c":3}}<|im_end|>'
        f'<|im_system|>{result}<|im_middle|>## Return of functions.get_weather:1\n{{"c":21}}<|im_end|>'
        "<|im_assistant|>assistant<|im_middle|>3 in Oslo, 21 in Rome.<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>"
    )
    said = tokenizer.decode([i for i, m in zip(rendered.ids, rendered.loss_mask, strict=True) if m])
    assert said.startswith("<|tool_calls_section_begin|>")
    assert said.endswith("<|tool_calls_section_end|><|im_end|>3 in Oslo, 21 in Rome.<|im_end|>")
    assert len(rendered.ids) == len(rendered.loss_mask)


def test_the_default_system_message_is_what_the_model_has_learned(tokenizer: Tokenizer, k2_like: Tokenizer) -> None:
    for used, tools, system in (
        (tokenizer, [WEATHER], NANO_SYSTEM), (tokenizer, [], DEFAULT_SYSTEM), (k2_like, [WEATHER], DEFAULT_SYSTEM)
    ):  # fmt: skip
        ids = render([{"role": "user", "content": "hi"}], tools, tokenizer=used).ids
        assert parse(ids, tokenizer=used).messages == [Message("system", system), Message("user", "hi")]


def test_openai_dicts_and_dataclasses_render_alike(tokenizer: Tokenizer) -> None:
    raw: list[dict[str, Any]] = [m.to_openai() for m in DIALOG]
    assert render(raw, [WEATHER.to_openai()], tokenizer=tokenizer) == render(DIALOG, [WEATHER], tokenizer=tokenizer)


def test_a_tool_given_as_a_dict_is_written_key_by_key(tokenizer: Tokenizer, k2_like: Tokenizer) -> None:
    raw = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {}, "description": "Do."}}
    said = tokenizer.decode(render([], [raw], tokenizer=k2_like).ids)
    assert said == f"<|im_system|>tool_declare<|im_middle|>[{json.dumps(raw, separators=(',', ':'))}]<|im_end|>"
    # Nano has learned one order.
    assert render([], [raw], tokenizer=tokenizer) == render([], [ToolSpec.from_openai(raw)], tokenizer=tokenizer)


def test_sampled_ids_are_used_verbatim(tokenizer: Tokenizer) -> None:
    # "hi" spelled byte by byte is not what the tokenizer would write.
    body = (*tokenizer.encode("h"), *tokenizer.encode("i"))
    whole = [Message("system", ""), Message("assistant", "hi", token_ids=(*body, tokenizer.eos_id))]
    cut = [Message("system", ""), Message("assistant", "hi", token_ids=body)]
    one, two = render(whole, tokenizer=tokenizer), render(cut, tokenizer=tokenizer)
    assert one.ids == two.ids
    assert one.ids[-3:] == [*body, tokenizer.eos_id]
    assert one.loss_mask[-3:] == [True, True, True]
    assert two.loss_mask[-3:] == [True, True, False]


def body_of(tokenizer: Tokenizer, message: Message) -> list[int]:
    rendered = render([message], tokenizer=tokenizer)
    return [i for i, m in zip(rendered.ids, rendered.loss_mask, strict=True) if m]


def test_a_cut_body_keeps_its_complete_calls_and_reports_the_rest(tokenizer: Tokenizer) -> None:
    body = body_of(tokenizer, Message("assistant", "Looking.", DIALOG[2].tool_calls))
    ends = [i for i, t in enumerate(body) if t == tokenizer.id("<|tool_call_end|>")]
    for cut in range(len(body) + 1):
        completion = parse_completion(body[:cut], tokenizer)
        complete = sum(end < cut for end in ends)
        assert completion.message.tool_calls == DIALOG[2].tool_calls[:complete]
        assert completion.message.token_ids == tuple(body[:cut])
        kept = tokenizer.decode(body[:cut]).removesuffix("<|im_end|>")
        if completion.malformed is not None:
            assert kept.endswith(completion.malformed)
        if (cut and cut - 1 in ends) or cut >= len(body) - 1:
            assert completion.malformed is None
        elif tokenizer.id("<|tool_calls_section_begin|>") in body[:cut]:
            assert completion.malformed


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_ids_can_be_read_as_a_completion(tokenizer: Tokenizer, data: st.DataObject) -> None:
    structure = list(tokenizer.specials.values())[:18]
    ids = data.draw(st.lists(st.one_of(st.sampled_from(structure), st.integers(0, tokenizer.vocab_size - 1))))
    completion = parse_completion(ids, tokenizer)
    assert all(c.name for c in completion.message.tool_calls)
    assert not any(name in completion.message.content for name in ("<|im_end|>", "<|tool_call_begin|>"))


@pytest.mark.parametrize(
    "bad",
    ["<|tool_call_begin|>f", "<|tool_calls_section_begin|><|tool_calls_section_end|>", "<|im_user|>user", "[PAD]"],
)
def test_structure_out_of_place_is_malformed(tokenizer: Tokenizer, bad: str) -> None:
    tokens = re.findall(r"<\|\w+\|>|\[PAD\]|\w+", bad)
    ids = tokenizer.encode("Sure. ")
    for token in tokens:
        ids += [tokenizer.specials[token]] if token in tokenizer.specials else tokenizer.encode(token)
    completion = parse_completion([*ids, tokenizer.eos_id], tokenizer)
    assert completion.message.content == "Sure. "
    assert completion.message.tool_calls == ()
    assert completion.malformed == bad


def test_foreign_histories_become_canonical() -> None:
    foreign = [
        {"role": "user", "content": "go", "name": "user"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_9", "type": "function", "function": {"name": "search", "arguments": '{ "q": "a" }'}},
                {"id": "call_x", "type": "function", "function": {"name": "search", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_x", "content": "two"},
        {"role": "tool", "content": "one"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "call_9", "function": {"name": "open", "arguments": {"n": 1}}}],
        },
        {"role": "tool", "tool_call_id": "call_9", "content": "three"},
    ]
    assert canonicalise(foreign) == [
        Message("system", DEFAULT_SYSTEM),
        Message("user", "go"),
        Message(
            "assistant",
            "",
            (
                ToolCall("functions.search:0", "search", '{"q":"a"}'),
                ToolCall("functions.search:1", "search", "{}"),
            ),
        ),
        Message("tool", "two", tool_call_id="functions.search:1"),
        Message("tool", "one", tool_call_id="functions.search:0"),
        Message("assistant", "", (ToolCall("functions.open:2", "open", '{"n":1}'),)),
        Message("tool", "three", tool_call_id="functions.open:2"),
    ]


@pytest.mark.parametrize("arguments", ['{"a":1e999}', '{"a": [-1e400]}', '{"a":NaN}', '{"a": Infinity}'])
def test_numbers_that_json_cannot_hold_stay_as_written(arguments: str) -> None:
    call = {"id": "x", "function": {"name": "f", "arguments": arguments}}
    canonical = canonicalise([{"role": "assistant", "tool_calls": [call]}])
    assert canonical[-1].tool_calls[0].arguments == arguments
    assert canonicalise(canonical) == canonical


def test_canonicalising_keeps_sampled_ids_of_unchanged_messages() -> None:
    said = Message("assistant", "ok", token_ids=(1, 2))
    called = Message("assistant", "", (ToolCall("call_1", "f", "{}"),), token_ids=(3, 4))
    _, first, second = canonicalise([Message("system", "s"), said, called])
    assert first is said or first == said
    assert second.token_ids is None


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "tool", "content": "x", "tool_call_id": "nope"}], "answers no call"),
        ([{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": ""}}]}], "one-line name"),
        ([{"role": "robot", "content": "x"}], "unknown"),
    ],
)
def test_what_cannot_be_canonical_is_refused(messages: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        canonicalise(messages)


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("functions.f:0", "f"),
        ("functions.a.b:12", "a.b"),
        ("functions.x:3:0", "x:3"),
        ("search:0", "search"),
        ("functions.f", "f"),
        ("f", "f"),
        ("functions.:0", ""),
    ],
)
def test_names_are_read_from_call_ids(identifier: str, name: str) -> None:
    assert tool_name(identifier) == name


def test_call_ids_are_k2s() -> None:
    assert call_id("f", 3) == "functions.f:3"


def test_broken_ids_are_refused_with_their_position(tokenizer: Tokenizer) -> None:
    good = render(DIALOG, tokenizer=tokenizer).ids
    with pytest.raises(UserError, match="token 0"):
        parse(good[1:], tokenizer=tokenizer)
    with pytest.raises(UserError, match="im_middle"):
        parse(good[:2], tokenizer=tokenizer)


def test_a_generation_prompt_parses_to_no_message(tokenizer: Tokenizer) -> None:
    ids = render(DIALOG, tokenizer=tokenizer, add_generation_prompt=True).ids
    assert parse(ids, tokenizer=tokenizer).messages == canonicalise(DIALOG, tokenizer)


def test_a_malformed_assistant_turn_is_kept_and_reported(tokenizer: Tokenizer) -> None:
    body = body_of(tokenizer, DIALOG[2])[:4]
    messages = [Message("system", "s"), Message("assistant", token_ids=tuple(body))]
    back = parse(render(messages, tokenizer=tokenizer).ids, tokenizer=tokenizer)
    assert back.messages == [Message("system", "s"), Message("assistant", "")]
    assert back.malformed == {1: tokenizer.decode(body)}


def test_lone_surrogates_are_a_clear_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"lone surrogate \(U\+D800 at character 3\)"):
        render([Message("user", "abc\ud800")], tokenizer=tokenizer)
