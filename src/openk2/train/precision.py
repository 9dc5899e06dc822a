"""Mixed precision on one rank: fp32 masters, the copies that are computed with, and one flat fp32 gradient.

Where bf16 is fast the forward pass runs on bf16 copies that are refreshed once a step (no casting per operation); the
router's weight stays fp32, because rounding there changes which experts are chosen.

Shapes: P all parameters, flattened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from openk2.core import UserError
from openk2.core.runs import write_text
from openk2.model import Transformer
from openk2.optim import fast_dtype
from openk2.train.folder import PRECISION
from openk2.train.ranks import Ranks


def compute_dtype(
    wanted: Literal["auto", "bfloat16", "float32"], folder: Path, ranks: Ranks, device: str
) -> torch.dtype:
    """What a run in `folder` computes in. "auto" is what this machine is fastest in (bf16 without instructions for it
    is up to seventy times slower than fp32). The answer is kept in the folder: a run that goes on elsewhere keeps it.

    Raises UserError when what was kept is damaged.
    """
    if wanted != "auto":
        return cast(torch.dtype, getattr(torch, wanted))
    chosen = ranks.join([_chosen(folder / PRECISION, device)] if ranks.first else [])[0]
    if chosen not in ("bfloat16", "float32"):
        raise UserError(f"{folder / PRECISION} is damaged: write float32 or bfloat16 into it, whichever it was")
    return cast(torch.dtype, getattr(torch, chosen))


def _chosen(path: Path, device: str) -> str:
    if not path.exists():
        write_text(path, str(fast_dtype(torch.device(device))).removeprefix("torch.") + "\n")
    return path.read_text(encoding="utf-8", errors="replace").strip()


class MixedPrecision:
    """Masters are the model's own parameters; their `grad`s are views of `grad_P`."""

    def __init__(self, model: Transformer, dtype: torch.dtype) -> None:
        self.model = model
        self.dtype = dtype
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
