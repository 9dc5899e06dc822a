"""A saved tokenizer folder gives transformers the same ids: text, and whole conversations through the chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from openk2.chat import Tokenizer, canonicalise, render
from openk2.core import Message, ToolCall, ToolSpec

transformers = pytest.importorskip("transformers", reason="the parity extra is not installed")

TOOLS = [
    ToolSpec(
        "book_flight",
        'Books a flight; "quoted", <b>é</b>',
        {
            "type": "object",
            "properties": {
                "to": {"type": "string", "enum": ["Oslo", "Zürich"]},
                "seats": {"type": "integer", "minimum": 1},
                "extra": {"type": "object", "properties": {"meal": {"type": ["string", "null"], "default": None}}},
            },
            "required": ["to"],
        },
    ),
    ToolSpec("now", "", {"type": "object", "properties": {}}),
]
text = st.text(max_size=30)


@pytest.fixture(scope="module", params=["nano", "k2"])
def ours(request: pytest.FixtureRequest, tokenizer: Tokenizer, k2_like: Tokenizer) -> Tokenizer:
    return tokenizer if request.param == "nano" else k2_like


@pytest.fixture(scope="module", params=["alone", "beside a model"])
def peer(request: pytest.FixtureRequest, ours: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    ours.save(folder)
    if request.param == "beside a model":
        config = {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]}
        (folder / "config.json").write_text(json.dumps(config))
    return transformers.AutoTokenizer.from_pretrained(folder)


def named_first(tool: ToolSpec) -> dict[str, Any]:
    """As most clients declare it."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


@st.composite
def dialogs(draw: st.DrawFn) -> list[Message]:
    messages = [Message("user", draw(text))]
    if draw(st.booleans()):
        messages.insert(0, Message("system", draw(text)))
    for _ in range(draw(st.integers(0, 2))):
        values = draw(st.lists(st.dictionaries(text, st.one_of(text, st.integers(), st.booleans())), max_size=2))
        calls = tuple(ToolCall(f"call_{i}", "book_flight", json.dumps(v)) for i, v in enumerate(values))
        messages.append(Message("assistant", draw(text), calls))
        messages += [Message("tool", draw(text), tool_call_id=c.id, name=draw(st.none() | text)) for c in calls]
        messages.append(Message("user", draw(text)))
    # Without names, ids and a system message of its own, as clients send it, or as a model has learned it.
    return canonicalise(messages)[draw(st.integers(0, 1)) :]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dialogs(), st.booleans(), st.booleans())
def test_apply_chat_template_gives_the_ids_of_render(
    peer: Any, ours: Tokenizer, dialog: list[Message], with_tools: bool, prompt: bool
) -> None:
    tools = [named_first(tool) for tool in TOOLS] if with_tools else None
    rendered = render(dialog, tools, tokenizer=ours, add_generation_prompt=prompt)
    # Only transformers reads special strings in text as structure.
    said = repr([m.to_openai() for m in dialog])
    assume(not any(name in said for name in ours.specials))
    theirs = peer.apply_chat_template(
        [m.to_openai() for m in dialog],
        tools=tools,
        add_generation_prompt=prompt,
        return_dict=False,
    )
    assert theirs == rendered.ids


def test_the_template_takes_missing_content_text_parts_and_object_arguments(peer: Any, ours: Tokenizer) -> None:
    raw: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "to "}, {"type": "text", "text": "Oslo"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "functions.book_flight:0",
                    "type": "function",
                    "function": {
                        "name": "book_flight",
                        "arguments": {"to": "Zürich", "seats": 2, "extra": {"x": [1.5]}},
                    },
                }
            ],
        },
        {"role": "tool", "tool_call_id": "functions.book_flight:0", "content": "ok"},
    ]
    assert peer.apply_chat_template(raw, return_dict=False) == render(raw, tokenizer=ours).ids


def test_transformers_knows_the_special_tokens(peer: Any, ours: Tokenizer) -> None:
    assert len(peer) == ours.vocab_size
    assert (peer.bos_token_id, peer.eos_token_id, peer.pad_token_id) == (
        ours.bos_id,
        ours.eos_id,
        ours.pad_id,
    )


@settings(max_examples=100, deadline=None)
@given(text)
def test_text_has_the_same_ids(peer: Any, ours: Tokenizer, plain: str) -> None:
    assume(not any(name in plain for name in ours.specials))
    ids = ours.encode(plain)
    assert peer.encode(plain, add_special_tokens=False) == ids
    assert peer.decode(ids) == plain
