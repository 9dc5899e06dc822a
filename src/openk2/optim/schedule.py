"""Learning-rate schedules: warm up, stay, cool down (WSD), as K2 and Moonlight train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from openk2.core import UserError

Decay = Literal["linear", "sqrt", "cosine"]


@dataclass(frozen=True, slots=True)
class WSD:
    """Warm-up, stable, decay. `at(step)` is the learning rate of step 0 .. steps-1, a pure function.

    Linear warm-up from lr/warmup to `lr` over `warmup` steps, `lr` until the last `decay` steps, then down to
    `final_lr` along a line, along 1 - sqrt(progress) (Hagele et al. 2024, best in their comparison), or along half a
    cosine (K2 report, section 2.5). The last step runs just above `final_lr`, so that no step is spent at zero.
    Raises UserError on impossible numbers.
    """

    lr: float
    steps: int
    warmup: int = 0
    decay: int = 0
    shape: Decay = "sqrt"
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UserError(f"the learning rate must be a positive number, not {self.lr}")
        if not 0 <= self.final_lr <= self.lr:
            raise UserError(f"final_lr must lie between 0 and lr={self.lr}, not {self.final_lr}")
        if self.steps < 1 or self.warmup < 0 or self.decay < 0:
            raise UserError("a schedule needs steps >= 1, warmup >= 0 and decay >= 0")
        if self.warmup + self.decay > self.steps:
            raise UserError(
                f"warm-up ({self.warmup}) and decay ({self.decay}) together are longer than the {self.steps} steps"
            )
        if self.shape not in ("linear", "sqrt", "cosine"):
            raise UserError(f"decay shape {self.shape!r} is unknown: use linear, sqrt or cosine")

    def at(self, step: int) -> float:
        """Learning rate of a step (0-based). Steps past the end keep the last value."""
        if step < 0:
            raise UserError(f"a step is never negative, got {step}")
        step = min(step, self.steps - 1)
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        start = self.steps - self.decay
        if step < start:
            return self.lr
        progress = (step - start + 1) / (self.decay + 1)
        remaining = {
            "linear": 1.0 - progress,
            "sqrt": 1.0 - math.sqrt(progress),
            "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
        }[self.shape]
        return self.final_lr + (self.lr - self.final_lr) * remaining
