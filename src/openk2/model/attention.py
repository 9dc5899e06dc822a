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

import torch
import torch.nn.functional as F
from torch import nn

from openk2.model.cache import CacheStep
from openk2.model.config import ModelConfig
from openk2.model.layers import RMSNorm, rotate
from openk2.model.monitor import LogitMonitor

Rotary = tuple[torch.Tensor, torch.Tensor]


class MLA(nn.Module):
    """One attention layer. Rows of `q_b_proj` are per head [nope | rope], rows of `kv_b_proj` per head [nope | value].

    `logit_monitor`, when set and enabled, sees every forward pass in training mode.
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
        self.use_flash = True

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

    @property
    def query_weight(self) -> nn.Parameter:
        """The matrix whose rows are the per-head queries: `q_b_proj`, or `q_proj` without a query latent."""
        return self.q_proj.weight if self.q_lora_rank is None else self.q_b_proj.weight

    def forward(self, x_BTD: torch.Tensor, rotary: Rotary, step: CacheStep | None = None) -> torch.Tensor:
        """Causal attention over the given tokens and, with `step`, over what the cache holds before them.

        `rotary` is (cos, sin), each broadcastable to [B, T, 1, P].
        """
        q_BTHQ, latent_BTC, rope_BTR = self._project(x_BTD, rotary)
        if step is not None:
            step.write(self.layer, torch.cat([latent_BTC, rope_BTR], dim=-1))
            if not step.fresh:
                return self.o_proj(self._attend_to_cache(q_BTHQ, step).flatten(2))
        k_BTHQ, v_BTHV = self._expand(latent_BTC, rope_BTR)
        return self.o_proj(self.attend(q_BTHQ, k_BTHQ, v_BTHV).flatten(2))

    def _project(self, x_BTD: torch.Tensor, rotary: Rotary) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [B,T,H,Q], normed latent [B,T,C] and rotated shared key [B,T,R]."""
        batch, time, _ = x_BTD.shape
        if self.q_lora_rank is None:
            q = self.q_proj(x_BTD)
            latent_rope = self.kv_a_proj_with_mqa(x_BTD)
        else:
            # One product for both down-projections; joining the weights costs little beside it.
            down = F.linear(x_BTD, torch.cat([self.q_a_proj.weight, self.kv_a_proj_with_mqa.weight]))
            q_latent, latent_rope = down.split([self.q_lora_rank, self.kv_lora_rank + self.qk_rope_head_dim], dim=-1)
            q = self.q_b_proj(self.q_a_layernorm(q_latent))
        q_BTHQ = q.view(batch, time, self.num_heads, self.qk_head_dim)
        nope, rope = q_BTHQ.split([self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)
        latent, key = latent_rope.split([self.kv_lora_rank, self.qk_rope_head_dim], dim=-1)
        q_BTHQ = torch.cat([nope, rotate(rope, *rotary)], dim=-1)
        key_BTR = rotate(key.unsqueeze(2), *rotary).squeeze(2)
        return q_BTHQ, self.kv_a_layernorm(latent), key_BTR

    def _expand(self, latent_BTC: torch.Tensor, rope_BTR: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Per-head keys [B,T,H,Q] and values [B,T,H,V] from what the cache holds."""
        batch, time, _ = latent_BTC.shape
        kv = self.kv_b_proj(latent_BTC).view(batch, time, self.num_heads, self.qk_nope_head_dim + self.v_head_dim)
        k_nope, v_BTHV = kv.split([self.qk_nope_head_dim, self.v_head_dim], dim=-1)
        shared = rope_BTR.unsqueeze(2).expand(-1, -1, self.num_heads, -1)
        return torch.cat([k_nope, shared], dim=-1), v_BTHV

    def attend(self, q_BTHQ: torch.Tensor, k_BTHQ: torch.Tensor, v_BTHV: torch.Tensor) -> torch.Tensor:
        """Causal softmax(scale q.k) v, [B, T, H, V]; in training mode the monitor sees the logits' bound."""
        monitor = self.logit_monitor if self.training else None
        if monitor is not None and not monitor.enabled:
            monitor = None
        q, k, v = (t.transpose(1, 2) for t in (q_BTHQ, k_BTHQ, v_BTHV))
        if self.use_flash and q.device.type == "cpu" and self.v_head_dim <= self.qk_head_dim:
            # The CPU kernel wants one head size. With v padded by zeros MLA gets it, and with it the log-sum-exp.
            v = F.pad(v, (0, self.qk_head_dim - self.v_head_dim))
            out, lse_BHT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q, k, v, 0.0, True, attn_mask=None, scale=self.scale
            )
            out = out[..., : self.v_head_dim]
            bound_H = lse_BHT.detach().amax(dim=(0, 2)) if monitor is not None else None
        elif self.use_flash:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
            bound_H = q.new_full((self.num_heads,), torch.inf) if monitor is not None else None
        else:
            out, bound_H = self._attend_plainly(q, k, v)
        if monitor is not None and bound_H is not None:
            q, k = q.detach(), k.detach()
            monitor.observe(self.layer, bound_H, lambda heads: self.exact_max_logit(q[:, heads], k[:, heads]))
        return out.transpose(1, 2)

    def _attend_to_cache(self, q_BTHQ: torch.Tensor, step: CacheStep) -> torch.Tensor:
        """Absorbed attention, [B, T, H, V]: queries move into the latent space, keys and values stay compressed."""
        batch, time, heads, _ = q_BTHQ.shape
        weight = self.kv_b_proj.weight.view(heads, -1, self.kv_lora_rank)
        up_key_HNC, up_value_HVC = weight.split([self.qk_nope_head_dim, self.v_head_dim], dim=1)
        nope, rope = q_BTHQ.split([self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)
        nope_HXN = nope.reshape(batch * time, heads, -1).transpose(0, 1)
        latent_BTHC = torch.bmm(nope_HXN, up_key_HNC).transpose(0, 1).view(batch, time, heads, -1)
        q_BYW = torch.cat([latent_BTHC, rope], dim=-1).view(batch, time * heads, -1)
        cached_BSW = step.read(self.layer)
        score_BYS = torch.bmm(q_BYW, cached_BSW.transpose(1, 2)).mul_(self.scale)
        if step.mask_BTS is not None:
            score_BYS.view(batch, time, heads, -1).add_(step.mask_BTS.unsqueeze(2))
        mixed_BYC = torch.bmm(score_BYS.softmax(-1), cached_BSW[..., : self.kv_lora_rank])
        mixed_HXC = mixed_BYC.view(batch * time, heads, -1).transpose(0, 1)
        return torch.bmm(mixed_HXC, up_value_HVC.transpose(1, 2)).transpose(0, 1).view(batch, time, heads, -1)

    def _attend_plainly(
        self, q_BHTQ: torch.Tensor, k_BHTQ: torch.Tensor, v_BHTV: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The reference: all logits at once, softmax in fp32. Also returns each head's largest logit."""
        logits_BHTS = (q_BHTQ @ k_BHTQ.transpose(-1, -2)).float() * self.scale
        time = logits_BHTS.shape[-1]
        future_TS = torch.ones(time, time, dtype=torch.bool, device=logits_BHTS.device).triu(1)
        logits_BHTS = logits_BHTS.masked_fill(future_TS, -torch.inf)
        out = logits_BHTS.softmax(-1).to(v_BHTV.dtype) @ v_BHTV
        return out, logits_BHTS.detach().amax(dim=(0, 2, 3))

    @torch.no_grad()
    def exact_max_logit(self, q_BHTQ: torch.Tensor, k_BHTQ: torch.Tensor, chunk: int = 256) -> torch.Tensor:
        """Each head's largest causal logit, [H] in fp32, in chunks of queries so that memory stays linear in T."""
        heads, time = q_BHTQ.shape[1:3]
        best_H = torch.full((heads,), -torch.inf, device=q_BHTQ.device)
        for start in range(0, time, chunk):
            stop = min(start + chunk, time)
            logits = (q_BHTQ[:, :, start:stop].float() @ k_BHTQ[:, :, :stop].float().transpose(-1, -2)) * self.scale
            future = torch.ones(stop - start, stop, dtype=torch.bool, device=logits.device).triu(start + 1)
            best_H = torch.maximum(best_H, logits.masked_fill(future, -torch.inf).amax(dim=(0, 2, 3)))
        return best_H
