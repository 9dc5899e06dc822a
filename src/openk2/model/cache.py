"""The latent cache: per token and layer one normed latent and one rotated key, shared by all heads.

Rows are ragged: each holds its own number of tokens. Attention over the cache uses the absorbed form (DeepSeek-V2
report, section 2.1): q.k = (q_nope W_uk).c + q_rope.k_rope, so keys and values of past tokens are never expanded.

On a CPU a cache takes memory only where something was written, in pages of the operating system's: a row of a long
context with a short text in it is small, and `clear` gives its pages back.

Legend: L layers, B rows, S cached positions, T new tokens, C latent rank, R rotary size, W = C + R.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass

import torch

from openk2.core import ContextOverflow, UserError
from openk2.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class CacheStep:
    """Where the tokens of one forward pass go and what they may see; the same for every layer.

    `mask_BTS` is additive (0 or -inf); None means that every query sees all `length` cached positions.
    `fresh` says that all rows were empty: plain causal attention among the new tokens is then enough.
    """

    latent_LBSW: torch.Tensor
    row_B1: torch.Tensor
    slot_BT: torch.Tensor
    length: int
    start: int | None
    mask_BTS: torch.Tensor | None
    fresh: bool

    def write(self, layer: int, latent_BTW: torch.Tensor) -> None:
        """Store what the new tokens contribute to one layer."""
        if self.start is not None:
            self.latent_LBSW[layer, :, self.start : self.start + latent_BTW.shape[1]] = latent_BTW
        else:
            self.latent_LBSW[layer][self.row_B1, self.slot_BT] = latent_BTW

    def read(self, layer: int) -> torch.Tensor:
        """All positions in use, [B, length, W]."""
        return self.latent_LBSW[layer, :, : self.length]


class LatentCache:
    """Room for `max_len` tokens in each of `batch` rows. `lengths_B` (int64) says how many each row holds.

    Raises UserError when there is no memory for it.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        max_len: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        self.max_len = config.max_position_embeddings if max_len is None else max_len
        self.lengths_B = torch.zeros(batch, dtype=torch.int64, device=device)
        # One slot more than promised takes the padding of ragged writes. Zeros, not garbage: a masked NaN is still NaN.
        shape = (config.num_hidden_layers, batch, self.max_len + 1, config.latent_dim)
        self._pages: mmap.mmap | None = None
        try:
            if torch.device(device).type == "cpu" and batch:
                self._pages = mmap.mmap(
                    -1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
                )
                self.latent_LBSW = torch.frombuffer(self._pages, dtype=dtype).view(shape)
            else:
                self.latent_LBSW = torch.zeros(shape, dtype=dtype, device=device)
        except (RuntimeError, OSError, ValueError, OverflowError) as e:
            # torch has no class of its own for this.
            raise UserError(
                f"no memory for a cache of {batch} rows of {self.max_len} tokens: lower max_position_embeddings in "
                "the model's config.json, or the number of rows at the same time"
            ) from e

    def __len__(self) -> int:
        return self.latent_LBSW.shape[1]

    def clear(self, row: int) -> None:
        """Give the memory of a row back, where the system can. What is in it then is zeros, or what was."""
        if self._pages is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        size = self.latent_LBSW[0, 0].nbytes
        for layer in range(len(self.latent_LBSW)):
            start = (layer * len(self) + row) * size
            # Whole pages only: those at the ends belong to neighbours as well.
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            last = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE
            if last > first:
                self._pages.madvise(mmap.MADV_DONTNEED, first, last - first)

    def step(self, time: int, new_B: torch.Tensor) -> tuple[CacheStep, torch.Tensor]:
        """Prepare for `time` columns of which row b uses the first `new_B[b]`; returns the positions [B, T] as well.

        Raises ContextOverflow when a row would not fit.
        """
        start_B, device = self.lengths_B, self.lengths_B.device
        ends = (start_B + new_B).tolist()
        length = max(ends)
        if length > self.max_len:
            raise ContextOverflow(f"the context would grow to {length} tokens, the cache holds {self.max_len}")
        column_T = torch.arange(time, device=device)
        position_BT = start_B[:, None] + column_T
        starts = start_B.tolist()
        even = min(starts) == max(starts) and starts[0] + time <= self.max_len
        mask_BTS = None
        fresh = time > 1 and max(starts) == 0
        if not fresh and (time > 1 or min(ends) != length):
            hidden = torch.arange(length, device=device) > position_BT[:, :, None]
            mask_BTS = torch.zeros(hidden.shape, dtype=self.latent_LBSW.dtype, device=device)
            mask_BTS.masked_fill_(hidden, -torch.inf)
        step = CacheStep(
            latent_LBSW=self.latent_LBSW,
            row_B1=torch.arange(len(self), device=device)[:, None],
            slot_BT=torch.where(column_T < new_B[:, None], position_BT, self.max_len),
            length=length,
            start=starts[0] if even else None,
            mask_BTS=mask_BTS,
            fresh=fresh,
        )
        # Padding may run past the last position; any valid one will do for it.
        return step, position_BT.clamp(max=self.max_len - 1)
