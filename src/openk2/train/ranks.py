"""The data-parallel processes of a run, and what they tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist


class Ranks:
    """This process among `count` of them; `group` is None where it is alone."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = dist.get_rank(group) if group is not None else 0
        self.count = dist.get_world_size(group) if group is not None else 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Of each number the sum over all processes."""
        # fp64 carries the counts exactly.
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, value: float) -> float:
        """The largest of all processes."""
        return self._reduced([value], dist.ReduceOp.MAX)[0]

    def add_up(self, tensor: torch.Tensor) -> None:
        """Make of a tensor, in place, the sum over all processes."""
        if self.group is not None:
            dist.all_reduce(tensor, group=self.group)

    def join(self, mine: list[Any]) -> list[Any]:
        """The lists of all processes, one after the other."""
        if self.group is None:
            return mine
        lists: list[list[Any]] = [[] for _ in range(self.count)]
        dist.all_gather_object(lists, mine, group=self.group)
        return [one for several in lists for one in several]

    def any(self, mine: bool) -> bool:
        """Whether it is so in one of them."""
        return any(self.join([mine]))

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        shared = torch.tensor(values, dtype=torch.float64)
        if self.group is not None:
            dist.all_reduce(shared, op=operation, group=self.group)
        found: list[float] = shared.tolist()
        return found
