"""What a configuration amounts to: counts against published numbers and against the module itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from openk2.core import UserError
from openk2.deploy.describe import (
    amount,
    balanced_scaling_factor,
    compare_heads,
    describe,
    flops_per_token,
    named_config,
    with_heads,
)
from openk2.model import ModelConfig, Transformer, save


@pytest.mark.parametrize(
    ("name", "total", "activated", "cache"),
    [
        ("k2", 1026.41e9, 32.86e9, 61 * 576 * 2),
        ("deepseek-v3", 671.03e9, 37.55e9, 61 * 576 * 2),
        ("moonlight", 15.96e9, 2.91e9, 27 * 576 * 2),
    ],
)
def test_published_sizes(name: str, total: float, activated: float, cache: int) -> None:
    found = describe(ModelConfig.preset(name))
    assert found.total_parameters == pytest.approx(total, rel=1e-4)
    assert found.activated_parameters == pytest.approx(activated, rel=2e-3)
    assert found.kv_cache_bytes_per_token == cache


def test_the_tensors_of_k2() -> None:
    found = describe(ModelConfig.preset("k2"))
    shapes = {t.name: (t.shape, t.copies) for t in found.tensors}
    assert shapes["model.layers.0-60.self_attn.q_b_proj.weight"] == ((12288, 1536), 61)
    assert shapes["model.layers.1-60.mlp.experts.0-383.down_proj.weight"] == ((7168, 2048), 60 * 384)
    biases = sum(t.parameters for t in found.tensors if t.name.endswith("e_score_correction_bias"))
    assert sum(t.parameters for t in found.tensors) - biases == found.total_parameters
    assert found.all_moe_parameters == pytest.approx(1043e9, rel=1e-3)  # what the report calls 1.04T
    assert found.bytes_bf16 == 2 * found.total_parameters + 4 * biases
    assert found.total_parameters < found.bytes_fp8 < 1.01 * found.total_parameters


def test_the_scaling_factor_that_balances_the_shared_expert() -> None:
    """The factors that Moonlight and K2 were released with; another way to draw agrees where nothing was released."""
    for name, released in (("k2", 2.827), ("moonlight", 2.446)):
        config = ModelConfig.preset(name)
        assert config.routed_scaling_factor == released
        assert describe(config).balanced_scaling_factor == pytest.approx(released, abs=0.0015)
    assert describe(ModelConfig.preset("moonlight").model_copy(update={"n_group": 8})).balanced_scaling_factor is None
    logits = np.random.default_rng(1).standard_normal((100_000, 32))
    weight = np.sort(1 / (1 + np.exp(-logits)), axis=1)[:, -4:]
    weight /= weight.sum(1, keepdims=True)
    assert balanced_scaling_factor(32, 4) == pytest.approx(np.mean(1 / np.linalg.norm(weight, axis=1)), abs=0.0005)
    assert balanced_scaling_factor(3, 3) == pytest.approx(3**0.5, rel=0.1)
    assert balanced_scaling_factor(5, 1) == 1.0


def test_heads_at_128k_bracket_the_report() -> None:
    config = ModelConfig.preset("k2")
    ratios = compare_heads(config, with_heads(config, 128), 131072)
    assert ratios == pytest.approx({"prefill": 1.77, "full": 1.86, "absorbed": 1.96}, abs=0.01)
    assert ratios["prefill"] < 1.83 < ratios["full"]


@pytest.mark.parametrize("dense_layers", [3, 1, 0])
def test_flops_are_those_that_transformers_computes(tmp_path: Path, dense_layers: int) -> None:
    """Counted by torch over a whole pass; a plain attention kernel lets every token attend to all of them."""
    from torch.utils.flop_counter import FlopCounterMode

    transformers = pytest.importorskip("transformers")
    config = ModelConfig.preset("test", first_k_dense_replace=dense_layers)
    save(Transformer(config), tmp_path)
    theirs = transformers.DeepseekV3ForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", experts_implementation="eager"
    )
    time = 64
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs(torch.zeros(1, time, dtype=torch.long), use_cache=False)
    assert counter.get_total_flops() == pytest.approx(time * flops_per_token(config, time), rel=0.01)


def test_names_and_folders(tmp_path: Path) -> None:
    config = ModelConfig.preset("test")
    save(Transformer(config), tmp_path)
    assert named_config(str(tmp_path)) == config == named_config("test")
    for name in (str(tmp_path / "nothing"), ""):
        with pytest.raises(UserError, match="neither a preset"):
            named_config(name)
    with pytest.raises(UserError, match="--heads"):
        with_heads(config, 0)


@pytest.mark.parametrize(
    ("number", "text"), [(7, "7"), (999, "999"), (1536, "1.536K"), (70272, "70.27K"), (1026408209408, "1,026B")]
)
def test_amounts(number: float, text: str) -> None:
    assert amount(number, "KMB") == text
