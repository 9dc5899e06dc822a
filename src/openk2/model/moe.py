"""Sparse mixture of experts: sigmoid router balanced by a bias instead of a loss, routed experts, a shared expert.

Router (DeepSeek-V3 report, section 2.1.2; K2 report, table 2): s = sigmoid(W x) in fp32; the top K of s + b are
chosen; their weights are s renormalised over the chosen ones and scaled. b only takes part in the choice. DeepSeek-V3
lets a token choose from some groups of experts only, those whose two best members are best; K2 has one group.

Legend: B batch, T time, N = B T tokens, D hidden, E experts, G groups of them, K experts per token, I expert
intermediate size, M = N K rows after dispatch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import nn

from openk2.model import kernels
from openk2.model.config import ModelConfig
from openk2.model.layers import FeedForward

BiasRule = Literal["moonlight", "deepseek"]


class Router(nn.Module):
    """Scores and chooses experts. `e_score_correction_bias` stays fp32 whatever the model is cast to."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_experts_per_tok = config.num_experts_per_tok
        self.routed_scaling_factor = config.routed_scaling_factor
        self.n_group, self.topk_group = config.n_group, config.topk_group
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.e_score_correction_bias: torch.Tensor
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        bias_E = self.e_score_correction_bias
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        # A bias step is 1e-3 on scores near 1: bf16 would swallow it.
        if self.e_score_correction_bias.dtype != torch.float32:
            self.e_score_correction_bias = bias_E.to(self.e_score_correction_bias.device)
        return self

    def forward(self, x_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights [N, K] in fp32 and expert indices [N, K]."""
        score_NE = F.linear(x_ND.float(), self.weight.float()).sigmoid()
        choice_NE = score_NE.detach() + self.e_score_correction_bias
        if self.topk_group < self.n_group:
            choice_NE = self._of_the_best_groups(choice_NE)
        chosen_NK = choice_NE.topk(self.num_experts_per_tok, sorted=False)[1]
        weight_NK = score_NE.gather(1, chosen_NK)
        return weight_NK * (self.routed_scaling_factor / (weight_NK.sum(-1, keepdim=True) + 1e-20)), chosen_NK

    def _of_the_best_groups(self, choice_NE: torch.Tensor) -> torch.Tensor:
        """Minus infinity outside of the `topk_group` groups with the largest sum of two (DeepSeek-V3)."""
        choice_NGE = choice_NE.view(len(choice_NE), self.n_group, -1)
        best_NG = choice_NGE.topk(2, dim=-1)[0].sum(-1).topk(self.topk_group, sorted=False)[1]
        closed_NG = torch.ones_like(choice_NGE[..., 0], dtype=torch.bool).scatter_(-1, best_NG, False)
        open_NGE: torch.Tensor = choice_NGE.masked_fill(closed_NG.unsqueeze(-1), float("-inf"))
        return open_NGE.flatten(-2)


class Experts(nn.Module):
    """All routed experts, fused: `gate_up_proj` [E, 2I, D] (gate rows, then up rows) and `down_proj` [E, D, I]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, inner = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, inner))
        self.use_grouped = True

    def _can_group(self, x_ND: torch.Tensor) -> bool:
        # grouped_mm wants rows whose stride is a multiple of 16 bytes, and has no autograd in other dtypes.
        aligned = all(size * x_ND.element_size() % 16 == 0 for size in self.down_proj.shape[1:])
        return self.use_grouped and hasattr(F, "grouped_mm") and aligned and x_ND.dtype in _GROUPED_DTYPES

    def forward(self, x_ND: torch.Tensor, weight_NK: torch.Tensor, chosen_NK: torch.Tensor) -> torch.Tensor:
        """The weighted sum of each token's experts, [N, D]."""
        if x_ND.shape[0] <= FEW_TOKENS and x_ND.device.type == "cpu" and not torch.is_grad_enabled():
            return self._token_by_token(x_ND, weight_NK, chosen_NK)
        if self._can_group(x_ND):
            return self._grouped(x_ND, weight_NK, chosen_NK)
        return self._one_by_one(x_ND, weight_NK, chosen_NK)

    def _grouped(self, x_ND: torch.Tensor, weight_NK: torch.Tensor, chosen_NK: torch.Tensor) -> torch.Tensor:
        """Rows sorted by expert, then one grouped product per weight."""
        per_token = chosen_NK.shape[1]
        order_M = chosen_NK.flatten().argsort(stable=True)
        back_M = torch.empty_like(order_M)
        back_M[order_M] = torch.arange(order_M.numel(), device=order_M.device)
        ends_E = _count(chosen_NK, self.down_proj.shape[0]).cumsum(0).to(torch.int32)
        token_M = order_M // per_token
        x_MD = kernels.dispatch(x_ND, token_M, back_M)
        gate_up = F.grouped_mm(x_MD, self.gate_up_proj.transpose(1, 2), offs=ends_E)
        # The weight is applied here and not on the output: I is smaller than D.
        weight_M1 = weight_NK.flatten()[order_M].unsqueeze(1).to(x_ND.dtype)
        y_MD = F.grouped_mm(kernels.swiglu(gate_up, weight_M1), self.down_proj.transpose(1, 2), offs=ends_E)
        return kernels.combine(y_MD, token_M, back_M, x_ND.shape[0])

    def _token_by_token(self, x_ND: torch.Tensor, weight_NK: torch.Tensor, chosen_NK: torch.Tensor) -> torch.Tensor:
        """For decoding: touches only the chosen experts' weights, without copying them."""
        out_ND = torch.zeros_like(x_ND)
        inner = self.down_proj.shape[2]
        for x_D, out_D, weight_K1, chosen in zip(
            x_ND, out_ND, weight_NK.to(x_ND.dtype).unsqueeze(2), chosen_NK.tolist(), strict=True
        ):
            gate_up = torch.stack([torch.mv(self.gate_up_proj[expert], x_D) for expert in chosen])
            inner_KI = F.silu(gate_up[:, :inner]).mul_(gate_up[:, inner:]).mul_(weight_K1)
            for expert, inner_I in zip(chosen, inner_KI, strict=True):
                out_D.addmv_(self.down_proj[expert], inner_I)
        return out_ND

    def _one_by_one(self, x_ND: torch.Tensor, weight_NK: torch.Tensor, chosen_NK: torch.Tensor) -> torch.Tensor:
        """The reference: a loop over experts."""
        out_ND = torch.zeros_like(x_ND)
        for expert in range(self.gate_up_proj.shape[0]):
            token, slot = (chosen_NK == expert).nonzero(as_tuple=True)
            if not len(token):
                continue
            gate, up = F.linear(x_ND[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
            y = F.linear(F.silu(gate) * up, self.down_proj[expert]) * weight_NK[token, slot, None].to(x_ND.dtype)
            out_ND = out_ND.index_add(0, token, y)
        return out_ND


# Up to here a loop over tokens and their experts beats sorting and grouping.
FEW_TOKENS = 4
_GROUPED_DTYPES = (torch.float32, torch.bfloat16)


def _count(chosen_NK: torch.Tensor, experts: int) -> torch.Tensor:
    """How often each expert was chosen, [E] int64."""
    return torch.bincount(chosen_NK.flatten(), minlength=experts)


class MoE(nn.Module):
    """Router, routed experts and the shared expert.

    In training mode `expert_counts_E` (int64) sums how many tokens chose each expert, until it is zeroed:
    data-parallel ranks add theirs up before `update_bias`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts = FeedForward(config.hidden_size, config.moe_intermediate_size * config.n_shared_experts)
        self.expert_counts_E: torch.Tensor
        counts = torch.zeros(config.n_routed_experts, dtype=torch.int64)
        self.register_buffer("expert_counts_E", counts, persistent=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        weight_NK, chosen_NK = self.gate(x_ND)
        if self.training:
            self.expert_counts_E += _count(chosen_NK, self.expert_counts_E.numel())
        routed_ND: torch.Tensor = self.experts(x_ND, weight_NK, chosen_NK)
        shared_BTD: torch.Tensor = self.shared_experts(x_BTD)
        return shared_BTD + routed_ND.view_as(x_BTD)

    @torch.no_grad()
    def update_bias(self, rate: float, rule: BiasRule = "moonlight") -> None:
        """b_i += rate sign(e_i) with e = mean count - count_i, then zero the counts.

        So does `deepseek` (DeepSeek-V3 report, section 2.1.2). `moonlight` (its report, appendix C) also takes away the
        mean of the signs: that bounds the bias without changing any choice.
        """
        count_E = self.expert_counts_E.float()
        sign_E = (count_E.mean() - count_E).sign()
        if rule == "moonlight":
            sign_E = sign_E - sign_E.mean()
        self.gate.e_score_correction_bias += rate * sign_E
        self.expert_counts_E.zero_()
