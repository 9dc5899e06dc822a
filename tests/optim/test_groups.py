from __future__ import annotations

import pytest
import torch
from torch import nn

from openk2.core import UserError
from openk2.model import ModelConfig, Transformer
from openk2.optim import MuonClip, param_groups_table, plan_parameters
from openk2.optim.groups import Method, module_of


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
            self.depthwise = nn.Conv1d(4, 4, 3, groups=4, bias=False)
            self.waves = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3, bias=False))
            self.expert_bias = nn.Parameter(torch.zeros(2, 4))
            self.body = nn.Linear(4, 4)
            self.frozen = nn.Linear(4, 4)
            self.frozen.requires_grad_(False)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.tokens.weight

    methods = {plan.name: plan.method for plan in plan_parameters(Net())}
    assert methods == {
        "expert_bias": "adamw",
        "depthwise.weight": "adamw",
        "waves.parametrizations.weight.original0": "adamw",
        "waves.parametrizations.weight.original1": "adamw",
        "tokens.weight": "adamw",
        "conv.weight": "adamw",
        "conv.bias": "adamw",
        "body.weight": "muon",
        "body.bias": "adamw",
    }
    with pytest.raises(UserError, match="no trainable parameter"):
        plan_parameters(nn.Linear(2, 2).requires_grad_(False))


class Experts(nn.Module):
    """Two experts with hidden size 6 and inner size 4 in one of the layouts, or without the second projection."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.up = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
        self.is_concatenated = layout != "interleaved"
        self.layout = layout
        self.gate_up_proj = nn.Parameter(self.joined(self.gate, self.up).contiguous())
        if layout != "unknown":
            self.down_proj = nn.Parameter(torch.randn(2, 6, 4) if layout == "stacked" else torch.randn(2, 4, 6))

    def joined(self, gate_EDI: torch.Tensor, up_EDI: torch.Tensor) -> torch.Tensor:
        if self.layout == "stacked":
            return torch.cat([gate_EDI, up_EDI], dim=2).mT
        if self.layout == "interleaved":
            return torch.stack([gate_EDI, up_EDI], dim=3).flatten(2)
        return torch.cat([gate_EDI, up_EDI], dim=2)


@pytest.mark.parametrize("layout", ["stacked", "beside", "interleaved"])
def test_gate_and_up_are_orthogonalised_apart_wherever_they_lie(layout: str) -> None:
    model, apart = Experts(layout), nn.ParameterList()
    gradient_EDI, other_EDI = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    for matrix_EDI, grad_EDI in ((model.gate, gradient_EDI), (model.up, other_EDI)):
        apart.append(nn.Parameter(matrix_EDI.clone()))
        apart[-1].grad = grad_EDI.clone()
    model.gate_up_proj.grad = model.joined(gradient_EDI, other_EDI).contiguous()
    for module in (model, apart):
        MuonClip(module, lr=0.1).step()
    torch.testing.assert_close(model.gate_up_proj, model.joined(*apart), rtol=1e-5, atol=1e-6)


def test_a_gate_up_of_unknown_layout_is_one_matrix() -> None:
    (plan,) = plan_parameters(Experts("unknown"))
    assert (plan.matrices, plan.rows, plan.cols) == (2, 6, 8)


def test_experts_of_transformers_are_split_as_they_compute() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4,
    }  # fmt: skip
    gpt_oss = transformers.GptOssForCausalLM(transformers.GptOssConfig(**sizes))
    llama4 = transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**sizes, interleave_moe_layer_step=1))
    phi3 = transformers.Phi3ForCausalLM(transformers.Phi3Config(**sizes, pad_token_id=0))
    for model, layout, count, rows, cols in (
        (gpt_oss, "interleaved", 2 * 4, 32, 24),
        (llama4, "beside", 2 * 4, 32, 24),
        (phi3, "stacked", 2, 24, 32),
    ):
        plans = {plan.name.split(".mlp.")[-1]: plan for plan in plan_parameters(model)}
        plan = next(plan for name, plan in plans.items() if "gate_up" in name and plan.method == "muon")
        assert (plan.layout, plan.matrices, plan.rows, plan.cols) == (layout, count, rows, cols)
        assert all(plan.method == "adamw" for name, plan in plans.items() if name.endswith("bias"))


def test_overrides_decide_by_name_and_the_last_one_counts(nano: Transformer) -> None:
    overrides: dict[str, Method] = {"*.mlp.gate.*": "adamw", "layers.2.*.gate.weight": "muon", "lm_head.*": "muon"}
    automatic = {plan.name: plan.method for plan in plan_parameters(nano)}
    changed = {plan.name: plan.method for plan in plan_parameters(nano, overrides)}
    expected: dict[str, Method] = {f"layers.{i}.mlp.gate.weight": "adamw" for i in (1, 3, 4, 5, 6, 7)}
    assert changed == automatic | expected | {"lm_head.weight": "muon"}
    assert "adamw   layers.1.mlp.gate.weight" in param_groups_table(nano, overrides)
    groups = {group["method"]: group["params"] for group in MuonClip(nano, lr=1e-3, overrides=overrides).param_groups}
    assert any(p is nano.lm_head.weight for p in groups["muon"])


@pytest.mark.parametrize(
    ("pattern", "method", "words"),
    [
        ("layers.99.*", "adamw", "no trainable parameter is named 'layers.99.*'"),
        ("*", "sgd", "'sgd' is no method"),
        ("norm.weight", "muon", "is no matrix"),
    ],
)
def test_overrides_that_cannot_be(nano: Transformer, pattern: str, method: Method, words: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_parameters(nano, {pattern: method})
    assert words in str(caught.value)


def test_named_parameters_are_grouped_as_their_model_is() -> None:
    torch.manual_seed(0)
    model = Transformer(ModelConfig.preset("test"))
    same = {plan.name: (plan.method, plan.matrices) for plan in plan_parameters(model)}
    named = {plan.name: (plan.method, plan.matrices) for plan in plan_parameters(module_of(model.named_parameters()))}
    assert named == same
    part = [(name, p) for name, p in model.named_parameters() if name.startswith("layers.1.")]
    optimizer = MuonClip(part, lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    stats = optimizer.step()
    assert stats.heads == 0 and stats.max_logit is None
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) != name.startswith("layers.1."), name
    p = nn.Parameter(torch.ones(2, 2))
    for wrong in (model.parameters(), [("x", torch.ones(2, 2))], [3], 5, [("a", p), ("a.b", p)], [("", p)], [(1, p)]):
        with pytest.raises(UserError, match="named_parameters"):
            MuonClip(wrong, lr=0.1)


def test_two_parameters_of_one_name_are_refused() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    with pytest.raises(UserError, match="two parameters are named 'weight'"):
        MuonClip([*first.named_parameters(), *second.named_parameters()], lr=0.1)
    MuonClip([*first.named_parameters(), *first.named_parameters()], lr=0.1)


def test_an_override_finds_a_shared_weight_by_either_name() -> None:
    model = nn.ModuleDict({"embed_tokens": nn.Embedding(8, 4), "lm_head": nn.Linear(4, 8, bias=False)})
    model["lm_head"].weight = model["embed_tokens"].weight
    for name in ("lm_head.weight", "embed_tokens.*"):
        (plan,) = plan_parameters(model, {name: "muon"})
        assert plan.method == "muon"
    frozen = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    frozen[0].requires_grad_(False)
    with pytest.raises(UserError, match="no trainable parameter"):
        plan_parameters(frozen, {"0.*": "adamw"})


def test_what_only_looks_like_a_matrix_is_on_adamw() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos_embed, self.cls_token = nn.Parameter(torch.ones(1, 10, 8)), nn.Parameter(torch.ones(1, 1, 8))
            self.A_log = nn.Parameter(torch.ones(64, 4))
            self.bag, self.inner, self.score = nn.EmbeddingBag(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    methods = {plan.name: plan.method for plan in plan_parameters(Odd())}
    assert [name for name, method in methods.items() if method == "muon"] == ["inner.weight"]
