"""The peer: transformers' DeepseekV3ForCausalLM, and a training loop around it with torch.optim.Muon.

The loop gives the peer what a careful person would give it: the fastest of its attention and expert implementations,
either autocast or bf16 copies with fp32 master weights, fused AdamW for the non-matrices. torch.optim.Muon takes only
2-D parameters, so each expert's gate, up and down matrix is a parameter of its own that shares the stacked tensor's
memory. It has no router balancing, no logit monitor and no QK-Clip to pay for. With several processes their gradients
are summed in one flat all-reduce, as ours are; every process then takes the whole optimizer step.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from openk2.model import Transformer, save
from openk2.optim import plan_parameters


@dataclass(frozen=True, slots=True)
class Variant:
    attention: str
    experts: str
    precision: str

    def __str__(self) -> str:
        return f"{self.attention} attention, {self.experts} experts, {self.precision}"


def variants(precisions: tuple[str, ...]) -> Iterator[Variant]:
    for combination in itertools.product(("sdpa", "eager"), ("grouped_mm", "eager"), precisions):
        yield Variant(*combination)


def peer_of(model: Transformer, variant: Variant, dtype: torch.dtype) -> nn.Module:
    """A transformers model with the same weights, read from the folder that `openk2.model.save` wrote."""
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder, dtype=torch.float32)
        peer: nn.Module = transformers.DeepseekV3ForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=variant.attention,
            experts_implementation=variant.experts,
            local_files_only=True,
        )
    return peer


@torch.no_grad()
def logit_gap(model: Transformer, variant: Variant, ids_BT: Tensor) -> float:
    """Largest difference of fp32 logits between us and the peer: the gate before any timing."""
    peer = peer_of(model, variant, torch.float32).eval()
    was_training = model.training
    gap = (model.eval()(ids_BT) - peer(ids_BT).logits).abs().max().item()
    model.train(was_training)
    return gap


class PeerLoop:
    """The peer's training step: forward, backward, torch.optim.Muon and AdamW."""

    def __init__(
        self,
        model: Transformer,
        variant: Variant,
        dtype: torch.dtype,
        lr: float,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.variant = variant
        self.group = group
        self.dtype = dtype
        self.copies = variant.precision == "bf16 copies"
        peer = peer_of(model, variant, torch.float32).train()
        self._masters = {name: p.detach().clone() if self.copies else p.detach() for name, p in peer.named_parameters()}
        muon: list[nn.Parameter] = []
        adam: list[nn.Parameter] = []
        self._leaves: dict[str, list[nn.Parameter]] = {}
        for plan in plan_parameters(peer):
            master = self._masters[plan.name]
            if plan.method == "adamw":
                leaves = [nn.Parameter(master)]
                adam += leaves
            else:
                leaves = [nn.Parameter(m_RC) for m_RC in plan.view(master)]
                muon += leaves
            self._leaves[plan.name] = leaves
        self.model = self._in_low_precision(peer) if self.copies else peer
        self._optimizers: list[Any] = [
            torch.optim.Muon(muon, lr=lr, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True),
        ]

    def _in_low_precision(self, peer: nn.Module) -> nn.Module:
        peer = peer.to(self.dtype)
        for module in peer.modules():
            if hasattr(module, "e_score_correction_bias"):
                # The router decides in fp32 on both sides.
                module.float()
        return peer

    def step(self, batches: list[tuple[Tensor, Tensor]], supervised: int) -> float:
        """One optimizer step over this process's micro-batches; returns the mean loss per supervised token.

        `supervised` counts those of all processes.
        """
        total = 0.0
        for ids_BT, targets_BT in batches:
            with torch.autocast("cpu", self.dtype, enabled=not self.copies and self.dtype != torch.float32):
                logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
            loss = F.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten(), reduction="sum")
            (loss / supervised).backward()
            total += loss.item()
        self._hand_over_gradients()
        if self.group is not None:
            total = self._sum_over_processes(total, self.group)
        for optimizer in self._optimizers:
            optimizer.step()
        self._refresh()
        return total / supervised

    @torch.no_grad()
    def _hand_over_gradients(self) -> None:
        for name, parameter in self.model.named_parameters():
            leaves = self._leaves[name]
            grad = parameter.grad
            if grad is None:
                grad = torch.zeros_like(parameter)
            for leaf, part in zip(leaves, grad.float().view(len(leaves), *leaves[0].shape), strict=True):
                leaf.grad = part
            parameter.grad = None

    def _sum_over_processes(self, loss: float, group: dist.ProcessGroup) -> float:
        grads = [leaf.grad for leaves in self._leaves.values() for leaf in leaves if leaf.grad is not None]
        flat = torch.cat([*(grad.flatten() for grad in grads), torch.tensor([loss])])
        dist.all_reduce(flat, group=group)
        *parts, loss_1 = flat.split([*(grad.numel() for grad in grads), 1])
        torch._foreach_copy_(grads, [part.view_as(grad) for part, grad in zip(parts, grads, strict=True)])
        return float(loss_1)

    @torch.no_grad()
    def _refresh(self) -> None:
        if self.copies:
            names, parameters = zip(*self.model.named_parameters(), strict=True)
            torch._foreach_copy_([p.data for p in parameters], [self._masters[name] for name in names])


def results_folder() -> Path:
    return Path(__file__).parent / "results"
