"""The next id from logits: greedy or drawn, from some of the ids, under a mask.

Drawing is `argmax(logits / temperature + Gumbel noise)`, which has the distribution of softmax(logits / temperature).
The noise is a pure function of (seed, position), so a request gives the same ids alone and in any batch, as long as
the two best scores are further apart than floats vary with the batch shape.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Several

import numpy as np
import torch
from torch import Tensor

from openk2.engine.sequence import Request, Sequence

_HALF_STEP = 2.0**-54  # keeps the uniforms off 0, where the noise would be infinite


def gumbel_noise(seed: int, position: int, size: int) -> Tensor:
    """Gumbel noise [size], float32, keyed by (seed, position)."""
    bits = np.random.Philox(key=np.array([seed % 2**64, position], dtype=np.uint64))
    uniform_V = np.random.Generator(bits).random(size) + _HALF_STEP
    return torch.from_numpy(-np.log(-np.log(uniform_V))).float()


def keep_top_k(logits_V: Tensor, top_k: int) -> Tensor:
    """Logits with -inf outside the `top_k` likeliest ids; of equal ones the first are kept."""
    dropped_V = logits_V.sort(descending=True, stable=True)[1][top_k:]
    return logits_V.index_fill(0, dropped_V, float("-inf"))


def keep_top_p(logits_V: Tensor, top_p: float) -> Tensor:
    """Logits with -inf outside the smallest set of ids whose probabilities sum to `top_p`."""
    sorted_V, order_V = logits_V.sort(descending=True, stable=True)
    probs_V = sorted_V.softmax(-1)
    dropped_V = probs_V.cumsum(-1) - probs_V >= top_p
    # Also of a `top_p` that is 0 in this precision something is left.
    dropped_V[0] = False
    return logits_V.index_fill(0, order_V[dropped_V], float("-inf"))


def keep_min_p(logits_V: Tensor, min_p: float) -> Tensor:
    """Logits with -inf for ids whose probability is less than `min_p` times that of the likeliest."""
    return logits_V.masked_fill(logits_V < logits_V.max() + math.log(min_p), float("-inf"))


def adjust(logits_V: Tensor, request: Request, ids: Several[int]) -> Tensor:
    """Logits with the request's penalties for the `ids` that were generated, and its bias."""
    out_V = logits_V.clone()
    size = len(out_V)
    if request.repetition_penalty != 1:
        seen = torch.unique(torch.tensor([*request.prompt_ids, *ids], device=out_V.device))
        score = out_V[seen]
        out_V[seen] = torch.where(score > 0, score / request.repetition_penalty, score * request.repetition_penalty)
    if ids and (request.presence_penalty or request.frequency_penalty):
        count_V = torch.tensor(ids, device=out_V.device).bincount(minlength=size)
        out_V -= request.frequency_penalty * count_V + request.presence_penalty * (count_V > 0)
    if request.logit_bias:
        chosen, bias = zip(*request.logit_bias, strict=True)
        out_V.index_add_(
            0, torch.tensor(chosen, device=out_V.device), torch.tensor(bias, dtype=out_V.dtype, device=out_V.device)
        )
    return out_V


def choose(logits_BV: Tensor, sequences: Several[Sequence]) -> list[int]:
    """The next id of every sequence; its log-prob under the plain logits is noted there."""
    logits_BV = logits_BV.float()
    scores_BV = logits_BV
    masks = [s.mask() for s in sequences]
    changed = [b for b, s in enumerate(sequences) if s.request.temperature > 0 or s.request.adjusts_logits]
    if changed:
        scores_BV = logits_BV.clone()
    for b in changed:
        if sequences[b].request.adjusts_logits:
            scores_BV[b] = adjust(scores_BV[b], sequences[b].request, sequences[b].ids)
    if any(mask is not None for mask in masks):
        everything = np.ones(logits_BV.shape[1], dtype=np.bool_)
        allowed_BV = np.stack([everything if mask is None else mask for mask in masks])
        scores_BV = scores_BV.masked_fill(~torch.from_numpy(allowed_BV).to(logits_BV.device), float("-inf"))
    for b in changed:
        request = sequences[b].request
        if request.temperature == 0:
            continue
        # From the largest on, so that a low temperature cannot overflow.
        row_V = (scores_BV[b] - scores_BV[b].max()) / request.temperature
        if request.top_k:
            row_V = keep_top_k(row_V, request.top_k)
        if request.top_p < 1:
            row_V = keep_top_p(row_V, request.top_p)
        if request.min_p:
            row_V = keep_min_p(row_V, request.min_p)
        noise_V = gumbel_noise(request.seed, sequences[b].position, row_V.shape[0])
        scores_BV[b] = row_V + noise_V.to(row_V.device)
    ids_B = [s.settle(token) for s, token in zip(sequences, scores_BV.argmax(-1).tolist(), strict=True)]
    score(logits_BV, ids_B, sequences)
    return ids_B


def score(logits_NV: Tensor, ids_N: Several[int], sequences: Several[Sequence]) -> None:
    """Note the log-prob of one id under each row of logits, at temperature 1, in the sequence that it belongs to; and
    the likeliest ids' there, where they are asked for."""
    logprobs_NV = logits_NV.float().log_softmax(-1)
    chosen_N: list[float] = logprobs_NV[torch.arange(len(ids_N)), ids_N].tolist()
    for n, (sequence, logprob) in enumerate(zip(sequences, chosen_N, strict=True)):
        sequence.logprobs.append(logprob)
        if wanted := min(sequence.request.top_logprobs, sequence.known_ids):
            values, ids = logprobs_NV[n, : sequence.known_ids].topk(wanted)
            sequence.top_logprobs.append(tuple(zip(ids.tolist(), values.tolist(), strict=True)))
