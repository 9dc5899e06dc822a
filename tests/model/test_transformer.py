"""Training behaviour: kernels agree, the monitor bounds the logits, the router's bias balances."""

from __future__ import annotations

import copy

import pytest
import torch

from openk2.core import ContextOverflow
from openk2.model import Branches, ModelConfig, Transformer
from openk2.model.attention import Kernel
from openk2.model.moe import BiasRule


def build(device: str = "cpu", **changes: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig.preset("test", **({"initializer_range": 0.15} | changes))).to(device)


def tokens(*shape: int, device: str = "cpu") -> torch.Tensor:
    return torch.randint(0, 4096, shape, generator=torch.Generator().manual_seed(1)).to(device)


@pytest.mark.parametrize("kernel", ["block", "flash"])
@pytest.mark.parametrize("changes", [{}, {"v_head_dim": 32}])
def test_attention_kernels_equal_the_reference(kernel: Kernel, changes: dict[str, int], device: str) -> None:
    model = build(device, **changes)
    ids = tokens(2, 100, device=device)
    results = []
    for chosen in (kernel, "plain"):
        for attention in model.attention_layers():
            attention.kernel = chosen
        model.zero_grad()
        loss, _ = model.loss(ids, ids)
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    for got, wanted in zip(*results, strict=True):
        assert (got - wanted).norm() <= 1e-4 * wanted.norm() + 1e-5


def test_grouped_experts_equal_the_loop(device: str) -> None:
    model = build(device)
    ids = tokens(2, 50, device=device)
    results = []
    for grouped in (True, False):
        for moe in model.moe_layers():
            moe.experts.use_grouped = grouped
        model.zero_grad()
        loss, _ = model.loss(ids, ids)
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    for got, wanted in zip(*results, strict=True):
        assert (got - wanted).norm() <= 1e-4 * wanted.norm() + 1e-5


@pytest.mark.parametrize("kernel", ["block", "flash", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_monitor_is_exact_above_the_threshold_and_a_bound_below(kernel: Kernel, dtype: torch.dtype) -> None:
    model = build().to(dtype)
    ids = tokens(3, 90)
    exact = model.attach_monitor(threshold=-1e9)
    for attention in model.attention_layers():
        attention.kernel = "plain"
    model.loss(ids, ids)
    truth_LH = exact.max_logit_LH

    threshold = float(truth_LH.median())
    monitor = model.attach_monitor(threshold)
    for attention in model.attention_layers():
        attention.kernel = kernel
    model.loss(ids[:1], ids[:1])
    model.loss(ids[1:], ids[1:])
    seen_LH, slack = monitor.max_logit_LH, 0.02 * truth_LH.abs().max() if dtype == torch.bfloat16 else 1e-4
    assert (seen_LH >= truth_LH - slack).all()
    over = truth_LH > threshold + slack
    assert over.any() and ((seen_LH - truth_LH).abs() <= slack)[over].all()
    assert (seen_LH[truth_LH < threshold - slack] <= threshold + slack).all()
    monitor.reset()
    assert monitor.max_logit == -torch.inf


def test_the_monitor_rests_in_evaluation_and_when_disabled() -> None:
    model = build()
    monitor = model.attach_monitor()
    model.eval()
    model.loss(tokens(1, 8), tokens(1, 8))
    model.train()
    monitor.enabled = False
    model.loss(tokens(1, 8), tokens(1, 8))
    assert monitor.max_logit == -torch.inf


def test_expert_counts_and_the_bias_update_balance_the_router() -> None:
    model = build(num_hidden_layers=2)
    ids = tokens(4, 64)
    (moe,) = model.moe_layers()

    def imbalance() -> float:
        model.loss(ids, ids)
        count_E = moe.expert_counts_E
        assert int(count_E.sum()) == ids.numel() * 2
        return float(count_E.max() / count_E.float().mean())

    before = imbalance()
    for step in range(100):
        model.update_router_bias(0.03 * (1 - step / 100))
        after = imbalance()
    assert after < 1.3 < before
    assert abs(float(moe.gate.e_score_correction_bias.mean())) < 1e-4
    model.update_router_bias(0.0)
    assert int(moe.expert_counts_E.sum()) == 0
    model.eval()
    model.loss(ids, ids)
    assert int(moe.expert_counts_E.sum()) == 0


def test_both_rules_for_the_bias_choose_the_same_experts() -> None:
    ids = tokens(4, 64)
    chosen: dict[BiasRule, list[torch.Tensor]] = {"moonlight": [], "deepseek": []}
    means: dict[BiasRule, float] = {}
    for rule in chosen:
        model = build(num_hidden_layers=2, n_routed_experts=7)
        (moe,) = model.moe_layers()
        for _ in range(30):
            model.loss(ids, ids)
            chosen[rule].append(moe.expert_counts_E.clone())
            model.update_router_bias(0.01, rule)
        means[rule] = float(moe.gate.e_score_correction_bias.mean())
    assert all(torch.equal(a, b) for a, b in zip(chosen["moonlight"], chosen["deepseek"], strict=True))
    assert abs(means["moonlight"]) < 1e-6 and abs(means["deepseek"]) > 1e-3


def test_casting_keeps_the_router_bias_exact() -> None:
    model = build()
    bias = model.moe_layers()[0].gate.e_score_correction_bias
    bias.fill_(0.001)
    model.to(torch.bfloat16).float()
    torch.testing.assert_close(
        model.moe_layers()[0].gate.e_score_correction_bias, torch.full((8,), 0.001), rtol=0, atol=0
    )


def test_loss_without_supervised_positions_is_zero_and_differentiable() -> None:
    model = build()
    loss, n = model.loss(tokens(1, 5), torch.full((1, 5), -100))
    loss.backward()
    assert n == 0 and float(loss.detach()) == 0.0


def test_loss_is_the_sum_over_supervised_positions() -> None:
    model = build()
    ids = tokens(2, 20)
    targets = ids.roll(-1, 1)
    halves = []
    for wanted in (targets % 2 == 0, targets % 2 == 1):
        loss, n = model.loss(ids, targets.masked_fill(~wanted, -100))
        assert n == int(wanted.sum())
        halves.append(loss)
    whole, _ = model.loss(ids, targets)
    torch.testing.assert_close(halves[0] + halves[1], whole, rtol=1e-5, atol=1e-4)


def test_bf16_learns_as_fp32_does() -> None:
    """Same data, plain SGD on fp32 weights, gradients from a copy in either type: the losses stay together."""
    finals = []
    for dtype in (torch.float32, torch.bfloat16):
        model = build(initializer_range=0.05)
        ids = tokens(4, 32) % 64
        for _ in range(10):
            working = copy.deepcopy(model).to(dtype)
            loss, n = working.loss(ids, ids.roll(-1, 1))
            (loss / n).backward()
            with torch.no_grad():
                for parameter, twin in zip(model.parameters(), working.parameters(), strict=True):
                    parameter -= 0.2 * twin.grad.float()
        finals.append(float(loss.detach() / n))
    assert finals[1] == pytest.approx(finals[0], rel=0.03)
    assert finals[0] < 8.0


@pytest.mark.parametrize("kernel", ["block", "plain"])
@pytest.mark.parametrize("stem", [0, 9])
def test_branches_are_the_whole_sequences(kernel: Kernel, stem: int) -> None:
    """Values, gradients and the monitored logits of sequences that begin alike, computed in one row."""
    model = build()
    monitor = model.attach_monitor()
    for attention in model.attention_layers():
        attention.kernel = kernel
    begin, lengths = torch.randint(0, 64, (stem,)), (5, 70, 1)
    rests = [torch.randint(0, 64, (length,)) for length in lengths]
    weights = [torch.randn(length, model.config.hidden_size) for length in lengths]
    found = []
    for in_branches in (True, False):
        model.zero_grad()
        monitor.reset()
        if in_branches:
            x_TD = model.hidden_of_branches(torch.cat([begin, *rests]), Branches(stem, lengths))
            outs = list(x_TD[stem:].split(lengths))
        else:
            outs = [model.hidden(torch.cat([begin, rest])[None])[0, stem:] for rest in rests]
        sum((out * weight).sum() for out, weight in zip(outs, weights, strict=True)).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((torch.cat(outs).detach(), gradients, monitor.max_logit))
    (ours, ours_grad, ours_max), (theirs, theirs_grad, theirs_max) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for a, b in zip(ours_grad, theirs_grad, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert ours_max == pytest.approx(theirs_max, rel=1e-4)


def test_a_branch_that_is_too_long() -> None:
    model = build()
    most = model.config.max_position_embeddings
    with pytest.raises(ContextOverflow, match=f"has {most + 1} tokens"):
        model.hidden_of_branches(torch.zeros(most + 1, dtype=torch.long), Branches(most - 1, (2,)))
