"""Mixed precision on one rank: fp32 masters, the copies that are computed with, and one flat fp32 gradient.

The forward pass runs on bf16 copies that are refreshed once a step (no casting per operation); the router's weight
stays fp32, because rounding there changes which experts are chosen.

Shapes: P all parameters, flattened.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from openk2.model import Transformer


class MixedPrecision:
    """Masters are the model's own parameters; their `grad`s are views of `grad_P`."""

    def __init__(self, model: Transformer, dtype: torch.dtype) -> None:
        self.model = model
        self._masters = list(model.parameters())
        self._casts: list[tuple[Tensor, Tensor]] = []
        self.working: dict[str, Tensor] = {}
        """The copies by the model's parameter names; where no rounding is wanted, the masters themselves."""
        for name, master in model.named_parameters():
            if dtype == master.dtype or name.endswith("mlp.gate.weight"):
                copy = master.detach()
            else:
                copy = torch.empty_like(master, dtype=dtype)
                self._casts.append((copy, master))
            self.working[name] = copy.requires_grad_()
        self.refresh()
        self.grad_P = torch.zeros(sum(p.numel() for p in self._masters), device=self._masters[0].device)
        self._grad_views: list[Tensor] = []
        offset = 0
        for master in self._masters:
            view = self.grad_P[offset : offset + master.numel()].view_as(master)
            master.grad = view
            self._grad_views.append(view)
            offset += master.numel()

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the masters again, after a step."""
        if self._casts:
            copies, masters = zip(*self._casts, strict=True)
            torch._foreach_copy_(list(copies), list(masters))

    def call(self, module: nn.Module, *inputs: Any) -> Any:
        """What `module` makes of `inputs`, computed with the copies. The model is its attribute `model`."""
        return torch.func.functional_call(
            module, {f"model.{name}": copy for name, copy in self.working.items()}, inputs
        )

    @torch.no_grad()
    def take_gradients(self, first: bool) -> None:
        """Move the copies' gradients to the flat fp32 buffer: set it, or add to it."""
        grads = []
        for view, working in zip(self._grad_views, self.working.values(), strict=True):
            grads.append(working.grad if working.grad is not None else torch.zeros_like(view))
            working.grad = None
        if first:
            torch._foreach_copy_(self._grad_views, grads)
        else:
            torch._foreach_add_(self._grad_views, grads)
