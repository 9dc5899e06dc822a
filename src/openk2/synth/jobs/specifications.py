"""Functions as they are specified: names, words, code, calls that show what it gives, and slips that calls find."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from openk2.synth.jobs.job import (
    filled,
    word,
    words,
)


@dataclass(frozen=True, slots=True)
class Spec:
    """A function: what it has to do, in words and in code, the calls that it is judged by, the first of which are the
    visible tests, and bugs: a piece of the code and what a careless hand makes of it."""

    module: str
    function: str
    takes: str
    says: str
    code: str
    calls: tuple[str, ...]
    bugs: tuple[tuple[str, str], ...]


def _calls(function: str, *arguments: object) -> tuple[str, ...]:
    """Calls with these arguments, each a tuple."""
    return tuple(f"{function}({', '.join(map(repr, one if isinstance(one, tuple) else (one,)))})" for one in arguments)


def _slug(rng: random.Random) -> Spec:
    separator, longest = rng.choice("-_."), rng.randint(10, 18)
    name = rng.choice(("slugify", "to_slug", "make_slug", "file_stem"))
    a, b, c, d = words(rng, 4)
    code = filled(
        """
        import re


        def $name(title):
            parts = re.findall(r"[a-z0-9]+", title.lower())
            return "$separator".join(parts)[:$longest].strip("$separator")
        """,
        name=name, separator=separator, longest=longest,
    )  # fmt: skip
    cut = "x" * (longest - 1)
    return Spec(
        rng.choice(("slug", "slugs", "titles")), name, f"{name}(title)",
        f"It gives the title in lower case with everything between letters and digits as one {separator!r}, cut to "
        f"{longest} characters, with no {separator!r} at either end.",
        code,
        _calls(name, f"{a.title()}  {b.title()}!", f"--{c}--", f"{cut} {d}", "", f"{a}, {b} & {c}", f"{d.upper()}7",
               f"{a} {b} {c} {d}", "!?", f" {c}\t{d} ", f"{cut}y {a}"),
        (('[:$longest].strip("$separator")'.replace("$longest", str(longest)).replace("$separator", separator),
          f"[:{longest}]"), (".lower()", ""), (f"[:{longest}]", "")),
    )  # fmt: skip


def _chunks(rng: random.Random) -> Spec:
    name, keep = rng.choice(("chunks", "batches", "pages", "split_every")), rng.random() < 0.5
    rest = "The last one may be shorter." if keep else "What is left over at the end and fills no list is dropped."
    end = "len(items)" if keep else "len(items) - size + 1"
    other = "len(items) - size + 1" if keep else "len(items)"
    code = filled(
        """
        def $name(items, size):
            if size < 1:
                raise ValueError("size must be at least 1")
            return [items[start : start + size] for start in range(0, $end, size)]
        """,
        name=name, end=end,
    )  # fmt: skip
    n = rng.randint(2, 4)
    items = [rng.randint(0, 99) for _ in range(3 * n + 1)]
    return Spec(
        rng.choice(("chunking", "lists", "paging")), name, f"{name}(items, size)",
        f"It cuts a list into a list of lists with size items each, in order. {rest} "
        "A size below 1 raises ValueError.",
        code,
        _calls(name, (items, n), (items[:-1], n), (items[:2], 0), ([], 3), (items, 1), (items, len(items)),
               (items, len(items) + 1), (items, -1), (words(rng, 5), 2)),
        ((f"range(0, {end}, size)", f"range(0, {other}, size)"), ("size < 1", "size < 2"),
         ("start + size]", "start + 2]")),
    )  # fmt: skip


def _run_length(rng: random.Random) -> Spec:
    name, ones = rng.choice(("compress", "run_lengths", "encode_runs")), rng.random() < 0.5
    shown = 'f"{letter}{count}"' if ones else 'f"{letter}{count}" if count > 1 else letter'
    rest = "" if ones else " A letter that stands alone has no number."
    code = filled(
        """
        from itertools import groupby


        def $name(text):
            parts = []
            for letter, run in groupby(text):
                count = len(list(run))
                parts.append($shown)
            return "".join(parts)
        """,
        name=name, shown=shown,
    )  # fmt: skip

    def runs() -> str:
        return "".join(rng.choice("abcxyz") * rng.randint(1, 4) for _ in range(rng.randint(3, 7)))

    other = 'f"{count}{letter}"'
    return Spec(
        rng.choice(("runs", "rle", "packing")), name, f"{name}(text)",
        f"It writes each run of equal letters as the letter and how often it occurs, 'aaab' as "
        f"{'a3b1' if ones else 'a3b'!r}.{rest} Upper and lower case are different letters.",
        code,
        _calls(name, "aaab", runs(), "", "aAa", runs() + "q" * 12, "z", runs(), "  b"),
        ((shown, other), ("groupby(text)", "groupby(text.lower())"), ("groupby(text)", "groupby(sorted(text))")),
    )  # fmt: skip


def _moving(rng: random.Random) -> Spec:
    name, digits, early = (
        rng.choice(("moving_average", "rolling_mean", "smooth")),
        rng.randint(1, 3),
        rng.random() < 0.5,
    )
    first = "0" if early else "size - 1"
    rest = (
        "At the beginning, where there are fewer, it is the mean of those that are there."
        if early
        else "It begins with the first value that has size - 1 values before it."
    )
    code = filled(
        """
        def $name(values, size):
            means = []
            for end in range($first, len(values)):
                window = values[max(0, end - size + 1) : end + 1]
                means.append(round(sum(window) / len(window), $digits))
            return means
        """,
        name=name, first=first, digits=digits,
    )  # fmt: skip
    values = [rng.randint(0, 500) / 10 for _ in range(9)]
    return Spec(
        rng.choice(("averages", "series", "smoothing")), name, f"{name}(values, size)",
        f"It gives the list of the means of each value and the size - 1 values before it, rounded to {digits} "
        f"digits. {rest}",
        code,
        _calls(name, (values, 3), (values[:4], 2), ([1, 2, 4], 1), ([], 2), (values, 9), (values, 4), ([5, 6], 5),
               (values[::-1], 5)),
        (("end - size + 1)", "end - size)"), (f"range({first},", f"range({'size - 1' if early else '0'},"),
         (f", {digits})", ")")),
    )  # fmt: skip


def _duration(rng: random.Random) -> Spec:
    name = rng.choice(("parse_duration", "seconds_of", "to_seconds"))
    units = dict(rng.sample([("w", 604800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1)], 4))
    units = dict(sorted(units.items(), key=lambda pair: -pair[1]))
    letters = "".join(units)
    code = filled(
        """
        import re

        UNITS = $units


        def $name(text):
            parts = re.findall(r"(\\d+)([$letters])", text)
            if not parts or "".join(number + unit for number, unit in parts) != text:
                raise ValueError(f"no duration: {text!r}")
            return sum(int(number) * UNITS[unit] for number, unit in parts)
        """,
        name=name, units=units, letters=letters,
    )  # fmt: skip
    a, b, c, d = units
    missing = next(letter for letter in "wdhms" if letter not in letters)
    n = [rng.randint(2, 40) for _ in range(6)]
    return Spec(
        rng.choice(("durations", "timespan", "intervals")), name, f"{name}(text)",
        f"It gives the seconds of a text such as '{n[0]}{a}{n[1]}{c}', in which "
        + ", ".join(f"{unit} is {size:,} s" for unit, size in units.items())
        + ". Anything else, the empty text too, raises ValueError.",
        code,
        _calls(name, f"{n[0]}{a}{n[1]}{c}", f"{n[2]}{d}", "", f"{n[3]}{b} ", f"{n[4]}{a}{n[5]}{b}{n[0]}{c}{n[1]}{d}",
               f"3{missing}", "12", f"x{n[0]}{a}", f"{n[5]}{d}{n[4]}{a}", f"1{a}1{a}"),
        (("if not parts or ", "if parts and "), (' or "".join(number + unit for number, unit in parts) != text', ""),
         (" * UNITS[unit]", " + UNITS[unit]")),
    )  # fmt: skip


def _intervals(rng: random.Random) -> Spec:
    name, touching = rng.choice(("merge", "merge_spans", "join_ranges")), rng.random() < 0.5
    sign, other = ("<=", "<") if touching else ("<", "<=")
    rest = "Two that only touch, such as (1, 3) and (3, 5), are " + ("joined too." if touching else "not joined.")
    code = filled(
        """
        def $name(spans):
            merged = []
            for start, end in sorted(spans):
                if merged and start $sign merged[-1][1]:
                    merged[-1] = (merged[-1][0], max(merged[-1][1], end))
                else:
                    merged.append((start, end))
            return merged
        """,
        name=name, sign=sign,
    )  # fmt: skip

    def spans(count: int) -> list[tuple[int, int]]:
        starts = [rng.randint(0, 40) for _ in range(count)]
        return [(start, start + rng.randint(1, 8)) for start in starts]

    return Spec(
        rng.choice(("spans", "ranges", "bookings")), name, f"{name}(spans)",
        f"It gives a list of (start, end) pairs in order, with those that overlap joined into one. {rest}",
        code,
        _calls(name, [(1, 3), (3, 5)], [(5, 9), (1, 6)], [(1, 20), (2, 4), (30, 31)], spans(4), [], spans(7), spans(9),
               [(0, 1)], spans(6)),
        (("max(merged[-1][1], end)", "end"), (f"start {sign} merged", f"start {other} merged"),
         ("sorted(spans)", "spans")),
    )  # fmt: skip


def _top(rng: random.Random) -> Spec:
    name, least = rng.choice(("top_words", "most_common", "frequent_words")), rng.randint(3, 5)
    code = filled(
        """
        import re
        from collections import Counter


        def $name(text, count):
            found = [word for word in re.findall(r"[a-z]+", text.lower()) if len(word) >= $least]
            return sorted(Counter(found).items(), key=lambda pair: (-pair[1], pair[0]))[:count]
        """,
        name=name, least=least,
    )  # fmt: skip
    own = [*words(rng, 6), "a" * (least - 1), "b" * least]

    def text(count: int) -> str:
        chosen = [rng.choice(own) for _ in range(count)]
        return " ".join(one.title() if rng.random() < 0.3 else one for one in chosen) + rng.choice((".", "!", ", then"))

    tie = f"{own[1]} {own[0]} {own[1]} {own[0]} {'z' * least}"
    short = "b" * least + " " + "a" * (least - 1) + " " + "a" * (least - 1)
    return Spec(
        rng.choice(("wordcount", "frequency", "texts")), name, f"{name}(text, count)",
        f"It gives the count most frequent words with at least {least} letters as (word, times) pairs, in lower case, "
        "the most frequent first, and equally frequent ones in alphabetical order.",
        code,
        _calls(name, (f"zeta {tie}" if least < 5 else tie, 3), (short, 2), (text(12), 3), (tie, 2), ("", 4),
               (text(30), 9), (text(20), 0), (text(25), 2)),
        ((f">= {least}", f"> {least}"), ("(-pair[1], pair[0])", "(pair[1], pair[0])"), (".lower()", "")),
    )  # fmt: skip


def _check_digit(rng: random.Random) -> Spec:
    name, modulus = rng.choice(("check_digit", "control_digit", "checksum")), rng.choice((7, 10, 11, 13))
    first, second = rng.sample((1, 2, 3, 5, 7, 9), 2)
    if modulus == 7 and 7 in (first, second):
        modulus = 11
    code = filled(
        """
        def $name(number):
            total = 0
            for place, digit in enumerate(reversed(number)):
                weight = $first if place % 2 == 0 else $second
                total += int(digit) * weight
            return -total % $modulus
        """,
        name=name, first=first, second=second, modulus=modulus,
    )  # fmt: skip
    numbers = ["".join(rng.choice("123456789") for _ in range(rng.randint(2, 9))) for _ in range(6)]
    return Spec(
        rng.choice(("checkdigits", "digits", "articles")), name, f"{name}(number)",
        f"number is a text of digits. The digits are weighted from the right with {first}, {second}, {first}, {second} "
        f"and so on and added up; the result is what is missing to the next multiple of {modulus}, from 0 to "
        f"{modulus - 1}.",
        code,
        _calls(name, "12", "46", numbers[0], numbers[1], "0", "7", *numbers[2:], "19" * 4),
        (("-total %", "total %"), ("enumerate(reversed(number))", "enumerate(number)"), (f"return -total % {modulus}",
         f"return {modulus} - total % {modulus}")),
    )  # fmt: skip


def _flatten(rng: random.Random) -> Spec:
    name, separator = rng.choice(("flatten", "flat_keys", "dotted")), rng.choice((".", "/", "__", ":"))
    code = filled(
        """
        def $name(tree, prefix=""):
            flat = {}
            for key, value in tree.items():
                path = f"{prefix}$separator{key}" if prefix else str(key)
                if isinstance(value, dict) and value:
                    flat.update($name(value, path))
                else:
                    flat[path] = value
            return flat
        """,
        name=name, separator=separator,
    )  # fmt: skip
    a, b, c, d = words(rng, 4)
    n = rng.randint(1, 99)
    return Spec(
        rng.choice(("trees", "settings", "nested")), name, f"{name}(tree)",
        f"It makes one flat dict of nested ones; the keys on the way are joined by {separator!r}. An empty dict stays "
        "a value, and so does a list.",
        code,
        _calls(name, ({a: {b: n}},), ({a: {b: {c: n, d: []}}, d: 0},), ({a: {}},), ({},), ({a: {b: {}, c: {d: None}}},),
               ({1: {2: 3}},), ({a: [{b: n}]},), ({d: {c: {b: {a: n}}}, a: n},)),
        ((f"{{prefix}}{separator}{{key}}", f"{{key}}{separator}{{prefix}}"), (" and value:", ":"),
         (f"{name}(value, path)", f"{name}(value, key)")),
    )  # fmt: skip


def _rotate(rng: random.Random) -> Spec:
    name, clockwise = rng.choice(("rotate", "turn", "rotated")), rng.random() < 0.5
    step = "[list(row) for row in zip(*rows[::-1])]" if clockwise else "[list(row) for row in zip(*rows)][::-1]"
    other = "[list(row) for row in zip(*rows)][::-1]" if clockwise else "[list(row) for row in zip(*rows[::-1])]"
    code = filled(
        """
        def $name(rows, turns=1):
            rows = [list(row) for row in rows]
            for _ in range(turns % 4):
                rows = $step
            return rows
        """,
        name=name, step=step,
    )  # fmt: skip

    def rows(height: int, width: int) -> list[list[int]]:
        return [[rng.randint(0, 9) for _ in range(width)] for _ in range(height)]

    return Spec(
        rng.choice(("grids", "matrix", "boards")), name, f"{name}(rows, turns=1)",
        f"It gives the list of rows turned {'clockwise' if clockwise else 'counter-clockwise'} by a right angle, "
        "turns times; a negative number turns the other way. The rows that were given stay as they are.",
        code,
        _calls(name, [[1, 2], [3, 4]], (rows(2, 3), 1), ([[1, 2, 3]], -1), (rows(3, 2), 2), (rows(3, 3), 0),
               (rows(2, 4), 3), (rows(1, 1), 7), (rows(2, 3), -2), (rows(3, 2), 5)),
        ((f"rows = {step}", f"rows = {other}"), ("range(turns % 4)", "range(turns)"), ("turns % 4", "turns % 2")),
    )  # fmt: skip


def _brackets(rng: random.Random) -> Spec:
    name = rng.choice(("balanced", "is_balanced", "well_formed"))
    pairs = dict(rng.sample([("(", ")"), ("[", "]"), ("{", "}"), ("<", ">")], 3))
    code = filled(
        """
        PAIRS = $pairs


        def $name(text):
            waiting = []
            for letter in text:
                if letter in PAIRS:
                    waiting.append(PAIRS[letter])
                elif letter in PAIRS.values():
                    if not waiting or waiting.pop() != letter:
                        return False
            return not waiting
        """,
        name=name, pairs=pairs,
    )  # fmt: skip
    (a, x), (b, y), (c, z) = pairs.items()
    w = word(rng)
    return Spec(
        rng.choice(("brackets", "syntax", "nesting")), name, f"{name}(text)",
        f"It says whether the brackets {' '.join(open_ + close for open_, close in pairs.items())} of a text are "
        "closed in the right order. Other characters, other brackets too, do not count.",
        code,
        _calls(name, f"{a}{b}{y}{x}", f"{a}{w}", f"{a}{b}{x}{y}", f"{w}{x}", "", f"{a}{x}{b}{y}{c}{z}", f"{z}{c}",
               f"{a}{a}{x}", f"{w} {c}{a}{b}{w}{y}{x}{z}", f"{a}{b}{c}"),
        (("return not waiting", "return True"), ("not waiting or waiting.pop()", "waiting and waiting.pop()"),
         ("        return False", "        continue")),
    )  # fmt: skip


def _price(rng: random.Random) -> Spec:
    name = rng.choice(("total_price", "price_of", "amount_due"))
    few, many = rng.randint(5, 12), rng.randint(20, 60)
    low, high = rng.choice((5, 8, 10)), rng.choice((15, 20, 25))
    code = filled(
        """
        def $name(unit_cents, count):
            if count < 0:
                raise ValueError("count must not be negative")
            percent = 0
            if count >= $many:
                percent = $high
            elif count >= $few:
                percent = $low
            return unit_cents * count * (100 - percent) // 100
        """,
        name=name, few=few, many=many, low=low, high=high,
    )  # fmt: skip
    cents = [rng.randint(101, 999) for _ in range(4)]
    return Spec(
        rng.choice(("pricing", "shop", "invoice")), name, f"{name}(unit_cents, count)",
        f"It gives the price of count pieces in whole cents, rounded down: {low} percent off from {few} pieces on, "
        f"{high} percent off from {many} on. A negative count raises ValueError.",
        code,
        _calls(name, (cents[0], few), (cents[1], many), (cents[2], 1), (cents[0], -1), (cents[3], few - 1),
               (cents[1], many - 1), (cents[2], 0), (cents[3], many + few), (1, few + 1)),
        ((f"count >= {few}", f"count > {few}"), (f"count >= {many}", f"count > {many}"), ("count < 0", "count < -1")),
    )  # fmt: skip


def _caesar(rng: random.Random) -> Spec:
    name, digits = rng.choice(("shift", "encode", "rotate_letters")), rng.random() < 0.5
    more = "        elif letter.isdecimal():\n            letter = str((int(letter) + step) % 10)\n" if digits else ""
    rest = "Digits are moved in the same way from 0 to 9; the" if digits else "The"
    code = filled(
        """
        def $name(text, step):
            moved = []
            for letter in text:
                if "a" <= letter <= "z":
                    letter = chr((ord(letter) - ord("a") + step) % 26 + ord("a"))
                elif "A" <= letter <= "Z":
                    letter = chr((ord(letter) - ord("A") + step) % 26 + ord("A"))
        $more        moved.append(letter)
            return "".join(moved)
        """,
        name=name, more="$more",
    ).replace("$more", more)  # fmt: skip
    a, b = words(rng, 2)
    n = rng.randint(3, 20)
    return Spec(
        rng.choice(("cipher", "letters", "secret")), name, f"{name}(text, step)",
        f"It moves each letter by step places in the alphabet, around its end, upper case stays upper case. {rest} "
        "rest stays as it is. A negative step moves back.",
        code,
        _calls(name, ("xyz", n), (a.title(), n), (f"{b} 1999!", -n), ("", 3), ("AZaz", 1), (a, 26), (b, 27 + n),
               (f"{a.upper()}-{b}", -3), ("09", n)),
        (("+ step) % 26 + ord(\"a\")", "+ step) + ord(\"a\")"), ('% 26 + ord("A")', '% 26 + ord("a")'),
         ("(text, step):\n", "(text, step):\n    step = abs(step)\n")),
    )  # fmt: skip


def _versions(rng: random.Random) -> Spec:
    name, prefix = rng.choice(("newest", "latest", "highest_version")), rng.choice(("v", "r", "release-"))
    code = filled(
        """
        def _key(version):
            return [int(part) for part in version.removeprefix("$prefix").split(".")]


        def $name(versions):
            return max(versions, key=_key, default=None)
        """,
        name=name, prefix=prefix,
    )  # fmt: skip

    def some(count: int) -> list[str]:
        return [
            rng.choice(("", prefix)) + ".".join(str(rng.randint(0, 14)) for _ in range(rng.randint(2, 3)))
            for _ in range(count)
        ]

    major = rng.randint(1, 8)
    return Spec(
        rng.choice(("releases", "version", "tags")), name, f"{name}(versions)",
        f"It gives the highest of a list of versions such as '{prefix}{major}.10.2', which are compared number by "
        f"number; '{prefix}' at the front may be there or not. 1.2 is lower than 1.2.0. Of no versions it is None.",
        code,
        _calls(name, ([f"{major}.9", f"{major}.10"],), ([f"{prefix}{major}.2.0", f"{major}.1.30"],), ([],),
               (["1.2", "1.2.0"],), (some(3),), (some(6),), (some(9),), ([f"{prefix}0.9", "0.8.9"],),
               (["9.0", "10.0"],)),
        (("int(part)", "part"), (f'.removeprefix("{prefix}")', ""), (", default=None", "")),
    )  # fmt: skip


SPECS: dict[str, Callable[[random.Random], Spec]] = {
    "slug": _slug, "chunks": _chunks, "run_length": _run_length, "moving_average": _moving, "duration": _duration,
    "intervals": _intervals, "top_words": _top, "check_digit": _check_digit, "flatten": _flatten, "rotate": _rotate,
    "brackets": _brackets, "price": _price, "caesar": _caesar, "versions": _versions,
}  # fmt: skip
