"""The compiled step computes what the model does."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch

from openk2.chat import Tokenizer
from openk2.core import ToolSpec, UserError
from openk2.engine import Engine, Request
from openk2.model import ModelConfig, Transformer

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: nothing can be compiled")
SEARCH = ToolSpec("search", "", {"type": "object", "properties": {"words": {"type": "string"}}})


def made(changes: dict[str, Any]) -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig.build(ModelConfig.preset("test").model_dump() | changes, where="test")).eval()


@needs_compiler
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="k2"),
        pytest.param(
            {"q_lora_rank": None, "n_group": 4, "topk_group": 2, "n_routed_experts": 8, "first_k_dense_replace": 0},
            id="no query latent, groups of experts, no dense layer",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_compiled_engine_says_the_same(tokenizer: Tokenizer, changes: dict[str, Any]) -> None:
    model = made(changes)
    plain, compiled = Engine(model, tokenizer), Engine(model, tokenizer, compiled=True)
    prompt = tuple(tokenizer.encode("def search(words):"))
    requests = [
        Request(prompt, 40),
        Request((prompt[0],), 12, temperature=1.0, seed=3),
        Request(prompt, 60, temperature=0.8, tools=(SEARCH,), must_call=True),
    ]
    # Alone, and then together, where one outlives the others.
    for group in ([requests[0]], [requests[1]], [requests[2]], requests):
        for a, b in zip(plain.generate(group), compiled.generate(group), strict=True):
            assert a.ids == b.ids
            assert b.logprobs == pytest.approx(a.logprobs, abs=1e-3)


@needs_compiler
def test_beside_a_prompt_that_is_read_in_pieces(tokenizer: Tokenizer) -> None:
    """Rows whose prompt is not read yet take part in the step and gain nothing by it."""
    model = made({})
    ids = tokenizer.encode("def search(words, more): return [word for word in words if word in more]")
    requests = [Request(tuple(ids[:9]), 30), Request(tuple(ids * 3), 20), Request(tuple(ids[3:8]), 25)]

    def answers(compiled: bool) -> list[tuple[int, ...]]:
        batch = Engine(model, tokenizer, compiled=compiled, prefill_chunk=4).batch()
        done: dict[int, tuple[int, ...]] = {}
        for request in requests:
            batch.add(request)
            done |= {index: generation.ids for index, generation in batch.step()}
        while batch.busy:
            done |= {index: generation.ids for index, generation in batch.step()}
        return [done[index] for index in range(len(requests))]

    assert answers(compiled=True) == answers(compiled=False)


@needs_compiler
def test_up_to_the_last_position(tokenizer: Tokenizer) -> None:
    model = made({"max_position_embeddings": 24})
    request = Request(tuple(tokenizer.encode("def search(words, more):"))[:6], 100)
    one, other = (Engine(model, tokenizer, compiled=on).generate([request])[0] for on in (False, True))
    assert one.ids == other.ids and len(one.ids) == 18


@needs_compiler
def test_a_compiler_that_fails_is_one_sentence(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such compiler\nat all")

    monkeypatch.setattr("openk2.engine.compiled._layer", broken)
    with pytest.raises(UserError, match="cannot be compiled here"):
        Engine(made({}), tokenizer, compiled=True)
