"""Puzzles with their own verifiers: the generators of the package `reasoning-gym` as tasks.

A task is one entry of a generator: its question, how to answer, and all of the entry that its verifier reads. What
passes is decided by that verifier alone (but for the few generators in `SAME`), and only by its full score: partial
scores of these generators pay for junk (0.05 for any board), for texts that have the answer somewhere in them, and for
near misses. Before a verifier sees an answer, the answer has to look like one: some of them evaluate what they are
given, others look no further than its first number.

The splits differ in the text of the question, whose hash decides; a question of training is never one of the test,
however small the generator. Questions are as long as the generators make them, at most `LONGEST` characters.

Source: Stojanovski et al., "Reasoning Gym: Reasoning Environments for Reinforcement Learning with Verifiable Rewards"
(2025), https://github.com/open-thought/reasoning-gym.
"""

from __future__ import annotations

import ast
import json
import operator
import random
import re
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any

from openk2.core import Split, Task, UserError, Verdict
from openk2.rl.gym.question import QuestionFamily
from openk2.worlds.families.lexicon import hash_split

INSTRUCTION = 'Reply with the answer alone, or put it at the end, after "Answer:".'
LONGEST = 1600
"""Characters of a question; what is longer leaves a small model no room to answer."""
DRAWS = 300
"""Draws for a question of the split before a generator's other level is tried."""
PASSES = 0.999
"""A verifier's full score; some compute it as `exp(-distance)`."""

_NAMES = """ab acre advanced_geometry aiw arc_1d base_conversion basic_arithmetic binary_alternation binary_matrix
    bitwise_arithmetic caesar_cipher calendar_arithmetic chain_sum circuit_logic color_cube_rotation
    complex_arithmetic count_bits count_primes countdown course_schedule cryptarithm decimal_arithmetic
    decimal_chain_sum dice emoji_mystery family_relationships figlet_font fraction_simplification game_of_life gcd
    group_anagrams gsm_symbolic jugs kakurasu knights_knaves largest_island lcm leg_counting letter_counting
    letter_jumble manipulate_matrix maze mini_sudoku modulo_grid n_queens needle_haystack number_filtering
    number_format number_sequence number_sorting palindrome_generation palindrome_partitioning path_star
    polynomial_equations power_function prime_factorization products rotate_matrix rotten_oranges self_reference
    sentence_reordering shortest_path simple_equations simple_geometry simple_integration spell_backward spiral_matrix
    string_insertion string_manipulation string_splitting string_synthesis sudoku survo syllogism time_intervals
    tsumego word_sequence_reversal word_sorting"""
GENERATORS: tuple[str, ...] = tuple(_NAMES.split())
"""Generators that need no network and make the same entry for the same seed in every process."""

_CHANGES = "the same seed makes another entry in another process"
_NO_ANSWER = "its entries have no answer, so nothing can show how they are solved"
_SECONDS = "some of its puzzles take seconds to make"
_PRINTS = "it writes to standard output"
EXCLUDED: dict[str, str] = {
    "arc_agi": "its boards are thousands of numbers",
    "bf": _PRINTS,
    "boxnet": _NO_ANSWER,
    "codeio": _CHANGES,
    "coin_flip": "its verifier takes any beginning of the number: 0 would solve them all",
    "composite": "it only mixes the others",
    "futoshiki": _SECONDS,
    "game_of_life_halting": "its verifier passes True and False alike",
    "graph_color": _NO_ANSWER,
    "intermediate_integration": _CHANGES,
    "isomorphic_strings": _CHANGES,
    "knight_swap": _CHANGES,
    "list_functions": _CHANGES,
    "mahjong_puzzle": "its questions are too long",
    "polynomial_multiplication": _CHANGES,
    "pool_matrix": "it sets numpy's seed for the whole process",
    "propositional_logic": _NO_ANSWER,
    "puzzle24": "its verifier takes any four numbers: 6 * 4 + 1 - 1 would solve them all",
    "quantum_lock": _SECONDS,
    "ransom_note": _CHANGES,
    "rearc": "its verifier does not know its own board once that is read back from JSON",
    "rectangle_count": "its questions are too long",
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
    "sokoban": _SECONDS,
    "tower_of_hanoi": _PRINTS,
    "word_ladder": _CHANGES,
    "zebra_puzzles": _SECONDS,
}
"""Generators that are no tasks here, and why."""

LISTED = frozenset({"acre", "gsm_symbolic"})
"""Those without a curriculum; they also hold a list of their entries, where the others make any number of them."""

_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_RATIO = rf"(?:{_NUMBER}(?:/{_NUMBER})?|\({_NUMBER}/{_NUMBER}\))"
_TERM = rf"(?:(?:{_RATIO} ?\* ?)?[A-Za-z](?: ?\*\* ?[0-9]{{1,2}})?(?: ?/ ?{_NUMBER})?|{_RATIO})"
SHAPES: dict[str, re.Pattern[str]] = {
    "binary_matrix": re.compile(r"[0-9]+(?:\s[0-9]+)*"),
    "complex_arithmetic": re.compile(r"[-+0-9.ij ]+"),
    "countdown": re.compile(r"(?:[-+() 0-9]|\*(?!\s*\*)|/(?!\s*/))+"),
    "jugs": re.compile(r'[]\[", >A-Za-z-]+'),
    "kakurasu": re.compile(r"[01](?:\s[01])*"),
    "knights_knaves": re.compile(r"[A-Za-z ,]+\.?"),
    "n_queens": re.compile(r"[Q_ \n]+"),
    "simple_integration": re.compile(rf"-?\s*{_TERM}(?:\s*[-+]\s*{_TERM})*"),
    "spiral_matrix": re.compile(r"-?[0-9]+(?: -?[0-9]+)*"),
    "string_insertion": re.compile(r"[A-E]+"),
}
"""What an answer must look like as a whole where the verifier evaluates it as code or passes over what it does not
know, or where more words than in the expert's answer can be right."""

_DECIMAL = r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"
_NUMBERS = re.compile(rf"\[?{_DECIMAL}(?:\s*,\s*{_DECIMAL})*\]?")
_AMOUNT = re.compile(r"(-?)[$€£¥]?([0-9][0-9,]*(?:\.[0-9]+)?)%?")
_DIGITS = re.compile(r"maximum of ([0-9]+) significant digits[^\n]*\n([-+*/(). 0-9]+) = \?")
_SIGNS: dict[type[ast.operator], Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_CLOCK = r"[0-9]{1,2}:[0-9]{1,2}(?::[0-9]{1,2}(?:\.[0-9]{1,6})?)?"
_TIME = re.compile(rf"-?[0-9]+(?: days?(?:, ?{_CLOCK})?)?|{_CLOCK}")

_WRAPPED = (
    re.compile(r"\*\*(.*)\*\*", re.DOTALL),
    re.compile(r"(?:\$|\\\()?\\boxed\{(.*)\}(?:\$|\\\))?", re.DOTALL),
    re.compile(r"(.*[^.])\.", re.DOTALL),
)
"""What people put around an answer: bold, a box, a period."""
_LAYERS = 4
_MARK = re.compile(r"^[ \t*]*answer[ \t]*:[ \t*]*", re.IGNORECASE | re.MULTILINE)
_WORD = re.compile(r"\w+(?:\.\w+)*")


class ReasoningFamily(QuestionFamily):
    """Puzzles of the generators of reasoning-gym, of all or of one.

    `data["level"]` is 1 where the generator's curriculum is at its start, 2 at its defaults.
    """

    name = "reasoning"
    option = "NAME"

    def __init__(self, generator: str = "") -> None:
        """`generator` restricts it to one. Raises UserError if there is none of that name, or it can not be used."""
        if generator in EXCLUDED:
            raise UserError(f"the generator {generator!r} can not be used: {EXCLUDED[generator]}")
        if generator and generator not in GENERATORS:
            close = get_close_matches(generator, GENERATORS, n=3) or GENERATORS
            raise UserError(f"there is no generator {generator!r}: try {', '.join(close)}")
        self.skills: Sequence[str] = (generator,) if generator else GENERATORS

    def sample(self, split: Split, seed: int) -> Task:
        rng = random.Random(f"{self.name} {split} {seed}")
        skill = rng.choice(self.skills)
        level = 2 if skill in LISTED else rng.choice((1, 2))
        for n in range(2 * DRAWS):
            if n == DRAWS and skill not in LISTED:
                level = 3 - level
            puzzles = _generator(skill, level)
            # `decimal_arithmetic` sets the precision of all decimals, which the entries of others depend on.
            with localcontext(Context()):
                entry = puzzles[rng.randrange(len(puzzles))]
            question, answer = entry["question"].strip(), str(entry["answer"])
            if hash_split(f"{self.name}/{question}") != split or len(question) > LONGEST or not answer.strip():
                continue
            # What a checker reads from a file is what is checked here: tuples are lists from the start, and what is no
            # JSON (fractions of `gsm_symbolic`, which its verifier does not read) is text.
            data = json.loads(
                json.dumps({"level": level, "answer": answer, "metadata": entry["metadata"]}, default=str)
            )
            request = f"{question}\n\n{INSTRUCTION}"
            return Task(f"{self.name}/{split}/{seed}", self.name, skill, seed, request, data, split)
        raise UserError(f"the generator {skill!r} has no question of the {split} split in {2 * DRAWS} draws")

    def gold(self, task: Task) -> str:
        return str(task.data["answer"]).strip()

    def check(self, task: Task, answer: str) -> Verdict:
        gold = self.gold(task)
        if len(answer) > 8000:
            return Verdict(False, "the answer is too long", 0.0)
        marks = list(_MARK.finditer(answer))
        if len(marks) > 1:
            return Verdict(False, "there are several answers", 0.0)
        final = (answer[marks[0].end() :] if marks else answer).strip()
        if marks and "**" in marks[0][0] and final.endswith("**") and not gold.endswith("**"):
            final = final.removesuffix("**").strip()  # all of "**Answer: 5**" is bold
        final = _peeled(final, gold)
        if fault := _fault(task.skill, final, gold):
            return Verdict(False, fault, 0.0)
        if same := SAME.get(task.skill):
            right = any(same(final, one) for one in (gold, *_others(task)))
            return Verdict(right, "" if right else "the answer is wrong", 1.0 if right else 0.0)
        entry = {"question": task.request, "answer": task.data["answer"], "metadata": task.data["metadata"]}
        # A verifier compares with what its generator wrote, blanks at the ends included.
        said = entry["answer"] if final == gold else final
        try:
            with localcontext(Context()):
                score = float(_generator(task.skill, task.data["level"]).score_answer(said, entry))
        except Exception as e:
            # Verifiers are other people's code and meet any text here; one that trips over an answer has not passed it.
            return Verdict(False, f"the verifier of {task.skill} cannot read the answer ({type(e).__name__})", 0.0)
        if score >= PASSES:
            return Verdict(True, "", 1.0)
        return Verdict(False, f"the verifier of {task.skill} says that this is wrong", 0.0)


def _fault(skill: str, final: str, gold: str) -> str:
    """Why a verifier need not see an answer; empty if it is to."""
    if not final:
        return "there is no answer"
    if len(final) > 4 * len(gold) + 200:
        return "the answer is too long"
    shape = SHAPES.get(skill)
    if shape and not shape.fullmatch(final):
        return "the answer is not of the form that was asked for"
    if not shape and len(_WORD.findall(final)) > len(_WORD.findall(gold)):
        return "there is more than one answer"
    # A verifier that compares distances passes `nan`.
    strange = any(word in final.lower() and word not in gold.lower() for word in ("nan", "inf"))
    return "the answer is no number (nan, inf)" if strange else ""


def _peeled(final: str, gold: str) -> str:
    """An answer without the bold, the box and the period around it, as far as the expert's has none of them."""
    for _ in range(_LAYERS):
        if final == gold:
            break
        for form in _WRAPPED:
            inner = form.fullmatch(final)
            if inner and not form.fullmatch(gold):
                final = inner[1].strip()
                break
        else:
            break
    return final


def _others(task: Task) -> list[str]:
    """What is right besides the expert's answer: a decimal that was rounded once, where the expert rounds each step."""
    asked = _DIGITS.search(task.request)
    if task.skill != "decimal_arithmetic" or asked is None:
        return []
    with localcontext(Context(prec=60)):
        exact = _value(ast.parse(asked[2], mode="eval").body)
        return [str(Context(prec=int(asked[1]), rounding=ROUND_HALF_UP).plus(exact))]


def _value(node: ast.expr) -> Decimal:
    """The value of a generator's own expression of decimals."""
    if isinstance(node, ast.BinOp):
        return _SIGNS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp):
        return -_value(node.operand)
    return Decimal(ast.unparse(node))


def _same_amount(final: str, gold: str) -> bool:
    """The same number with the same sign; a currency, a percent sign and thousands' commas change nothing."""
    said, meant = _AMOUNT.fullmatch(final), _AMOUNT.fullmatch(gold)
    if said is None or meant is None:
        return False
    one, other = (Decimal(found[1] + found[2].replace(",", "")) for found in (said, meant))
    return one == other


def _same_decimal(final: str, gold: str) -> bool:
    """The same value to the last of the digits that were asked for."""
    return re.fullmatch(_DECIMAL, final) is not None and Decimal(final) == Decimal(gold)


def _same_time(final: str, gold: str) -> bool:
    """The same sign, and the same number in each place."""
    if not _TIME.fullmatch(final) or final.startswith("-") != gold.startswith("-"):
        return False
    said, meant = ([Decimal(n) for n in re.findall(r"[0-9]+(?:\.[0-9]+)?", text)] for text in (final, gold))
    return said == meant


def _same_float(final: str, gold: str) -> bool:
    """The same number but for the noise of a float; thousands may have commas."""
    said = final.replace(",", "")
    return re.fullmatch(_DECIMAL, said) is not None and abs(Decimal(said) - Decimal(gold)) < Decimal("1e-6")


def _same_roots(final: str, gold: str) -> bool:
    """As many numbers, each the same to the four places that were asked for."""
    if not _NUMBERS.fullmatch(final):
        return False
    said, meant = (sorted(map(Decimal, re.findall(_DECIMAL, text))) for text in (final, gold))
    return len(said) == len(meant) and all(abs(a - b) <= Decimal("5e-5") for a, b in zip(said, meant, strict=True))


SAME: dict[str, Callable[[str, str], bool]] = {
    "decimal_arithmetic": _same_decimal,
    "gsm_symbolic": _same_amount,
    "number_format": _same_float,
    "polynomial_equations": _same_roots,
    "spell_backward": lambda final, gold: final.casefold() == gold.casefold(),
    "time_intervals": _same_time,
}
"""Whether an answer is the expert's, for generators whose verifier passes what is only near it, or looks at a part of
it (and so fails the expert's own minus)."""


@cache
def _generator(name: str, level: int) -> Any:
    """A generator at a level; what it makes depends on the index alone. Raises UserError without the package."""
    try:
        factory = import_module("reasoning_gym").factory
    except ImportError as e:
        raise UserError("reasoning puzzles need reasoning-gym: pip install 'openk2[rl]'") from e
    if level == 2:
        return factory.create_dataset(name, seed=0, size=5000 if name in LISTED else 2**31)
    curriculum = factory.create_curriculum(name)
    curriculum.set_global_level(0)
    config = curriculum.generate_configuration({"seed": 0, "size": 2**31})
    return factory.create_dataset(name, **vars(config))
