"""Rows of the latent cache, lent to sequences; and what finished sequences left, for prompts that begin alike.

Rows in use are always the first ones: a row that is given back is filled by the last. In a rollout every prompt
continues the one before, and tasks of a family share their declarations, so most of a prompt has been computed already.

Shapes: L layers, B rows in use, K new rows, S positions, T new tokens, D hidden, W cached numbers per token and layer.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openk2.engine.compiled import CompiledStep
from openk2.model import LatentCache, Transformer

_PREFILL_TOKENS = 4096  # most positions, padding included, in one forward pass over prompts
_PADDING = 64  # this much padding costs less than another forward pass
_SHORTEST_PREFIX = 16
_WORTH_WAITING = 64


@dataclass(frozen=True, slots=True)
class _Prefix:
    ids_S: NDArray[np.int64]
    latent_LSW: Tensor


class Rows:
    """The cache of one batch.

    Args:
        model: whose cache this is.
        prefixes: how many finished sequences are remembered, the least recently used go first.
        compiled: for a single token of each row, where there is one.
    """

    def __init__(self, model: Transformer, prefixes: int, compiled: CompiledStep | None = None) -> None:
        self._model = model
        self._compiled = compiled
        weight = model.lm_head.weight
        self._dtype, self._device = weight.dtype, weight.device
        self._pool = LatentCache(model.config, 0, dtype=self._dtype, device=self._device)
        self._lengths: list[int] = []
        self._prompts: list[NDArray[np.int64]] = []
        self._prefixes: OrderedDict[int, _Prefix] = OrderedDict()
        self._most_prefixes = prefixes
        self._remembered = 0
        self._next_key = 0

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def tokens(self) -> int:
        """How many ids are cached, in rows and in what is remembered."""
        return sum(self._lengths) + self._remembered

    def admit(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], list[int], Tensor]:
        """Compute prompts into new rows. Returns their indices in the order of the rows, how many ids of each were
        known, and x_KD at their last ids."""
        arrays = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
        self._reserve(len(self) + len(arrays))
        # Prompts that begin like another new one wait until that one is computed.
        leading: list[int] = []
        following: list[int] = []
        for k, array in enumerate(arrays):
            alike = any(_shared(arrays[j], array) >= _WORTH_WAITING for j in leading)
            (following if alike else leading).append(k)
        order: list[int] = []
        cached: list[int] = []
        outputs: list[Tensor] = []
        for wave in (leading, following):
            known = {k: self._longest_prefix(arrays[k]) for k in wave}
            missing = {k: len(arrays[k]) - shared for k, (_, shared) in known.items()}
            # Fresh rows apart from continued ones (they take another attention path), alike lengths together.
            wave.sort(key=lambda k: (known[k][1] > 0, missing[k]))
            for group in _groups(wave, missing, {k for k in wave if known[k][1] > 0}):
                outputs.append(self._prefill([arrays[k] for k in group], [known[k] for k in group]))
            order += wave
            cached += [known[k][1] for k in wave]
        return order, cached, torch.cat(outputs)

    def missing(self, prompt: Sequence[int]) -> int:
        """How many ids of a prompt are not known."""
        self._reserve(len(self) + 1)
        return len(prompt) - self._longest_prefix(np.asarray(prompt, dtype=np.int64))[1]

    def begin(self, prompt: Sequence[int]) -> int:
        """A new row with what is known of a prompt, whose rest `fill` brings. Returns how many ids that is."""
        self._reserve(len(self) + 1)
        array = np.asarray(prompt, dtype=np.int64)
        self._append(array, *self._longest_prefix(array))
        return self._lengths[-1]

    def fill(self, row: int, ids: Sequence[int]) -> Tensor:
        """Append ids to one row, x_1D at the last of them."""
        return self._feed(row, [ids])[:, -1]

    def _append(self, prompt: NDArray[np.int64], latent_LSW: Tensor, shared: int) -> None:
        self._pool.latent_LBSW[:, len(self), :shared] = latent_LSW[:, :shared]
        self._prompts.append(prompt)
        self._lengths.append(shared)

    def _prefill(self, prompts: list[NDArray[np.int64]], known: list[tuple[Tensor, int]]) -> Tensor:
        """New rows for prompts whose beginnings may be known; x_KD at their last ids."""
        first = len(self)
        tokens = []
        for prompt, (latent_LSW, shared) in zip(prompts, known, strict=True):
            self._append(prompt, latent_LSW, shared)
            tokens.append(prompt[shared:].tolist())
        x_KTD = self._feed(first, tokens)
        return x_KTD[torch.arange(len(tokens)), [len(t) - 1 for t in tokens]]

    def extend(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Append ids to every row (at least one to one of them; none to rows that are still filled), x_BTD right-padded
        to the longest."""
        return self._feed(0, tokens)

    def trim(self, most: float) -> None:
        """Forget finished sequences until what is remembered of them is at most so many ids."""
        while self._remembered > most:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, prefix = self._prefixes.popitem(last=False)
        self._remembered -= len(prefix.ids_S)

    def forget(self, count: int) -> None:
        """Take the last `count` ids of the first row back."""
        self._lengths[0] -= count

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
            self._remembered += length
            if len(self._prefixes) > self._most_prefixes:
                self._forget_oldest()
        if row != last:
            latent_LBSW[:, row, : self._lengths[last]] = latent_LBSW[:, last, : self._lengths[last]]
            self._lengths[row], self._prompts[row] = self._lengths[last], self._prompts[last]
        self._lengths.pop()
        self._prompts.pop()
        self._pool.clear(last)
        return last

    def _feed(self, first: int, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Append `tokens[i]` to row first + i, x_BTD right-padded."""
        counts = [len(t) for t in tokens]
        time, stop = max(counts), first + len(counts)
        if self._compiled is not None and time == 1 and self._compiled.fits(self._lengths[first:stop]):
            # A row without a token gets any: what it writes is behind the row's end and is written over.
            one_each = [t[0] if t else 0 for t in tokens]
            lengths = self._lengths[first:stop]
            x_BD = self._compiled.hidden(one_each, lengths, self._pool.latent_LBSW[:, first:stop])
            self._lengths[first:stop] = map(operator.add, lengths, counts)
            return x_BD[:, None]
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
            pool = LatentCache(config, have + more, self._pool.max_len, self._dtype, self._device)
            for row, length in enumerate(self._lengths):
                pool.latent_LBSW[:, row, :length] = self._pool.latent_LBSW[:, row, :length]
            self._pool = pool

    def _longest_prefix(self, ids: NDArray[np.int64]) -> tuple[Tensor, int]:
        """What is cached of the longest known beginning of `ids` [L, S, W], and its length: 0 if none is worth it."""
        # The last id is always computed again: its output is what the next one is chosen from.
        body = ids[:-1]
        best, best_key, longest = self._pool.latent_LBSW[:, 0], None, 0
        for key, prefix in self._prefixes.items():
            if len(prefix.ids_S) > longest and (shared := _shared(prefix.ids_S, body)) > longest:
                best, best_key, longest = prefix.latent_LSW, key, shared
        for row, whole in enumerate(self._prompts):
            prompt = whole[: self._lengths[row]]
            if len(prompt) > longest and (shared := _shared(prompt, body)) > longest:
                best, best_key, longest = self._pool.latent_LBSW[:, row], None, shared
        if longest < _SHORTEST_PREFIX:
            return best, 0
        if best_key is not None:
            self._prefixes.move_to_end(best_key)
        return best, longest


def _shared(a_S: NDArray[np.int64], b_S: NDArray[np.int64]) -> int:
    """How many ids both begin with."""
    size = min(len(a_S), len(b_S))
    different = a_S[:size] != b_S[:size]
    first = int(different.argmax()) if size else 0
    return first if size and different[first] else size


def _groups(wave: Sequence[int], missing: Mapping[int, int], continued: Set[int]) -> list[list[int]]:
    """Split `wave` (lengths ascend within each kind) into passes with little padding."""
    groups: list[list[int]] = []
    real = 0
    for k in wave:
        if groups:
            group = groups[-1]
            padded = (len(group) + 1) * missing[k]
            fits = padded <= _PREFILL_TOKENS and padded - real - missing[k] <= max(_PADDING, real // 4)
            if fits and (k in continued) == (group[0] in continued):
                group.append(k)
                real += missing[k]
                continue
        groups.append([k])
        real = missing[k]
    return groups
