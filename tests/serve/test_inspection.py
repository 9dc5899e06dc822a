"""A look at a finished generation agrees with how it was generated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from openk2.chat import Tokenizer, render
from openk2.core import Message, ToolSpec, UserError
from openk2.engine import Engine, Request
from openk2.model import Transformer
from openk2.serve.inspection import Inspector

TOOLS = (
    ToolSpec("pick", "", {"type": "object", "properties": {"way": {"enum": ["north", "süd"]}}, "required": ["way"]}),
    ToolSpec("note", "", {"type": "object", "properties": {"text": {"type": "string"}}}),
)


@pytest.fixture(scope="module")
def engine(small_model: Transformer, tokenizer: Tokenizer) -> Engine:
    return Engine(small_model, tokenizer)


@pytest.fixture(scope="module")
def request_(tokenizer: Tokenizer) -> Request:
    messages = [Message("system", "s"), Message("user", "hello")]
    prompt = tuple(render(messages, tokenizer=tokenizer, add_generation_prompt=True).ids)
    return Request(prompt, max_tokens=30, temperature=1.0, tools=TOOLS, top_logprobs=5)


@torch.inference_mode()
def before_a_tie(model: Transformer, request: Request, ids: tuple[int, ...]) -> int:
    """How many of the ids come before two experts of random weights are so near to each other that the order in which
    floats are added decides between them."""
    near: list[torch.Tensor] = []

    def look(gate: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        score_NE = (inputs[0] @ gate.weight.T).sigmoid() + gate.e_score_correction_bias
        best_NE = score_NE.sort(-1, descending=True)[0]
        near.append(best_NE[:, gate.num_experts_per_tok - 1] - best_NE[:, gate.num_experts_per_tok] < 1e-5)

    hooks = [moe.gate.register_forward_hook(look) for moe in model.moe_layers()]
    model.hidden(torch.tensor([[*request.prompt_ids, *ids]]))
    for hook in hooks:
        hook.remove()
    tied = torch.stack(near).any(0)[len(request.prompt_ids) - 1 : -1].tolist()
    return tied.index(True) if True in tied else len(ids)


def test_likelihoods_and_choices_are_those_of_the_generation(engine: Engine, request_: Request) -> None:
    inspector = Inspector(engine)
    # Where there is little room calls are led to their end, and that too has to be followed.
    requests = [
        replace(request_, seed=seed, must_call=seed % 2 == 0, max_tokens=most)
        for seed in range(12)
        for most in (1 if seed % 2 else 25, 30, 50)
    ]
    forced = compared = 0
    for request, done in zip(requests, engine.generate(requests), strict=True):
        found = inspector.inspect(request, done.ids)
        assert tuple(one.id for one in found) == done.ids
        sure = before_a_tie(engine.model, request, done.ids)
        compared += sure
        assert [one.logprob for one in found[:sure]] == pytest.approx(done.logprobs[:sure], abs=1e-4)
        for one, top in zip(found[:sure], done.top_logprobs[:sure], strict=True):
            assert [logprob for _, logprob in one.top] == pytest.approx([logprob for _, logprob in top], abs=1e-4)
        assert all(1 <= one.allowed <= engine.grammar.tokenizer.vocab_size for one in found)
        forced += sum(one.allowed == 1 for one in found)
        if request.must_call:
            assert found[0].allowed == found[1].allowed == 1  # the section and the first call begin
        elif len(found) > 1:
            assert found[0].allowed > 100
    assert forced > 100 and compared > 500


def test_experts_are_those_of_the_position_before(engine: Engine, request_: Request) -> None:
    ids = engine.generate([request_])[0].ids
    inspector = Inspector(engine)
    found = inspector.inspect(request_, ids)
    seen: list[torch.Tensor] = []
    hooks = [
        moe.gate.register_forward_hook(lambda module, inputs, output: seen.append(output[1]))
        for moe in engine.model.moe_layers()
    ]
    with torch.inference_mode():
        engine.model.hidden(torch.tensor([[*request_.prompt_ids, *ids]]))
    for hook in hooks:
        hook.remove()
    assert len(inspector.layers) == len(seen) > 0
    for place, one in enumerate(found, len(request_.prompt_ids) - 1):
        assert [set(used) for used in one.experts] == [set(layer[place].tolist()) for layer in seen]


def test_the_engine_is_left_alone(engine: Engine, request_: Request) -> None:
    before = len(list(engine.model.modules()))
    inspector = Inspector(engine)
    inspector.inspect(request_, engine.generate([request_])[0].ids)
    assert not any(module._forward_hooks for module in engine.model.modules())
    assert len(list(engine.model.modules())) == before
    theirs: Any = inspector._model
    for name, tensor in engine.model.state_dict().items():
        assert theirs.state_dict()[name].data_ptr() == tensor.data_ptr()


def test_ids_that_cannot_be_are_refused(engine: Engine, request_: Request) -> None:
    inspector = Inspector(engine)
    for ids, words in (
        ([], "there are 0 ids, and the completion has 1 to 30"),
        ([1] * 31, "there are 31 ids, and the completion has 1 to 30"),
        ([1, engine.config.vocab_size], f"number 1, id {engine.config.vocab_size}, cannot come there"),
        ([engine.tokenizer.eos_id, 1], "number 1, id 1, cannot come there"),
        ([engine.grammar.call_begin], "cannot come there"),
    ):
        with pytest.raises(UserError, match=words):
            inspector.inspect(request_, ids)
