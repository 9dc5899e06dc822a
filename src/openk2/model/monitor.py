"""Watches the attention logits for QK-Clip, at almost no cost.

QK-Clip needs, per layer and head, the largest softmax input of a training step (K2 report, algorithm 1). The flash
kernel never shows the logits, but it returns their log-sum-exp, and `LSE - ln(keys) <= max logit <= LSE`. A head whose
largest LSE does not exceed the threshold therefore needs no clip; only for the others is the exact maximum computed.

Legend: L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

ExactMax = Callable[[list[int]], torch.Tensor]


class LogitMonitor:
    """The largest logit per layer and head since the last `reset()`: a maximum over micro-batches.

    For a head above `threshold` the recorded value is exact; for any other it is an upper bound that lies within
    ln(number of keys) above the true maximum and does not exceed the threshold.
    """

    def __init__(self, layers: int, heads: int, threshold: float = 100.0) -> None:
        self.enabled = True
        self.threshold = threshold
        self.max_logit_LH = torch.full((layers, heads), -torch.inf)
        self.exact_passes = 0

    def observe(self, layer: int, bound_H: torch.Tensor, exact: ExactMax | None = None) -> None:
        """Take note of one forward pass of one layer.

        `bound_H` bounds each head's largest logit from above; `exact(heads)` returns the true maxima of those heads
        (None: the bound is exact already, as where the kernel sees its logits).
        """
        bound_H = bound_H.detach().to(self.max_logit_LH.device, torch.float32)
        # The negation sends a NaN bound to the exact pass as well, where it shows up as NaN instead of vanishing.
        over = [] if exact is None else (~(bound_H <= self.threshold)).nonzero().flatten().tolist()
        if exact is not None and over:
            self.exact_passes += 1
            bound_H = bound_H.clone()
            bound_H[over] = exact(over).detach().to(bound_H)
        torch.maximum(self.max_logit_LH[layer], bound_H, out=self.max_logit_LH[layer])

    @property
    def max_logit(self) -> float:
        """The largest recorded value; -inf when nothing was observed."""
        return float(self.max_logit_LH.max())

    def reset(self) -> None:
        self.max_logit_LH.fill_(-torch.inf)
        self.exact_passes = 0
