"""A logit monitor for models of transformers, through its attention interface: MuonClip then trains them unchanged.

    model = AutoModelForCausalLM.from_config(config)
    optimizer = MuonClip(model, lr=2e-4, logit_monitor=attach_logit_monitor(model))

Legend: H heads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from openk2.core import UserError
from openk2.model import LogitMonitor
from openk2.model.monitor import UNSEEN, flash_attention, largest_logits
from openk2.optim.qk_clip import Attention, attention_layers, head_count

Implementation = Literal["sdpa", "eager"]
PREFIX = "openk2_monitored_"


def attach_logit_monitor(model: nn.Module, threshold: float = 100.0, absolute: bool = False) -> LogitMonitor:
    """Let every attention layer report its heads' largest logits, in training mode, and return what collects them.

    A model of transformers goes on computing attention as before (`sdpa` or `eager`), under a name of ours. Where torch
    chooses its flash kernel, the log-sum-exp that comes with it bounds the maxima of `scale q.k`, and only heads above
    the threshold are looked at again, exactly; elsewhere all are (eager attention, values smaller than keys, dropout,
    masks that add more than they hide, models under torch.compile). Attention sinks do not change the maxima.
    `absolute`: see `LogitMonitor`. Raises UserError for a model without attention that QK-Clip could scale, and for one
    whose attention cannot be watched without changing it.
    """
    ours = [module for module in model.modules() if hasattr(module, "attach_monitor")]
    if len(ours) == 1:
        own: LogitMonitor = cast(Any, ours[0]).attach_monitor(threshold, absolute)
        return own
    layers = attention_layers(model)
    if not layers:
        raise UserError(
            "the model has no attention that QK-Clip can scale, which is MLA, or a q_proj and a k_proj that are not "
            "fused and not normed (QK-norm bounds the logits by itself): MuonClip trains it without a logit_monitor"
        )
    heads = {head_count(layer) for layer in layers}
    if len(heads) > 1:
        raise UserError(
            f"the attention layers have different numbers of heads ({sorted(heads)}): attach to one part of the model, "
            "and give MuonClip attention=attention_layers(of that part) as well"
        )
    # Parts of a model may compute attention in different ways, and choosing for the whole chooses for its parts.
    parts = [cast(Any, part) for part in model.modules() if hasattr(part, "set_attn_implementation")]
    chosen = [_implementation(part.config) for part in parts]
    for layer in layers:
        _check(layer)
    _register()
    for part, implementation in zip(parts, chosen, strict=True):
        part.set_attn_implementation(PREFIX + implementation)
    monitor = LogitMonitor(len(layers), heads.pop(), threshold, absolute)
    for index, layer in enumerate(layers):
        module = cast(Any, layer)
        if not module.config._attn_implementation.startswith(PREFIX):
            raise UserError("the logits of this model are out of reach: its attention cannot be set")
        module.logit_monitor, module.logit_layer = monitor, index
    return monitor


def _implementation(config: Any) -> Implementation:
    """How a part of a model computes attention, monitored or not."""
    name = str(config._attn_implementation).removeprefix(PREFIX)
    if name not in get_args(Implementation):
        raise UserError(f"attention through {name} cannot be watched: load the model with attn_implementation='sdpa'")
    return cast(Implementation, name)


def _check(layer: Attention) -> None:
    """Raises UserError if a layer's logits are not `scale q.k`, or if watching would change what it computes."""
    config = getattr(layer, "config", None)
    if not hasattr(config, "_attn_implementation"):
        raise UserError("the logits of this model are out of reach: it has no set_attn_implementation")
    kind = type(layer).__name__
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise UserError(
            f"{kind} caps its logits (attn_logit_softcapping): QK-Clip would clip what the softmax never sees"
        )
    if getattr(config, "clip_qkv", None) is not None:
        raise UserError(f"{kind} clamps queries and keys (clip_qkv): its logits do not shrink with the weights")
    constants = _forward(layer).__code__.co_consts
    names = {name for const in constants for name in (const if isinstance(const, tuple) else [const])}
    if "position_bias" in names:
        raise UserError(f"{kind} adds a position bias to its logits: QK-Clip scales q.k alone")
    if not names.isdisjoint(get_args(Implementation)):
        raise UserError(f"{kind} does different things by the name of its attention implementation: not supported")
    _kernel(_implementation(config), layer)


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    masks = cast(Any, AttentionMaskInterface)
    for implementation in get_args(Implementation):
        AttentionInterface.register(PREFIX + implementation, partial(_monitored, implementation))
        masks.register(PREFIX + implementation, masks()[implementation])


def _monitored(
    implementation: Implementation,
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The attention of transformers, with a look at the logits."""
    monitor: LogitMonitor | None = getattr(module, "logit_monitor", None)
    watched = monitor is not None and monitor.enabled and module.training
    with _LogSumExp() if watched and implementation == "sdpa" else nullcontext() as seen:
        result: tuple[torch.Tensor, torch.Tensor | None] = _kernel(implementation, module)(
            module, query, key, value, attention_mask, **options
        )
    if monitor is None or not watched:
        return result
    heads, time = query.shape[1:3]
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    causal = implementation == "sdpa" and attention_mask is None and time > 1 and _is_causal(module, options)
    # The same keys as transformers: a longer cache is empty behind the queries.
    keys = key[:, :, :time] if causal else key

    def exact(flagged: list[int]) -> torch.Tensor:
        own_keys = keys[:, [head * keys.shape[1] // heads for head in flagged]]
        mask = attention_mask
        if mask is not None and mask.shape[1] > 1:
            mask = mask[:, flagged]
        return largest_logits(query[:, flagged], own_keys, scale, mask, causal=causal, absolute=monitor.absolute)

    bound_H = query.new_full((heads,), torch.inf, dtype=torch.float32)
    if seen is not None and seen.lse is not None and not monitor.absolute and _only_hides(attention_mask):
        # A single query of a group of heads comes as one head with as many queries.
        bound_H = seen.lse.reshape(len(query), heads, -1).amax((0, 2))
    monitor.observe(module.logit_layer, bound_H, exact)
    return result


def _only_hides(mask: torch.Tensor | None) -> bool:
    """Whether a mask adds nothing to the logits of the keys that are seen."""
    return mask is None or not mask.is_floating_point() or bool(((mask == 0) | (mask <= UNSEEN)).all())


class _LogSumExp(TorchFunctionMode):
    """Keeps the log-sum-exp of an attention that is computed inside, where torch's flash kernel computes it."""

    def __init__(self) -> None:
        super().__init__()
        self.lse: torch.Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = args
        found = flash_attention(
            query,
            key,
            value,
            kwargs.get("attn_mask"),
            scale=kwargs.get("scale"),
            causal=kwargs.get("is_causal", False),
            dropout=kwargs.get("dropout_p", 0.0),
            gqa=kwargs.get("enable_gqa", False),
        )
        if found is None:
            return func(*args, **kwargs)
        out, self.lse = found
        return out


def _is_causal(module: Any, options: dict[str, Any]) -> bool:
    wanted = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if wanted is None else wanted)


def _kernel(implementation: Implementation, module: Any) -> Callable[..., Any]:
    """The function that transformers calls; for `eager` the one that the module's forward names as its default."""
    from transformers import AttentionInterface

    if implementation == "sdpa":
        return cast(Callable[..., Any], cast(Any, AttentionInterface)()["sdpa"])
    forward = _forward(module)
    found = [name for name in forward.__code__.co_names if name.endswith("eager_attention_forward")]
    if len(found) != 1 or found[0] not in forward.__globals__:
        raise UserError(
            f"the eager attention of {type(module).__name__} cannot be found: "
            "load the model with attn_implementation='sdpa'"
        )
    return cast(Callable[..., Any], forward.__globals__[found[0]])


def _forward(module: Any) -> Any:
    return inspect.unwrap(type(module).forward)
