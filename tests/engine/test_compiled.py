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


@pytest.fixture(
    scope="module",
    params=[
        pytest.param({}, id="k2"),
        pytest.param(
            {"q_lora_rank": None, "n_group": 4, "topk_group": 2, "n_routed_experts": 8, "first_k_dense_replace": 0},
            id="no query latent, groups of experts, no dense layer",
            marks=pytest.mark.slow,
        ),
    ],
)
def engines(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> tuple[Engine, Engine]:
    """Of one model, compiled and not: to compile takes longest."""
    model = made({"max_position_embeddings": 160} | request.param)
    plain, compiled = (Engine(model, tokenizer, compiled=on, prefill_chunk=4) for on in (False, True))
    return plain, compiled


@needs_compiler
def test_a_compiled_engine_says_the_same(engines: tuple[Engine, Engine], tokenizer: Tokenizer) -> None:
    plain, compiled = engines
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
def test_beside_a_prompt_that_is_read_in_pieces(engines: tuple[Engine, Engine], tokenizer: Tokenizer) -> None:
    """Rows whose prompt is not read yet take part in the step and gain nothing by it."""
    ids = tokenizer.encode("def search(words, more): return [word for word in words if word in more]")
    requests = [Request(tuple(ids[:9]), 30), Request(tuple(ids * 3), 20), Request(tuple(ids[3:8]), 25)]

    def answers(engine: Engine) -> list[tuple[int, ...]]:
        batch = engine.batch()
        done: dict[int, tuple[int, ...]] = {}
        for request in requests:
            batch.add(request)
            done |= {index: generation.ids for index, generation in batch.step()}
        while batch.busy:
            done |= {index: generation.ids for index, generation in batch.step()}
        return [done[index] for index in range(len(requests))]

    plain, compiled = engines
    assert answers(compiled) == answers(plain)


@needs_compiler
def test_up_to_the_last_position(engines: tuple[Engine, Engine], tokenizer: Tokenizer) -> None:
    request = Request(tuple(tokenizer.encode("def search(words, more):"))[:6], 1000)
    one, other = (engine.generate([request])[0] for engine in engines)
    assert one.ids == other.ids and len(one.ids) == 154


@needs_compiler
def test_a_compiler_that_fails_is_one_sentence(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such compiler\nat all")

    monkeypatch.setattr("openk2.engine.compiled._layer", broken)
    with pytest.raises(UserError, match="cannot be compiled here"):
        Engine(made({}), tokenizer, compiled=True)
