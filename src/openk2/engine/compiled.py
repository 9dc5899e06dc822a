"""One token of one sequence, compiled: what a single stream costs.

A step of a small model is hundreds of small operations, and a product of one row in a BLAS library reads its weights
with one core. `torch.compile` makes a few loops of them, over all cores. It needs a C++ compiler on the machine, and
some seconds the first time (the result is kept on disk by torch).

Shapes: D hidden, H heads, N nope size, R rotary size, P = R/2, C latent rank, W = C + R, V value size, S cached
positions, I expert intermediate size, K experts per token, L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from openk2.core import UserError
from openk2.model import Transformer
from openk2.model.attention import MLA
from openk2.model.layers import FeedForward, RMSNorm, rotary_table, rotate
from openk2.model.moe import MoE
from openk2.model.transformer import Block


class CompiledStep:
    """The same as `Transformer.hidden` and its head for one token behind a cached row, beyond float noise.

    Raises UserError if the model is not on a CPU or nothing can be compiled here.
    """

    def __init__(self, model: Transformer) -> None:
        weight = model.lm_head.weight
        if weight.device.type != "cpu":
            raise UserError(f"a compiled step is for CPUs and the model is on {weight.device}: leave it out")
        self._model = model
        self._cos_NP, self._sin_NP = rotary_table(model.config, weight.dtype, weight.device)
        self._layer: Callable[..., tuple[Tensor, Tensor]] = torch.compile(_layer, fullgraph=True)
        self._product: Callable[..., Tensor] = torch.compile(_product, fullgraph=True)
        self._warm_up()

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """Compile everything now and not in somebody's answer."""
        config = self._model.config
        shape = (config.num_hidden_layers, 4, config.latent_dim)
        latent_LSW = torch.zeros(shape, dtype=self._cos_NP.dtype)
        try:
            for length in (2, 3):
                self.head(self.hidden(0, length, latent_LSW)[None])
        except Exception as e:
            # Whatever a compiler that is missing or broken makes torch raise.
            reason = next(iter(str(e).splitlines()), type(e).__name__)
            raise UserError(f"the step cannot be compiled here ({reason}): install g++, or leave it out") from e

    def hidden(self, token: int, length: int, latent_LSW: Tensor) -> Tensor:
        """The final normed activation x_D of `token` behind `length` cached positions (two at least), to which it is
        added."""
        x_D = self._model.embed_tokens.weight[token]
        rotary = self._cos_NP[length], self._sin_NP[length]
        news = []
        for index, block in enumerate(self._model.layers):
            cached_SW = latent_LSW[index, :length]
            torch._dynamo.mark_dynamic(cached_SW, 0)
            x_D, new_W = self._layer(cast(Block, block), x_D, rotary, cached_SW)
            news.append(new_W)
        latent_LSW[:, length] = torch.stack(news)
        out_D: Tensor = self._model.norm(x_D)
        return out_D

    def head(self, x_1D: Tensor) -> Tensor:
        """Logits [1, vocabulary]."""
        return self._product(self._model.lm_head.weight, x_1D[0])[None]


def _normed(norm: RMSNorm, x: Tensor) -> Tensor:
    inverse = (x.float().square().mean(-1, keepdim=True) + norm.eps).rsqrt()
    return x * inverse.to(x.dtype) * norm.weight


def _product(weight_XD: Tensor, x_D: Tensor) -> Tensor:
    """W x as a loop that the compiler divides among the cores."""
    return (weight_XD * x_D).sum(-1)


def _layer(block: Block, x_D: Tensor, rotary: tuple[Tensor, Tensor], cached_SW: Tensor) -> tuple[Tensor, Tensor]:
    """A block's output for one token, and what it adds to the cache."""
    out_D, new_W = _attend(block.self_attn, _normed(block.input_layernorm, x_D), rotary, cached_SW)
    x_D = x_D + out_D
    normed_D = _normed(block.post_attention_layernorm, x_D)
    mlp = block.mlp
    if isinstance(mlp, MoE):
        return x_D + _feed_forward(mlp.shared_experts, normed_D) + _experts(mlp, normed_D), new_W
    return x_D + _feed_forward(mlp, normed_D), new_W


def _attend(attention: MLA, x_D: Tensor, rotary: tuple[Tensor, Tensor], cached_SW: Tensor) -> tuple[Tensor, Tensor]:
    """Absorbed attention, as `MLA._attend_to_cache` computes it, to what is cached and the token itself."""
    heads, nope, rank = attention.num_heads, attention.qk_nope_head_dim, attention.kv_lora_rank
    if attention.q_lora_rank is None:
        q = _product(attention.q_proj.weight, x_D)
    else:
        q = _product(
            attention.q_b_proj.weight, _normed(attention.q_a_layernorm, _product(attention.q_a_proj.weight, x_D))
        )
    q_HQ = q.view(heads, -1)
    down = _product(attention.kv_a_proj_with_mqa.weight, x_D)
    new_W = torch.cat([_normed(attention.kv_a_layernorm, down[:rank]), rotate(down[rank:], *rotary)])
    weight_HXC = attention.kv_b_proj.weight.view(heads, -1, rank)
    q_HC = (weight_HXC[:, :nope] * q_HQ[:, :nope, None]).sum(1)
    q_HW = torch.cat([q_HC, rotate(q_HQ[:, nope:], *rotary)], dim=-1)
    score_HS = torch.cat([q_HW @ cached_SW.T, (q_HW * new_W).sum(-1, keepdim=True)], dim=-1)
    share_HS = (score_HS * attention.scale).softmax(-1)
    mixed_HC = share_HS[:, :-1] @ cached_SW[:, :rank] + share_HS[:, -1:] * new_W[:rank]
    out_HV = (weight_HXC[:, nope:] * mixed_HC[:, None]).sum(-1)
    return _product(attention.o_proj.weight, out_HV.flatten()), new_W


def _feed_forward(mlp: FeedForward, x_D: Tensor) -> Tensor:
    inner_I = F.silu(_product(mlp.gate_proj.weight, x_D)) * _product(mlp.up_proj.weight, x_D)
    return _product(mlp.down_proj.weight, inner_I)


def _experts(moe: MoE, x_D: Tensor) -> Tensor:
    """Only the chosen experts' weights are read."""
    weight_1K, chosen_1K = moe.gate(x_D[None])
    experts: Any = moe.experts
    gate_KI, up_KI = _product(experts.gate_up_proj[chosen_1K[0]], x_D).chunk(2, dim=-1)
    inner_KI = F.silu(gate_KI) * up_KI * weight_1K[0, :, None].to(x_D.dtype)
    return _product(experts.down_proj[chosen_1K[0]], inner_KI[:, None]).sum(0)
