"""The objective: what is computed fast equals what the report says, in value and gradient, and finite differences."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from openk2.model import ModelConfig, Transformer
from openk2.rl.episodes import TokenSequence
from openk2.rl.objective import PolicyLoss, Sample, micro_batches, reference_objective

TAU = 0.3
Groups = list[tuple[list[list[TokenSequence]], list[float]]]


def tiny() -> Transformer:
    torch.manual_seed(0)
    names: dict[str, int | None] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = ModelConfig.preset(
        "test", vocab_size=32, hidden_size=16, num_hidden_layers=2, intermediate_size=32, moe_intermediate_size=8,
        n_routed_experts=4, **names,
    )  # fmt: skip
    return Transformer(config)


def sequence(rng: random.Random, length: int) -> TokenSequence:
    said = tuple(i == 4 or (i > 2 and rng.random() < 0.6) for i in range(length))
    logprobs = tuple(-rng.random() * 5 if one else float("nan") for one in said)
    return TokenSequence(tuple(rng.randrange(32) for _ in range(length)), said, logprobs)


def after(prompt: Sequence[int], sequence: TokenSequence) -> TokenSequence:
    """The same with a prompt before it."""
    silent = len(prompt)
    return TokenSequence(
        (*prompt, *sequence.ids), (*[False] * silent, *sequence.said), (*[math.nan] * silent, *sequence.logprobs)
    )


def groups() -> Groups:
    """Four groups of four episodes of one or two sequences; two of the groups have a common prompt."""
    rng = random.Random(0)
    made: Groups = []
    for prompt in ((), (), (5, 6, 7), tuple(range(20))):
        episodes = [
            [after(prompt, sequence(rng, rng.randint(5, 14))) for _ in range(rng.randint(1, 2))] for _ in range(4)
        ]
        made.append((episodes, [rng.random() for _ in range(4)]))
    return made


def samples(made: Groups) -> list[Sample]:
    return [
        Sample(tuple(sequences), reward - sum(rewards) / len(rewards), number)
        for number, (episodes, rewards) in enumerate(made)
        for sequences, reward in zip(episodes, rewards, strict=True)
    ]


@pytest.mark.parametrize("micro_tokens", [1, 40, 10_000])
def test_fast_equals_the_reference_in_value_and_gradient(micro_tokens: int) -> None:
    model = tiny()
    exact = copy.deepcopy(model)
    wanted = reference_objective(exact, groups(), TAU)
    wanted.backward()
    total = 0.0
    made = samples(groups())
    for batch in micro_batches(made, micro_tokens):
        loss, _ = PolicyLoss(model, TAU)(batch)
        (loss / len(made)).backward()
        total += loss.item() / len(made)
    assert total == pytest.approx(wanted.item(), rel=1e-5)
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Along each parameter's own gradient, where the slope is its norm."""
    model = tiny()
    made = groups()
    reference_objective(model, made, TAU).backward()
    checked = 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        norm = parameter.grad.norm()
        if norm < 0.05:
            continue
        direction, values = parameter.grad / norm, []
        before = parameter.detach().clone()
        for step in (5e-3, -5e-3):
            with torch.no_grad():
                parameter.copy_(before + step * direction)
                values.append(reference_objective(model, made, TAU).item())
        with torch.no_grad():
            parameter.copy_(before)
        assert (values[0] - values[1]) / 1e-2 == pytest.approx(norm.item(), rel=0.02), name
        checked += 1
    assert checked > 10


def test_what_others_said_is_not_learned() -> None:
    """Only positions whose next id the policy said are targets."""
    made = Sample(
        (TokenSequence((1, 2, 3, 4, 5), (False, False, True, False, True), (0.0, 0.0, -1.0, 0.0, -2.0)),), 0.5
    )
    (batch,) = micro_batches([made], 100)
    assert batch.ids_T.tolist() == [1, 2, 3, 4]
    assert batch.targets_T.tolist() == [-100, 3, -100, 5]
    assert batch.old_N.tolist() == [-1.0, -2.0]
    assert batch.old_E.tolist() == [-3.0]


def test_where_the_policy_is_still_the_one_that_sampled_only_the_advantage_is_left() -> None:
    model = tiny()
    made = samples(groups())
    total = 0.0
    for batch in micro_batches(made, 10_000):
        _, now_N = PolicyLoss(model, TAU)(batch)
        now_E = torch.zeros_like(batch.old_E).index_add(0, batch.owner_N, now_N)
        loss, _ = PolicyLoss(model, TAU)(replace(batch, old_N=now_N, old_E=now_E))
        total += loss.item()
    assert total == pytest.approx(sum(sample.advantage**2 for sample in made), rel=1e-5)


def test_the_prompt_of_a_group_is_computed_once() -> None:
    *_, last = micro_batches(samples(groups()), 10_000)
    assert last.branches.stem >= 20 - 1
    sequences = [s for sample in samples(groups()) if sample.group == 3 for s in sample.sequences]
    assert len(last.ids_T) < sum(len(s.ids) for s in sequences) - 19 * (len(sequences) - 1)
