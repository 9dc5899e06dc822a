from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import openk2
from openk2.core import UserError
from openk2.model import ModelConfig, Transformer
from openk2.optim import MuonClip, StepStats, newton_schulz


def stack_of_linears() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40, bias=False), nn.Linear(40, 24, bias=False), nn.Linear(24, 24, bias=False))


def train(model: nn.Module, step: Callable[[], object], steps: int = 6) -> None:
    data = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(16, 24, generator=data)
        model.zero_grad()
        ((model(x) - x.roll(1, dims=1)) ** 2).mean().backward()
        step()


def test_equals_torch_muon_on_matrices() -> None:
    ours, theirs = stack_of_linears(), stack_of_linears()
    muon = MuonClip(ours, lr=0.02, ns_dtype=torch.bfloat16)
    reference = torch.optim.Muon(theirs.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    train(ours, muon.step)
    train(theirs, reference.step)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-3)


def test_equals_torch_adamw_elsewhere() -> None:
    def tiny() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.LayerNorm(24), nn.Conv1d(24, 24, 1).requires_grad_(False))

    ours, theirs = tiny(), tiny()
    adam = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], 0.01, (0.9, 0.95), weight_decay=0.1)
    data = torch.Generator().manual_seed(1)
    optimizer = MuonClip(ours, lr=0.01)
    for _ in range(5):
        x = torch.randn(8, 24, generator=data)
        for model in (ours, theirs):
            model.zero_grad()
            model[0](x).pow(4).mean().backward()
        optimizer.step()
        adam.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 2 * 8, 12, generator=torch.Generator().manual_seed(0)))
        self.down_proj = nn.Parameter(torch.randn(3, 12, 8, generator=torch.Generator().manual_seed(1)))


def test_stacked_experts_are_updated_as_separate_matrices() -> None:
    model = Experts()
    before = copy.deepcopy(model)
    for seed, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(10 + seed))
    lr, decay = 0.01, 0.1
    MuonClip(model, lr=lr, weight_decay=decay, ns_dtype=torch.float32).step()

    def expected(weight: Tensor, grad: Tensor) -> Tensor:
        return weight * (1 - lr * decay) - lr * 0.2 * math.sqrt(12) * newton_schulz(grad, dtype=torch.float32)

    assert model.gate_up_proj.grad is not None and model.down_proj.grad is not None
    for expert in range(3):
        for rows in (slice(0, 8), slice(8, 16)):
            want = expected(before.gate_up_proj[expert, rows], model.gate_up_proj.grad[expert, rows])
            torch.testing.assert_close(model.gate_up_proj[expert, rows], want, rtol=0, atol=1e-5)
        want = expected(before.down_proj[expert], model.down_proj.grad[expert])
        torch.testing.assert_close(model.down_proj[expert], want, rtol=0, atol=1e-5)


def test_update_size_matches_adamw() -> None:
    """The lemma of Moonlight, section 2.2: whatever the shape, an update has an RMS near 0.2 lr."""
    for shape in [(64, 64), (16, 128), (128, 16)]:
        layer = nn.Linear(shape[1], shape[0], bias=False)
        before = layer.weight.detach().clone()
        layer.weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        MuonClip(layer, lr=1.0, weight_decay=0.0).step()
        assert 0.14 < (layer.weight - before).square().mean().sqrt() < 0.24


def tiny_transformer() -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig.preset("test"))


def language_step(model: Transformer, optimizer: MuonClip, seed: int) -> StepStats:
    ids = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    total, count = model.loss(ids[:, :-1], ids[:, 1:])
    (total / count).backward()
    return optimizer.step()


def test_deterministic_and_exact_resume() -> None:
    straight = tiny_transformer()
    optimizer = MuonClip(straight, lr=0.01)
    for seed in range(3):
        language_step(straight, optimizer, seed)
    weights, state = copy.deepcopy(straight.state_dict()), copy.deepcopy(optimizer.state_dict())
    last = [language_step(straight, optimizer, seed) for seed in range(3, 6)]

    resumed = tiny_transformer()
    resumed.load_state_dict(weights)
    again = MuonClip(resumed, lr=0.5)
    again.load_state_dict(state)
    assert [language_step(resumed, again, seed) for seed in range(3, 6)] == last
    for mine, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, other)
    for mine_state, other_state in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert all(torch.equal(mine_state[name], other_state[name]) for name in mine_state)


def test_state_of_another_model_is_refused() -> None:
    state = MuonClip(stack_of_linears(), lr=0.01).state_dict()
    with pytest.raises(UserError, match="other parameters"):
        MuonClip(tiny_transformer(), lr=0.01).load_state_dict(state)
    wide, narrow = nn.Linear(4, 8, bias=False), nn.Linear(4, 6, bias=False)
    optimizer = MuonClip(wide, lr=0.01)
    wide.weight.grad = torch.ones_like(wide.weight)
    optimizer.step()
    with pytest.raises(UserError, match="other parameters"):
        MuonClip(narrow, lr=0.01).load_state_dict(optimizer.state_dict())


def test_parameters_without_a_gradient_stay() -> None:
    model = stack_of_linears()
    optimizer = MuonClip(model, lr=0.01)
    train(model, optimizer.step, steps=2)
    before = [p.detach().clone() for p in model.parameters()]
    model.zero_grad()
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    optimizer.step()
    moved = [not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
    assert moved == [True, False, False]


def test_low_precision_gradients_are_accepted() -> None:
    layer = nn.Linear(8, 8, bias=False)
    layer.weight.grad = torch.ones_like(layer.weight)
    layer.weight.grad_dtype = None
    layer.weight.grad = torch.ones(8, 8, dtype=torch.bfloat16)
    stats = MuonClip(layer, lr=0.01).step()
    assert stats.grad_norm == pytest.approx(8.0) and layer.weight.dtype == torch.float32


def test_statistics_and_schedule() -> None:
    model = tiny_transformer()
    optimizer = MuonClip(model, lr=0.01)
    stats = language_step(model, optimizer, 0)
    optimizer.set_lr(0.001)
    later = language_step(model, optimizer, 1)
    assert (stats.step, stats.lr, later.step, later.lr) == (1, 0.01, 2, 0.001)
    assert stats.heads == 3 * 4 and stats.grad_norm > 0 and stats.max_logit is not None
    plain = stack_of_linears()
    optimizer = MuonClip(plain, lr=0.01)
    train(plain, lambda: None, steps=1)
    plain_stats = optimizer.step()
    assert plain_stats.max_logit is None and plain_stats.heads == plain_stats.clipped_heads == 0


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    model = stack_of_linears()
    before = copy.deepcopy(model.state_dict())
    optimizer = MuonClip(model, lr=0.01)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    with pytest.raises(UserError, match="not finite at step 1"):
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lr": -1.0}, "lr"),
        ({"lr": "1e-3"}, "lr must be a number, not .1e-3."),
        ({"weight_decay": math.inf}, "weight_decay"),
        ({"momentum": 1.0}, "momentum"),
        ({"qk_clip_threshold": 0.0}, "qk_clip_threshold"),
        ({"ns_steps": 0}, "ns_steps"),
        ({"adam_betas": (0.9, 1.0)}, "adam_betas"),
        ({"adam_eps": 0.0}, "adam_eps"),
    ],
)
def test_impossible_numbers_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        MuonClip(stack_of_linears(), **({"lr": 0.01} | wrong))


def test_other_misuse_is_refused() -> None:
    with pytest.raises(UserError, match="master weights"):
        MuonClip(nn.Linear(4, 4).bfloat16(), lr=0.01)
    unnamed: Any = stack_of_linears().parameters()
    with pytest.raises(UserError, match="named_parameters"):
        MuonClip(unnamed, lr=0.01)
    optimizer = MuonClip(stack_of_linears(), lr=0.01)
    with pytest.raises(UserError, match="backward"):
        optimizer.step()
    with pytest.raises(UserError, match="all parameters at once"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, 2))]})
    sparse = nn.Embedding(4, 4, sparse=True)
    sparse(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match="sparse"):
        MuonClip(sparse, lr=0.01).step()


def test_a_closure_is_called_for_the_gradients() -> None:
    models = [stack_of_linears(), stack_of_linears()]
    x = torch.randn(8, 24, generator=torch.Generator().manual_seed(1))
    optimizers = [MuonClip(model, lr=0.01) for model in models]

    def closure() -> Tensor:
        optimizers[0].zero_grad()
        loss: Tensor = models[0](x).square().mean()
        loss.backward()
        return loss

    optimizers[0].step(closure)
    models[1](x).square().mean().backward()
    optimizers[1].step()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_schedulers_that_cycle_the_momentum() -> None:
    layer = nn.Linear(4, 4)
    optimizer = MuonClip(layer, lr=1e-3, adam_betas=(0.8, 0.9))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=4)
    for _ in range(3):
        layer(torch.ones(4)).sum().backward()
        optimizer.step()
        scheduler.step()
    muon, adam = optimizer.param_groups
    assert muon["momentum"] == pytest.approx(0.95) and muon["lr"] < 1e-3
    assert adam["betas"] == (0.8, 0.9)


def test_a_copy_of_model_and_optimizer_goes_on_like_them() -> None:
    model = Transformer(ModelConfig.preset("test"))
    optimizer = MuonClip(model, lr=0.01, qk_clip_threshold=0.02)
    ids = torch.randint(0, 500, (2, 17), generator=torch.Generator().manual_seed(0))

    def step(model: Transformer, optimizer: MuonClip) -> StepStats:
        optimizer.zero_grad()
        model.loss(ids[:, :-1], ids[:, 1:])[0].backward()
        return optimizer.step()

    step(model, optimizer)
    # A scheduler puts a `step` of its own on the optimizer.
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    other_model, other = copy.deepcopy((model, optimizer))
    assert step(model, optimizer) == step(other_model, other)
    for ours, theirs in zip(model.parameters(), other_model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert pickle.loads(pickle.dumps(optimizer)).threshold == 0.02


def test_a_model_of_this_project_is_watched_inside_another() -> None:
    inner = Transformer(ModelConfig.preset("test"))
    optimizer = MuonClip(nn.ModuleDict({"inner": inner}), lr=0.01, qk_clip_threshold=1e-6)
    ids = torch.randint(0, 500, (2, 17), generator=torch.Generator().manual_seed(0))
    inner.loss(ids[:, :-1], ids[:, 1:])[0].backward()
    assert optimizer.step().clipped_heads > 0


def test_a_dtype_that_was_asked_for_stays_and_the_rest_of_the_state_comes_along() -> None:
    layer = nn.Linear(4, 4)
    layer(torch.ones(2, 4)).sum().backward()
    first = MuonClip(layer, lr=0.1, ns_dtype=torch.float32)
    first.step()
    second = MuonClip(layer, lr=0.1, ns_dtype=torch.bfloat16)
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["ns_dtype"] == "bfloat16"
    assert second.param_groups[0]["steps"] == 1
    wrongs: list[Any] = [torch.int8, "bfloat16"]
    for wrong in wrongs:
        with pytest.raises(UserError, match="ns_dtype must be"):
            MuonClip(layer, lr=0.1, ns_dtype=wrong)


def test_the_checkpoint_library_of_torch_makes_no_step_of_a_fresh_optimizer() -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    torch.manual_seed(0)
    model = Transformer(ModelConfig.preset("test", initializer_range=0.3)).train()
    optimizer = MuonClip(model, lr=0.1, qk_clip_threshold=1e-3)
    ids = torch.arange(20)[None]
    model.loss(ids, ids)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    get_optimizer_state_dict(model, optimizer)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert [group["steps"] for group in optimizer.param_groups] == [0, 0]
    assert optimizer.monitor is not None and optimizer.monitor.max_logit_LH.isfinite().all()


NANO = Path(openk2.__file__).parent / "weights" / "nano"
TRAINING = """
import sys, torch
from openk2.model import load
from openk2.optim import MuonClip
model = load(sys.argv[1], dtype=torch.float32)
optimizer = MuonClip(model, lr=0.01)
loss, n = model.train().loss(torch.tensor([[5, 6, 7]]), torch.tensor([[6, 7, 8]]))
(loss / n).backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
print(sorted({"sympy", "torch._dynamo"} & set(sys.modules)))
"""


def test_a_model_is_loaded_and_trained_without_torchs_compiler() -> None:
    """Importing it takes longer than loading the model."""
    done = subprocess.run([sys.executable, "-c", TRAINING, str(NANO)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
