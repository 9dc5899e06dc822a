"""The gym: every family of tasks whose end code can judge, and those that only a critic can, behind one interface.

A family is `core.Family`: tasks by seed, a world for each, and how an expert solves it. Families of the room `worlds`
are in the gym as they are; those of one question and one answer are `QuestionFamily`s.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from inspect import signature

from openk2.core import Family, Split, Task, UserError

PLACES = {
    "functions": "openk2.worlds.families.functions:FunctionsFamily",
    "notebook": "openk2.worlds.families.notebook:NotebookFamily",
    "shell": "openk2.worlds.families.shell:ShellFamily",
    "apps": "openk2.synth.family:AppsFamily",
    "reasoning": "openk2.rl.gym.reasoning:ReasoningFamily",
    "math": "openk2.rl.gym.word_problems:WordProblemsFamily",
    "instructions": "openk2.rl.gym.instructions:InstructionsFamily",
    "code": "openk2.rl.gym.code:CodeFamily",
    "faithfulness": "openk2.rl.gym.faithfulness:FaithfulnessFamily",
    "safety": "openk2.rl.gym.safety:SafetyFamily",
    "reports": "openk2.rl.gym.reports:ReportsFamily",
}
"""Name -> where its class is."""
GYM: tuple[str, ...] = tuple(PLACES)
"""The names of all families."""


@cache
def gym_family(name: str) -> Family:
    """The family of that name, the same one each time; its module is imported when it is asked for.

    `NAME:OPTION` gives a family that takes one its option, such as `reasoning:countdown`. Raises UserError for an
    unknown name or option.
    """
    known, _, option = name.partition(":")
    if known not in PLACES:
        raise UserError(f"there is no task family {known!r}: use one of {', '.join(GYM)}")
    module, _, maker = PLACES[known].partition(":")
    make = getattr(import_module(module), maker)
    if option and not signature(make).parameters:
        raise UserError(f"{known} takes no option: write {known!r} alone")
    family: Family = make(option) if option else make()
    return family


def is_verified(name: str) -> bool:
    """Whether code judges the family of that name, and not only a critic."""
    return bool(getattr(gym_family(name), "verified", True))


def gym_task(name: str, split: Split, seed: int) -> Task:
    """A task of the family of that name. Raises UserError as `gym_family`, and where the family fails at it."""
    try:
        return gym_family(name).sample(split, seed)
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"the family {name!r} cannot make the {split} task {seed} ({type(e).__name__}: {e})") from e
