"""A recipe small enough to run many times: a few seconds per run, most of them spent importing torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from openk2.train.recipe import Recipe, parse_recipe

TINY: dict[str, Any] = {
    "name": "tiny",
    "workers": 2,
    "corpus": {"paths": ["package:rich"], "valid_fraction": 0.1},
    "tokenizer": {"vocab_size": 768, "corpus_bytes": 60_000, "episodes": 5},
    "tokens": {"train": 6_000, "valid": 1_000},
    "model": {
        "preset": "test",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "moe_intermediate_size": 16,
        "n_routed_experts": 4,
    },
    "pretrain": {
        "tokens": 8_000,
        "seq_len": 64,
        "micro_tokens": 128,
        "micro_batches": 2,
        "lr": 0.01,
        "warmup_steps": 2,
        "qk_clip_threshold": 5.0,
        "valid_every": 10,
        "valid_micro_batches": 2,
        "checkpoint_seconds": 0.0,
    },
    "episodes": {"train": {"functions": 30}, "valid": 4, "max_tokens": 2000},
    "sft": {
        "tokens": 32_000,
        "micro_tokens": 2000,
        "micro_batches": 2,
        "lr": 0.01,
        "warmup_steps": 2,
        "qk_clip_threshold": 5.0,
        "valid_every": 2,
        "valid_micro_batches": 2,
        "checkpoint_seconds": 0.0,
    },
}


@pytest.fixture(scope="session")
def tiny_unchanged() -> dict[str, Any]:
    """For what is made once for many tests."""
    return copy.deepcopy(TINY)


@pytest.fixture
def tiny_raw() -> dict[str, Any]:
    """A copy that a test may change."""
    return copy.deepcopy(TINY)


@pytest.fixture
def tiny(tiny_raw: dict[str, Any]) -> Recipe:
    return parse_recipe(tiny_raw, "tiny")
