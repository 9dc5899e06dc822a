"""Demonstrations for the PTX loss (K2 report, section 3.2.3), and those that its held-out loss is measured on.

No request is in two of these: the tasks that are rolled out, the demonstrations that are trained on, and those that are
only measured on. Other seeds are not enough for that, since families with few tasks say the same thing for many seeds:
the hash of the request decides. It leaves alone the tasks of families that demonstrations are not of.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Literal

from openk2.chat import Tokenizer, render
from openk2.core import Task, UserError
from openk2.core.families import demonstrate, origin, sample_task
from openk2.data.batches import IGNORED
from openk2.rl.learner import Lesson
from openk2.rl.recipe import RLRecipe
from openk2.train.ranks import Ranks

Pool = Literal["tasks", "ptx", "valid"]

_FIRST: dict[Pool, int] = {"ptx": 500_000_000, "valid": 100_000_000_000}
_EIGHTHS: tuple[Pool, ...] = ("ptx", "ptx", "valid", "tasks", "tasks", "tasks", "tasks", "tasks")
"""Whose each eighth of the requests is. A smaller share for demonstrations would make each cost more tasks that are
sampled in vain, which takes a while in some families."""
_REACH = 500
"""So many seeds in a row are looked at for one of a pool; in a family with many tasks, hardly ever more than 30."""


def held_back(task: Task) -> bool:
    """Whether a task's request belongs to the demonstrations, so that it is not to be rolled out beside them."""
    return _pool(task) != "tasks"


def holds_back(recipe: RLRecipe, name: str) -> bool:
    """Whether a run shows or measures demonstrations of a family, with whatever option (`instructions:heading` asks
    what `instructions` asks too), so that its tasks must skip those that are `held_back`."""
    return origin(name) in {origin(shown) for shown in recipe.ptx.families}


def free_seeds(name: str, first: int, count: int) -> list[int]:
    """The next `count` training seeds of a family from `first` on whose tasks are not held back.

    Raises UserError if the family has too few tasks.
    """
    seeds: list[int] = []
    for _ in range(count):
        seeds.append(_next(name, "tasks", first))
        first = seeds[-1] + 1
    return seeds


class Demonstrations:
    """This process's share of them. What is longer than `context` is left out.

    Both methods raise UserError if a family has too few tasks.
    """

    def __init__(self, recipe: RLRecipe, tokenizer: Tokenizer, context: int, ranks: Ranks) -> None:
        self._recipe, self._tokenizer, self._context, self._ranks = recipe, tokenizer, context, ranks

    def of_update(self, iteration: int, number: int) -> list[Lesson]:
        """For an update; each has seeds of its own in a run. None if the loss has no weight."""
        ptx = self._recipe.ptx
        if not ptx.weight:
            return []
        step = iteration * self._recipe.objective.updates + number
        lessons: list[Lesson] = []
        for name, count in ptx.families.items():
            lessons += self._lessons(name, "ptx", step * count, count)
        return lessons

    def held_out(self) -> list[Lesson]:
        """Those that are only measured on."""
        count = self._recipe.ptx.valid
        return [one for name in self._recipe.ptx.families for one in self._lessons(name, "valid", 0, count)]

    def _lessons(self, name: str, pool: Pool, first: int, count: int) -> list[Lesson]:
        mine = range(first + self._ranks.rank, first + count, self._ranks.count)
        lessons = [_lesson(self._tokenizer, name, demonstration_seed(name, pool, index)) for index in mine]
        return [lesson for lesson in lessons if len(lesson[0]) <= self._context]


def demonstration_seed(name: str, pool: Pool, index: int) -> int:
    """The training seed of a demonstration, a function of its number alone, so that each rank finds its own."""
    return _next(name, pool, _FIRST[pool] + index * _REACH)


def _next(name: str, pool: Pool, first: int) -> int:
    """The first seed of a pool from `first` on."""
    for seed in range(first, first + _REACH):
        if _pool_of(name, seed) == pool:
            return seed
    raise UserError(
        f"the family {name!r} has too few tasks to keep demonstrations apart from what is rolled out: "
        "take it out of ptx.families"
    )


@cache
def _pool_of(name: str, seed: int) -> Pool:
    return _pool(sample_task(name, "train", seed))


def _pool(task: Task) -> Pool:
    return _EIGHTHS[hashlib.sha256(f"ptx {task.request}".encode(errors="surrogatepass")).digest()[0] % len(_EIGHTHS)]


@cache
def _lesson(tokenizer: Tokenizer, name: str, seed: int) -> Lesson:
    """Ids, and the id that should follow each where the expert speaks."""
    shown = demonstrate(name, sample_task(name, "train", seed))
    rendered = render(shown.messages, shown.tools, tokenizer=tokenizer)
    following = zip(rendered.ids[1:], rendered.loss_mask[1:], strict=True)
    return rendered.ids[:-1], [i if said else IGNORED for i, said in following]
