"""One token for each of some sequences, compiled: what generation consists of, once the prompts are read.

A step of a small model is hundreds of small operations, and a product of few rows in a BLAS library reads its weights
with one core. `torch.compile` makes a few loops of them, over all cores. It needs a C++ compiler on the machine, and
some seconds the first time (the result is kept on disk by torch).

Shapes: B sequences, D hidden, H heads, N nope size, R rotary size, P = R/2, C latent rank, W = C + R, V value size, S
cached positions, I expert intermediate size, K experts per token, M = B K, L layers, X any.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openk2.core import UserError
from openk2.model import LatentCache, Transformer
from openk2.model.attention import MLA
from openk2.model.layers import FeedForward, RMSNorm, rotary_table, rotate
from openk2.model.moe import MoE
from openk2.model.transformer import Block

# The compiler makes constants of sizes below two.
_FEWEST_CACHED = 2

# Called hundreds of times a second, what a graph checks before it runs costs as much as a small layer. All blocks of
# one kind are alike, and weights do not change: only what comes from outside of the model is looked at.
_UNCHECKED: dict[str, Any] = {
    "size_asserts": False,
    "alignment_asserts": False,
    "guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe,
}


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled for one kind of block or weight, apart from all other calls of this."""
    make = cast(Any, torch.compile)  # its overloads do not know all of its parameters
    compiled: Callable[..., Any] = make(function, fullgraph=True, options=_UNCHECKED, isolate_recompiles=True)
    return compiled


class CompiledStep:
    """The same as `Transformer.hidden` and its head for one token behind each cached row, beyond float noise.

    Raises UserError if the model is not on a CPU or nothing can be compiled here.
    """

    def __init__(self, model: Transformer) -> None:
        weight = model.lm_head.weight
        if weight.device.type != "cpu":
            raise UserError(f"a compiled step is for CPUs and the model is on {weight.device}: leave it out")
        self._model = model
        self._blocks = cast(list[Block], list(model.layers))
        self._rotary = rotary_table(model.config, weight.dtype, weight.device)
        self._layers: dict[type[nn.Module], Callable[..., tuple[Tensor, Tensor]]] = {
            kind: _compile(_layer) for kind in (FeedForward, MoE)
        }
        self._product: Callable[..., Tensor] = _compile(_product)
        self._warm_up()

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """Compile everything now and not in somebody's answer: one sequence apart from several."""
        weight = self._model.lm_head.weight
        vary = torch._dynamo.mark_dynamic
        try:
            for batch in (1, 2):
                x_BD, lengths_B = weight.new_zeros(batch, weight.shape[1]), torch.full((batch,), 2)
                # A part of a cache: its rows do not follow each other without gaps.
                cached_BSW = LatentCache(self._model.config, 3, 3, weight.dtype).latent_LBSW[0, :batch, :2]
                vary(cached_BSW, 1)
                for tensor in (x_BD, lengths_B, cached_BSW) if batch > 1 else ():
                    vary(tensor, 0)
                for block in {type(block.mlp): block for block in self._blocks}.values():
                    self._layers[type(block.mlp)](block, x_BD, self._rotary, cached_BSW, lengths_B)
                self._product(weight, x_BD)
        except Exception as e:
            # Whatever a compiler that is missing or broken makes torch raise.
            reason = next(iter(str(e).splitlines()), type(e).__name__)
            raise UserError(f"the step cannot be compiled here ({reason}): install g++, or leave it out") from e

    def fits(self, lengths: Several[int]) -> bool:
        """Whether `hidden` can be asked behind so many cached positions."""
        return _FEWEST_CACHED <= max(lengths) < len(self._rotary[0])

    def hidden(self, tokens: Several[int], lengths: Several[int], latent_LBSW: Tensor) -> Tensor:
        """The final normed activations x_BD of `tokens` behind the first `lengths` positions of each row, where they
        are written."""
        longest = max(lengths)
        lengths_B = torch.tensor(lengths)
        x_BD = self._model.embed_tokens.weight[torch.tensor(tokens)]
        news = []
        for index, block in enumerate(self._blocks):
            cached_BSW = latent_LBSW[index, :, :longest]
            x_BD, new_BW = self._layers[type(block.mlp)](block, x_BD, self._rotary, cached_BSW, lengths_B)
            news.append(new_BW)
        latent_LBSW[:, torch.arange(len(tokens)), lengths_B] = torch.stack(news)
        out_BD: Tensor = self._model.norm(x_BD)
        return out_BD

    def head(self, x_BD: Tensor) -> Tensor:
        """Logits [B, vocabulary]."""
        # As compiled: what is chosen of a larger tensor may lie apart.
        return self._product(self._model.lm_head.weight, x_BD.contiguous())


def _normed(norm: RMSNorm, x: Tensor) -> Tensor:
    inverse = (x.float().square().mean(-1, keepdim=True) + norm.eps).rsqrt()
    return x * inverse.to(x.dtype) * norm.weight


def _product(weight_XD: Tensor, x_BD: Tensor) -> Tensor:
    """x W^T [B, X], as a loop that the compiler divides among the cores; or with a weight for each row [B, X, D]."""
    return (weight_XD * x_BD[:, None]).sum(-1)


def _layer(
    block: Block, x_BD: Tensor, rotary: tuple[Tensor, Tensor], cached_BSW: Tensor, lengths_B: Tensor
) -> tuple[Tensor, Tensor]:
    """A block's output for one token of each sequence, and what it adds to the cache."""
    out_BD, new_BW = _attend(block.self_attn, _normed(block.input_layernorm, x_BD), rotary, cached_BSW, lengths_B)
    x_BD = x_BD + out_BD
    normed_BD = _normed(block.post_attention_layernorm, x_BD)
    mlp = block.mlp
    if isinstance(mlp, MoE):
        return x_BD + _feed_forward(mlp.shared_experts, normed_BD) + _experts(mlp, normed_BD), new_BW
    return x_BD + _feed_forward(mlp, normed_BD), new_BW


def _attend(
    attention: MLA, x_BD: Tensor, rotary: tuple[Tensor, Tensor], cached_BSW: Tensor, lengths_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Absorbed attention, as `MLA._attend_to_cache` computes it, to what is cached and the token itself."""
    batch, heads, nope, rank = len(x_BD), attention.num_heads, attention.qk_nope_head_dim, attention.kv_lora_rank
    if attention.q_lora_rank is None:
        q = _product(attention.q_proj.weight, x_BD)
    else:
        q = _product(
            attention.q_b_proj.weight, _normed(attention.q_a_layernorm, _product(attention.q_a_proj.weight, x_BD))
        )
    q_BHQ = q.view(batch, heads, -1)
    cos_BP, sin_BP = (table_NP[lengths_B] for table_NP in rotary)
    down = _product(attention.kv_a_proj_with_mqa.weight, x_BD)
    new_BW = torch.cat(
        [_normed(attention.kv_a_layernorm, down[:, :rank]), rotate(down[:, rank:], cos_BP, sin_BP)], dim=-1
    )
    weight_HXC = attention.kv_b_proj.weight.view(heads, -1, rank)
    q_BHC = (weight_HXC[:, :nope] * q_BHQ[:, :, :nope, None]).sum(2)
    q_BHW = torch.cat([q_BHC, rotate(q_BHQ[:, :, nope:], cos_BP[:, None], sin_BP[:, None])], dim=-1)
    unused_BS = torch.arange(cached_BSW.shape[1]) >= lengths_B[:, None]
    score_BHS = (q_BHW[:, :, None] * cached_BSW[:, None]).sum(-1) * attention.scale
    score_BHS = score_BHS.masked_fill(unused_BS[:, None], -torch.inf)
    own_BH1 = (q_BHW * new_BW[:, None]).sum(-1, keepdim=True) * attention.scale
    share_BHS = torch.cat([score_BHS, own_BH1], dim=-1).softmax(-1)
    mixed_BHC = (share_BHS[..., :-1, None] * cached_BSW[:, None, :, :rank]).sum(2)
    mixed_BHC = mixed_BHC + share_BHS[..., -1:] * new_BW[:, None, :rank]
    out_BHV = (weight_HXC[:, nope:] * mixed_BHC[:, :, None]).sum(-1)
    return _product(attention.o_proj.weight, out_BHV.flatten(1)), new_BW


def _feed_forward(mlp: FeedForward, x_BD: Tensor) -> Tensor:
    inner_BI = F.silu(_product(mlp.gate_proj.weight, x_BD)) * _product(mlp.up_proj.weight, x_BD)
    return _product(mlp.down_proj.weight, inner_BI)


def _experts(moe: MoE, x_BD: Tensor) -> Tensor:
    """Only the chosen experts' weights are read; rows of the same one follow each other, while it is in the cache."""
    weight_BK, chosen_BK = moe.gate(x_BD)
    experts: Any = moe.experts
    batch, per_token = chosen_BK.shape
    expert_M, order_M = chosen_BK.flatten().sort() if batch > 1 else (chosen_BK[0], torch.arange(per_token))
    gate_MI, up_MI = _product(experts.gate_up_proj[expert_M], x_BD[order_M // per_token]).chunk(2, dim=-1)
    inner_MI = F.silu(gate_MI) * up_MI * weight_BK.flatten()[order_M, None].to(x_BD.dtype)
    sorted_MD = _product(experts.down_proj[expert_M], inner_MI)
    out_MD = torch.empty_like(sorted_MD).index_copy(0, order_M, sorted_MD)
    return out_MD.view(*chosen_BK.shape, -1).sum(1)
