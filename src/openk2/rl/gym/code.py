"""The family `code`: small functions and notebook cells in Python, judged by hidden tests in a sandbox.

A task composes one to three operations of `code_kinds` (its level), or is a specification of the data factory's jobs
(level 3). Skills begin with the sort: a `function` is called, `cells` are run one after the other as in a notebook.
What a test must give is computed here and stays here: the sandbox gets inputs, gives values of plain JSON types, and
those are compared in this process, by value and type. A hidden test is two calls or more whose results differ, so that
an answer that ignores its input passes none.

The test split is held out by construction: a chain of its has a kind that training does not have (`HELD_OUT`) or is in
that order in no chain of training, its names and words are the test split's, and its specifications are others.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from openk2.core import Split, Task, Verdict
from openk2.rl.gym import code_driver
from openk2.rl.gym.code_kinds import HELD_OUT, KINDS, SORTS, Step, draw, step
from openk2.rl.gym.question import QuestionFamily
from openk2.rl.gym.runner import Runner
from openk2.sandbox import Ended
from openk2.synth.jobs.job import outcome
from openk2.synth.jobs.specifications import SPECS
from openk2.worlds.families import lexicon

TESTS = 6
"""Hidden tests of a task; a specification has three or more."""
LONGEST = 20_000
"""An answer of more characters is not run."""
_TUPLES = ("intervals", "top_words")
"""Specifications whose results are no JSON."""
_HELD_SPECS = ("caesar", "rotate", "versions")
_INPUTS = 40
_DRAWS = 2000
_DRIVER = Path(code_driver.__file__).read_text(encoding="utf-8")
_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.M | re.S)
_PYTHON = ("", "python", "py", "python3")
_CELL = re.compile(r"^# ?%%.*$", re.M)
_VERBS = ("get", "make", "find", "work_out", "do")
Json = Any


class CodeFamily(QuestionFamily):
    """Functions and notebook cells in Python that hidden tests judge.

    The sandbox is looked for when the first answer is judged.
    """

    name = "code"
    needs_sandbox = True
    skills: Sequence[str] = (
        *(f"{sort}_{topic}" for sort in ("function", "cells") for topic in sorted({t for _, _, t in SORTS.values()})),
        "function_specification",
    )
    system = "Answer with Python code only."

    def __init__(self, runner: Runner | None = None) -> None:
        self._runner = runner

    def sample(self, split: Split, seed: int) -> Task:
        rng = random.Random(f"{self.name} {split} {seed}")
        if rng.random() < 0.1:
            skill, request, data = _specification(rng, split)
        else:
            skill, request, data = _composed(rng, split)
        return Task(f"{self.name}/{split}/{seed}", self.name, skill, seed, request, data, split)

    def gold(self, task: Task) -> str:
        return "\n".join(f"```python\n{cell}\n```" for cell in task.data["gold"])

    def check(self, task: Task, answer: str) -> Verdict:
        """As `judge`, for those who do not await."""
        # In a thread of its own, as the caller's may be one with a running event loop.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(self.judge(task, answer))).result()

    async def judge(self, task: Task, answer: str) -> Verdict:
        """Run the hidden tests. Raises UserError if the sandbox does not start, which is no fault of the answer."""
        cells = answer_cells(answer[: LONGEST + 1], task.data["sort"])
        if len(answer) > LONGEST:
            return Verdict(False, f"the answer is longer than {LONGEST} characters", 0.0)
        if (name := task.data["name"]) and not any(name in cell for cell in cells):
            return Verdict(False, f"the code does not define {name}", 0.0)
        if not cells:
            return Verdict(False, "there is no code", 0.0)
        if self._runner is None:
            self._runner = Runner()
        mark = secrets.token_hex(16)
        return _verdict(task, await self._runner.run(_program(task, cells, mark)), mark)


def answer_cells(answer: str, sort: str) -> list[str]:
    """The code of an answer: its ``` blocks, or else all of it; a line `# %%` begins another cell."""
    blocks = [match[2] for match in _FENCE.finditer(answer) if match[1].lower() in _PYTHON]
    if not blocks and "```" not in answer:
        blocks = [answer]
    if sort == "cells":
        blocks = [cell for block in blocks for cell in _CELL.split(block)]
    return [block for block in blocks if block.strip()]


def _program(task: Task, cells: list[str], mark: str) -> str:
    """The driver with an answer and the inputs of the tests, and nothing of what they must give."""
    cases = [case for test in task.data["tests"] for case in test["cases"]]
    function = task.data["sort"] == "function"
    # `a` writes also what is no Unicode as Python text.
    return f"{_DRIVER}\nmain({mark!r}, {cells!a}, {cases!a}, {function}, {task.data['name']!r})\n"


def _verdict(task: Task, ended: Ended, mark: str) -> Verdict:
    _, found, text = ended.output.decode("utf-8", "replace").rpartition(f"\n{mark}")
    if not found or ended.note or ended.code:
        return Verdict(False, f"it did not come to its end ({ended.note or f'exit code {ended.code}'})", 0.0)
    tests = task.data["tests"]
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, dict) and isinstance(values.get("failed"), str):
        # The answer may have written it, and half a character fits into no file.
        failed = values["failed"][:80].encode("ascii", "replace").decode()
        return Verdict(False, f"the code does not run ({failed})", 0.0)
    if not isinstance(values, list) or len(values) != sum(len(test["cases"]) for test in tests):
        return Verdict(False, "what it printed cannot be read", 0.0)
    passed = 0
    for test in tests:
        got, values = values[: len(test["wanted"])], values[len(test["wanted"]) :]
        passed += same(got, test["wanted"])
    score = passed / len(tests)
    return Verdict(passed == len(tests), f"{passed} of {len(tests)} hidden tests passed", score)


def same(a: Json, b: Json) -> bool:
    """Whether two values of JSON are equal in value and type: 1 is neither 1.0 nor true. Fractions agree to 1e-9."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


# Tasks


def _composed(rng: random.Random, split: Split) -> tuple[str, str, dict[str, Json]]:
    """A chain of operations whose results say something about each of them."""
    level = rng.choices((1, 2, 3), (50, 30, 20))[0]
    for _ in range(_DRAWS):
        steps = _chain(rng, level)
        if steps is None or _split_of([s.kind.name for s in steps]) != split:
            continue
        pairs = list(_results(steps, rng, split))
        tests = _tests(pairs[1:])
        if len(tests) >= TESTS and _all_matter(steps, pairs):
            return _worded(rng, split, steps, pairs[0], tests[:TESTS])
    raise AssertionError(f"{_DRAWS} chains in a row were refused")


def _chain(rng: random.Random, level: int) -> list[Step] | None:
    steps: list[Step] = []
    for _ in range(level):
        fits = [k for k in KINDS if all(s.kind is not k for s in steps)]
        fits = [k for k in fits if not steps or k.takes == steps[-1].kind.gives]
        if not fits:
            return None
        steps.append(step(rng.choice(fits), rng))
    return steps


def _split_of(names: Sequence[str]) -> Split:
    """The split that a chain of kinds belongs to for ever."""
    if any(name in HELD_OUT for name in names):
        return "test"
    return lexicon.hash_split("code/" + ">".join(names)) if len(names) > 1 else "train"


def _lines(steps: Sequence[Step], x: str) -> list[str]:
    """What must be imported, and an expression for each operation on a variable."""
    needs = list(dict.fromkeys(s.kind.needs for s in steps if s.kind.needs))
    return [*needs, *(s.code.replace("$x", x) for s in steps)]


def _function(steps: Sequence[Step], name: str) -> str:
    x = SORTS[steps[0].kind.takes][0]
    *first, last = _lines(steps, x)
    needs = [line for line in first if line.startswith("from ")]
    body = [f"    {x} = {line}" for line in first if line not in needs] + [f"    return {last}"]
    return "\n".join([*needs, *([""] * 2 if needs else []), f"def {name}({x}):", *body])


def _results(steps: Sequence[Step], rng: random.Random, split: Split) -> Iterator[tuple[Json, Json]]:
    """Inputs and what they give; those are left out for which an operation is not defined."""
    run = _compiled(steps)
    for _ in range(_INPUTS):
        value = draw(steps[0].kind.takes, rng, split)
        try:
            yield value, run(value)
        except ValueError:
            continue


def _compiled(steps: Sequence[Step]) -> Any:
    names: dict[str, Any] = {}
    exec(_function(steps, "reference"), names)
    return names["reference"]


def _tests(pairs: Sequence[tuple[Json, Json]]) -> list[list[tuple[Json, Json]]]:
    """Pairs of inputs whose results differ from each other; the first one's also from its input."""
    tests, rest = [], list(pairs)
    while rest:
        value, result = rest.pop(0)
        other = next((i for i, (_, second) in enumerate(rest) if not same(second, result)), None)
        if other is not None and not same(value, result):
            tests.append([(value, result), rest.pop(other)])
    return tests


def _all_matter(steps: Sequence[Step], pairs: Sequence[tuple[Json, Json]]) -> bool:
    """Whether no operation can be left out without being noticed: often, for one that keeps the sort of its value."""
    for i, left_out in enumerate(steps):
        others = [*steps[:i], *steps[i + 1 :]]
        if left_out.kind.takes != left_out.kind.gives or not others:
            continue
        run, noticed = _compiled(others), 0
        for value, result in pairs:
            try:
                noticed += not same(run(value), result)
            except ValueError:
                noticed += 1
        if noticed < len(pairs) // 2:
            return False
    return True


def _worded(
    rng: random.Random,
    split: Split,
    steps: Sequence[Step],
    example: tuple[Json, Json],
    tests: Sequence[Sequence[tuple[Json, Json]]],
) -> tuple[str, str, dict[str, Json]]:
    x, what, topic = SORTS[steps[0].kind.takes]
    sort = "cells" if rng.random() < 0.3 else "function"
    noun = lexicon.word(rng, split)
    job = ", then ".join(s.says for s in steps)
    if sort == "function":
        name = f"{rng.choice(_VERBS)}_{noun}"
        cases = [[f"{name}({value!r})" for value, _ in test] for test in tests]
        gold = [_function(steps, name)]
        request = (
            f"Write a Python function `{name}({x})`. `{x}` is {what}. It must {job}, and return the result. "
            f"For example, {name}({example[0]!r}) gives {example[1]!r}."
        )
    else:
        name = f"{noun}_result" if rng.random() < 0.5 else ""
        x = f"{noun}_{x}"
        cases = [[f"{x} = {value!r}" for value, _ in test] for test in tests]
        gold = _cells(steps, x, name)
        end = f"Leave the result in `{name}`." if name else "The last cell's value must be the result."
        request = (
            f"Write notebook cells in Python, each a ``` block. The notebook has `{x}`, {what}. Take it and {job}. "
            f"{end} For example, with {x} = {example[0]!r} the result is {example[1]!r}."
        )
    wanted = [[{"value": result} for _, result in test] for test in tests]
    data = {
        "sort": sort, "level": len(steps), "kinds": [s.kind.name for s in steps], "name": name, "gold": gold,
        "tests": [{"cases": c, "wanted": w} for c, w in zip(cases, wanted, strict=True)],
    }  # fmt: skip
    return f"{sort}_{topic}", request, data


def _cells(steps: Sequence[Step], x: str, name: str) -> list[str]:
    """A cell for each operation; the last one's value or the variable `name` is the result."""
    result = name or "result"
    needs = [line for line in _lines(steps, x) if line.startswith("from ")]
    cells = [f"{result} = {s.code.replace('$x', result if i else x)}" for i, s in enumerate(steps)]
    if needs:
        cells[0] = f"{needs[0]}\n\n{cells[0]}"
    if not name:
        cells[-1] += f"\n{result}"
    return cells


def _specification(rng: random.Random, split: Split) -> tuple[str, str, dict[str, Json]]:
    """A function of the data factory's jobs, with the calls that it is judged by there."""
    kinds = [name for name in SPECS if name not in _TUPLES and (name in _HELD_SPECS) == (split == "test")]
    kind = rng.choice(kinds)
    spec = SPECS[kind](rng)
    names: dict[str, Any] = {}
    exec(spec.code, names)
    found = [(call, _wanted(call, names)) for call in dict.fromkeys(spec.calls)]
    shown = next(i for i, (_, wanted) in enumerate(found) if "value" in wanted)
    call, result = found.pop(shown)
    tests = _paired(found)
    request = f"Write a Python function `{spec.takes}`. {spec.says} For example, {call} gives {result['value']!r}."
    data = {
        "sort": "function", "level": 3, "kinds": [kind], "name": spec.function, "gold": [spec.code.strip()],
        "tests": [{"cases": [c for c, _ in test], "wanted": [w for _, w in test]} for test in tests],
    }  # fmt: skip
    return "function_specification", request, data


def _wanted(call: str, names: dict[str, Any]) -> dict[str, Json]:
    if (said := outcome(call, dict(names))).startswith("raises "):
        return {"raises": said.removeprefix("raises ")}
    return {"value": eval(call, dict(names))}


def _paired(found: Sequence[tuple[str, Json]]) -> list[list[tuple[str, Json]]]:
    """Calls in twos whose results differ; one that finds no partner joins the first two."""
    tests: list[list[tuple[str, Json]]] = []
    rest, alone = list(found), []
    while rest:
        one = rest.pop(0)
        other = next((i for i, (_, wanted) in enumerate(rest) if not same(wanted, one[1])), None)
        if other is None:
            alone.append(one)
        else:
            tests.append([one, rest.pop(other)])
    tests[0] += alone
    return tests
