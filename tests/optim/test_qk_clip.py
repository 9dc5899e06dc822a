from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from openk2.core import UserError
from openk2.model import ModelConfig, Transformer
from openk2.optim import MuonClip, StepStats, attention_layers, qk_clip_


def tiny_transformer(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(ModelConfig.preset("test"))


def true_max_logits(model: Transformer, ids_BT: Tensor) -> Tensor:
    """[L, H], by brute force: a zero threshold sends every head to the exact pass."""
    monitor = model.attach_monitor(threshold=-math.inf)
    model.train()
    with torch.no_grad():
        model.hidden(ids_BT)
    return monitor.max_logit_LH.clone()


def some_ids(seed: int = 0, batch: int = 3, time: int = 24) -> Tensor:
    return torch.randint(0, 500, (batch, time), generator=torch.Generator().manual_seed(seed))


def test_finds_the_attention_of_our_model_and_of_transformers() -> None:
    model = tiny_transformer()
    assert attention_layers(model) == model.attention_layers()
    assert attention_layers(nn.Linear(2, 2)) == []


def test_a_clipped_head_scales_by_exactly_gamma_and_others_do_not_move() -> None:
    model, ids = tiny_transformer(), some_ids()
    with torch.no_grad():
        for attention in model.attention_layers():
            attention.q_b_proj.weight.mul_(30.0)
    first = model.attention_layers()[0]
    before_LH = true_max_logits(model, ids)
    # Only the first layer: its inputs do not depend on attention, so its logits must scale exactly.
    threshold = float(before_LH[0].sort().values[1:3].mean())
    value_rows = first.kv_b_proj.weight.view(4, -1, 32)[:, first.qk_nope_head_dim :].clone()
    rope_key = first.kv_a_proj_with_mqa.weight.clone()
    clipped = qk_clip_([first], before_LH[:1], threshold)
    after_LH = true_max_logits(model, ids)
    assert clipped == 2
    torch.testing.assert_close(after_LH[0], before_LH[0].clamp(max=threshold), rtol=1e-4, atol=1e-4)
    assert torch.equal(first.kv_b_proj.weight.view(4, -1, 32)[:, first.qk_nope_head_dim :], value_rows)
    assert torch.equal(first.kv_a_proj_with_mqa.weight, rope_key)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_shares_the_factor_between_queries_and_keys(alpha: float) -> None:
    model, ids = tiny_transformer(), some_ids()
    first = model.attention_layers()[0]
    nope, before_LH = first.qk_nope_head_dim, true_max_logits(model, ids)
    threshold = float(before_LH[0].max()) / 2
    query_HPR = first.q_b_proj.weight.view(4, -1, first.q_b_proj.in_features)
    before_HPR = query_HPR.detach().clone()
    assert qk_clip_([first], before_LH[:1], threshold, alpha=alpha) >= 1
    torch.testing.assert_close(true_max_logits(model, ids)[0], before_LH[0].clamp(max=threshold), rtol=1e-4, atol=1e-4)
    gamma_H11 = (threshold / before_LH[0]).clamp(max=1)[:, None, None]
    gamma_H11 = torch.where(before_LH[0][:, None, None] > threshold, gamma_H11, 1.0)
    torch.testing.assert_close(query_HPR[:, :nope], before_HPR[:, :nope] * gamma_H11**alpha)


def test_the_global_form_scales_every_head_by_the_largest_logit_of_all() -> None:
    model, ids = tiny_transformer(), some_ids()
    before_LH = true_max_logits(model, ids)
    threshold = float(before_LH.max()) / 3
    assert qk_clip_(model.attention_layers(), before_LH, threshold, form="global") == before_LH.numel()
    # Of the first layer alone the inputs are as before.
    torch.testing.assert_close(true_max_logits(model, ids)[0], before_LH[0] / 3, rtol=1e-4, atol=1e-4)
    assert qk_clip_(model.attention_layers(), before_LH / 3, threshold * 1.01, form="global") == 0
    with pytest.raises(UserError, match="form of QK-Clip"):
        MuonClip(model, lr=0.1, qk_clip_form="layer")
    for alpha in (1.5, math.nan):
        with pytest.raises(UserError, match="alpha lies in"):
            MuonClip(model, lr=0.1, qk_clip_alpha=alpha)
        with pytest.raises(UserError, match="alpha lies in"):
            qk_clip_(model.attention_layers(), before_LH, threshold, alpha=alpha)


def test_untouched_at_or_below_the_threshold_and_for_heads_that_saw_nothing() -> None:
    model = tiny_transformer()
    before = [p.clone() for p in model.parameters()]
    max_logit_LH = torch.full((3, 4), -math.inf)
    max_logit_LH[1] = 5.0
    max_logit_LH[2] = -3.0
    assert qk_clip_(model.attention_layers(), max_logit_LH, 5.0) == 0
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def frozen_plain(keys: int, frozen: tuple[str, ...]) -> nn.Module:
    """Attention of two query heads of size three; its key heads are the queries' own if there are two."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head_dim = 3
            self.q_proj, self.k_proj = nn.Linear(4, 6), nn.Linear(4, 3 * keys)

        def forward(self, x_TD: Tensor) -> Tensor:
            q_HTQ = self.q_proj(x_TD).unflatten(-1, (2, 3)).transpose(0, 1)
            return q_HTQ @ self.k_proj(x_TD).unflatten(-1, (keys, 3)).movedim(0, 2)

    torch.manual_seed(0)
    module = Plain()
    for name in frozen:
        module.get_parameter(name).requires_grad_(False)
    return module


@pytest.mark.parametrize(
    ("keys", "frozen", "scaled"),
    [
        (2, ("q_proj.weight", "q_proj.bias"), True),
        (2, ("k_proj.weight",), True),
        (2, ("q_proj.bias", "k_proj.weight"), False),
        (1, ("k_proj.weight",), True),
        (1, ("q_proj.weight",), False),
    ],
)
def test_frozen_weights_stay_and_the_others_take_the_whole_gamma(
    keys: int, frozen: tuple[str, ...], scaled: bool
) -> None:
    module = frozen_plain(keys, frozen)
    x_TD = torch.randn(5, 4)
    before, logits = {name: p.clone() for name, p in module.named_parameters()}, module(x_TD)
    clipped = qk_clip_(attention_layers(module), torch.tensor([[8.0, 1.0]]), 2.0)
    assert clipped == scaled
    gamma_H11 = torch.tensor([0.25 if scaled else 1.0, 1.0])[:, None, None]
    torch.testing.assert_close(module(x_TD), gamma_H11 * logits)
    assert all(torch.equal(module.get_parameter(name), before[name]) for name in frozen)


@pytest.mark.parametrize("shared", [("k_proj",), ("q_proj",), ("q_proj", "k_proj")])
def test_projections_that_layers_share_are_not_scaled_for_each(shared: tuple[str, ...]) -> None:
    first, second = frozen_plain(2, ()), frozen_plain(2, ())
    for name in shared:
        setattr(second, name, getattr(first, name))
    x_TD = torch.randn(5, 4)
    logits = [layer(x_TD) for layer in (first, second)]
    qk_clip_(attention_layers(nn.ModuleList([first, second])), torch.tensor([[8.0, 1.0], [4.0, 1.0]]), 2.0)
    # Layers alike in both follow the larger of their maxima; others are scaled apart, each by its own.
    for layer, before, gamma in zip((first, second), logits, (0.25, 0.25 if len(shared) == 2 else 0.5), strict=True):
        torch.testing.assert_close(layer(x_TD), torch.tensor([gamma, 1.0])[:, None, None] * before)


@pytest.mark.parametrize("frozen", ["q_b_proj", "kv_b_proj"])
def test_frozen_weights_of_latent_attention(frozen: str) -> None:
    model, ids = tiny_transformer(), some_ids()
    first = model.attention_layers()[0]
    weight = first.get_parameter(f"{frozen}.weight").requires_grad_(False)
    before, before_LH = weight.clone(), true_max_logits(model, ids)
    threshold = float(before_LH[0].sort().values[1:3].mean())
    # The rotary key belongs to all heads: a frozen query leaves no way to scale one of them.
    assert qk_clip_([first], before_LH[:1], threshold) == (2 if frozen == "kv_b_proj" else 0)
    wanted_H = before_LH[0].clamp(max=threshold) if frozen == "kv_b_proj" else before_LH[0]
    torch.testing.assert_close(true_max_logits(model, ids)[0], wanted_H, rtol=1e-4, atol=1e-4)
    assert torch.equal(weight, before)


def test_an_infinite_threshold_clips_nothing_where_the_kernel_gives_no_bound() -> None:
    # Values wider than keys: torch's flash kernel is of no use, and another one gives no log-sum-exp.
    torch.manual_seed(0)
    model = Transformer(ModelConfig.preset("test").model_copy(update={"v_head_dim": 48}))
    for attention in model.attention_layers():
        attention.kernel = "flash"
    ids = some_ids()
    wanted = float(true_max_logits(model, ids[:, :-1]).max())
    model.attach_monitor()
    optimizer = MuonClip(model, lr=1e-3, qk_clip_threshold=math.inf)
    backward(model, ids)
    stats = optimizer.step()
    assert stats.clipped_heads == 0 and stats.max_logit == pytest.approx(wanted)


def test_bad_logits_are_refused() -> None:
    layers = tiny_transformer().attention_layers()
    with pytest.raises(UserError, match="do not fit"):
        qk_clip_(layers, torch.zeros(2, 4), 100.0)
    with pytest.raises(UserError, match="not a number"):
        qk_clip_(layers, torch.full((3, 4), math.nan), 100.0)


def backward(model: Transformer, ids_BT: Tensor) -> None:
    total, count = model.loss(ids_BT[:, :-1], ids_BT[:, 1:])
    (total / count).backward()


def test_maximum_over_micro_batches_and_reset_by_step() -> None:
    model = tiny_transformer()
    batches = [some_ids(seed) for seed in range(3)]
    each_LH = torch.stack([true_max_logits(model, ids[:, :-1]) for ids in batches])
    monitor = model.attach_monitor()
    optimizer = MuonClip(model, lr=1e-4, qk_clip_threshold=1e-6)
    assert optimizer.monitor is monitor and monitor.threshold == 1e-6
    for ids in batches:
        backward(model, ids)
    torch.testing.assert_close(monitor.max_logit_LH, each_LH.amax(dim=0).clamp(min=0), rtol=1e-3, atol=1e-3)
    stats = optimizer.step()
    assert stats.max_logit == pytest.approx(float(each_LH.max()), rel=1e-4)
    assert stats.clipped_heads == int((each_LH.amax(dim=0) > 1e-6).sum())
    assert bool(monitor.max_logit_LH.isneginf().all())


def test_an_infinite_logit_is_refused_before_anything_changes() -> None:
    model = tiny_transformer()
    monitor = model.attach_monitor()
    optimizer = MuonClip(model, lr=0.01)
    backward(model, some_ids())
    before = [p.detach().clone() for p in model.parameters()]
    monitor.max_logit_LH[0, 0] = math.inf
    with pytest.raises(UserError, match="diverged"):
        optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def copying_run(threshold: float, watch: float, steps: int = 100) -> list[StepStats]:
    """Train to copy under a far too high learning rate; statistics with exact maxima above `watch`."""
    model = tiny_transformer()
    optimizer = MuonClip(model, lr=0.05, weight_decay=0.0, qk_clip_threshold=threshold)
    assert optimizer.monitor is not None
    optimizer.monitor.threshold = watch
    data = torch.Generator().manual_seed(1)
    stats = []
    for _ in range(steps):
        half = torch.randint(0, 200, (4, 12), generator=data)
        optimizer.zero_grad()
        backward(model, torch.cat([half, half], dim=1))
        stats.append(optimizer.step())
    return stats


def test_muon_alone_lets_logits_pass_the_threshold_and_muonclip_does_not() -> None:
    threshold = 10.0
    alone = copying_run(math.inf, threshold)
    clipped = copying_run(threshold, threshold)
    logits_alone = [s.max_logit for s in alone if s.max_logit is not None]
    logits_clipped = [s.max_logit for s in clipped if s.max_logit is not None]
    assert min(logits_alone[-10:]) > 3 * threshold
    assert all(s.clipped_heads == 0 for s in alone) and any(s.clipped_heads > 0 for s in clipped)
    # The cap acts after a step: at this learning rate a step may push the next batch well past it, but it comes back.
    assert sum(logits_clipped[-10:]) / 10 < 2 * threshold and max(logits_clipped[-10:]) < min(logits_alone[-10:])
