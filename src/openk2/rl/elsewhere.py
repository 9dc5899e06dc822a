"""The gym under another trainer: the tasks of a recipe, and episodes that another program's model plays.

The folders that `openk2 export RUN --to verifiers` and `--to verl` write are thin and call this. Tasks, worlds, users,
verifiers, budgets and rewards are those of `openk2 rl run`; the sampling is the other trainer's. Nothing here imports
torch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from openk2.core import Demonstration, Message, Policy, Split, Task, ToolSpec, Turn, UserError, Verdict
from openk2.core.families import demonstrate, file_in, get_family, located, look_in, sample_task
from openk2.core.recipes import explain
from openk2.core.runs import read_small_text, sha256_file
from openk2.rl.episodes import Episode, play
from openk2.rl.gym.question import QuestionFamily
from openk2.rl.recipe import FamilyConfig, RLRecipe

RECIPE = "recipe.json"
"""The recipe in an exported folder."""
OWN_FAMILIES = "families"
"""The folder beside it with the files of families of one's own."""
Speak = Callable[[Sequence[Message], Sequence[ToolSpec], int], Awaitable[Turn]]
"""Conversation, tools and the most tokens -> the next turn. It raises Halt when the model is not asked any more."""


def read_recipe_of(folder: Path) -> RLRecipe:
    """The recipe that an export wrote; families of one's own are found from now on. Raises UserError if another folder
    was looked in before that has another file of the same name, and if a file is missing."""
    own = (folder / OWN_FAMILIES).resolve()
    look_in(own)
    # Before anything of another file is executed.
    for mine in own.glob("*"):
        first = located(mine.name)
        if mine.is_file() and first != mine.resolve() and sha256_file(first) != sha256_file(mine):
            raise UserError(f"{first} was read first, and is not {mine}: use one export in each process")
    try:
        recipe = RLRecipe.model_validate_json(read_small_text(folder / RECIPE))
    except ValidationError as e:
        raise UserError(f"{folder / RECIPE}: {explain(e, RLRecipe)}") from e
    for file in filter(None, map(file_in, recipe.own_files)):
        if not (own / file).is_file():
            raise UserError(f"{own / file} is missing: export the run again")
    return recipe


def is_question(name: str) -> bool:
    """Whether the family's tasks are one question and one answer, without tools."""
    return isinstance(get_family(name), QuestionFamily)


def tasks_of(recipe: RLRecipe, names: Sequence[str], split: Split) -> Iterator[tuple[str, Task]]:
    """Family and task, one after the other, families mixed.

    Of `train` as many as the run plays, an iteration's one after another, but all different: the run tries some again.
    Of `test` as many of each family as it is measured on.
    """
    if split == "test":
        for seed in range(recipe.eval.n):
            for name in names:
                yield name, sample_task(name, split, seed)
        return
    for iteration in range(recipe.iterations):
        for name in names:
            prompts = recipe.families[name].prompts
            for seed in range(iteration * prompts, (iteration + 1) * prompts):
                yield name, sample_task(name, split, seed)


def demonstration_of(name: str, task: Task) -> Demonstration:
    """How an expert solves a task."""
    # Some experts start an event loop, and the caller's may be running in this thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(demonstrate, name, task).result()


def verdict_on(name: str, task: Task, answer: str) -> Verdict:
    """The verifier's word on the answer to a question. Raises UserError for a family with tools."""
    family = get_family(name)
    if not isinstance(family, QuestionFamily):
        raise UserError(f"{name} is judged by the state of its world: let its tasks be played in it")
    return family.check(task, answer)


async def play_elsewhere(name: str, task: Task, speak: Speak, recipe: RLRecipe) -> Episode:
    """Play a task to its end. The episode has a reward, or says in `excluded` why nothing can be learned from it."""
    config = recipe.families.get(name, FamilyConfig(prompts=1))
    # It is never paused: the other trainer has no bank.
    rollouts = recipe.rollout.model_copy(update={"iteration_tokens": config.budget})
    seat = _Elsewhere(speak)
    return await play(
        Episode(name, 0, 0), task, get_family(name), seat, config, rollouts, temperature=recipe.rollout.temperature,
        seed=recipe.seed,
    )  # fmt: skip


class _Elsewhere:
    """The seat of a model that is sampled by another program, as that was told to."""

    name = "elsewhere"
    circles = 0

    def __init__(self, speak: Speak) -> None:
        self._speak = speak

    def policy(self, *, grammar: bool, temperature: float, seed: int) -> Policy:
        return self

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        return await self._speak(messages, tools, max_tokens)

    async def close(self) -> None:
        """It is not ours."""
