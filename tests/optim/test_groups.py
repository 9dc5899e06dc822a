from __future__ import annotations

import pytest
import torch
from torch import nn

from openk2.core import UserError
from openk2.model import ModelConfig, Transformer
from openk2.optim import MuonClip, param_groups_table, plan_parameters


@pytest.fixture(scope="module")
def nano() -> Transformer:
    with torch.device("meta"):
        return Transformer(ModelConfig.preset("nano"))


def test_every_parameter_of_nano_is_in_exactly_one_group(nano: Transformer) -> None:
    plans = plan_parameters(nano)
    assert [plan.name for plan in plans] == [name for name, _ in nano.named_parameters()]
    optimizer = MuonClip(nano, lr=1e-3)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in nano.parameters())


def test_nano_ends_and_norms_on_adamw_every_matrix_on_muon(nano: Transformer) -> None:
    for plan in plan_parameters(nano):
        at_the_ends = plan.name in ("embed_tokens.weight", "lm_head.weight")
        is_norm = plan.name.endswith("norm.weight")
        assert plan.method == ("adamw" if at_the_ends or is_norm else "muon"), plan.name
    by_name = {plan.name: plan for plan in plan_parameters(nano)}
    assert by_name["layers.1.mlp.gate.weight"].method == "muon"
    experts = by_name["layers.1.mlp.experts.gate_up_proj"]
    assert (experts.matrices, experts.rows, experts.cols) == (2 * 8, 160, 192)
    down = by_name["layers.1.mlp.experts.down_proj"]
    assert (down.matrices, down.rows, down.cols) == (8, 192, 160)


def test_transformers_model_gets_the_same_assignment(nano: Transformer) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.DeepseekV3Config(
        vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1,
        q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, n_group=1, topk_group=1,
        first_k_dense_replace=1, max_position_embeddings=64,
    )  # fmt: skip
    theirs = {
        plan.name.removeprefix("model."): plan for plan in plan_parameters(transformers.DeepseekV3ForCausalLM(config))
    }
    for plan in plan_parameters(nano):
        if plan.name in theirs:
            assert theirs[plan.name].method == plan.method, plan.name
    assert theirs["layers.1.mlp.experts.gate_up_proj"].matrices == 2 * 4
    assert {name for name, plan in theirs.items() if plan.method == "adamw"} == {
        name for name in theirs if name in ("embed_tokens.weight", "lm_head.weight") or name.endswith("norm.weight")
    }


def test_table_names_every_parameter_and_the_totals(nano: Transformer) -> None:
    table = param_groups_table(nano)
    for name, _ in nano.named_parameters():
        assert name in table
    assert "16 x [160, 192]" in table
    assert table.splitlines()[-1].startswith("muon ")


def test_other_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(10, 4)
            self.conv = nn.Conv2d(1, 2, 3)
            self.body = nn.Linear(4, 4)
            self.frozen = nn.Linear(4, 4)
            self.frozen.requires_grad_(False)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.tokens.weight

    methods = {plan.name: plan.method for plan in plan_parameters(Net())}
    assert methods == {
        "tokens.weight": "adamw",
        "conv.weight": "adamw",
        "conv.bias": "adamw",
        "body.weight": "muon",
        "body.bias": "adamw",
    }
    with pytest.raises(UserError, match="no trainable parameter"):
        plan_parameters(nn.Linear(2, 2).requires_grad_(False))
