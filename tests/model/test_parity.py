"""The same weights give the same logits in transformers, both ways through a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk2.core import UserError
from openk2.model import LatentCache, ModelConfig, Transformer, load, save

transformers = pytest.importorskip("transformers")

YARN = {"factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 1.0, "beta_slow": 1.0}


def random_model(config: ModelConfig) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config).eval()
    for moe in model.moe_layers():
        moe.gate.e_score_correction_bias.normal_(0, 0.1)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data.uniform_(0.5, 1.5)
    return model


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    experts, groups, open_groups = draw(st.sampled_from([(4, 1, 1), (6, 1, 1), (9, 1, 1), (8, 4, 2), (12, 3, 2)]))
    yarn = draw(
        st.sampled_from([None, YARN, YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}, YARN | {"beta_fast": 32.0}])
    )
    return ModelConfig(
        vocab_size=draw(st.sampled_from([64, 101])),
        hidden_size=draw(st.sampled_from([24, 32, 40])),
        num_hidden_layers=draw(st.integers(1, 3)),
        first_k_dense_replace=draw(st.integers(0, 2)),
        num_attention_heads=draw(st.integers(1, 4)),
        q_lora_rank=draw(st.sampled_from([None, 16, 20])),
        kv_lora_rank=draw(st.sampled_from([8, 20])),
        qk_nope_head_dim=draw(st.sampled_from([8, 12])),
        qk_rope_head_dim=draw(st.sampled_from([2, 4, 8])),
        v_head_dim=draw(st.sampled_from([8, 10, 24])),
        intermediate_size=48,
        moe_intermediate_size=draw(st.sampled_from([8, 10, 16])),
        n_routed_experts=experts,
        num_experts_per_tok=draw(st.integers(1, 4)),
        n_shared_experts=draw(st.integers(1, 2)),
        routed_scaling_factor=2.5,
        n_group=groups,
        topk_group=open_groups,
        rope_theta=draw(st.sampled_from([100.0, 50000.0])),
        rope_scaling=yarn,
        max_position_embeddings=64,
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-5])),
        initializer_range=0.2,
    )


def their_logits(folder: Path, ids_BT: torch.Tensor) -> torch.Tensor:
    # Their grouped experts refuse sizes that are not a multiple of 16 bytes; their loop takes all.
    theirs = transformers.DeepseekV3ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation="eager"
    ).eval()
    with torch.no_grad():
        logits: torch.Tensor = theirs(ids_BT, use_cache=False).logits
    return logits


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs(), time=st.integers(2, 40), split=st.integers(1, 39))
def test_logits_equal_transformers_cached_and_uncached(
    tmp_path_factory: pytest.TempPathFactory, config: ModelConfig, time: int, split: int
) -> None:
    folder = tmp_path_factory.mktemp("model")
    model = random_model(config)
    save(model, folder)
    ids_BT = torch.randint(0, config.vocab_size, (2, time))
    wanted = their_logits(folder, ids_BT)
    with torch.no_grad():
        torch.testing.assert_close(model(ids_BT), wanted, atol=1e-4, rtol=1e-4)

        cache = LatentCache(config, 2, max_len=time)
        split = min(split, time - 1)
        pieces = [model.hidden(ids_BT[:, :split], cache=cache)]
        pieces += [model.hidden(ids_BT[:, i : i + 1], cache=cache) for i in range(split, time)]
        torch.testing.assert_close(model.lm_head(torch.cat(pieces, 1)), wanted, atol=1e-4, rtol=1e-4)

    with torch.enable_grad():  # the training kernels
        torch.testing.assert_close(model(ids_BT).detach(), wanted, atol=1e-4, rtol=1e-4)
    assert load(folder).config == config


def test_yarn_equals_transformers_beyond_4k(tmp_path: Path) -> None:
    """With the settings of K2's release, and those of DeepSeek-V3 whose ramp is wider."""
    for name in ("k2", "deepseek-v3"):
        released = ModelConfig.preset(name)
        config = ModelConfig.preset(
            "test",
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.15,
            qk_rope_head_dim=64,
            rope_theta=released.rope_theta,
            rope_scaling=released.rope_scaling,
            max_position_embeddings=8192,
        )
        model = random_model(config)
        save(model, tmp_path / name)
        ids_BT = torch.randint(0, config.vocab_size, (1, 4200))
        wanted = their_logits(tmp_path / name, ids_BT)
        # The last bit of a frequency is 2e-4 radians at position 4,200; a factor that is 5 % wrong moves a logit by 3.
        with torch.no_grad():
            torch.testing.assert_close(model(ids_BT), wanted, atol=2e-3, rtol=0)


def test_the_gradients_equal_those_of_transformers(tmp_path: Path) -> None:
    config = ModelConfig.preset("test", initializer_range=0.1)
    model = random_model(config)
    save(model, tmp_path)
    theirs = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids_BT = torch.randint(0, config.vocab_size, (2, 80))
    targets_BT = ids_BT.roll(-1, 1).masked_fill(torch.rand(2, 80) < 0.3, -100)

    loss, n = model.loss(ids_BT, targets_BT)
    loss.backward()
    logits = theirs(ids_BT, use_cache=False).logits
    reference = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), reduction="sum")
    reference.backward()
    assert n == int((targets_BT != -100).sum())
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-4)
    grads = {
        name if name.startswith("lm_head") else name.removeprefix("model."): p.grad
        for name, p in theirs.named_parameters()
    }
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, grads[name], atol=1e-3, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("shards", [False, True])
def test_reads_what_transformers_writes(tmp_path: Path, shards: bool) -> None:
    config = ModelConfig.preset("test", rope_scaling=YARN | {"mscale": 1.0, "mscale_all_dim": 1.0})
    settings_: dict[str, Any] = config.to_hf()
    theirs = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**settings_)).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="300KB" if shards else "5GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == shards
    model = load(tmp_path, dtype=torch.float32)
    assert model.config.rope_scaling == config.rope_scaling
    ids_BT = torch.randint(0, config.vocab_size, (2, 30))
    with torch.no_grad():
        torch.testing.assert_close(model(ids_BT), theirs(ids_BT).logits, atol=1e-4, rtol=1e-4)


def test_bf16_storage_loads_in_both(tmp_path: Path) -> None:
    model = random_model(ModelConfig.preset("test"))
    save(model, tmp_path, dtype=torch.bfloat16)
    ours = load(tmp_path)
    assert ours.lm_head.weight.dtype == torch.bfloat16
    assert ours.moe_layers()[0].gate.e_score_correction_bias.dtype == torch.float32
    ids_BT = torch.randint(0, 4096, (1, 20))
    with torch.no_grad():
        logits = load(tmp_path, dtype=torch.float32)(ids_BT)
    torch.testing.assert_close(logits, their_logits(tmp_path, ids_BT), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "llama"}, "model_type"),
        ({"n_group": 8}, "n_group"),
        ({"rope_interleave": False}, "rope_interleave"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "linear"),
        ({"hidden_size": 0}, "hidden_size"),
    ],
)
def test_another_architecture_is_refused_with_the_key_named(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        ModelConfig.from_hf(ModelConfig.preset("test").to_hf() | change)
