"""QK-Clip: after an optimizer step, shrink the query and key weights of heads whose attention logits grew too large.

K2 report, section 2.1 and algorithm 1, in the final per-head form. A head whose largest softmax input S exceeds the
threshold t gets gamma = t / S, so that its logits, and no others, are scaled by exactly gamma:

- multi-head latent attention: non-rotary query rows by gamma^alpha and key rows by gamma^(1 - alpha), rotary query rows
  by gamma; the rotary key, which all heads share, is left alone;
- multi-head attention: query rows by gamma^alpha, key rows by gamma^(1 - alpha);
- where groups of heads share a key (GQA): the query alone, by gamma.

The form of the launch post before it, `global`, has one gamma for all heads of all layers, by the largest logit of all.

Frozen weights stay as they are, and so do those that layers with different other halves share: the one of the two that
may move takes the whole gamma. Where that cannot be done (a frozen query over a key, or a part of it, that heads share)
the head is not clipped. A projection may be any module with the `weight` and `out_features` of a linear one, so
PEFT's adapters of LoRA's kind are scaled with the weight below them, if that one is trained; over an active adapter of
an unknown kind no head is clipped.

Shapes: L layers, H heads, R latent rank, P rows of one head.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal, Protocol, cast, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from openk2.core import UserError
from openk2.optim.sharding import local, piece


@runtime_checkable
class Monitor(Protocol):
    """What QK-Clip reads: the largest logit of each head since the last reset, over all micro-batches.

    `max_logit_LH` is -inf for a head that saw nothing. Values up to `threshold` may be upper bounds; above it
    they must be exact.
    """

    threshold: float

    @property
    def max_logit_LH(self) -> Tensor: ...

    def reset(self) -> None: ...


class LatentAttention(Protocol):
    """The part of an MLA module that QK-Clip scales. transformers' DeepseekV3Attention has the same names."""

    num_heads: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    kv_b_proj: nn.Linear


class PlainAttention(Protocol):
    """The same of multi-head and grouped-query attention, as transformers' Llama and Qwen2 name it."""

    head_dim: int
    q_proj: nn.Linear
    k_proj: nn.Linear


Attention = LatentAttention | PlainAttention
_LATENT = ("num_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_b_proj")
# Parameters of PEFT's adapters that make rows of the result, and those that stand before them: LoRA with its variants,
# AdaLoRA, VeRA, OFT.
_OUTER = ("lora_B", "lora_magnitude_vector", "vera_lambda_b")
_INNER = ("lora_A", "lora_E", "ranknum", "vera_lambda_d", "oft_R")
# q_norm (Qwen3), q_layernorm (StableLM, Phi), query_layernorm (Hunyuan), q_layer_norm (Idefics), qk_norm (Llama 4).
_QK_NORM = re.compile(r"(q|k|qk|query|key)_(layer_?)?norm")


def attention_layers(model: nn.Module) -> list[Attention]:
    """Every attention module of a model that QK-Clip can scale, in order: MLA, multi-head and grouped-query attention.

    Heads whose queries and keys are normed (QK-norm) are left out: their logits are bounded, and do not shrink with
    the weights.
    """
    return [cast(Attention, module) for module in model.modules() if _is_latent(module) or _is_plain(module)]


def head_count(layer: Attention) -> int:
    """The number of query heads."""
    if _is_latent(layer):
        return cast(LatentAttention, layer).num_heads
    plain = cast(PlainAttention, layer)
    return plain.q_proj.out_features // plain.head_dim


def _is_latent(module: object) -> bool:
    return all(hasattr(module, name) for name in _LATENT) and _is_projection(_latent_query(module))


def _is_plain(module: nn.Module) -> bool:
    projections = [getattr(module, name, None) for name in ("q_proj", "k_proj")]
    normed = any(_QK_NORM.fullmatch(name) for name, _ in module.named_children())
    return hasattr(module, "head_dim") and not normed and all(map(_is_projection, projections))


def _is_projection(module: object) -> bool:
    return isinstance(getattr(module, "weight", None), Tensor) and isinstance(
        getattr(module, "out_features", None), int
    )


def find_monitor(layers: Sequence[Attention]) -> Monitor | None:
    """The logit monitor that the layers share, if they have one. Raises UserError if they have different ones."""
    monitors = [getattr(layer, "logit_monitor", None) for layer in layers]
    if not monitors or monitors[0] is None:
        return None
    if any(monitor is not monitors[0] for monitor in monitors):
        raise UserError("the attention layers have different logit monitors: give all of them one shared monitor")
    return cast(Monitor, monitors[0])


Form = Literal["head", "global"]


def check_form(form: Form, alpha: float) -> None:
    """Raise UserError for a form that does not exist or a share outside of [0, 1]."""
    if form not in get_args(Form) or not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise UserError(
            f"the form of QK-Clip is one of {', '.join(get_args(Form))} and its alpha lies in [0, 1], not {form!r} and "
            f"{alpha}"
        )


def qk_clip_(
    layers: Sequence[Attention], max_logit_LH: Tensor, threshold: float, *, form: Form = "head", alpha: float = 0.5
) -> int:
    """Scale the offending heads (all of them in the `global` form) in place; returns how many heads were clipped.

    `alpha` is the queries' share of the factor. `max_logit_LH[i]` belongs to `layers[i]`. In the `head` form heads at
    or under the threshold and heads that saw nothing (-inf) are not touched, in neither form those whose frozen weights
    leave no way. Raises UserError on a NaN logit, on shapes that do not fit, and as `check_form`.
    """
    return clip_heads(layers, max_logit_LH, threshold, form, alpha)[0]


@torch.no_grad()
def clip_heads(
    layers: Sequence[Attention], max_logit_LH: Tensor, threshold: float, form: Form, alpha: float
) -> tuple[int, int]:
    """`qk_clip_`, which returns as well how many heads would have to be clipped and cannot be."""
    if max_logit_LH.ndim != 2 or max_logit_LH.shape[0] != len(layers):
        raise UserError(f"max logits of shape {list(max_logit_LH.shape)} do not fit {len(layers)} attention layers")
    check_form(form, alpha)
    max_logit_LH = max_logit_LH.float().clone()
    if bool(max_logit_LH.isnan().any()):
        raise UserError("an attention logit is not a number: training has diverged, lower the learning rate")
    over_LH = max_logit_LH > threshold
    if form == "global" and bool(over_LH.any()):
        max_logit_LH, over_LH = max_logit_LH.max().expand_as(max_logit_LH).clone(), torch.ones_like(over_LH)
    # Layers that share their weights are scaled once, by what the largest logit of any of them needs.
    first_L = _first_of_shared(layers)
    uses = Counter(id(w) for index in sorted(set(first_L)) for w in _weights(layers[index]))
    for index, first in enumerate(first_L):
        if first != index:
            max_logit_LH[first] = max_logit_LH[first].maximum(max_logit_LH[index])
            over_LH[first] |= over_LH[index]
            over_LH[index] = False
    clipped = left = 0
    for index in over_LH.any(dim=1).nonzero().flatten().tolist():
        gamma_H = torch.where(over_LH[index], threshold / max_logit_LH[index], 1.0)
        movable = {id(w) for w in _weights(layers[index]) if w.requires_grad and uses[id(w)] == 1}
        heads = int(over_LH[index].sum())
        if _scale_heads(layers[index], gamma_H, alpha, movable):
            clipped += heads
        else:
            left += heads
    return clipped, left


def _first_of_shared(layers: Sequence[Attention]) -> list[int]:
    """For each layer the first one whose query and key weights are its own."""
    firsts: dict[tuple[int, ...], int] = {}
    return [firsts.setdefault(tuple(id(w) for w in _weights(layer)), index) for index, layer in enumerate(layers)]


def _weights(layer: Attention) -> list[Tensor]:
    """What QK-Clip would scale."""
    if _is_latent(layer):
        latent = cast(LatentAttention, layer)
        return _with_rows(_latent_query(latent)) + _with_rows(latent.kv_b_proj)
    plain = cast(PlainAttention, layer)
    return _with_rows(plain.q_proj) + _with_rows(plain.k_proj)


def _with_rows(linear: nn.Linear) -> list[Tensor]:
    """What makes a projection's rows: its weight, its bias, the outer matrices of active adapters."""
    return [p for p, is_outer in _parameters(linear) if is_outer and p.shape[:1] == (linear.out_features,)]


def _parameters(linear: nn.Linear) -> list[tuple[Tensor, bool | None]]:
    """All parameters that what comes out depends on, and whether its rows are theirs. None: it is not known."""
    if not hasattr(linear, "base_layer"):
        return [(parameter, True) for parameter in linear.parameters()]
    active = getattr(linear, "active_adapters", ())
    found: list[tuple[Tensor, bool | None]] = []
    for name, parameter in linear.named_parameters():
        kind, _, rest = name.partition(".")
        if kind == "base_layer":
            found.append((parameter, True))
        elif rest.partition(".")[0] in active:
            found.append((parameter, True if kind in _OUTER else False if kind in _INNER else None))
    return found


def _latent_query(layer: object) -> nn.Linear:
    """Without a latent query transformers leaves the name q_b_proj with nothing behind it."""
    outer = getattr(layer, "q_b_proj", None)
    return cast(nn.Linear, outer if outer is not None else getattr(layer, "q_proj", None))


def _scale_heads(layer: Attention, gamma_H: Tensor, alpha: float, movable: set[int]) -> bool:
    """Whether the weights that may move, by their ids, can scale the logits by gamma; if so, they do."""
    if _is_latent(layer):
        return _scale_latent(cast(LatentAttention, layer), gamma_H, alpha, movable)
    plain = cast(PlainAttention, layer)
    own_keys = plain.k_proj.out_features == plain.q_proj.out_features
    linears = [linear for linear in (plain.q_proj, plain.k_proj)[: 1 + own_keys] if _may_move(linear, movable)]
    for linear, share in zip(linears, (alpha, 1 - alpha) if len(linears) == 2 else (1.0,), strict=False):
        _scale_rows(linear, (gamma_H**share).repeat_interleave(linear.out_features // len(gamma_H)))
    return bool(linears)


def _may_move(linear: nn.Linear, movable: set[int]) -> bool:
    if any(is_outer is None for _, is_outer in _parameters(linear)):
        return False
    return {id(linear.weight), *map(id, _with_rows(linear))} <= movable


def _scale_rows(linear: nn.Linear, factor_X: Tensor) -> None:
    """Multiply each row X with its factor; of a sharded parameter this rank's rows."""
    for parameter in _with_rows(linear):
        factor = factor_X.to(parameter.device, parameter.dtype).view(-1, *[1] * (parameter.ndim - 1))
        local(parameter).mul_(piece(factor.expand(parameter.shape), parameter))


def _scale_latent(layer: LatentAttention, gamma_H: Tensor, alpha: float, movable: set[int]) -> bool:
    nope = layer.qk_nope_head_dim
    query = _latent_query(layer)
    if not _may_move(query, movable):
        return False
    both = _may_move(layer.kv_b_proj, movable)
    query_HP = gamma_H[:, None].repeat(1, nope + layer.qk_rope_head_dim)
    query_HP[:, :nope] **= alpha if both else 1.0
    _scale_rows(query, query_HP.flatten())
    if both:
        key_HP = torch.ones_like(gamma_H)[:, None].repeat(1, nope + layer.v_head_dim)
        key_HP[:, :nope] = gamma_H[:, None] ** (1 - alpha)
        _scale_rows(layer.kv_b_proj, key_HP.flatten())
    return True
