"""Which parameter gets which update. Decided by shape and name, printed, tested: a wrong group fails silently.

Muon: every weight matrix, the router and each expert included. AdamW: embeddings, the output head, norms, biases and
whatever else is not a matrix (Moonlight, section 2; K2 follows it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from openk2.core import UserError

Method = Literal["muon", "adamw"]

# Matrices at the model's two ends map between vectors and token ids; there Muon's geometry does not apply.
_END_NAMES = frozenset({"lm_head", "head", "embed_out", "embed_tokens", "embeddings", "embedding", "wte", "wpe"})


@dataclass(frozen=True, slots=True)
class Plan:
    """How one parameter is updated. For Muon it is `matrices` matrices of `rows` x `cols`, each orthogonalised alone.

    The parameter's memory, read in order as [matrices, rows, cols], is that list of matrices.
    """

    name: str
    parameter: nn.Parameter
    method: Method
    matrices: int = 0
    rows: int = 0
    cols: int = 0


def plan_parameters(model: nn.Module) -> list[Plan]:
    """One plan for each trainable parameter, shared ones once, in the model's own order.

    A 3-D parameter is a stack of matrices [experts, rows, columns]. A name with `gate_up` holds two matrices on top
    of each other (SwiGLU's gate and up projections); they are separate matrices on disk and for Muon too.
    Raises UserError when there is nothing to train.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    plans = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        parts = name.split(".")
        at_the_ends = id(parameter) in embeddings or not _END_NAMES.isdisjoint(parts[-2:])
        if parameter.ndim not in (2, 3) or at_the_ends:
            plans.append(Plan(name, parameter, "adamw"))
            continue
        rows, cols = parameter.shape[-2:]
        stacked = 2 if any("gate_up" in part for part in parts[-2:]) and rows % 2 == 0 else 1
        matrices = stacked * (parameter.shape[0] if parameter.ndim == 3 else 1)
        plans.append(Plan(name, parameter, "muon", matrices, rows // stacked, cols))
    if not plans:
        raise UserError("the model has no trainable parameter: nothing for the optimizer to do")
    return plans


def param_groups_table(model: nn.Module) -> str:
    """The assignment as a text table: method, name, shape, and the matrices that Muon sees."""
    rows = [("method", "parameter", "shape", "matrices")]
    totals: dict[str, int] = {"muon": 0, "adamw": 0}
    for plan in plan_parameters(model):
        totals[plan.method] += plan.parameter.numel()
        seen = f"{plan.matrices} x [{plan.rows}, {plan.cols}]" if plan.method == "muon" else "-"
        rows.append((plan.method, plan.name, str(list(plan.parameter.shape)), seen))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"muon {totals['muon']:,} parameters, adamw {totals['adamw']:,}")
    return "\n".join(lines)
