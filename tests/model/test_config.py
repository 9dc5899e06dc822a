"""Presets, their sizes, and the rule behind the routed scaling factor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from openk2.core import UserError
from openk2.model import ModelConfig, Transformer


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [("k2", 1026.4e9, 32.86e9), ("moonlight", 15.96e9, 2.91e9), ("nano", 7.60e6, 3.73e6), ("test", 0.709e6, 0.635e6)],
)
def test_parameter_counts(name: str, total: float, active: float) -> None:
    """K2: 1026.4B and 32.86B by the config's arithmetic."""
    config = ModelConfig.preset(name)
    with torch.device("meta"):
        model = Transformer(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameter_count()
    assert config.parameter_count() == pytest.approx(total, rel=0.05)
    assert config.parameter_count(active=True) == pytest.approx(active, rel=0.05)


def test_the_softmax_scale_of_k2() -> None:
    assert ModelConfig.preset("k2").softmax_scale == pytest.approx(0.13086, abs=1e-5)


@pytest.mark.parametrize("name", ["test", "nano", "moonlight", "k2"])
def test_routed_scaling_factor_is_the_expected_inverse_norm(name: str) -> None:
    config = ModelConfig.preset(name)
    rng = np.random.default_rng(0)
    scores = 1 / (1 + np.exp(-rng.standard_normal((20_000, config.n_routed_experts))))
    chosen = -np.sort(-scores, axis=1)[:, : config.num_experts_per_tok]
    p = chosen / chosen.sum(1, keepdims=True)
    assert (1 / np.linalg.norm(p, axis=1)).mean() == pytest.approx(config.routed_scaling_factor, abs=2e-3)


@pytest.mark.parametrize("name", ["test", "nano", "moonlight", "k2"])
def test_hf_form_round_trips(name: str) -> None:
    config = ModelConfig.preset(name)
    assert ModelConfig.from_hf(config.to_hf()) == config


def test_the_older_rope_scaling_spelling_is_read() -> None:
    raw = ModelConfig.preset("k2").to_hf()
    del raw["rope_parameters"]
    assert ModelConfig.from_hf(raw | {"model_type": "kimi_k2"}) == ModelConfig.preset("k2")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"num_experts_per_tok": 9}, "num_experts_per_tok"),
        ({"qk_rope_head_dim": 7}, "even"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"eos_token_id": 5000}, "eos_token_id"),
        ({"no_such_field": 1}, "no_such_field"),
        ({"rope_theta": 1.0}, "rope_theta"),
        ({"rope_scaling": {"factor": 2.0, "original_max_position_embeddings": 10**400}}, "original_max_position"),
        ({"rope_scaling": {"factor": 2.0, "original_max_position_embeddings": 64, "mscale": 1e200}}, "mscale"),
    ],
)
def test_impossible_values_are_named(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        ModelConfig.preset("test", **changes)


def test_unknown_preset() -> None:
    with pytest.raises(UserError, match=r"'huge'.*nano"):
        ModelConfig.preset("huge")
