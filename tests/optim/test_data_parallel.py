"""Two processes, one thread each: the same bits on every rank, and the single process's result within bf16 noise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from openk2.model import ModelConfig, Transformer
from openk2.optim import MuonClip

STEPS = 4
THRESHOLD = 0.02


def run_wrapped(rank: int, folder: str) -> None:
    """Torch's own wrapper, and nothing said of a process group."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Transformer(ModelConfig.preset("test"))
    wrapped = DistributedDataParallel(Summed(model))
    optimizer = MuonClip(wrapped, lr=0.01, qk_clip_threshold=THRESHOLD)
    assert copy.deepcopy(optimizer).threshold == THRESHOLD
    data = torch.Generator().manual_seed(rank)
    stats = []
    for _ in range(STEPS):
        ids = torch.randint(0, 200, (2, 17), generator=data)
        optimizer.zero_grad()
        wrapped(ids).backward()
        stats.append(optimizer.step())
    torch.save({"weights": model.state_dict(), "stats": stats}, Path(folder) / f"{rank}.pt")
    with pytest.warns(UserWarning, match="one of 2 ranks and the optimizer knows no process group"):
        MuonClip(model, lr=0.0).step()


class Summed(nn.Module):
    """A model that gives its loss."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        total, count = self.model.loss(ids[:, :-1], ids[:, 1:])
        return total / count


def test_a_wrapped_model_brings_its_group(in_ranks: Callable[..., None], tmp_path: Path) -> None:
    in_ranks(run_wrapped, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert first["stats"] == second["stats"]
    assert first["stats"][-1].clipped_heads > 0
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name


def run(rank: int, ranks: int, folder: str) -> None:
    """Each rank sees its half of the batch and gradients are summed; one process sees the halves one by one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Transformer(ModelConfig.preset("test"))
    start = copy.deepcopy(model.state_dict())
    group = dist.group.WORLD if ranks > 1 else None
    optimizer = MuonClip(model, lr=0.01, qk_clip_threshold=THRESHOLD, process_group=group)
    data = torch.Generator().manual_seed(1)
    stats = []
    for _ in range(STEPS):
        halves = torch.randint(0, 200, (4, 17), generator=data).chunk(2)
        optimizer.zero_grad()
        for ids in halves if ranks == 1 else halves[rank : rank + 1]:
            total, _ = model.loss(ids[:, :-1], ids[:, 1:])
            (total / 64).backward()
        if group is not None:
            for parameter in model.parameters():
                dist.all_reduce(parameter.grad, group=group)
        stats.append(optimizer.step())
    torch.save({"start": start, "weights": model.state_dict(), "stats": stats}, Path(folder) / f"{ranks}-{rank}.pt")


def test_ranks_agree_bit_for_bit_and_with_one_process(in_ranks: Callable[..., None], tmp_path: Path) -> None:
    run(0, 1, str(tmp_path))
    in_ranks(run, 2, str(tmp_path))
    alone, first, second = (torch.load(tmp_path / name, weights_only=False) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    assert first["stats"] == second["stats"]
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
        travelled = (alone["weights"][name] - alone["start"][name]).norm()
        assert (weight - alone["weights"][name]).norm() <= 0.05 * travelled, name
    for ours, single in zip(first["stats"], alone["stats"], strict=True):
        assert ours.max_logit == pytest.approx(single.max_logit, rel=0.01)
        assert ours.clipped_heads > 0 and single.clipped_heads > 0
