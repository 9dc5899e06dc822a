"""What a small programming job is: a folder, a request, hidden checks, a way that passes and ways that must not."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

Call = tuple[str, dict[str, str]]
"""The name of a machine tool, and its arguments."""


@dataclass(frozen=True, slots=True)
class Check:
    """An expression that is evaluated in the folder when the agent has ended, and the `repr` that it must have.

    The expression knows `load(MODULE)`, `text(PATH)`, `table(PATH)`, `data(PATH)`, `tree()`, `run(COMMAND)` and
    `names(PATH)`, see `synth.real`. What it must have stays outside the sandbox.
    """

    code: str
    expected: str


@dataclass(frozen=True, slots=True)
class Job:
    """`files` is the folder at the beginning, `solution` what an expert does, `wrong` are ways that the checks must
    refuse."""

    files: dict[str, str]
    ask: str
    checks: tuple[Check, ...]
    solution: tuple[Call, ...]
    answer: str
    wrong: tuple[tuple[Call, ...], ...]


Maker = Callable[[random.Random], Job]


def shell(command: str) -> Call:
    return "shell", {"command": command}


def python(code: str) -> Call:
    return "python", {"code": code}


def read(path: str) -> Call:
    return "read_file", {"path": path}


def write(path: str, content: str) -> Call:
    return "write_file", {"path": path, "content": content}


def edit(path: str, old: str, new: str) -> Call:
    return "edit_file", {"path": path, "old": old, "new": new}


def filled(template: str, **values: Any) -> str:
    """A text in which `$NAME` stands for a value; the first line's indentation is taken off all lines."""
    return Template(textwrap.dedent(template).lstrip("\n")).substitute(values)


def value_checks(pairs: Iterable[tuple[str, Any]]) -> tuple[Check, ...]:
    """Checks of expressions against values."""
    return tuple(Check(code, repr(value)) for code, value in pairs)


def module_checks(module: str, code: str, calls: Sequence[str]) -> tuple[Check, ...]:
    """Checks of calls in a module against what they give in `code`, which is this package's own."""
    names: dict[str, Any] = {"__name__": module}
    exec(compile(code, f"{module}.py", "exec"), names)
    return tuple(Check(f"load({module!r}).{call}", outcome(call, names)) for call in calls)


def outcome(code: str, names: dict[str, Any]) -> str:
    """What a call comes to: the `repr` of its value, or the class of what it raises."""
    try:
        return repr(eval(code, names))
    except Exception as e:
        return f"raises {type(e).__name__}"


_WORDS = (
    "amber", "anchor", "basil", "beacon", "birch", "bridge", "candle", "canyon", "cedar", "cobalt", "comet", "copper",
    "coral", "cotton", "dahlia", "delta", "ember", "falcon", "fern", "fjord", "garnet", "ginger", "glacier", "harbor",
    "hazel", "heron", "indigo", "iris", "ivory", "jasmine", "juniper", "kelp", "lagoon", "lantern", "lemon", "lilac",
    "lotus", "maple", "marble", "meadow", "mint", "nectar", "nickel", "oak", "olive", "onyx", "opal", "orchid", "otter",
    "pearl", "pepper", "pine", "plum", "poppy", "quartz", "raven", "reef", "river", "saffron", "sage", "silver",
    "spruce", "summit", "thistle", "timber", "topaz", "tulip", "umber", "velvet", "violet", "walnut", "willow", "zinc",
)  # fmt: skip


def words(rng: random.Random, count: int) -> list[str]:
    """Different words."""
    return rng.sample(_WORDS, count)


def word(rng: random.Random) -> str:
    return rng.choice(_WORDS)
