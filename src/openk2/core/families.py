"""All families of tasks, by name: what can be trained on, rewarded and evaluated.

A family makes tasks by seed, builds their worlds and shows how an expert solves them (`core.Family`). A name is one of
`FAMILIES`; `NAME:OPTION` for one whose class says by `option` what it takes, such as `reasoning:countdown`; or
`FILE.py:CLASS` for one of your own, from the folder that you are in (or one that `look_in` was told of).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from openk2.core.errors import UserError, why
from openk2.core.protocols import Demonstration, Family, Split, Task

# Text and no imports, so that a family's room is entered when the family is asked for.
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
    "real": "openk2.evals.real:RealFamily",
    "handwritten": "openk2.evals.handwritten:HandwrittenFamily",
}
"""Name -> where its class is."""
FIXED = ("real", "handwritten")
"""Sets of fixed tasks for evaluation, without tasks to train on."""
FAMILIES: tuple[str, ...] = tuple(PLACES)
GYM: tuple[str, ...] = tuple(name for name in PLACES if name not in FIXED)
"""Those with tasks to train on."""

_OWN = re.compile(r"(.+?\.py)(?::(.*))?")
_FOLDERS: list[Path] = []
_PLACED: dict[str, Path] = {}


@cache
def get_family(name: str) -> Family:
    """The family of that name, the same one each time. Raises UserError when there is none."""
    if own := _OWN.fullmatch(name):
        return _made(_class_in(own[1], own[2] or ""), name)
    known, _, option = name.partition(":")
    if known not in PLACES:
        raise UserError(f"there is no task family {known!r}: use one of {', '.join(FAMILIES)}, or FILE.py:CLASS")
    make = family_class(known)
    if option and not option_of(known):
        raise UserError(f"{known} takes no option: write {known!r} alone")
    family: Family = make(option) if option else make()
    return family


def option_of(known: str) -> str:
    """What the option of one of `FAMILIES` is, such as `SKILL`; empty if it takes none."""
    return str(getattr(family_class(known), "option", ""))


def own_file(name: str) -> Path | None:
    """The file that a family is in or that its option names, as in `math:FILE`; None where there is none. Raises
    UserError if it has no place."""
    file = file_in(name)
    return located(file) if file else None


def origin(name: str) -> str:
    """What families that differ in their option alone have in common: one of `FAMILIES`, or a file's place. Raises
    UserError as `own_file`."""
    own = _OWN.fullmatch(name)
    return str(located(own[1])) if own else name.partition(":")[0]


def identity(name: str) -> tuple[Path | None, str]:
    """Equal for all spellings of a family's name: the place of its file, and the rest of the name. Raises UserError as
    `own_file`."""
    file = file_in(name)
    return (located(file), _with_file(name, file, "")) if file else (None, name)


def beside(name: str) -> str:
    """What a family with a file is called where its file lies in the folder that is looked in."""
    file = file_in(name)
    return _with_file(name, file, Path(file).name) if file else name


def _with_file(name: str, file: str, other: str) -> str:
    """A family's name with another file, which stands at its beginning or, as an option, at its end."""
    return other + name[len(file) :] if _OWN.fullmatch(name) else name[: -len(file)] + other


def file_in(name: str) -> str | None:
    """The file in a family's name, as it is spelled there."""
    if own := _OWN.fullmatch(name):
        return own[1]
    known, _, option = name.partition(":")
    takes = option_of(known) if known in PLACES else ""
    # Where there are other options too, a file has a suffix.
    named = takes == "FILE" or ("FILE" in takes and Path(option).suffix)
    return option if option and named else None


def look_in(folder: Path) -> None:
    """Look for files of families in `folder` before the folder that one is in."""
    if folder not in _FOLDERS:
        _FOLDERS.append(folder)
        get_family.cache_clear()


@contextmanager
def placed(files: Mapping[str, Path]) -> Iterator[None]:
    """Inside, a file that a family's name begins with or names is the one that `files` says, whatever else is called
    so."""
    before = dict(_PLACED)
    _PLACED.update(files)
    get_family.cache_clear()
    try:
        yield
    finally:
        _PLACED.clear()
        _PLACED.update(before)
        get_family.cache_clear()


def trainable(name: str) -> Family:
    """The family of that name. Raises UserError as `get_family`, and for a set that is for evaluation only."""
    if name in FIXED:
        raise UserError(f"{name} is for evaluation only: use one of {', '.join(GYM)}, or FILE.py:CLASS")
    return get_family(name)


def family_class(known: str) -> Any:
    """The class behind one of `FAMILIES`."""
    module, _, name = PLACES[known].partition(":")
    return getattr(import_module(module), name)


def is_verified(name: str) -> bool:
    """Whether code judges the family of that name, and not only a critic."""
    with _named(f"the family {name!r} cannot say whether it is verified"):
        return bool(getattr(get_family(name), "verified", True))


def needs_sandbox(name: str) -> bool:
    """Whether tasks of the family execute code."""
    return bool(getattr(get_family(name), "needs_sandbox", False))


def sample_task(name: str, split: Split, seed: int) -> Task:
    """A task of the family of that name. Raises UserError as `get_family`, and where the family fails at it."""
    with _named(f"the family {name!r} cannot make the {split} task {seed}"):
        task = get_family(name).sample(split, seed)
        texts = (task.id, task.skill, task.request)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("the id, the skill and the request of a task are texts")
        return task


def demonstrate(name: str, task: Task) -> Demonstration:
    """How an expert solves a task of the family of that name. Raises UserError as `sample_task`."""
    with _named(f"the family {name!r} cannot demonstrate {task.id}"):
        shown = get_family(name).demonstrate(task)
        if not all(isinstance(message.content, str) for message in shown.messages):
            raise TypeError("the messages of a demonstration are texts")
        return shown


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Whatever a family's code raises, as one sentence."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as e:
        raise UserError(f"{what} ({why(e)})") from e


def _class_in(file: str, name: str) -> Any:
    if not name:
        raise UserError(f"{file} has to be followed by the name of the family's class: {file}:CLASS")
    found = getattr(_module(located(file)), name, None)
    if not isinstance(found, type):
        raise UserError(f"{file} has no class {name!r}")
    return found


def located(file: str) -> Path:
    """Where a file is that is named in a family's name: where `placed` says, below a folder of `look_in`, or below
    the one that one is in. Raises UserError if it can be nowhere."""
    if file in _PLACED:
        return _PLACED[file]
    try:
        paths = [(folder / file).resolve() for folder in (*_FOLDERS, Path())]
        return next((path for path in paths if path.is_file()), paths[-1])
    except FileNotFoundError:
        # The working folder is gone, which no name of a file can mend.
        raise
    except (OSError, RuntimeError, ValueError) as e:
        raise UserError(f"there is no file {file} ({why(e)})") from e


def _module(path: Path) -> ModuleType:
    """The module of a file, which is executed once in a process."""
    # The name is the path's, so that two files of one name do not meet.
    name = f"openk2_family_{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"there is no file {path}")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        del sys.modules[name]
        raise UserError(f"{path} cannot be imported ({why(e)})") from e
    return module


def _made(maker: Any, name: str) -> Family:
    try:
        family = maker()
    except (Exception, SystemExit) as e:
        raise UserError(f"{name} cannot be made without arguments ({why(e)})") from e
    missing = [part for part in ("name", "skills", "sample", "world", "demonstrate") if not hasattr(family, part)]
    if missing:
        raise UserError(f"{name} is no task family, it lacks {', '.join(missing)}: see docs/rl.md for one that is")
    made: Family = family
    return made
