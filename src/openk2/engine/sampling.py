"""The next id from logits: greedy, temperature, top-p, under a mask.

Drawing is `argmax(logits / temperature + Gumbel noise)`, which has the distribution of softmax(logits / temperature).
The noise is a pure function of (seed, position), so a request gives the same ids alone and in any batch, as long as
the two best scores are further apart than floats vary with the batch shape.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Several

import numpy as np
import torch
from torch import Tensor

from openk2.engine.sequence import Sequence

_HALF_STEP = 2.0**-54  # keeps the uniforms off 0, where the noise would be infinite


def gumbel_noise(seed: int, position: int, size: int) -> Tensor:
    """Gumbel noise [size], float32, keyed by (seed, position)."""
    bits = np.random.Philox(key=np.array([seed % 2**64, position], dtype=np.uint64))
    uniform_V = np.random.Generator(bits).random(size) + _HALF_STEP
    return torch.from_numpy(-np.log(-np.log(uniform_V))).float()


def keep_top_p(logits_V: Tensor, top_p: float) -> Tensor:
    """Logits with -inf outside the smallest set of ids whose probabilities sum to `top_p`."""
    sorted_V, order_V = logits_V.sort(descending=True, stable=True)
    probs_V = sorted_V.softmax(-1)
    dropped_V = probs_V.cumsum(-1) - probs_V >= top_p
    return logits_V.index_fill(0, order_V[dropped_V], float("-inf"))


def choose(logits_BV: Tensor, sequences: Several[Sequence]) -> tuple[list[int], list[float]]:
    """The next id of every sequence and its log-prob under the unmasked logits at temperature 1."""
    logits_BV = logits_BV.float()
    scores_BV = logits_BV
    masks = [s.mask() for s in sequences]
    if any(mask is not None for mask in masks):
        everything = np.ones(logits_BV.shape[1], dtype=np.bool_)
        allowed_BV = np.stack([everything if mask is None else mask for mask in masks])
        scores_BV = logits_BV.masked_fill(~torch.from_numpy(allowed_BV).to(logits_BV.device), float("-inf"))
    drawn = [b for b, s in enumerate(sequences) if s.request.temperature > 0]
    if drawn and scores_BV is logits_BV:
        scores_BV = logits_BV.clone()
    for b in drawn:
        request = sequences[b].request
        # From the largest on, so that a low temperature cannot overflow.
        row_V = (scores_BV[b] - scores_BV[b].max()) / request.temperature
        if request.top_p < 1:
            row_V = keep_top_p(row_V, request.top_p)
        noise_V = gumbel_noise(request.seed, sequences[b].position, row_V.shape[0])
        scores_BV[b] = row_V + noise_V.to(row_V.device)
    ids_B = scores_BV.argmax(-1).tolist()
    return ids_B, score(logits_BV, ids_B)


def score(logits_NV: Tensor, ids_N: Several[int]) -> list[float]:
    """The log-prob of one id under each row of logits, at temperature 1."""
    logits_NV = logits_NV.float()
    chosen_N = logits_NV[torch.arange(len(ids_N)), ids_N]
    logprobs_N: list[float] = (chosen_N - logits_NV.logsumexp(-1)).tolist()
    return logprobs_N
