"""What happened at every id of a finished generation: how likely it was, what else was, what the grammar left to choose
from, and which experts computed it.

All of it is recomputed in one pass over prompt and completion, so that generating costs nothing more for it.
Shapes: T positions before each id of the completion, D hidden, V vocabulary, K experts per token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from openk2.core import UserError
from openk2.engine.generate import Engine
from openk2.engine.sequence import Request, TopLogprobs
from openk2.model import Transformer
from openk2.model.moe import MoE

_TOP = 5
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Inspected:
    """One id of a completion. `logprob` and the likeliest ids `top` are the model's own, without grammar. `allowed` is
    how many ids the grammar left: 1 is no choice at all. `experts` are those that the position it came from used, the
    heaviest first, per layer that has experts."""

    id: int
    logprob: float
    top: TopLogprobs
    allowed: int
    experts: tuple[tuple[int, ...], ...]


class Inspector:
    """Looks at completions of one engine. Not for several threads at a time; the engine may run beside it.

    Attributes:
        layers: the numbers of the layers that have experts.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._chosen: list[list[list[int]]] = []
        self._model = _same_weights(engine.model)
        self.layers = tuple(i for i, block in enumerate(self._model.layers) if isinstance(block.mlp, MoE))
        for moe in self._model.moe_layers():
            moe.gate.register_forward_hook(self._note)

    @torch.inference_mode()
    def inspect(self, request: Request, ids: Sequence[int]) -> list[Inspected]:
        """One record for each of `ids`, which `request` was completed with.

        Raises UserError, also as `Engine.check`, for ids that cannot be such a completion.
        """
        self._engine.check(request)
        allowed = self._allowed(request, ids)
        before = torch.tensor([[*request.prompt_ids, *ids[:-1]]], device=self._model.lm_head.weight.device)
        self._chosen = []
        x_TD = self._model.hidden(before)[0, len(request.prompt_ids) - 1 :]
        experts = list(zip(*(layer[-len(ids) :] for layer in self._chosen), strict=True)) or [()] * len(ids)
        scored = self._scored(x_TD, ids)
        return [
            Inspected(token, logprob, best, count, tuple(map(tuple, used)))
            for token, (logprob, best), count, used in zip(ids, scored, allowed, experts, strict=True)
        ]

    def _note(self, router: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        weight_NK, chosen_NK = output
        self._chosen.append(chosen_NK.gather(1, weight_NK.argsort(-1, descending=True)).tolist())

    def _allowed(self, request: Request, ids: Sequence[int]) -> list[int]:
        """How many ids might have come at each place. Raises UserError for one that might not."""
        engine, room = self._engine, request.room(self._engine.context)
        if not 0 < len(ids) <= room:
            raise UserError(f"there are {len(ids)} ids, and the completion has 1 to {room}")
        guide = request.guide(engine.grammar)
        assert guide is not None  # only a request without grammar has none
        allowed = []
        for index, token in enumerate(ids):
            left = room - index
            mask = guide.mask(left)
            if not 0 <= token < len(mask) or not mask[token]:
                raise UserError(f"number {index}, id {token}, cannot come there: send the ids that were generated")
            allowed.append(int(mask.sum()))
            # As the engine did: what it leads to depends on it.
            guide.settle(token, left)
            guide.advance(token, left)
        return allowed

    def _scored(self, x_TD: Tensor, ids: Sequence[int]) -> list[tuple[float, TopLogprobs]]:
        scored: list[tuple[float, TopLogprobs]] = []
        following = torch.tensor(list(ids), device=x_TD.device)
        # Not all positions times all ids at once.
        for x_tD, next_t in zip(torch.split(x_TD, _AT_ONCE), torch.split(following, _AT_ONCE), strict=True):
            logprobs_tV = self._model.lm_head(x_tD).float().log_softmax(-1)
            # A model may have more ids than its tokenizer.
            best_tV = logprobs_tV[:, : self._engine.tokenizer.vocab_size].topk(_TOP)
            own = logprobs_tV.gather(1, next_t[:, None])[:, 0].tolist()
            pairs = map(partial(zip, strict=True), best_tV.indices.tolist(), best_tV.values.tolist())
            scored += zip(own, map(tuple, pairs), strict=True)
        return scored


def _same_weights(model: Transformer) -> Transformer:
    """A model of its own over the same tensors, so that hooks on it do not concern who runs the other one."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
