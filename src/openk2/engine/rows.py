"""Rows of the latent cache, lent to sequences; and what finished sequences left, for prompts that begin alike.

Rows in use are always the first ones: a row that is given back is filled by the last. In a rollout every prompt
continues the one before, and tasks of a family share their declarations, so most of a prompt has been computed already.

Shapes: L layers, B rows in use, K new rows, S positions, T new tokens, D hidden, W cached numbers per token and layer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openk2.model import LatentCache, Transformer

_PREFILL_TOKENS = 4096  # most positions, padding included, in one forward pass over prompts
_PADDING = 64  # this much padding costs less than another forward pass
_SHORTEST_PREFIX = 16


@dataclass(frozen=True, slots=True)
class _Prefix:
    ids_S: NDArray[np.int64]
    latent_LSW: Tensor


class Rows:
    """The cache of one batch.

    Args:
        model: whose cache this is.
        prefixes: how many finished sequences are remembered, the least recently used go first.
    """

    def __init__(self, model: Transformer, prefixes: int) -> None:
        self._model = model
        weight = model.lm_head.weight
        self._dtype, self._device = weight.dtype, weight.device
        self._pool = LatentCache(model.config, 0, dtype=self._dtype, device=self._device)
        self._lengths: list[int] = []
        self._prefixes: OrderedDict[int, _Prefix] = OrderedDict()
        self._most_prefixes = prefixes
        self._next_key = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def admit(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Tensor]:
        """Compute prompts into new rows. Returns their indices in the order of the rows, and x_KD at their last ids."""
        arrays = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
        known = [self._longest_prefix(array) for array in arrays]
        missing = [len(array) - shared for array, (_, shared) in zip(arrays, known, strict=True)]
        # Fresh rows apart from continued ones (they take another attention path), alike lengths together.
        order = sorted(range(len(arrays)), key=lambda k: (known[k][1] > 0, missing[k]))
        self._reserve(len(self) + len(arrays))
        outputs = []
        for group in _groups(order, missing, [shared > 0 for _, shared in known]):
            first = len(self)
            for k in group:
                prefix, shared = known[k]
                if prefix is not None:
                    self._pool.latent_LBSW[:, len(self), :shared] = prefix.latent_LSW[:, :shared]
                self._lengths.append(shared)
            tokens = [arrays[k][known[k][1] :].tolist() for k in group]
            outputs.append(self._feed(first, tokens)[torch.arange(len(group)), [len(t) - 1 for t in tokens]])
        return order, torch.cat(outputs)

    def extend(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Append ids to every row (at least one to one of them), x_BTD right-padded to the longest."""
        return self._feed(0, tokens)

    def release(self, row: int, ids: Sequence[int]) -> int:
        """Give a row back and remember what it holds: the beginning of `ids`. Returns the row that moved into its place
        (the last; `row` itself if it was that)."""
        length, last = self._lengths[row], len(self) - 1
        latent_LBSW = self._pool.latent_LBSW
        if self._most_prefixes and length >= _SHORTEST_PREFIX:
            self._prefixes[self._next_key] = _Prefix(
                np.asarray(ids[:length], dtype=np.int64), latent_LBSW[:, row, :length].clone()
            )
            self._next_key += 1
            if len(self._prefixes) > self._most_prefixes:
                self._prefixes.popitem(last=False)
        if row != last:
            latent_LBSW[:, row, : self._lengths[last]] = latent_LBSW[:, last, : self._lengths[last]]
            self._lengths[row] = self._lengths[last]
        self._lengths.pop()
        return last

    def _feed(self, first: int, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Append `tokens[i]` to row first + i, x_BTD right-padded."""
        counts = [len(t) for t in tokens]
        time, stop = max(counts), first + len(counts)
        ids_BT = torch.tensor([[*t, *[0] * (time - len(t))] for t in tokens], device=self._device)
        view = LatentCache(self._model.config, 0, self._pool.max_len, self._dtype, self._device)
        view.latent_LBSW = self._pool.latent_LBSW[:, first:stop]
        view.lengths_B = torch.tensor(self._lengths[first:stop], device=self._device)
        x_BTD = self._model.hidden(ids_BT, cache=view, lengths_B=torch.tensor(counts, device=self._device))
        for row, count in enumerate(counts, first):
            self._lengths[row] += count
        return x_BTD

    def _reserve(self, rows: int) -> None:
        have = len(self._pool)
        if rows > have:
            more = max(rows, 2 * have) - have
            config = self._model.config
            self._pool = self._pool.join(LatentCache(config, more, self._pool.max_len, self._dtype, self._device))

    def _longest_prefix(self, ids: NDArray[np.int64]) -> tuple[_Prefix | None, int]:
        """The remembered sequence that shares the longest beginning with `ids`, and its length; 0 if too short."""
        best, best_key, longest = None, 0, _SHORTEST_PREFIX - 1
        for key, prefix in self._prefixes.items():
            # The last id is always computed again: its output is what the next one is chosen from.
            limit = min(len(ids) - 1, len(prefix.ids_S))
            if limit <= longest:
                continue
            different = prefix.ids_S[:limit] != ids[:limit]
            shared = int(different.argmax()) if different.any() else limit
            if shared > longest:
                best, best_key, longest = prefix, key, shared
        if best is None:
            return None, 0
        self._prefixes.move_to_end(best_key)
        return best, longest


def _groups(order: Sequence[int], missing: Sequence[int], continued: Sequence[bool]) -> list[list[int]]:
    """Split `order` (lengths ascend within each kind) into passes with little padding."""
    groups: list[list[int]] = []
    real = 0
    for k in order:
        if groups:
            group = groups[-1]
            padded = (len(group) + 1) * missing[k]
            fits = padded <= _PREFILL_TOKENS and padded - real - missing[k] <= max(_PADDING, real // 4)
            if fits and continued[k] == continued[group[0]]:
                group.append(k)
                real += missing[k]
                continue
        groups.append([k])
        real = missing[k]
    return groups
