"""Demonstrations for the PTX loss (K2 report, section 3.2.3), and those that its held-out loss is measured on.

They are of training seeds that lie far behind those of which tasks are sampled, so no task is ever shown.
"""

from __future__ import annotations

from functools import cache

from openk2.chat import Tokenizer, render
from openk2.data.batches import IGNORED
from openk2.rl.gym import gym_family
from openk2.rl.learner import Lesson
from openk2.rl.recipe import RLRecipe
from openk2.train.ranks import Ranks

_FIRST, _END = 500_000_000, 1_000_000_000


class Demonstrations:
    """This process's share of them. What is longer than `context` is left out."""

    def __init__(self, recipe: RLRecipe, tokenizer: Tokenizer, context: int, ranks: Ranks) -> None:
        self._recipe, self._tokenizer, self._context, self._ranks = recipe, tokenizer, context, ranks

    def of_update(self, iteration: int, number: int) -> list[Lesson]:
        """For an update; each is shown once in a run. None if the loss has no weight."""
        ptx = self._recipe.ptx
        if not ptx.weight:
            return []
        step = iteration * self._recipe.objective.updates + number
        lessons: list[Lesson] = []
        for name, count in ptx.families.items():
            lessons += self._lessons(name, _FIRST + step * count, count)
        return lessons

    def held_out(self) -> list[Lesson]:
        """Those that are only measured on."""
        count = self._recipe.ptx.valid
        return [one for name in self._recipe.ptx.families for one in self._lessons(name, _END - count, count)]

    def _lessons(self, name: str, first: int, count: int) -> list[Lesson]:
        seeds = range(first + self._ranks.rank, first + count, self._ranks.count)
        lessons = [_lesson(self._tokenizer, name, seed) for seed in seeds]
        return [lesson for lesson in lessons if len(lesson[0]) <= self._context]


@cache
def _lesson(tokenizer: Tokenizer, name: str, seed: int) -> Lesson:
    """Ids, and the id that should follow each where the expert speaks."""
    family = gym_family(name)
    shown = family.demonstrate(family.sample("train", seed))
    rendered = render(shown.messages, shown.tools, tokenizer=tokenizer)
    following = zip(rendered.ids[1:], rendered.loss_mask[1:], strict=True)
    return rendered.ids[:-1], [i if said else IGNORED for i, said in following]
