"""Watches the attention logits for QK-Clip, at almost no cost.

QK-Clip needs, per layer and head, the largest softmax input of a training step (K2 report, algorithm 1). The flash
kernel never shows the logits, but it returns their log-sum-exp, and `LSE - ln(keys) <= max logit <= LSE`. A head whose
largest LSE does not exceed the threshold therefore needs no clip; only for the others is the exact maximum computed.

Legend: L layers, B batch, H query heads, K key heads, G = H / K, T queries, t queries of a chunk, S keys, Q head size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend

ExactMax = Callable[[list[int]], torch.Tensor]
UNSEEN = -1e4
"""From here down a number in a mask hides a key."""
CHUNK = 256
"""Queries whose logits are in memory at a time."""


class LogitMonitor:
    """The largest logit per layer and head since the last `reset()`: a maximum over micro-batches.

    For a head above `threshold` the recorded value is exact; for any other it is an upper bound that lies within
    ln(number of keys) above the true maximum and does not exceed the threshold.

    The signed maximum is what the K2 report clips by. With `absolute` it is the largest |logit|, which no log-sum-exp
    bounds, so every pass has the cost of an exact one.
    """

    def __init__(self, layers: int, heads: int, threshold: float = 100.0, absolute: bool = False) -> None:
        self.enabled = True
        self.threshold = threshold
        self.absolute = absolute
        self.max_logit_LH = torch.full((layers, heads), -torch.inf)

    def observe(self, layer: int, bound_H: torch.Tensor, exact: ExactMax | None = None) -> None:
        """Take note of one forward pass of one layer.

        `bound_H` bounds each head's largest logit from above, by infinity where nothing is known; `exact(heads)`
        returns the true maxima of those heads (None: the bound is exact already, as where the kernel sees its logits).
        """
        bound_H = bound_H.detach().to(self.max_logit_LH.device, torch.float32)
        if exact is not None:
            # A NaN bound shows up as NaN in the exact pass; infinity says nothing, whatever the threshold.
            over = (~(bound_H <= self.threshold) | bound_H.isposinf()).nonzero().flatten().tolist()
            if over:
                bound_H = bound_H.clone()
                bound_H[over] = exact(over).detach().to(bound_H)
        torch.maximum(self.max_logit_LH[layer], bound_H, out=self.max_logit_LH[layer])

    @property
    def max_logit(self) -> float:
        """The largest recorded value; -inf when nothing was observed."""
        return float(self.max_logit_LH.max())

    def reset(self) -> None:
        self.max_logit_LH.fill_(-torch.inf)


def flash_attention(
    q_BHTQ: torch.Tensor,
    k_BKSQ: torch.Tensor,
    v_BKSQ: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    scale: float | None,
    causal: bool = False,
    dropout: float = 0.0,
    gqa: bool = False,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """`F.scaled_dot_product_attention` with the log-sum-exp [B, H, T] of its logits, where torch would choose its flash
    kernel; None where it would not, because only that kernel has one to give."""
    kind = q_BHTQ.device.type
    if kind not in ("cpu", "cuda"):
        return None
    if torch.is_autocast_enabled(kind):
        # Autocast is for torch's own name of it, not for the kernel below.
        dtype = torch.get_autocast_dtype(kind)
        q_BHTQ, k_BKSQ, v_BKSQ = q_BHTQ.to(dtype), k_BKSQ.to(dtype), v_BKSQ.to(dtype)
        mask = mask.to(dtype) if mask is not None and mask.is_floating_point() else mask
    choice = torch._fused_sdp_choice(
        q_BHTQ, k_BKSQ, v_BKSQ, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=gqa
    )
    if choice != SDPBackend.FLASH_ATTENTION.value:
        return None
    if kind == "cpu":
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q_BHTQ.dtype).masked_fill_(~mask, -torch.inf)
        out, lse_BHT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_BHTQ, k_BKSQ, v_BKSQ, dropout, causal, attn_mask=mask, scale=scale
        )
        return out, lse_BHT.detach()
    if q_BHTQ.shape[-1] % 8 == 0:
        out, lse_BHT, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            q_BHTQ, k_BKSQ, v_BKSQ, dropout, causal, False, scale=scale
        )
        return out, lse_BHT.detach()
    return None


@torch.no_grad()
def largest_logits(
    q_BHTQ: torch.Tensor,
    k_BKSQ: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
    *,
    causal: bool = True,
    absolute: bool = False,
) -> torch.Tensor:
    """Each head's largest visible `scale q.k`, or its absolute value, [H] in fp32, multiplied in fp32 whatever the
    model computes in.

    `mask` [B, 1 or H, 1 or T, S] is true, or above -1e4, where a query sees a key. Without a mask the last
    query sees all keys and, with `causal`, each one before it one key less. Memory is linear in T.
    """
    batch, heads, time, size = q_BHTQ.shape
    keys, span = k_BKSQ.shape[1:3]
    q_BKGTQ, k_BKSQ = q_BHTQ.view(batch, keys, heads // keys, time, size), k_BKSQ.float()
    best_H = torch.full((heads,), -torch.inf, device=q_BHTQ.device)
    with torch.autocast(q_BHTQ.device.type, enabled=False):
        for start in range(0, time, CHUNK):
            stop = min(start + CHUNK, time)
            seen = span - time + stop if causal and mask is None else span
            q_BKGtQ = q_BKGTQ[..., start:stop, :].float()
            logits_BKGtS = torch.einsum("bkgtq,bksq->bkgts", q_BKGtQ, k_BKSQ[:, :, :seen]) * scale
            logits_BHtS = logits_BKGtS.flatten(1, 2)
            if absolute:
                logits_BHtS = logits_BHtS.abs()
            if mask is not None:
                rows = slice(start, stop) if mask.shape[2] > 1 else slice(None)
                part = mask[:, :, rows, :span]
                unseen = ~part if part.dtype == torch.bool else part <= UNSEEN
                logits_BHtS = logits_BHtS.masked_fill(unseen, -torch.inf)
            elif causal:
                unseen = torch.ones(logits_BHtS.shape[2:], dtype=torch.bool, device=q_BHTQ.device)
                logits_BHtS = logits_BHtS.masked_fill(unseen.triu(span - time + start + 1), -torch.inf)
            best_H = torch.maximum(best_H, logits_BHtS.amax((0, 2, 3)))
    return best_H
