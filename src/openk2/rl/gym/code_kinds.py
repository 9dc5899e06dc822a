"""Kinds of small operations that functions and notebook cells are composed of, each an expression with parameters.

An operation takes a value of one sort and gives one of another; a chain of one to three makes a task. Its words say all
that its expression does, and its expression is defined for every value that `draw` makes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from string import Template
from typing import Any

from openk2.core import Split
from openk2.worlds.families import lexicon

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Kind:
    """An operation. In `says` and `code` a `$NAME` stands for a parameter, in `code` `$x` for the value."""

    name: str
    takes: str
    gives: str
    says: str
    code: str
    parameters: dict[str, Range | tuple[str, ...]]
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """An operation with its parameters."""

    kind: Kind
    says: str
    code: str


def step(kind: Kind, rng: random.Random) -> Step:
    """The operation with parameters drawn."""
    values: dict[str, Any] = {}
    for name, choice in kind.parameters.items():
        values[name] = rng.randint(*choice) if isinstance(choice[0], int) else rng.choice(choice)
    return Step(kind, Template(kind.says).substitute(values), Template(kind.code).safe_substitute(values))


def _kind(name: str, sorts: str, says: str, code: str, needs: str = "", **parameters: Range | tuple[str, ...]) -> Kind:
    takes, _, gives = sorts.partition(" > ")
    return Kind(name, takes, gives, says, code, parameters, needs)


_LETTERS = ("a", "e", "i", "o", "r", "s", "t", "n", "l")
_DATES = "from datetime import date, timedelta"

KINDS: tuple[Kind, ...] = (
    # Lists of numbers
    _kind("keep_above", "numbers > numbers", "keep the numbers above $n", "[n for n in $x if n > $n]", n=(-5, 20)),
    _kind("keep_below", "numbers > numbers", "keep the numbers below $n", "[n for n in $x if n < $n]", n=(5, 30)),
    _kind("keep_multiples", "numbers > numbers", "keep the multiples of $n", "[n for n in $x if n % $n == 0]",
          n=(2, 4)),
    _kind("drop_multiples", "numbers > numbers", "drop the multiples of $n", "[n for n in $x if n % $n]", n=(2, 4)),
    _kind("add_each", "numbers > numbers", "add $n to each number", "[n + $n for n in $x]", n=(2, 30)),
    _kind("times_each", "numbers > numbers", "multiply each number by $n", "[n * $n for n in $x]", n=(2, 9)),
    _kind("squares", "numbers > numbers", "square each number", "[n * n for n in $x]"),
    _kind("sort_down", "numbers > numbers", "sort the numbers from high to low", "sorted($x, reverse=True)"),
    _kind("first_few", "numbers > numbers", "take the first $n numbers", "$x[:$n]", n=(2, 3)),
    _kind("every_other", "numbers > numbers", "take every second number, from the first on", "$x[::2]"),
    _kind("clip", "numbers > numbers", "raise numbers below $low to $low, and lower those above $high to $high",
          "[min(max(n, $low), $high) for n in $x]", low=(-9, 5), high=(10, 25)),
    _kind("differences", "numbers > numbers", "make the list of each number minus the one before it",
          "[b - a for a, b in zip($x, $x[1:])]"),
    _kind("running_total", "numbers > numbers", "make the list of running totals",
          "[sum($x[: i + 1]) for i in range(len($x))]"),
    _kind("total", "numbers > number", "take the sum", "sum($x)"),
    _kind("largest", "numbers > number", "take the largest number, or $n if there is none", "max($x, default=$n)",
          n=(-1, 0)),
    _kind("spread", "numbers > number", "take the largest minus the smallest number, or 0 if there is none",
          "max($x, default=0) - min($x, default=0)"),
    _kind("count_above", "numbers > number", "count the numbers above $n", "sum(n > $n for n in $x)", n=(0, 20)),
    _kind("join_numbers", "numbers > text", "join the numbers to a text with '$c' between them",
          "'$c'.join(str(n) for n in $x)", c=("-", "+", ":", "/")),
    # Numbers
    _kind("digit_sum", "number > number", "take the sum of the digits (no sign)",
          "sum(int(d) for d in str(abs($x)))"),
    _kind("remainder", "number > number", "take the remainder of a division by $n", "$x % $n", n=(5, 19)),
    _kind("next_multiple", "number > number", "round up to a multiple of $n", "-(-$x // $n) * $n", n=(3, 12)),
    _kind("divisors", "number > numbers", "list its divisors from 1 up (of its absolute value)",
          "[d for d in range(1, abs($x) + 1) if $x % d == 0]"),
    _kind("binary", "number > text", "write it in base 2, as text without a prefix", "format($x, 'b')"),
    _kind("padded", "number > text", "write it as text with zeros in front, $n characters wide in all",
          "str($x).zfill($n)", n=(4, 8)),
    # Texts
    _kind("upper", "text > text", "turn the text to upper case", "$x.upper()"),
    _kind("backwards", "text > text", "turn the text around", "$x[::-1]"),
    _kind("drop_letter", "text > text", "drop every '$c', in lower case only", "$x.replace('$c', '')", c=_LETTERS),
    _kind("swap_letter", "text > text", "replace every '$c' by '$d'", "$x.replace('$c', '$d')", c=_LETTERS,
          d=("*", "#", "_")),
    _kind("blanks", "text > text", "replace each blank by '$c'", "$x.replace(' ', '$c')", c=("-", "_", ".")),
    _kind("count_letter", "text > number", "count the letter '$c', upper case too", "$x.lower().count('$c')",
          c=_LETTERS),
    _kind("count_vowels", "text > number", "count the vowels (a, e, i, o, u), upper case too",
          "sum(c in 'aeiou' for c in $x.lower())"),
    _kind("split_words", "text > words", "split the text at blanks", "$x.split()"),
    _kind("letter_counts", "text > counts", "make a dict of how often each character occurs",
          "{c: $x.count(c) for c in $x}"),
    # Lists of words
    _kind("keep_longer", "words > words", "keep the words with more than $n letters", "[w for w in $x if len(w) > $n]",
          n=(3, 6)),
    _kind("keep_with", "words > words", "keep the words with an '$c' in them", "[w for w in $x if '$c' in w]",
          c=_LETTERS),
    _kind("by_length", "words > words", "sort the words by length, and equally long ones by alphabet",
          "sorted($x, key=lambda w: (len(w), w))"),
    _kind("unique", "words > words", "drop words that came before", "list(dict.fromkeys($x))"),
    _kind("join_words", "words > text", "join the words with '$c' between them", "'$c'.join($x)",
          c=("-", ", ", "/", "+")),
    _kind("initials", "words > text", "join the first letters, in upper case", "''.join(w[:1] for w in $x).upper()"),
    _kind("lengths", "words > numbers", "make the list of the words' lengths", "[len(w) for w in $x]"),
    _kind("word_counts", "words > counts", "make a dict of how often each word occurs",
          "{w: $x.count(w) for w in $x}"),
    # Dicts
    _kind("keep_counts", "counts > counts", "keep the entries with a value of at least $n",
          "{k: v for k, v in $x.items() if v >= $n}", n=(2, 9)),
    _kind("add_counts", "counts > counts", "add $n to each value", "{k: v + $n for k, v in $x.items()}", n=(1, 9)),
    _kind("long_keys", "counts > counts", "keep the entries whose key has more than $n letters",
          "{k: v for k, v in $x.items() if len(k) > $n}", n=(3, 6)),
    _kind("best_keys", "counts > words", "list the keys by value from high to low, and equal ones by alphabet",
          "sorted($x, key=lambda k: (-$x[k], k))"),
    _kind("sum_values", "counts > number", "take the sum of the values", "sum($x.values())"),
    # Tables
    _kind("column", "rows > numbers", "list the values of 'count'", "[row['count'] for row in $x]"),
    _kind("names_over", "rows > words", "list the 'name' of each row with a 'count' above $n",
          "[row['name'] for row in $x if row['count'] > $n]", n=(5, 25)),
    _kind("as_dict", "rows > counts", "make a dict from 'name' to 'count'",
          "{row['name']: row['count'] for row in $x}"),
    # Dates
    _kind("add_days", "day > day", "go $n days on", "(date.fromisoformat($x) + timedelta($n)).isoformat()", _DATES,
          n=(2, 60)),
    _kind("month_start", "day > day", "take the first day of its month", "$x[:8] + '01'"),
    _kind("weekday", "day > number", "take the weekday as a number, Monday is $n",
          "date.fromisoformat($x).weekday() + $n", _DATES, n=(0, 1)),
    _kind("year_day", "day > number", "take its number in the year, 1 for January 1",
          "date.fromisoformat($x).timetuple().tm_yday", _DATES),
    _kind("keep_month", "days > days", "keep the dates in month $n or later of their year",
          "[d for d in $x if int(d[5:7]) >= $n]", n=(4, 8)),
    _kind("sort_days", "days > days", "sort the dates from early to late", "sorted($x)"),
    _kind("day_span", "days > number", "count the days from the earliest to the latest date, 0 if there is none",
          "(date.fromisoformat(max($x)) - date.fromisoformat(min($x))).days if $x else 0", _DATES),
    _kind("last_day", "days > day", "take the latest date", "max($x)"),
    # Parsing
    _kind("parse_line", "line > numbers", "read the numbers between the commas", "[int(n) for n in $x.split(',')]"),
    _kind("parse_record", "record > counts", "make a dict from each name to its number",
          "{k: int(v) for k, v in (p.split('=') for p in $x.split(';'))}"),
    _kind("minutes", "clock > number", "take the minutes since $n:00", "int($x[:2]) * 60 + int($x[3:]) - $n * 60",
          n=(0, 5)),
    _kind("span_minutes", "span > number", "take the minutes in all",
          "int($x.split('h')[0]) * 60 + int($x.split()[1][:-1])"),
)  # fmt: skip

HELD_OUT = frozenset((
    "keep_below", "drop_multiples", "every_other", "spread", "remainder", "backwards", "swap_letter", "initials",
    "keep_with", "long_keys", "names_over", "year_day", "span_minutes",
))  # fmt: skip
"""Kinds of the test split alone."""

SORTS: dict[str, tuple[str, str, str]] = {
    "numbers": ("numbers", "a list of whole numbers", "lists"),
    "number": ("number", "a whole number", "numbers"),
    "text": ("text", "a text", "strings"),
    "words": ("words", "a list of words", "lists"),
    "counts": ("counts", "a dict from words to whole numbers", "dicts"),
    "rows": ("rows", "a list of dicts with 'name' and 'count'", "dicts"),
    "day": ("day", "a date as text", "dates"),
    "days": ("days", "a list of dates as text", "dates"),
    "line": ("line", "a text of numbers with commas", "parsing"),
    "record": ("record", "a text of entries NAME=NUMBER with semicolons", "parsing"),
    "clock": ("clock", "a time of day as text", "parsing"),
    "span": ("span", "a duration as text", "parsing"),
}
"""Sorts of values: the parameter's name, what it is, and the topic."""


def draw(sort: str, rng: random.Random, split: Split) -> Any:
    """A value of the sort, of JSON types; its words are of the split."""

    def word() -> str:
        return lexicon.word(rng, split)

    match sort:
        case "numbers":
            return [rng.randint(-20, 40) for _ in range(rng.randint(4, 7))]
        case "number":
            return rng.randint(2, 400)
        case "text":
            return " ".join(w.capitalize() if rng.random() < 0.3 else w for w in draw("words", rng, split))
        case "words":
            found = [word() for _ in range(rng.randint(2, 4))]
            return rng.sample([*found, *rng.choices(found, k=rng.randint(0, 2))], k=len(found))
        case "counts":
            return {word(): rng.randint(1, 15) for _ in range(rng.randint(2, 4))}
        case "rows":
            return [{"name": word(), "count": rng.randint(1, 30)} for _ in range(rng.randint(2, 4))]
        case "day":
            return lexicon.date(rng)
        case "days":
            return [lexicon.date(rng) for _ in range(rng.randint(2, 4))]
        case "line":
            return rng.choice((",", ", ")).join(str(n) for n in draw("numbers", rng, split))
        case "record":
            return ";".join(f"{name}={count}" for name, count in draw("counts", rng, split).items())
        case "clock":
            return f"{rng.randint(6, 23):02d}:{rng.randint(0, 59):02d}"
        case _:
            return f"{rng.randint(0, 30)}h {rng.randint(0, 59)}m"
