"""Models of transformers under MuonClip: their logits are seen as they are, and clipped head by head."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openk2.core import UserError
from openk2.model import ModelConfig, Transformer
from openk2.model.monitor import largest_logits
from openk2.optim import MuonClip, attach_logit_monitor, attention_layers, qk_clip_

transformers = pytest.importorskip("transformers")

EXACT = -math.inf
"""The threshold with which every maximum is exact."""

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
MODELS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=4)),
    "llama-gqa": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=2)),
    "llama-eager": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES, num_key_value_heads=2, attn_implementation="eager")
    ),
    # Eager only: every head has a sink beside its keys, and one layer in two sees a window.
    "gpt-oss": lambda: transformers.GptOssForCausalLM(
        transformers.GptOssConfig(
            **SIZES, num_key_value_heads=2, head_dim=12, num_local_experts=4, num_experts_per_tok=2, sliding_window=8,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
    ),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES, num_key_value_heads=2)),
    "deepseek": lambda: deepseek(16),
    "deepseek-no-latent-query": lambda: deepseek(None),
}  # fmt: skip


def deepseek(query_rank: int | None) -> Any:
    return transformers.DeepseekV3ForCausalLM(
        transformers.DeepseekV3Config(
            **SIZES, num_key_value_heads=4, q_lora_rank=query_rank, kv_lora_rank=16, qk_nope_head_dim=8,
            qk_rope_head_dim=8, v_head_dim=8, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
            n_group=1, topk_group=1, first_k_dense_replace=2,
        )
    )  # fmt: skip


def made(name: str) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):
            parameter.data.normal_(0, 1)
    return model.train()


def some_ids(padded: bool = False) -> dict[str, Tensor]:
    ids = torch.randint(0, 64, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    return {"input_ids": ids, "attention_mask": mask} if padded else {"input_ids": ids}


@pytest.mark.parametrize("keys", [6, 3, 1])
@pytest.mark.parametrize("span", [300, 310])
def test_the_largest_logits_are_those_of_brute_force(keys: int, span: int) -> None:
    torch.manual_seed(0)
    q_BHTQ, k_BKSQ = torch.randn(2, 6, 300, 8), torch.randn(2, keys, span, 8)
    all_BHTS = q_BHTQ @ k_BKSQ.repeat_interleave(6 // keys, 1).mT * 0.5
    seen_TS = torch.ones(300, span, dtype=torch.bool).tril(span - 300)
    wanted_H = all_BHTS.masked_fill(~seen_TS, -math.inf).amax((0, 2, 3))
    torch.testing.assert_close(largest_logits(q_BHTQ, k_BKSQ, 0.5), wanted_H)
    torch.testing.assert_close(largest_logits(q_BHTQ, k_BKSQ, 0.5, seen_TS[None, None]), wanted_H)
    added = torch.zeros(300, span).masked_fill(~seen_TS, torch.finfo(torch.float32).min)
    torch.testing.assert_close(largest_logits(q_BHTQ, k_BKSQ, 0.5, added[None, None]), wanted_H)
    torch.testing.assert_close(largest_logits(q_BHTQ, k_BKSQ, 0.5, causal=False), all_BHTS.amax((0, 2, 3)))


def test_a_mask_may_have_one_row_for_all_queries() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 4, 300, 8), torch.randn(2, 4, 300, 8)
    row = torch.rand(2, 1, 1, 300) < 0.5
    whole = largest_logits(q, k, 0.3, row.expand(2, 1, 300, 300))
    torch.testing.assert_close(largest_logits(q, k, 0.3, row), whole, rtol=0, atol=0)


def test_the_largest_logits_are_exact_in_a_low_precision_model() -> None:
    torch.manual_seed(0)
    q_BHTQ, k_BKSQ = (20 * torch.randn(1, 2, 40, 16)).bfloat16(), torch.randn(1, 2, 40, 16).bfloat16()
    all_BHTS = (q_BHTQ.double() @ k_BKSQ.double().mT).masked_fill(torch.ones(40, 40).triu(1).bool(), -math.inf)
    with torch.autocast("cpu", torch.bfloat16):
        found_H = largest_logits(q_BHTQ, k_BKSQ, 1.0)
    torch.testing.assert_close(found_H, all_BHTS.amax((0, 2, 3)).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_model_computes_the_same_and_is_watched_in_training(name: str, padded: bool) -> None:
    inputs = some_ids(padded)
    outputs = made(name)(**inputs)
    watched = made(name)
    monitor = attach_logit_monitor(watched)
    seen = inputs.get("attention_mask", torch.ones(3, 20)).bool()
    assert torch.equal(watched(**inputs).logits[seen], outputs.logits[seen])
    assert monitor.max_logit_LH.shape == (2, 4) and bool(monitor.max_logit_LH.isfinite().all())
    watched.eval()
    monitor.reset()
    watched(**inputs)
    assert monitor.max_logit == -math.inf


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["llama", "llama-gqa", "deepseek"])
def test_the_model_computes_the_same_under_autocast(name: str, padded: bool) -> None:
    inputs = some_ids(padded)
    seen = inputs.get("attention_mask", torch.ones(3, 20)).bool()
    watched = made(name)
    monitor = attach_logit_monitor(watched)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(watched(**inputs).logits[seen], made(name)(**inputs).logits[seen])
    assert bool(monitor.max_logit_LH.isfinite().all())


@pytest.mark.parametrize("name", MODELS)
def test_a_clipped_head_scales_by_exactly_gamma_and_others_do_not_move(name: str) -> None:
    model = made(name)
    monitor = attach_logit_monitor(model, EXACT)
    layers = attention_layers(model)

    def first_layer() -> Tensor:
        monitor.reset()
        with torch.no_grad():
            model(**some_ids())
        return monitor.max_logit_LH[0].clone()

    before_H = first_layer()
    threshold = float(before_H.sort().values[1:3].mean())
    assert threshold > 0
    assert qk_clip_(layers[:1], before_H[None], threshold) == 2
    # The first layer's inputs do not depend on attention, so its logits must scale exactly.
    torch.testing.assert_close(first_layer(), before_H.clamp(max=threshold), rtol=1e-4, atol=1e-4)


def largest_of(model: Any, threshold: float, padded: bool, **options: Any) -> Tensor:
    monitor = attach_logit_monitor(model, threshold, **options)
    with torch.no_grad():
        model(**some_ids(padded))
    return monitor.max_logit_LH.clone()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_up_to_the_threshold_the_log_sum_exp_will_do(name: str, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(name)
    exact_LH = largest_of(model, EXACT, padded)
    bound_LH = largest_of(model, 1e9, padded)
    assert bool((bound_LH >= exact_LH - 1e-4).all()) and bool((bound_LH <= exact_LH + math.log(20) + 1e-4).all())
    threshold = float(bound_LH.flatten().sort().values[3:5].mean())
    looked_at = []

    def counted(q_BHTQ: Tensor, *args: Any, **options: Any) -> Tensor:
        looked_at.append(q_BHTQ.shape[1])
        return largest_logits(q_BHTQ, *args, **options)

    monkeypatch.setattr("openk2.optim.logits.largest_logits", counted)
    found_LH = largest_of(model, threshold, padded)
    over_LH = bound_LH > threshold
    torch.testing.assert_close(found_LH, torch.where(over_LH, exact_LH, bound_LH))
    # The kernel that knows the log-sum-exp is not there for eager attention, nor for values that are smaller than keys.
    flash = name in ("llama", "llama-gqa", "qwen2")
    assert sum(looked_at) == (int(over_LH.sum()) if flash else over_LH.numel())


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("hidden", [-1e4, torch.finfo(torch.float32).min, -math.inf])
@pytest.mark.parametrize("slope", [0.0, 4.0])
def test_masks_of_numbers(heads: int, hidden: float, slope: float) -> None:
    """What a mask adds is no logit, and what it hides is none either, whoever is looked at again."""
    model = made("llama")
    far_TS = (torch.arange(20)[:, None] - torch.arange(20)).clamp(min=0)
    mask = (-slope * far_TS.float()).masked_fill(torch.ones(20, 20).triu(1).bool(), hidden)
    inputs = some_ids() | {"attention_mask": mask.expand(3, heads, 20, 20)}

    def largest(threshold: float) -> Tensor:
        monitor = attach_logit_monitor(model, threshold)
        with torch.no_grad():
            model(**inputs)
        return monitor.max_logit_LH.clone()

    exact_LH, middle = largest(EXACT), float(largest(EXACT).median())
    found_LH, bound_LH = largest(middle), largest(1e9)
    over_LH = exact_LH > middle
    assert 0 < int(over_LH.sum()) < 8
    torch.testing.assert_close(found_LH[over_LH], exact_LH[over_LH])
    assert bool((bound_LH >= exact_LH - 1e-4).all())
    # Only the values of the mask differ from a causal one, and they are not in the logits of the first layer.
    torch.testing.assert_close(exact_LH[0], largest_of(model, EXACT, False)[0])


@pytest.mark.parametrize("name", ["llama-gqa", "deepseek"])
def test_absolute_maxima(name: str) -> None:
    model = made(name)
    signed_LH, found_LH = largest_of(model, 5.0, False), largest_of(model, 5.0, False, absolute=True)
    queries, keys = [], []
    layer: Any = attention_layers(model)[0]
    kernel = "openk2.optim.logits.largest_logits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, lambda q, k, *_, **__: (queries.append(q), keys.append(k), q.new_zeros(q.shape[1]))[2])
        largest_of(model, EXACT, False)
    logits_BHTS = queries[0] @ keys[0].mT * layer.scaling
    wanted_H = logits_BHTS.abs().masked_fill(torch.ones(20, 20).triu(1).bool(), 0).amax((0, 2, 3))
    torch.testing.assert_close(found_LH[0], wanted_H)
    over_LH = signed_LH > 5.0
    assert bool(over_LH.any()) and bool((found_LH >= signed_LH - 1e-4)[over_LH].all())
    assert bool((wanted_H > logits_BHTS.tril().amax((0, 2, 3)) + 0.1).any())


def test_the_models_of_this_project_report_absolute_maxima_from_every_kernel() -> None:
    torch.manual_seed(0)
    model = Transformer(ModelConfig.preset("test")).train()
    found = {}
    for kernel in ("plain", "block", "flash"):
        for absolute in (False, True):
            monitor = attach_logit_monitor(model, EXACT, absolute)
            for layer in model.attention_layers():
                layer.kernel = kernel
            model(some_ids()["input_ids"])
            found[kernel, absolute] = monitor.max_logit_LH.clone()
    for kernel in ("block", "flash"):
        for absolute in (False, True):
            torch.testing.assert_close(found[kernel, absolute], found["plain", absolute], rtol=1e-4, atol=1e-5)
    assert bool((found["plain", True] > found["plain", False] + 1e-4).any())


@pytest.mark.parametrize("name", ["llama-gqa", "qwen2"])
def test_muonclip_keeps_the_logits_of_any_model_near_the_threshold(name: str) -> None:
    threshold, largest = 8.0, {}
    for clip in (True, False):
        model = made(name)
        optimizer = MuonClip(
            model,
            lr=0.03,
            weight_decay=0.0,
            logit_monitor=attach_logit_monitor(model),
            qk_clip_threshold=threshold if clip else math.inf,
        )
        ids = some_ids()["input_ids"]
        seen = []
        for _ in range(40):
            model(input_ids=ids, labels=ids).loss.backward()
            seen.append(optimizer.step().max_logit)
            optimizer.zero_grad()
        largest[clip] = max(value for value in seen[10:] if value is not None)
    assert largest[True] < 2 * threshold < largest[False]


def test_what_cannot_be_watched() -> None:
    with pytest.raises(UserError, match="no attention that QK-Clip can scale"):
        attach_logit_monitor(nn.Linear(2, 2))

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head_dim = 2
            self.q_proj, self.k_proj = nn.Linear(4, 4), nn.Linear(4, 4)

    with pytest.raises(UserError, match="out of reach"):
        attach_logit_monitor(nn.Sequential(Attention()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=12)),
        lambda: transformers.StableLmForCausalLM(
            transformers.StableLmConfig(**SIZES, num_key_value_heads=4, qk_layernorm=True)
        ),
        lambda: transformers.PhiForCausalLM(transformers.PhiConfig(**SIZES, num_key_value_heads=4, qk_layernorm=True)),
        lambda: transformers.HunYuanDenseV1ForCausalLM(
            transformers.HunYuanDenseV1Config(**SIZES, num_key_value_heads=2, head_dim=12)
        ),
        lambda: transformers.Llama4ForCausalLM(
            transformers.Llama4TextConfig(
                **SIZES, num_key_value_heads=2, head_dim=12, intermediate_size_mlp=64, num_local_experts=2,
                no_rope_layers=[1, 1],
            )
        ),
    ],
    ids=["qwen3", "stablelm", "phi", "hunyuan", "llama4"],
)  # fmt: skip
def test_normed_queries_and_keys_are_not_clipped(make: Any) -> None:
    with pytest.raises(UserError, match="not normed"):
        attach_logit_monitor(make())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: transformers.Gemma2ForCausalLM(
                transformers.Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=12)
            ),
            "Gemma2Attention caps its logits",
        ),
        (
            # It masks what its indexer leaves out in one way for `sdpa` and `eager`, in another for all others.
            lambda: transformers.DeepseekV32ForCausalLM(
                transformers.DeepseekV32Config(
                    **SIZES, num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8,
                    qk_rope_head_dim=8, v_head_dim=8, n_routed_experts=4, num_experts_per_tok=2,
                    moe_intermediate_size=16, n_group=1, topk_group=1, first_k_dense_replace=2,
                )
            ),
            "by the name of its attention",
        ),
        (
            lambda: transformers.LlamaForCausalLM(
                transformers.LlamaConfig(**SIZES, num_key_value_heads=4, attn_implementation="flex_attention")
            ),
            "flex_attention cannot be watched",
        ),
    ],
    ids=["gemma2", "deepseek-v3.2", "flex"],
)  # fmt: skip
def test_models_that_a_monitor_would_change_are_refused_as_they_are(make: Any, words: str) -> None:
    model = make()
    before = model.config._attn_implementation
    with pytest.raises(UserError, match=words):
        attach_logit_monitor(model)
    assert model.config._attn_implementation == before


def test_a_clamp_between_weights_and_logits_is_refused() -> None:
    model = transformers.OlmoForCausalLM(transformers.OlmoConfig(**SIZES, num_key_value_heads=4, clip_qkv=1.0))
    with pytest.raises(UserError, match="clip_qkv"):
        attach_logit_monitor(model)


def test_an_adapter_is_scaled_with_its_weight() -> None:
    class Adapted(nn.Linear):
        """W x + B (A x), with as many columns in B as there are heads."""

        def __init__(self, size: int, rank: int) -> None:
            super().__init__(size, size, bias=False)
            self.A, self.B = nn.Parameter(torch.randn(rank, size)), nn.Parameter(torch.randn(size, rank))

        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + input @ self.A.T @ self.B.T

    for rank in (4, 6):
        model = made("llama")
        for layer in model.model.layers:
            layer.self_attn.q_proj = Adapted(48, rank)
        model.train()
        monitor = attach_logit_monitor(model, EXACT)
        model(**some_ids())
        before = monitor.max_logit_LH.clone()
        assert qk_clip_(attention_layers(model)[:1], before[:1], float(before[0].max()) / 2) > 0
        monitor.reset()
        model(**some_ids())
        assert torch.allclose(monitor.max_logit_LH[0], before[0].clamp(max=float(before[0].max()) / 2), rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "targets"), [("llama", ["q_proj", "k_proj"]), ("deepseek", ["q_b_proj", "kv_b_proj"])]
)
@pytest.mark.parametrize("whole", [True, False])
def test_pefts_adapters(family: str, targets: list[str], whole: bool) -> None:
    """Over weights that are trained as well they are scaled with them; over frozen ones heads are watched only."""
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(made(family), peft.LoraConfig(r=3, target_modules=targets, init_lora_weights=False))
    if whole:
        expect_half(model.requires_grad_(True).train())
    else:
        with pytest.warns(UserWarning, match="adapters over frozen weights"):
            before_H, after_H, clipped = clipped_at_half(model.train())
        assert clipped == 0
        torch.testing.assert_close(after_H, before_H, rtol=1e-4, atol=1e-4)


def peft_model(config: Any) -> Any:
    model = pytest.importorskip("peft").get_peft_model(made("llama"), config).train()
    return model.requires_grad_(True)


def clipped_at_half(model: Any) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The first layer's maxima before and after a step that may halve the largest, and the heads that were clipped."""
    monitor = attach_logit_monitor(model, EXACT)
    model(**some_ids())
    before_H = monitor.max_logit_LH[0].clone()
    threshold = float(before_H.max()) / 2
    optimizer = MuonClip(model, lr=0.0, qk_clip_threshold=threshold, logit_monitor=monitor)
    monitor.threshold = EXACT
    model(**some_ids(), labels=some_ids()["input_ids"]).loss.backward()
    clipped = optimizer.step().clipped_heads
    model(**some_ids())
    return before_H, monitor.max_logit_LH[0], clipped


def expect_half(model: Any) -> None:
    """That heads above half of the largest logit are clipped to it, and others not touched."""
    before_H, after_H, clipped = clipped_at_half(model)
    assert clipped > 0
    torch.testing.assert_close(after_H, before_H.clamp(max=float(before_H.max()) / 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["LoraConfig", "AdaLoraConfig", "VeraConfig", "OFTConfig"])
def test_adapters_whose_form_is_known_are_clipped(kind: str) -> None:
    peft = pytest.importorskip("peft")
    # As many ranks as the queries have rows: an inner matrix of their number is no outer one.
    more = {"LoraConfig": {"r": 48, "init_lora_weights": False}, "AdaLoraConfig": {"total_step": 9, "init_r": 48},
            "VeraConfig": {"r": 48}, "OFTConfig": {"oft_block_size": 8}}[kind]  # fmt: skip
    model = peft_model(getattr(peft, kind)(target_modules=["q_proj", "k_proj"], **more))
    expect_half(model)


@pytest.mark.parametrize("kind", ["LoKrConfig", "FourierFTConfig", "HRAConfig"])
def test_over_other_adapters_no_head_is_clipped_and_it_is_said(kind: str) -> None:
    peft = pytest.importorskip("peft")
    model = peft_model(getattr(peft, kind)(target_modules=["q_proj", "k_proj"]))
    with pytest.warns(UserWarning, match="adapters of an unknown kind"):
        assert clipped_at_half(model)[2] == 0


def test_an_inactive_adapter_is_no_hindrance() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=3, target_modules=["q_proj", "k_proj"], init_lora_weights=False)
    model = peft_model(config)
    model.add_adapter("other", config)
    model.set_adapter("default")
    model.requires_grad_(True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("other" not in name)
    expect_half(model)


def test_heads_that_cannot_be_clipped_are_said_beside_others_that_are() -> None:
    model = made("llama").train()
    model.model.layers[1].requires_grad_(False)
    monitor = attach_logit_monitor(model, EXACT)
    model(**some_ids(), labels=some_ids()["input_ids"]).loss.backward()
    threshold = float(monitor.max_logit_LH.min()) / 2
    optimizer = MuonClip(model, lr=0.0, qk_clip_threshold=threshold, logit_monitor=monitor)
    with pytest.warns(UserWarning, match="in heads that cannot be clipped"):
        assert optimizer.step().clipped_heads == 4


def test_a_query_that_is_the_key_is_not_scaled_twice() -> None:
    model = made("llama")
    attention = model.model.layers[0].self_attn
    attention.q_proj = attention.k_proj
    before = attention.q_proj.weight.clone()
    assert qk_clip_([attention], torch.full((1, 4), 200.0), 100.0) == 0
    assert torch.equal(attention.q_proj.weight, before)


def test_latent_attention_without_a_latent_query() -> None:
    model = made("deepseek-no-latent-query")
    expect_half(model)


def test_layers_that_share_their_weights_are_scaled_once() -> None:
    model = made("llama")
    first, second = (layer.self_attn for layer in model.model.layers)
    second.q_proj, second.k_proj = first.q_proj, first.k_proj
    monitor = attach_logit_monitor(model, EXACT)
    model(**some_ids())
    before = monitor.max_logit_LH.clone()
    threshold = float(before.min()) / 2
    model.model.layers[1].self_attn.requires_grad_(True)
    assert qk_clip_(attention_layers(model), before, threshold) == 4
    monitor.reset()
    model(**some_ids())
    # What the first layer sees does not depend on the clip.
    wanted = before[0] * threshold / before.amax(0)
    assert torch.allclose(monitor.max_logit_LH[0], wanted, rtol=1e-4)


def test_a_monitor_of_other_layers_is_refused_before_anything_moves() -> None:
    model, other = made("llama"), made("llama")
    other.model.layers = other.model.layers[:1]
    with pytest.raises(UserError, match="watches 1 attention layers"):
        MuonClip(model, lr=0.01, logit_monitor=attach_logit_monitor(other))


@pytest.mark.parametrize("copied", [False, True])
def test_a_parameter_that_is_trained_too_late_is_said(copied: bool) -> None:
    model = made("llama")
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    optimizer = MuonClip(model, lr=0.01)
    if copied:
        model, optimizer = copy.deepcopy((model, optimizer))
    late = model.model.layers[0].mlp.up_proj.weight
    late.requires_grad_(True)
    model(**some_ids(), labels=some_ids()["input_ids"]).loss.backward()
    with pytest.warns(UserWarning, match="layers.0.mlp.up_proj.weight was frozen when the optimizer was made"):
        optimizer.step()


def test_a_monitor_that_sees_nothing_is_said_once() -> None:
    model = made("llama").eval()
    optimizer = MuonClip(model, lr=0.01, logit_monitor=attach_logit_monitor(model))
    for step in range(2):
        model(**some_ids(), labels=some_ids()["input_ids"]).loss.backward()
        if step == 0:
            with pytest.warns(UserWarning, match="saw no attention"):
                optimizer.step()
        else:
            optimizer.step()


def test_a_batch_that_is_not_finite_can_be_left_out() -> None:
    model = made("llama")
    optimizer = MuonClip(model, lr=0.01, logit_monitor=attach_logit_monitor(model))
    weight = model.model.layers[0].self_attn.q_proj.weight
    handle = weight.register_hook(lambda grad: grad * 0)
    hook = model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *_: _[2] * math.nan)
    model(**some_ids(), labels=some_ids()["input_ids"]).loss.backward()
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(UserError, match="not finite"):
        optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    hook.remove()
    handle.remove()
    optimizer.zero_grad()
    model(**some_ids(), labels=some_ids()["input_ids"]).loss.backward()
    assert optimizer.step().step == 1


def test_a_second_monitor_takes_the_place_of_the_first() -> None:
    model = made("llama-eager")
    first, second = attach_logit_monitor(model), attach_logit_monitor(model, 7.0)
    assert torch.equal(model(**some_ids()).logits, made("llama-eager")(**some_ids()).logits)
    assert first.max_logit == -math.inf < second.max_logit


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_queries_of_a_model_that_is_not_causal_see_all_keys(implementation: str) -> None:
    torch.manual_seed(0)
    model = transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig(
            hidden_size=48, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, image_size=16,
            patch_size=4, attn_implementation=implementation,
        )
    ).train()  # fmt: skip
    monitor = attach_logit_monitor(model, EXACT)
    layer: Any = attention_layers(model)[0]
    for linear in (layer.q_proj, layer.k_proj):
        nn.init.normal_(linear.weight, std=0.3)
    inputs: list[Tensor] = []
    layer.register_forward_pre_hook(
        lambda _, args, kwargs: inputs.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    model(pixel_values=100 * torch.randn(2, 3, 16, 16))
    q_BHTQ, k_BHSQ = (f(inputs[0]).unflatten(-1, (4, 12)).transpose(1, 2) for f in (layer.q_proj, layer.k_proj))
    logits_BHTS = (q_BHTQ @ k_BHSQ.mT * 12**-0.5).detach()
    torch.testing.assert_close(monitor.max_logit_LH[0], logits_BHTS.amax((0, 2, 3)))
    assert bool((logits_BHTS.tril().amax((0, 2, 3)) < monitor.max_logit_LH[0]).any())


def test_a_model_of_this_project_has_its_own() -> None:
    assert attach_logit_monitor(Transformer(ModelConfig.preset("test")), 7.0).threshold == 7.0
