"""Multi-head latent attention (MLA): keys and values pass through one small latent, which is all that is cached.

Forward (DeepSeek-V3 report, section 2.1; K2 report, table 2):
    q = W_qb norm(W_qa x)                 -> H heads of [nope | rope]
    [c | k_rope] = W_kva x, c = norm(c)   -> the latent and one rotary key shared by all heads
    [k_nope | v] = W_kvb c                -> H heads
    out = W_o softmax(scale q.k) v

Legend: B batch, T time (queries), D hidden, H heads, N nope size, R rotary size, Q = N + R, V value size,
C latent rank, P = R/2; with a cache: S cached positions, W = C + R, X = B T, Y = T H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from openk2.model import kernels
from openk2.model.cache import CacheStep
from openk2.model.config import ModelConfig
from openk2.model.layers import RMSNorm, rotate
from openk2.model.monitor import LogitMonitor, flash_attention, largest_logits

Rotary = tuple[torch.Tensor, torch.Tensor]
Kernel = Literal["block", "flash", "plain"]
BLOCK_KERNEL_MAX_TIME = 1024


@dataclass(frozen=True, slots=True)
class Branches:
    """How one row of tokens divides: a stem of so many, and branches of these lengths, each of which continues the
    stem and sees nothing of the others. The samples of one prompt are computed so, and their prompt only once."""

    stem: int
    lengths: tuple[int, ...]

    @property
    def positions(self) -> list[int]:
        """Where each token stands in its own sequence."""
        return [*range(self.stem), *(self.stem + i for length in self.lengths for i in range(length))]


class MLA(nn.Module):
    """One attention layer. Rows of `q_b_proj` are per head [nope | rope], rows of `kv_b_proj` per head [nope | value].

    `logit_monitor`, when set and enabled, sees every forward pass in training mode. `kernel` forces one way to compute
    the attention ("plain" is the reference); None chooses the fastest.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_attention_heads
        self.qk_nope_head_dim = config.qk_nope_head_dim
        self.qk_rope_head_dim = config.qk_rope_head_dim
        self.qk_head_dim = config.qk_head_dim
        self.v_head_dim = config.v_head_dim
        self.kv_lora_rank = config.kv_lora_rank
        self.q_lora_rank = config.q_lora_rank
        self.scale = config.softmax_scale
        self.logit_monitor: LogitMonitor | None = None
        self.kernel: Kernel | None = None

        hidden, q_rows = config.hidden_size, config.num_attention_heads * config.qk_head_dim
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(hidden, q_rows, bias=False)
        else:
            self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank)
            self.q_b_proj = nn.Linear(config.q_lora_rank, q_rows, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, config.latent_dim, bias=False)
        # Both latent norms use 1e-6 whatever rms_norm_eps says, as transformers does.
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank)
        kv_rows = config.num_attention_heads * (config.qk_nope_head_dim + config.v_head_dim)
        self.kv_b_proj = nn.Linear(config.kv_lora_rank, kv_rows, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * config.v_head_dim, hidden, bias=False)

    def forward(
        self, x_BTD: torch.Tensor, rotary: Rotary, step: CacheStep | None = None, branches: Branches | None = None
    ) -> torch.Tensor:
        """Causal attention over the given tokens and, with `step`, over what the cache holds before them.

        With `branches` there is one row, and no cache. `rotary` is (cos, sin), each broadcastable to [B, T, 1, P].
        """
        batch, time, _ = x_BTD.shape
        q, latent_BTC, rope_BTR = self._project(x_BTD)
        q_BTHQ = q.view(batch, time, self.num_heads, self.qk_head_dim)
        if step is not None and not step.fresh:
            attend = self._attend_expanded if self._should_expand(time) else self._attend_to_cache
            return F.linear(attend(q_BTHQ, latent_BTC, rope_BTR, rotary, step), self.o_proj.weight)
        if step is not None:
            rotated_BTR = rotate(rope_BTR.unsqueeze(2), *rotary).squeeze(2)
            step.write(self.layer, torch.cat([latent_BTC, rotated_BTR], dim=-1))
        q_BHTQ = kernels.rotate_query(q_BTHQ, *rotary, self.qk_nope_head_dim)
        kv = F.linear(latent_BTC, self.kv_b_proj.weight).view(batch, time, self.num_heads, -1)
        k_BHTQ, v_BHTV = kernels.expand_key_value(kv, rope_BTR, *rotary, self.qk_nope_head_dim)
        if branches is None:
            out_BHTV = self.attend(q_BHTQ, k_BHTQ, v_BHTV)
        else:
            out_BHTV = self._attend_in_branches(q_BHTQ, k_BHTQ, v_BHTV, branches)
        return F.linear(out_BHTV.transpose(1, 2).reshape(batch, time, -1), self.o_proj.weight)

    def _project(self, x_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [B,T,H*Q] and shared key [B,T,R], both not yet rotated, and the normed latent [B,T,C]."""
        if self.q_lora_rank is None:
            q = F.linear(x_BTD, self.q_proj.weight)
            latent_rope = F.linear(x_BTD, self.kv_a_proj_with_mqa.weight)
        else:
            if torch.is_grad_enabled():
                # One wide product is faster, and for a batch joining the weights costs little beside it.
                down = F.linear(x_BTD, torch.cat([self.q_a_proj.weight, self.kv_a_proj_with_mqa.weight]))
                sizes = [self.q_lora_rank, down.shape[-1] - self.q_lora_rank]
                q_latent, latent_rope = torch.split(down, sizes, dim=-1)
            else:
                q_latent = F.linear(x_BTD, self.q_a_proj.weight)
                latent_rope = F.linear(x_BTD, self.kv_a_proj_with_mqa.weight)
            q = F.linear(self.q_a_layernorm(q_latent), self.q_b_proj.weight)
        latent, rope_BTR = torch.split(latent_rope, [self.kv_lora_rank, self.qk_rope_head_dim], dim=-1)
        return q, self.kv_a_layernorm(latent), rope_BTR

    def _attend_in_branches(
        self, q_BHTQ: torch.Tensor, k_BHTQ: torch.Tensor, v_BHTV: torch.Tensor, branches: Branches
    ) -> torch.Tensor:
        sizes = [branches.stem, *branches.lengths]
        (q_stem, *q_each), (k_stem, *k_each), (v_stem, *v_each) = (
            torch.split(t, sizes, dim=2) for t in (q_BHTQ, k_BHTQ, v_BHTV)
        )
        outs = [self.attend(q_stem, k_stem, v_stem)] if branches.stem else []
        for q, k, v in zip(q_each, k_each, v_each, strict=True):
            outs.append(self.attend(q, torch.cat([k_stem, k], dim=2), torch.cat([v_stem, v], dim=2)))
        return torch.cat(outs, dim=2)

    def attend(self, q_BHTQ: torch.Tensor, k_BHTQ: torch.Tensor, v_BHTV: torch.Tensor) -> torch.Tensor:
        """Causal softmax(scale q.k) v, [B, H, T, V]; in training mode the monitor learns about the logits.

        Of more keys than queries the first ones come before all queries.
        """
        monitor = self.logit_monitor if self.training else None
        if monitor is not None and not monitor.enabled:
            monitor = None
        kernel = self.kernel or self._choose_kernel(q_BHTQ, k_BHTQ)
        if kernel == "block":
            q, k, v = (t.flatten(0, 1) for t in (q_BHTQ, k_BHTQ, v_BHTV))
            out, best_G = kernels.causal_attention(q, k, v, self.scale, monitor is not None)
            out, bound_H = out.view(*q_BHTQ.shape[:3], -1), best_G.view(q_BHTQ.shape[:2]).amax(0)
        elif kernel == "flash":
            out, bound_H = self._attend_flash(q_BHTQ, k_BHTQ, v_BHTV)
        else:
            out, bound_H = self._attend_plainly(q_BHTQ, k_BHTQ, v_BHTV)
        if monitor is not None:

            def exact(heads: list[int]) -> torch.Tensor:
                return largest_logits(q_BHTQ[:, heads], k_BHTQ[:, heads], self.scale, absolute=monitor.absolute)

            if monitor.absolute:
                bound_H = torch.full_like(bound_H, torch.inf)
            monitor.observe(self.layer, bound_H, exact if kernel == "flash" or monitor.absolute else None)
        return out

    def _choose_kernel(self, q_BHTQ: torch.Tensor, k_BHTQ: torch.Tensor) -> Kernel:
        """Blocks where they are faster (training and bf16 on a CPU) and their T^2 memory is small, else flash, which
        takes no keys before the queries."""
        short = q_BHTQ.shape[2] <= BLOCK_KERNEL_MAX_TIME
        wanted = q_BHTQ.requires_grad or q_BHTQ.dtype == torch.bfloat16
        on_cpu = q_BHTQ.device.type == "cpu"
        if k_BHTQ.shape[2] > q_BHTQ.shape[2]:
            return "block" if on_cpu else "plain"
        return "block" if on_cpu and short and wanted else "flash"

    def _attend_flash(
        self, q_BHTQ: torch.Tensor, k_BHTQ: torch.Tensor, v_BHTV: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Torch's flash kernel, and per head an upper bound of its logits: the largest log-sum-exp where it is known.

        The kernels want one head size. With v padded by zeros MLA gets them, and with them the log-sum-exp.
        """
        padding = self.qk_head_dim - self.v_head_dim
        found = None
        if padding >= 0:
            found = flash_attention(q_BHTQ, k_BHTQ, F.pad(v_BHTV, (0, padding)), scale=self.scale, causal=True)
        if found is not None:
            out, lse_BHT = found
            return out[..., : self.v_head_dim], lse_BHT.amax(dim=(0, 2))
        out = F.scaled_dot_product_attention(q_BHTQ, k_BHTQ, v_BHTV, is_causal=True, scale=self.scale)
        return out, q_BHTQ.new_full((self.num_heads,), torch.inf)

    def _should_expand(self, time: int) -> bool:
        """Whether keys and values of all that is cached cost less than what so many queries save by them."""
        expansion = self.kv_lora_rank * (self.qk_nope_head_dim + self.v_head_dim)
        absorbed = 2 * self.kv_lora_rank + self.qk_rope_head_dim
        return time * (absorbed - self.qk_head_dim - self.v_head_dim) > expansion

    def _attend_expanded(
        self,
        q_BTHQ: torch.Tensor,
        latent_BTC: torch.Tensor,
        rope_BTR: torch.Tensor,
        rotary: Rotary,
        step: CacheStep,
    ) -> torch.Tensor:
        """The same as `_attend_to_cache`, for many tokens: by the keys and values of all that is cached."""
        nope, rank = self.qk_nope_head_dim, self.kv_lora_rank
        step.write(self.layer, torch.cat([latent_BTC, rotate(rope_BTR.unsqueeze(2), *rotary).squeeze(2)], dim=-1))
        cached_BSW = step.read(self.layer)
        kv_BSHX = F.linear(cached_BSW[..., :rank], self.kv_b_proj.weight)
        kv_BSHX = kv_BSHX.view(*cached_BSW.shape[:2], self.num_heads, -1)
        rope_BSHR = cached_BSW[..., rank:].unsqueeze(2).expand(-1, -1, self.num_heads, -1)
        k_BHSQ = torch.cat([kv_BSHX[..., :nope], rope_BSHR], dim=-1).transpose(1, 2)
        q_BHTQ = torch.cat([q_BTHQ[..., :nope], rotate(q_BTHQ[..., nope:], *rotary)], dim=-1).transpose(1, 2)
        # One head size for all, which the flash kernels want.
        v_BHSQ = F.pad(kv_BSHX[..., nope:].transpose(1, 2), (0, max(0, self.qk_head_dim - self.v_head_dim)))
        mask = None if step.mask_BTS is None else step.mask_BTS.unsqueeze(1)
        out_BHTQ = F.scaled_dot_product_attention(q_BHTQ, k_BHSQ, v_BHSQ, attn_mask=mask, scale=self.scale)
        return out_BHTQ[..., : self.v_head_dim].transpose(1, 2).flatten(2)

    def _attend_to_cache(
        self,
        q_BTHQ: torch.Tensor,
        latent_BTC: torch.Tensor,
        rope_BTR: torch.Tensor,
        rotary: Rotary,
        step: CacheStep,
    ) -> torch.Tensor:
        """Absorbed attention, [B, T, H*V]: queries move into the latent space, keys and values stay compressed."""
        batch, time, heads, _ = q_BTHQ.shape
        nope, rank = self.qk_nope_head_dim, self.kv_lora_rank
        ropes = torch.cat([q_BTHQ[..., nope:], rope_BTR.unsqueeze(2)], dim=2)
        ropes = rotate(ropes, *rotary)  # the key as one more head
        step.write(self.layer, torch.cat([latent_BTC, ropes[:, :, heads]], dim=-1))
        weight_HXC = self.kv_b_proj.weight.view(heads, -1, rank)
        nope_HXN = q_BTHQ[..., :nope].reshape(batch * time, heads, nope).transpose(0, 1)
        q_XHC = torch.bmm(nope_HXN, weight_HXC[:, :nope]).transpose(0, 1)
        q_BYW = torch.cat([q_XHC.reshape(batch, time, heads, rank), ropes[:, :, :heads]], dim=-1).flatten(1, 2)
        cached_BSW = step.read(self.layer)
        if step.mask_BTS is None:
            bias, beta = q_BYW.new_empty(1), 0
        else:
            bias, beta = step.mask_BTS.repeat_interleave(heads, dim=1) if time > 1 else step.mask_BTS, 1
        score_BYS = torch.baddbmm(bias, q_BYW, cached_BSW.transpose(1, 2), beta=beta, alpha=self.scale)
        mixed_BYC = torch.bmm(score_BYS.softmax(-1), cached_BSW[..., :rank])
        mixed_HXC = mixed_BYC.view(batch * time, heads, rank).transpose(0, 1)
        out_HXV = torch.bmm(mixed_HXC, weight_HXC[:, nope:].transpose(1, 2))
        return out_HXV.transpose(0, 1).reshape(batch, time, -1)

    def _attend_plainly(
        self, q_BHTQ: torch.Tensor, k_BHTQ: torch.Tensor, v_BHTV: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The reference: all logits at once, softmax in fp32. Also returns each head's largest logit."""
        logits_BHTS = (q_BHTQ @ k_BHTQ.transpose(-1, -2)).float() * self.scale
        time, keys = logits_BHTS.shape[-2:]
        future_TS = torch.ones(time, keys, dtype=torch.bool, device=logits_BHTS.device).triu(1 + keys - time)
        logits_BHTS = logits_BHTS.masked_fill(future_TS, -torch.inf)
        out = logits_BHTS.softmax(-1).to(v_BHTV.dtype) @ v_BHTV
        return out, logits_BHTS.detach().amax(dim=(0, 2, 3))
