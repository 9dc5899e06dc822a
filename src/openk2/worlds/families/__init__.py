"""Families of tasks that are made by seed: an endless stream of them for training, held-out ones for the test."""

from __future__ import annotations

from collections.abc import Callable

from openk2.core import Family, Split, Task, UserError


def _functions() -> Family:
    from openk2.worlds.families.functions import FunctionsFamily

    return FunctionsFamily()


def _notebook() -> Family:
    from openk2.worlds.families.notebook import NotebookFamily

    return NotebookFamily()


def _shell() -> Family:
    from openk2.worlds.families.shell import ShellFamily

    return ShellFamily()


FAMILIES: dict[str, Callable[[], Family]] = {"functions": _functions, "notebook": _notebook, "shell": _shell}
"""Name -> maker. A family's module is imported when it is asked for."""


def get_family(name: str) -> Family:
    """The family of that name. Raises UserError when there is none."""
    if name not in FAMILIES:
        raise UserError(f"there is no task family {name!r}: use one of {', '.join(FAMILIES)}")
    return FAMILIES[name]()


def sample_task(family: str, split: Split, seed: int) -> Task:
    """The task that a seed stands for."""
    return get_family(family).sample(split, seed)
