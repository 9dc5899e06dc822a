"""FSDP2 on two processes: a step is the step of one process, for uneven shapes, tied, frozen and clipped weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from openk2.core import UserError
from openk2.model import ModelConfig, Transformer
from openk2.optim import MuonClip, attach_logit_monitor

RANKS = 2
STEPS = 3
THRESHOLD = 0.02


class Odd(nn.Module):
    """Nothing divides by two: 3 experts, 7 rows, one row; the head is the embedding, one matrix is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(11, 5)
        self.first = nn.Linear(5, 7)
        self.gate_up_proj = nn.Parameter(torch.randn(3, 6, 7) * 0.3)
        self.down_proj = nn.Parameter(torch.randn(3, 7, 3) * 0.3)
        self.one = nn.Parameter(torch.randn(1, 7, 7) * 0.3)
        self.narrow = nn.Linear(7, 1)
        self.frozen = nn.Linear(7, 5)
        self.frozen.requires_grad_(False)
        self.head = nn.Linear(5, 11, bias=False)
        self.head.weight = self.embed_tokens.weight

    def forward(self, ids_BT: Tensor) -> Tensor:
        x = self.first(self.embed_tokens(ids_BT))
        gate, up = torch.einsum("bti,eoi->ebto", x, self.gate_up_proj).chunk(2, -1)
        x = x + torch.einsum("ebto,eio->bti", F.silu(gate) * up, self.down_proj)
        x = torch.tanh(x @ self.one[0]) * self.narrow(x)
        logits: Tensor = self.head(self.frozen(x))
        return logits


def odd() -> nn.Module:
    return Odd()


def ours() -> nn.Module:
    return Transformer(ModelConfig.preset("test"))


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    # Three heads and one shared key: a rank holds one and a half of them.
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=48, intermediate_size=51, num_hidden_layers=2, num_attention_heads=3,
            num_key_value_heads=1, head_dim=16, max_position_embeddings=64, initializer_range=0.3, attention_bias=True,
        )
    )  # fmt: skip


MODELS = {"odd": (odd, 11), "ours": (ours, 200), "llama": (llama, 64)}


def one_mesh(rank: int) -> None:
    """A mesh of shards and replicas, and one beside it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1, RANKS), mesh_dim_names=("replicas", "shards"))
    torch.manual_seed(0)
    alone, model = odd(), odd()
    model.load_state_dict(alone.state_dict())
    fully_shard(model, mesh=mesh)
    for some in (alone, model):
        ids = torch.arange(11)[None]
        F.cross_entropy(some(ids).flatten(0, 1), ids.flatten()).backward()
        MuonClip(some, lr=0.01, ns_dtype=torch.float32).step()
    for wanted, found in zip(alone.parameters(), model.parameters(), strict=True):
        assert (full(found.detach()) - wanted.detach()).abs().max() <= 1e-6
    other = odd()
    fully_shard(other.first, mesh=mesh["shards"])
    fully_shard(other, mesh=mesh)
    with pytest.raises(UserError, match="different meshes"):
        MuonClip(other, lr=0.01)


def test_meshes(in_ranks: Callable[..., None]) -> None:
    in_ranks(one_mesh)


def run(rank: int, ranks: int, name: str, folder: str) -> None:
    """Each rank sees its half of the batch, and FSDP takes the mean; one process sees the halves one by one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    make, vocabulary = MODELS[name]
    model = make().train()
    monitor = attach_logit_monitor(model, THRESHOLD) if name != "odd" else None
    if ranks > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (ranks,))
        for layer in getattr(getattr(model, "model", model), "layers", []):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = MuonClip(model, lr=0.01, qk_clip_threshold=THRESHOLD, ns_dtype=torch.float32, logit_monitor=monitor)
    stats = []
    data = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        batch = torch.randint(0, vocabulary, (4, 9), generator=data)
        halves = batch.chunk(2)
        optimizer.zero_grad()
        for ids in halves if ranks == 1 else halves[rank : rank + 1]:
            output = model(ids[:, :-1])
            logits = getattr(output, "logits", output)
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            (loss / 2 if ranks == 1 else loss).backward()
        stats.append(optimizer.step())
        if step < 2:
            # Into a new optimizer, as from a checkpoint: by torch's own state, then by that of its checkpoint library.
            old, optimizer = optimizer, MuonClip(model, lr=0.01, qk_clip_threshold=THRESHOLD, logit_monitor=monitor)
            if step == 0:
                optimizer.load_state_dict(old.state_dict())
            else:
                saved = get_optimizer_state_dict(model, old)
                before = [full(parameter.detach()) for parameter in model.parameters()]
                set_optimizer_state_dict(model, optimizer, saved)
                assert all(torch.equal(a, full(b.detach())) for a, b in zip(before, model.parameters(), strict=True))
            assert optimizer.param_groups[0]["steps"] == step + 1
    weights = {key: full(parameter.detach()) for key, parameter in model.named_parameters()}
    torch.save({"weights": weights, "stats": stats}, Path(folder) / f"{name}-{ranks}-{rank}.pt")
    if ranks > 1 and rank == 0:
        with pytest.raises(UserError, match="leave process_group out"):
            MuonClip(model, lr=0.01, process_group=dist.group.WORLD)
        with pytest.raises(UserError, match="on the whole model"):
            MuonClip(nn.ModuleList([model, nn.Linear(2, 2)]), lr=0.01)


def full(tensor: Any) -> Tensor:
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.clone()


@pytest.mark.parametrize("name", list(MODELS))
def test_a_sharded_step_is_that_of_one_process(name: str, in_ranks: Callable[..., None], tmp_path: Path) -> None:
    if name == "llama":
        pytest.importorskip("transformers")
    run(0, 1, name, str(tmp_path))
    in_ranks(run, RANKS, name, str(tmp_path))
    alone, first, second = (
        torch.load(tmp_path / f"{name}-{ranks}-{rank}.pt", weights_only=False)
        for ranks, rank in ((1, 0), (2, 0), (2, 1))
    )
    assert first["stats"] == second["stats"]
    assert first["weights"].keys() == alone["weights"].keys()
    for key, weight in alone["weights"].items():
        assert torch.equal(first["weights"][key], second["weights"][key]), key
        assert (first["weights"][key] - weight).abs().max() <= 1e-6, key
    for sharded, single in zip(first["stats"], alone["stats"], strict=True):
        assert sharded.grad_norm == pytest.approx(single.grad_norm, rel=1e-4)
        assert sharded.clipped_heads == single.clipped_heads
        if name != "odd":
            assert sharded.max_logit == pytest.approx(single.max_logit, rel=1e-5)
            assert single.clipped_heads > 0
