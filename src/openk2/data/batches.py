"""Which tokens are trained on at which step: pure functions of (seed, step), so that a resumed run sees the same data.

A step consists of `micro_batches` micro-batches. Data-parallel rank r of W takes the micro-batches r, r + W, ...; so
what a step contains does not depend on the number of ranks.

Shapes: B rows (sequences), T time. `targets_BT[b, t]` is the id that follows `input_ids_BT[b, t]`, or IGNORED.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from openk2.core import UserError
from openk2.data.shards import Shards

IGNORED = -100
WINDOW = 8192


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch: int64 arrays of equal shape, and how many targets are supervised."""

    input_ids_BT: np.ndarray
    targets_BT: np.ndarray
    supervised: int


class BatchPlan(Protocol):
    """What the trainer needs to know about its data."""

    micro_batches: int

    def batch(self, step: int, index: int) -> Batch:
        """Micro-batch `index` of `step`."""
        ...

    def supervised(self, step: int) -> int:
        """Supervised targets of the whole step: what its summed loss is divided by."""
        ...


class PackedPlan:
    """Rows of `seq_len` tokens cut from the concatenated documents; each epoch visits all rows in a new order.

    Args: `rows` per micro-batch. Raises UserError when the shards do not fill one row.
    """

    def __init__(self, shards: Shards, *, seq_len: int, rows: int, micro_batches: int, seed: int) -> None:
        self.micro_batches = micro_batches
        self._shards = shards
        self._seq_len = seq_len
        self._rows = rows
        self._seed = seed
        self._row_count = (len(shards.tokens) - 1) // seq_len
        if self._row_count < 1:
            raise UserError(
                f"{shards.folder} holds {len(shards.tokens)} tokens, less than one row of {seq_len}: "
                "give more text or a smaller seq_len"
            )
        self._order = lru_cache(maxsize=2)(self._compute_order)

    def _compute_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(self._row_count)

    def batch(self, step: int, index: int) -> Batch:
        first = (step * self.micro_batches + index) * self._rows
        inputs_BT = np.empty((self._rows, self._seq_len), dtype=np.int64)
        targets_BT = np.full((self._rows, self._seq_len), IGNORED, dtype=np.int64)
        for b in range(self._rows):
            epoch, position = divmod(first + b, self._row_count)
            start = int(self._order(epoch)[position]) * self._seq_len
            ids = self._shards.tokens[start : start + self._seq_len + 1]
            mask = self._shards.mask[start + 1 : start + self._seq_len + 1]
            inputs_BT[b] = ids[:-1]
            targets_BT[b, mask] = ids[1:][mask]
        return Batch(inputs_BT, targets_BT, int(np.count_nonzero(targets_BT != IGNORED)))

    def supervised(self, step: int) -> int:
        return sum(self.batch(step, i).supervised for i in range(self.micro_batches))


class EpisodePlan:
    """One whole episode per row, right-padded; rows of similar length share a micro-batch.

    The first `short_steps` steps take only episodes of at most `short_tokens` tokens, the others take all: what a
    request has to do with a declaration is learned from many small examples before it is needed in large ones.

    Raises UserError when an episode is longer than `micro_tokens`, or when there is none, or no short one.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        micro_tokens: int,
        micro_batches: int,
        pad_id: int,
        seed: int,
        short_steps: int = 0,
        short_tokens: int = 0,
    ) -> None:
        self.micro_batches = micro_batches
        self._shards = shards
        self._pad_id = pad_id
        # The last token of an episode is only ever a target, so a row is one shorter than its episode.
        self._row_lengths = shards.lengths - 1
        if len(shards) == 0 or int(self._row_lengths.min()) < 1:
            raise UserError(f"{shards.folder} holds no episodes to train on: make some with the episodes stage")
        if int(self._row_lengths.max()) > micro_tokens:
            raise UserError(
                f"an episode of {int(self._row_lengths.max()) + 1} tokens in {shards.folder} does not fit micro_tokens "
                f"= {micro_tokens}: raise micro_tokens or lower episodes.max_tokens"
            )
        self._all = _Cycle(np.arange(len(shards)), self._row_lengths, micro_tokens, (seed,))
        self._short_batches = short_steps * micro_batches
        if short_steps:
            short = np.flatnonzero(shards.lengths <= short_tokens)
            if len(short) == 0:
                raise UserError(
                    f"no episode in {shards.folder} has at most short_tokens = {short_tokens} tokens: raise it, "
                    "or set short_fraction to 0"
                )
            self._short = _Cycle(short, self._row_lengths, micro_tokens, (seed, 1))

    def _episodes(self, step: int, index: int) -> np.ndarray:
        position = step * self.micro_batches + index
        if position < self._short_batches:
            return self._short.at(position)
        return self._all.at(position - self._short_batches)

    def batch(self, step: int, index: int) -> Batch:
        episodes = self._episodes(step, index)
        shape = (len(episodes), int(self._row_lengths[episodes].max()))
        inputs_BT = np.full(shape, self._pad_id, dtype=np.int64)
        targets_BT = np.full(shape, IGNORED, dtype=np.int64)
        for b, episode in enumerate(episodes):
            ids, mask = self._shards.document(int(episode))
            inputs_BT[b, : len(ids) - 1] = ids[:-1]
            learned = np.flatnonzero(mask[1:])
            targets_BT[b, learned] = ids[1:][learned]
        return Batch(inputs_BT, targets_BT, int(np.count_nonzero(targets_BT != IGNORED)))

    def supervised(self, step: int) -> int:
        total = 0
        for index in range(self.micro_batches):
            for episode in self._episodes(step, index):
                total += int(np.count_nonzero(self._shards.document(int(episode))[1][1:]))
        return total


class _Cycle:
    """Micro-batches of some episodes without end, each an array of episode numbers.

    Each epoch shuffles the episodes, sorts them by length inside windows of WINDOW episodes, cuts each window into
    micro-batches of about `micro_tokens` padded tokens and shuffles those. Sorting inside windows keeps the padding
    under a tenth without fixing who shares a batch with whom; rounding the number of rows (not always down) keeps
    micro-batches of long and of short episodes equally costly, so that ranks seldom wait for each other.
    """

    def __init__(self, episodes: np.ndarray, row_lengths: np.ndarray, micro_tokens: int, seed: tuple[int, ...]) -> None:
        self._numbers = episodes
        self._row_lengths = row_lengths
        self._micro_tokens = micro_tokens
        self._seed = seed
        self._schedule = lru_cache(maxsize=2)(self._compute_schedule)
        self._epoch_starts = [0]

    def at(self, position: int) -> np.ndarray:
        epoch = 0
        while True:
            if epoch + 1 == len(self._epoch_starts):
                self._epoch_starts.append(self._epoch_starts[epoch] + len(self._schedule(epoch)))
            if position < self._epoch_starts[epoch + 1]:
                return self._schedule(epoch)[position - self._epoch_starts[epoch]]
            epoch += 1

    def _compute_schedule(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng((self._seed[0], epoch, *self._seed[1:]))
        order = self._numbers[rng.permutation(len(self._numbers))]
        schedule: list[np.ndarray] = []
        for start in range(0, len(order), WINDOW):
            window = order[start : start + WINDOW]
            window = window[np.argsort(-self._row_lengths[window], kind="stable")]
            cut = self._cut(window)
            schedule.extend(cut[i] for i in rng.permutation(len(cut)))
        return schedule

    def _cut(self, window: np.ndarray) -> list[np.ndarray]:
        """Longest first, so the first row of a micro-batch sets its padded length."""
        cut = []
        start = 0
        while start < len(window):
            rows = max(1, round(self._micro_tokens / int(self._row_lengths[window[start]])))
            cut.append(window[start : start + rows])
            start += rows
        return cut
