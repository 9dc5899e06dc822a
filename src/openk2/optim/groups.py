"""Which parameter gets which update. Decided by shape and name, printed, tested: a wrong group fails silently.

Muon: every weight matrix, the router and each expert included. AdamW: embeddings, the output head, norms, biases,
convolutions and whatever else is not a matrix (Moonlight, section 2; K2 follows it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from torch import Tensor, nn

from openk2.core import UserError

Method = Literal["muon", "adamw"]
Layout = Literal["stacked", "beside", "interleaved"]

# Matrices at the model's two ends map between vectors and token ids; there Muon's geometry does not apply.
_END_NAMES = frozenset(
    {"lm_head", "head", "embed_out", "embed_tokens", "embeddings", "embedding", "wte", "wpe", "pos_embed", "cls_token"}
)
# Heads that give classes or scores, where they are linear maps.
_HEAD_NAMES = frozenset({"score", "classifier", "qa_outputs"})
# Rates of state-space models, in rows by their layout alone.
_NO_MATRICES = frozenset({"A_log"})


@dataclass(frozen=True, slots=True)
class Plan:
    """How one parameter is updated. For Muon it is `matrices` matrices of `rows` x `cols`, each orthogonalised alone.

    `layout` says how the parameter's memory holds them: `stacked` is [matrices, rows, cols] in order; in the others
    each block of `rows` holds two matrices, all columns of the one `beside` those of the other, or `interleaved`.
    """

    name: str
    parameter: nn.Parameter
    method: Method
    matrices: int = 0
    rows: int = 0
    cols: int = 0
    layout: Layout = "stacked"

    def view(self, tensor: Tensor) -> Tensor:
        """The matrices in a contiguous tensor shaped like the parameter, or in a part of its first dimension that cuts
        none: [-1, rows, cols], or [-1, 2, rows, cols] where no stride leads from one pair of matrices to the next."""
        if self.layout == "beside":
            return tensor.view(-1, self.rows, 2, self.cols).transpose(1, 2)
        if self.layout == "interleaved":
            return tensor.view(-1, self.rows, self.cols, 2).movedim(3, 1)
        return tensor.view(-1, self.rows, self.cols)


def module_of(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> nn.Module:
    """A module with these parameters under these names.

    Raises UserError for anything but names and parameters, for a name that comes twice, and for one that no module has.
    """
    root = nn.Module()
    try:
        for name, parameter in named_parameters:
            *path, last = name.split(".")
            module = root
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            if module._parameters.get(last, parameter) is not parameter:
                raise UserError(f"two parameters are named {name!r}: give each part of them a prefix of its own")
            module.register_parameter(last, parameter)
    except (TypeError, ValueError, AttributeError, KeyError) as e:
        raise UserError(
            f"MuonClip takes a model or its named_parameters(): parameters are grouped by their names ({e})"
        ) from e
    return root


def plan_parameters(model: nn.Module, overrides: Mapping[str, Method] | None = None) -> list[Plan]:
    """One plan for each trainable parameter, shared ones once, in the model's own order.

    Embeddings and output heads are known by their modules or names. A 3-D parameter is a stack of matrices, one for
    each expert. A name with `gate_up` holds two (SwiGLU's gate and up projections), which K2 keeps apart, so Muon sees
    them apart. The `down` beside it shows where they are: with down [D, I], a gate_up [2I, D] is one on top of the
    other; with down [I, D], a gate_up [D, 2I] is one beside the other (transformers' Llama 4), or column by column in
    turns where the module has `is_concatenated` False (its GPT-OSS). Without such a `down` it is taken as one matrix.
    `overrides` maps patterns of names (`*` stands for any text, the last pattern that fits counts; of a shared
    parameter any name will do) to a method.
    Raises UserError when there is nothing to train, for a pattern that fits nothing trainable, a method that does not
    exist, and Muon for what is no matrix.
    """
    overrides = overrides or {}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    heads = {
        id(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in _HEAD_NAMES
    }
    convolutions = {
        id(p) for m in model.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d) for p in m.parameters()
    }
    everything = dict(model.named_parameters(remove_duplicate=False))
    plans = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        parts = name.split(".")
        at_the_ends = id(parameter) in embeddings | heads or not _END_NAMES.isdisjoint(parts[-2:])
        chosen = _override([other for other, p in everything.items() if p is parameter], overrides)
        no_matrix = parameter.ndim not in (2, 3) or parts[-1].endswith("bias") or id(parameter) in convolutions
        no_matrix = no_matrix or parts[-1] in _NO_MATRICES
        if chosen == "muon" and no_matrix:
            raise UserError(f"{name} {list(parameter.shape)} is no matrix: it cannot be on Muon")
        if chosen == "adamw" or no_matrix or (at_the_ends and chosen is None):
            plans.append(Plan(name, parameter, "adamw"))
            continue
        down = everything.get(name.replace("gate_up", "down")) if "gate_up" in name else None
        joined = getattr(model.get_submodule(".".join(parts[:-1])), "is_concatenated", True)
        plans.append(_muon_plan(name, parameter, down, joined))
    for pattern in overrides:
        if not any(p.requires_grad and fnmatchcase(name, pattern) for name, p in everything.items()):
            raise UserError(
                f"no trainable parameter is named {pattern!r}: look at the names in param_groups_table(model)"
            )
    if not plans:
        raise UserError("the model has no trainable parameter: nothing for the optimizer to do")
    return plans


def _override(names: list[str], overrides: Mapping[str, Method]) -> Method | None:
    """The method that the last pattern fitting one of a parameter's names has."""
    found: Method | None = None
    for pattern, method in overrides.items():
        if method not in get_args(Method):
            raise UserError(f"{method!r} is no method for {pattern!r}: use {' or '.join(get_args(Method))}")
        if any(fnmatchcase(name, pattern) for name in names):
            found = method
    return found


def _muon_plan(name: str, parameter: nn.Parameter, down: nn.Parameter | None, joined: bool) -> Plan:
    """`down` is the projection behind a gate_up; `joined` is False where gate and up take turns."""
    rows, cols = parameter.shape[-2:]
    count = parameter.shape[0] if parameter.ndim == 3 else 1
    if down is not None and down.shape[:-2] == parameter.shape[:-2]:
        if joined and down.shape[-2:] == (cols, rows / 2):
            return Plan(name, parameter, "muon", 2 * count, rows // 2, cols)
        if down.shape[-2:] == (cols / 2, rows):
            return Plan(name, parameter, "muon", 2 * count, rows, cols // 2, "beside" if joined else "interleaved")
    return Plan(name, parameter, "muon", count, rows, cols)


def param_groups_table(model: nn.Module, overrides: Mapping[str, Method] | None = None) -> str:
    """The assignment as a text table: method, name, shape, and the matrices that Muon sees. Raises as the plan."""
    rows = [("method", "parameter", "shape", "matrices")]
    totals: dict[str, int] = {"muon": 0, "adamw": 0}
    for plan in plan_parameters(model, overrides):
        totals[plan.method] += plan.parameter.numel()
        seen = f"{plan.matrices} x [{plan.rows}, {plan.cols}]" if plan.method == "muon" else "-"
        rows.append((plan.method, plan.name, str(list(plan.parameter.shape)), seen))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"muon {totals['muon']:,} parameters, adamw {totals['adamw']:,}")
    return "\n".join(lines)
