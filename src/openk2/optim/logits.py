"""A logit monitor for models of transformers, through its attention interface: MuonClip then trains them unchanged.

    model = AutoModelForCausalLM.from_config(config)
    optimizer = MuonClip(model, lr=2e-4, logit_monitor=attach_logit_monitor(model))

Legend: B batch, H query heads, K key heads, G = H / K, T queries, S keys, Q head size.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from openk2.core import UserError
from openk2.model import LogitMonitor
from openk2.optim.qk_clip import attention_layers, head_count

NAME = "openk2_monitored"
CHUNK = 256
"""Queries whose logits are in memory at a time."""


def attach_logit_monitor(model: nn.Module, threshold: float = 100.0) -> LogitMonitor:
    """Let every attention layer report its heads' largest logits, in training mode, and return what collects them.

    A model of transformers computes attention through torch's kernel (`sdpa`) from then on; the maxima are computed
    beside it, exactly. Raises UserError for a model without attention that QK-Clip could scale.
    """
    attach = getattr(model, "attach_monitor", None)
    if attach is not None:
        own: LogitMonitor = attach(threshold)
        return own
    layers = attention_layers(model)
    if not layers:
        raise UserError("the model has no attention that QK-Clip can scale: MLA, or q_proj and k_proj without QK-norm")
    choose = getattr(model, "set_attn_implementation", None)
    if choose is None:
        raise UserError("the logits of this model are out of reach: it has no set_attn_implementation")
    heads = {head_count(layer) for layer in layers}
    if len(heads) > 1:
        raise UserError(f"the attention layers have different numbers of heads ({sorted(heads)}): not supported")
    monitor = LogitMonitor(len(layers), heads.pop(), threshold)
    for index, layer in enumerate(layers):
        module = cast(Any, layer)
        module.logit_monitor, module.logit_layer = monitor, index
    _register()
    choose(NAME)
    return monitor


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _monitored)
    masks = cast(Any, AttentionMaskInterface)
    masks.register(NAME, masks()["sdpa"])


def _monitored(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' `sdpa`, with a look at the logits."""
    from transformers import AttentionInterface

    monitor: LogitMonitor | None = getattr(module, "logit_monitor", None)
    if monitor is not None and monitor.enabled and module.training:
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        monitor.observe(module.logit_layer, largest_logits(query, key, scale, attention_mask))
    kernels = cast(Any, AttentionInterface)()
    result: tuple[torch.Tensor, None] = kernels["sdpa"](module, query, key, value, attention_mask, **options)
    return result


@torch.no_grad()
def largest_logits(
    q_BHTQ: torch.Tensor, k_BKSQ: torch.Tensor, scale: float, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Each head's largest visible logit, [H] in fp32; memory is linear in T.

    `mask` [B, 1 or H, T, S] is true, or not minus infinity, where a query sees a key; None means causal, the last
    query seeing all keys.
    """
    batch, heads, time, size = q_BHTQ.shape
    keys, span = k_BKSQ.shape[1:3]
    q_BKGTQ = q_BHTQ.view(batch, keys, heads // keys, time, size)
    position_S = torch.arange(span, device=q_BHTQ.device)
    best_H = torch.full((heads,), -torch.inf, device=q_BHTQ.device)
    for start in range(0, time, CHUNK):
        stop = min(start + CHUNK, time)
        logits_BKGtS = torch.einsum("bkgtq,bksq->bkgts", q_BKGTQ[..., start:stop, :], k_BKSQ)
        logits_BHtS = logits_BKGtS.flatten(1, 2).float() * scale
        if mask is None:
            position_t = torch.arange(start, stop, device=q_BHTQ.device) + span - time
            seen = position_S <= position_t[:, None]
        else:
            part = mask[:, :, start:stop, :span]
            seen = part if part.dtype == torch.bool else part > torch.finfo(part.dtype).min / 2
        best_H = torch.maximum(best_H, logits_BHtS.masked_fill(~seen, -torch.inf).amax((0, 2, 3)))
    return best_H
