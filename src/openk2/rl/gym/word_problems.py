"""Word problems in the manner of GSM8K: made from templates by seed, or read from a file of that form.

Made problems have 1 to 5 steps, which is their level; some tell a fact that has nothing to do with the question. The
test split has other names, things and places (by the lexicon's split), and half of it is of templates that training
never sees. Of a file, about one problem in five is of the test split, by the hash of its question.

What an answer says is found here, strictly: one final answer with one number in it. Whether that number is right is
decided by `math-verify`, which then sees nothing but a number of at most 15 digits, so it needs no time limit; its own
ones are signals, which work in a main thread only.

Sources: Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021), for the form of the files;
https://github.com/huggingface/Math-Verify.
"""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from openk2.core import Split, Task, UserError, Verdict
from openk2.core.families import located
from openk2.core.messages import is_unicode
from openk2.core.runs import read_small_text
from openk2.rl.gym.question import QuestionFamily
from openk2.rl.gym.word_problem_templates import TEMPLATES, Draw, asides, show
from openk2.worlds.families.lexicon import hash_split

INSTRUCTION = 'End with "Answer:" and the number.'
LONGEST = 4000
"""Characters of an answer that is read at all."""
FILE_SKILL = "file"
"""The skill of all problems of a file."""
ASIDE_SHARE = 0.3
HELD_OUT_SHARE = 0.5
"""The share of held-out templates among the problems of the test split."""

_MARK = re.compile(r"^[ \t*]*(?:(?:the )?(?:final )?answer(?: is)?[ \t*]*:|####)[ \t*]*", re.IGNORECASE | re.MULTILINE)
_BOX = re.compile(r"\\boxed\s*\{((?:[^{}\n]|\{[^{}\n]*\}){0,60})\}")
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,4}|[0-9]{1,15})"
_PLAIN = rf"{_WHOLE}(?:\.[0-9]{{1,15}})?"
_NUMBER = re.compile(
    rf"(?P<sign>-?)\s*\$?\s*(?P<minus>-?)"
    rf"(?:\\[dt]?frac\{{(?P<top>-?[0-9]{{1,15}})\}}\{{(?P<low>[0-9]{{1,15}})\}}"
    rf"|(?P<plain>(?:{_PLAIN}|\.[0-9]{{1,15}})(?:\s*/\s*[0-9]{{1,15}})?))"
)
_BEFORE, _AFTER = re.compile(r"[-/^√<>~≈≠±][\s$(*]*$"), re.compile(r"[\s)*]*[/^+!]")
_WAVERING = re.compile(r"\b(?:or|not|maybe|either|perhaps)\b|n't\b", re.IGNORECASE)
_ANNOTATION = re.compile(r"<<[^<>\n]*>>")


class WordProblemsFamily(QuestionFamily):
    """Word problems with a number as the answer, from templates or a file in the form of GSM8K."""

    name = "math"
    option = "FILE"
    skills: Sequence[str] = tuple(TEMPLATES)

    def __init__(self, file: str = "") -> None:
        """`file` is JSON Lines with `question` and `answer`. Raises UserError as `read_problems`."""
        self._problems: dict[Split, list[Task]] | None = None
        if file:
            tasks = read_problems(located(file))
            self._problems = {"train": [], "test": []}
            for task in tasks:
                self._problems[task.split].append(task)
            for split, kept in self._problems.items():
                if not kept:
                    raise UserError(f"{file} is too small: none of its problems is of the {split} split")
            self.skills = (FILE_SKILL,)

    def sample(self, split: Split, seed: int) -> Task:
        rng = random.Random(f"{self.name} {split} {seed}")
        known = f"{self.name}/{split}/{seed}"
        if self._problems is not None:
            return replace(rng.choice(self._problems[split]), id=known, seed=seed)
        held_out = split == "test" and rng.random() < HELD_OUT_SHARE
        level = rng.randint(1, 5)
        stock = [t for t in TEMPLATES.values() if t.held_out == held_out and t.level == level]
        template = rng.choice(stock)
        draw = Draw(rng, split)
        text = template.make(draw)
        if rng.random() < ASIDE_SHARE:
            text = f"{rng.choice(asides(draw))} {text}"
        data: dict[str, Any] = {"level": level, "answer": show(draw.answer), "steps": draw.steps}
        return Task(known, self.name, template.name, seed, f"{text} {INSTRUCTION}", data, split)

    def gold(self, task: Task) -> str:
        return "\n".join([*task.data["steps"], f"Answer: {task.data['answer']}"])

    def check(self, task: Task, answer: str) -> Verdict:
        final, fault = final_answer(answer)
        if fault:
            return Verdict(False, fault, 0.0)
        if _equal(task.data["answer"], final):
            return Verdict(True, "", 1.0)
        return Verdict(False, f"the answer is {final}, not {task.data['answer']}", 0.0)


def final_answer(answer: str) -> tuple[str, str]:
    """The one number that an answer ends in, without signs of money, separators and units, and what is wrong with it.

    It stands behind `Answer:` or `####`, in `\\boxed{}`, or alone in a single line; units are not looked at.
    """
    if len(answer) > LONGEST:
        return "", "the answer is too long"
    text = answer.replace("−", "-").replace("\\$", "$").replace("\\%", "%").replace("\\,", "")
    marks, boxes = list(_MARK.finditer(text)), list(_BOX.finditer(text))
    if len(marks) > 1 or text.count("\\boxed") > 1:
        return "", "there are several final answers"
    if "\\boxed" in text and not boxes:
        return "", "the box of the final answer is not closed or too full"
    if marks and boxes and boxes[0].start() < marks[0].end():
        return "", "there are several final answers"
    final = text[marks[0].end() :] if marks else boxes[0].group(1) if boxes else text
    if marks and boxes:
        # The box is a part of the last line, and what is beside it must not be another number.
        final = final.replace(boxes[0].group(), boxes[0].group(1))
    final = final.strip()
    if not final:
        return "", "there is no answer"
    if "\n" in final:
        return "", "there is no final answer in a line of its own"
    found = _NUMBER.search(final)
    if not found:
        return "", "there is no number in the final answer"
    if _BEFORE.search(final[: found.start()]) or _AFTER.match(final[found.end() :]):
        return "", "the final answer is not a plain number"
    beside = f"{final[: found.start()]} {final[found.end() :]}"
    if any(sign.isdigit() for sign in beside) or _WAVERING.search(beside) or "frac" in beside:
        return "", "there is more than one number in the final answer"
    minus = "-" if bool(found["sign"]) != bool(found["minus"]) else ""
    if found["plain"]:
        return minus + re.sub(r"[,\s]", "", found["plain"]), ""
    return f"{minus}{found['top']}/{found['low']}", ""


@lru_cache(maxsize=4096)
def _equal(gold: str, said: str) -> bool:
    """Whether two numbers are the same for `math-verify`. Raises UserError without the package."""
    try:
        math_verify = import_module("math_verify")
    except ImportError as e:
        raise UserError("word problems need math-verify: pip install 'openk2[rl]'") from e
    # It warns once that its time limits are off; why they can be is said above.
    for module in ("parser", "grader"):
        logging.getLogger(f"math_verify.{module}").setLevel(logging.ERROR)
    config = [math_verify.ExprExtractionConfig()]
    read = [math_verify.parse(text, config, parsing_timeout=None) for text in (gold, said)]
    return bool(math_verify.verify(*read, timeout_seconds=None))


def read_problems(path: Path) -> list[Task]:
    """The problems of a JSON Lines file in the form of GSM8K, in their order; a task's seed is its number.

    A row has a `question` and an `answer`, a solution whose last line is `#### N`. Raises UserError for a file that
    cannot be read, has no rows, or has a row of another form.
    """
    try:
        lines = read_small_text(path).split("\n")
    except OSError as e:
        raise UserError(f"the problems of {path} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not a text file in UTF-8") from e
    except ValueError as e:
        raise UserError(f"the problems of {path} cannot be read: {e}") from e
    tasks: list[Task] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            tasks.append(_problem(f"line {number} of {path}", len(tasks), line))
    if not tasks:
        raise UserError(f"there are no problems in {path}")
    return tasks


def _problem(where: str, number: int, line: str) -> Task:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise UserError(f"{where} is not JSON") from e
    texts = [row.get(key) for key in ("question", "answer")] if isinstance(row, dict) else []
    question, answer = texts if texts else (None, None)
    if not isinstance(question, str) or not isinstance(answer, str) or not question.strip():
        raise UserError(f"{where} is not an object with the texts 'question' and 'answer'")
    if not is_unicode(question + answer):
        raise UserError(f"{where} has half a character (a lone surrogate), which no encoding can write")
    solution, mark, final = answer.rpartition("####")
    if not mark:
        raise UserError(f"{where} has no final answer: '####' and a number at the end of 'answer'")
    gold, fault = final_answer(f"#### {final.strip()}")
    if fault:
        raise UserError(f"{where} has no number behind '####'")
    steps = [step.strip() for step in _ANNOTATION.sub("", solution).split("\n") if step.strip()]
    split = hash_split(f"math/{question.strip()}")
    data = {"level": min(5, max(1, len(steps))), "answer": gold, "steps": steps}
    request = f"{question.strip()} {INSTRUCTION}"
    return Task(f"math/{split}/{number}", "math", FILE_SKILL, number, request, data, split)
