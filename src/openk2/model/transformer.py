"""The whole network: embedding, layers, norm, head; and the training loss.

Legend: B batch, T time, D hidden, V vocabulary, N supervised positions, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from openk2.core import ContextOverflow
from openk2.model import kernels
from openk2.model.attention import MLA, Branches, Rotary
from openk2.model.cache import CacheStep, LatentCache
from openk2.model.config import ModelConfig
from openk2.model.layers import FeedForward, RMSNorm, rotary_table
from openk2.model.moe import BiasRule, MoE
from openk2.model.monitor import LogitMonitor

IGNORED = -100


class _WithoutInitialisers(TorchFunctionMode):
    """Leaves out `torch.nn.init`, which on the meta device does nothing but import torch's compiler for a second."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules made inside have shapes but no memory."""
    with torch.device("meta"), _WithoutInitialisers():
        yield


class Block(nn.Module):
    """Pre-norm attention and feed-forward (dense or experts), each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = MLA(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp: MoE | FeedForward = (
            MoE(config) if config.is_moe(layer) else FeedForward(config.hidden_size, config.intermediate_size)
        )

    def forward(
        self, x_BTD: torch.Tensor, rotary: Rotary, step: CacheStep | None = None, branches: Branches | None = None
    ) -> torch.Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotary, step, branches)
        mixed_BTD: torch.Tensor = self.mlp(self.post_attention_layernorm(x_BTD))
        return x_BTD + mixed_BTD


class Transformer(nn.Module):
    """K2's architecture at any size. Parameter names are Hugging Face's without the leading `model.`, except that the
    routed experts of a layer are fused (`mlp.experts.gate_up_proj` [E, 2I, D], `mlp.experts.down_proj` [E, D, I]).

    Weights are drawn from torch's global generator: seed it for a reproducible start.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Matrices from N(0, initializer_range), norms 1, router biases 0; nothing for a model without memory."""
        if self.norm.weight.is_meta:
            return
        for parameter in self.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, self.config.initializer_range)
            else:
                parameter.fill_(1.0)
        for moe in self.moe_layers():
            moe.gate.e_score_correction_bias.zero_()
            moe.expert_counts_E.zero_()

    def hidden(
        self,
        input_ids_BT: torch.Tensor,
        cache: LatentCache | None = None,
        lengths_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Final normed activations [B, T, D].

        With a `cache`, the tokens continue its rows and are added to it; then gradients are off and the result equals
        that of one pass over the whole rows. `lengths_B` says how many leading columns of each row are real (default:
        all); the rest is padding on the right, and what it yields means nothing. A row may add zero tokens.
        Raises ContextOverflow beyond `max_position_embeddings` or the cache's room.
        """
        if cache is not None:
            return self._hidden_cached(input_ids_BT, cache, lengths_B)
        time = input_ids_BT.shape[1]
        if time > self.config.max_position_embeddings:
            raise ContextOverflow(
                f"the input has {time} tokens, the model was made for {self.config.max_position_embeddings}: shorten it"
            )
        x_BTD = self.embed_tokens(input_ids_BT)
        cos_NP, sin_NP = rotary_table(self.config, x_BTD.dtype, x_BTD.device)
        return self._layers(x_BTD, (cos_NP[:time, None], sin_NP[:time, None]), None)

    def hidden_of_branches(self, input_ids_T: torch.Tensor, branches: Branches) -> torch.Tensor:
        """Final normed activations [T, D] of sequences that begin alike: the stem once, then what each goes on with.

        Equal to `hidden` of the whole sequences, as far as floats vary with shapes. Raises ContextOverflow.
        """
        longest = branches.stem + max(branches.lengths)
        if longest > self.config.max_position_embeddings:
            raise ContextOverflow(
                f"a sequence has {longest} tokens, the model was made for {self.config.max_position_embeddings}: "
                "shorten it"
            )
        x_1TD = self.embed_tokens(input_ids_T[None])
        cos_NP, sin_NP = rotary_table(self.config, x_1TD.dtype, x_1TD.device)
        position_T = torch.tensor(branches.positions, device=x_1TD.device)
        return self._layers(x_1TD, (cos_NP[position_T][:, None], sin_NP[position_T][:, None]), None, branches)[0]

    @torch.no_grad()
    def _hidden_cached(
        self, input_ids_BT: torch.Tensor, cache: LatentCache, lengths_B: torch.Tensor | None
    ) -> torch.Tensor:
        batch, time = input_ids_BT.shape
        if lengths_B is None:
            lengths_B = torch.full((batch,), time, device=input_ids_BT.device)
        step, position_BT = cache.step(time, lengths_B)
        x_BTD = self.embed_tokens(input_ids_BT)
        cos_NP, sin_NP = rotary_table(self.config, x_BTD.dtype, x_BTD.device)
        x_BTD = self._layers(x_BTD, (cos_NP[position_BT].unsqueeze(2), sin_NP[position_BT].unsqueeze(2)), step)
        cache.lengths_B = cache.lengths_B + lengths_B
        return x_BTD

    def _layers(
        self, x_BTD: torch.Tensor, rotary: Rotary, step: CacheStep | None, branches: Branches | None = None
    ) -> torch.Tensor:
        for block in self.layers:
            x_BTD = block(x_BTD, rotary, step, branches)
        normed_BTD: torch.Tensor = self.norm(x_BTD)
        return normed_BTD

    def forward(self, input_ids_BT: torch.Tensor) -> torch.Tensor:
        """Logits [B, T, V] of the next token at every position."""
        return F.linear(self.hidden(input_ids_BT), self.lm_head.weight)

    def loss(self, input_ids_BT: torch.Tensor, targets_BT: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Summed cross-entropy (nats, fp32 scalar) over the positions whose target is not -100, and their number.

        `targets_BT[b, t]` is the token that should follow `input_ids_BT[b, t]`: the caller shifts. The head runs only
        at supervised positions.
        """
        x_ND = self.hidden(input_ids_BT).flatten(0, 1)
        targets_N = targets_BT.flatten()
        supervised = (targets_N != IGNORED).nonzero().flatten()
        if supervised.numel() < targets_N.numel():
            x_ND, targets_N = x_ND.index_select(0, supervised), targets_N.index_select(0, supervised)
        return kernels.head_loss(x_ND, self.lm_head.weight, targets_N), supervised.numel()

    def attention_layers(self) -> list[MLA]:
        """The attention of every layer, in order."""
        return [module for module in self.modules() if isinstance(module, MLA)]

    def moe_layers(self) -> list[MoE]:
        """The layers with experts, in order."""
        return [module for module in self.modules() if isinstance(module, MoE)]

    def attach_monitor(self, threshold: float = 100.0, absolute: bool = False) -> LogitMonitor:
        """Let every attention layer report to one new logit monitor, and return it."""
        monitor = LogitMonitor(self.config.num_hidden_layers, self.config.num_attention_heads, threshold, absolute)
        for attention in self.attention_layers():
            attention.logit_monitor = monitor
        return monitor

    def update_router_bias(self, rate: float, rule: BiasRule = "moonlight") -> None:
        """Nudge every router towards equal loads and zero the counts (see `MoE.update_bias`)."""
        for moe in self.moe_layers():
            moe.update_bias(rate, rule)
