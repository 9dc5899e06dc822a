"""The small parts that attention, experts and transformer share: norm, rotary table, feed-forward.

Legend: B batch, T time, D hidden, I intermediate, R rotary dimensions (P = R/2 pairs), N positions in the table.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from openk2.model import kernels
from openk2.model.config import ModelConfig


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return kernels.rms_norm(x, self.weight, self.eps)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), the dense layer's block and the shared experts."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            inner_BTI = F.silu(F.linear(x_BTD, self.gate_proj.weight)).mul_(F.linear(x_BTD, self.up_proj.weight))
            return F.linear(inner_BTI, self.down_proj.weight)
        # One wide product is faster than two narrow ones, and for a batch joining the weights costs little beside it.
        gate_up = F.linear(x_BTD, torch.cat([self.gate_proj.weight, self.up_proj.weight]))
        return F.linear(kernels.swiglu(gate_up), self.down_proj.weight)


def inverse_frequencies(config: ModelConfig) -> torch.Tensor:
    """Rotation per position of each pair, [P] in radians: theta^(-2i/R), blended by YaRN when it is on (k2.md 1.2).

    YaRN divides slow pairs by `factor` and keeps fast ones; the ramp between them runs over the pair indices at which
    `beta_fast` and `beta_slow` full turns fit into the original context.
    """
    size, theta, yarn = config.qk_rope_head_dim, config.rope_theta, config.rope_scaling
    frequency_P: torch.Tensor = theta ** -(torch.arange(0, size, 2, dtype=torch.float32, device="cpu") / size)
    if yarn is None:
        return frequency_P

    def pair_with_turns(turns: float) -> float:
        return size * math.log(yarn.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_with_turns(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_with_turns(yarn.beta_slow)), size - 1)
    width = high - low if high != low else 0.001
    ramp_P = ((torch.arange(size // 2, dtype=torch.float32, device="cpu") - low) / width).clamp(0, 1)
    return frequency_P / yarn.factor * ramp_P + frequency_P * (1 - ramp_P)


@lru_cache(maxsize=8)
def rotary_table(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, each [N, P], of every position that the config allows.

    Angles are computed in fp32 and then rounded to `dtype`. A cached function and not a module buffer: casting a model
    to bf16 and back must not round the table twice.
    """
    with torch.inference_mode(False), torch.no_grad():
        position_N = torch.arange(config.max_position_embeddings, dtype=torch.float32, device="cpu")
        angle_NP = torch.outer(position_N, inverse_frequencies(config))
        factor = 1.0 if config.rope_scaling is None else config.rope_scaling.rotary_factor
        cos, sin = angle_NP.cos() * factor, angle_NP.sin() * factor
        return cos.to(device, dtype), sin.to(device, dtype)


def rotate(x_R: torch.Tensor, cos_P: torch.Tensor, sin_P: torch.Tensor) -> torch.Tensor:
    """Rotate the interleaved pairs (x0, x1), (x2, x3), ... of the last dimension; cos and sin broadcast against them.

    The result holds all first members, then all second ones: the order does not matter as long as queries and keys
    share it.
    """
    first, second = x_R[..., 0::2], x_R[..., 1::2]
    return torch.cat([first * cos_P - second * sin_P, second * cos_P + first * sin_P], dim=-1)
