"""The family `reports`: a short report on a small table, which no code can verify and a critic has to grade.

The critic sees the request, the answer and a rubric. What it is worth is measured by the program `hidden`, which it
never sees and which trains nothing. `variants` are reports whose order is known, to measure a critic in pairs.

The test split has its own names, things and readers, all by the word stock's split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from random import Random
from typing import Any

from openk2.core import Split, Task, Verdict
from openk2.rl.gym.question import QuestionFamily
from openk2.rl.gym.report_truth import WORDS, Fact, cells, key_facts, means_something, over_long, ranked
from openk2.rl.gym.report_truth import Hidden as Hidden
from openk2.rl.gym.report_truth import hidden as hidden
from openk2.worlds.families import lexicon

VARIANTS: dict[str, int] = {
    "good": 2,
    "wrong number": 1,
    "wrong name": 0,
    "missing fact": 1,
    "invented claim": 1,
    "off topic": 0,
    "praise": 1,
    "justification": 1,
}
"""The reports that `variants` makes, in this order, each with its grade: one of a higher grade is the better one."""

_ASKS: dict[str, str] = {
    "highest": "which {row} has the most {thing}, and how many",
    "lowest": "which {row} has the fewest {thing}, and how many",
    "range": "the most and the fewest {thing}, with the numbers",
    "compare": "{thing} of {one} and {other}: who has more, with both numbers",
    "row": "all numbers of {one}",
    "total": "the total of {thing}, and which {row} has the most",
    "ranking": "the first two {rows} by {thing}, with their numbers",
}
_LEVELS = (("highest", "lowest"), ("range", "compare", "row"), ("total", "ranking"))
_RUBRICS: dict[str, str] = {
    "highest": "It says that {top} has the most {thing}, {most}.",
    "lowest": "It says that {bottom} has the fewest {thing}, {least}.",
    "range": "It says that {top} has the most {thing}, {most}, and {bottom} the fewest, {least}.",
    "compare": "It gives the {thing} of {one} and of {other}, and says who has more.",
    "row": "It gives each number of {one}.",
    "total": "It gives the total of {thing} over all {rows}, and says that {top} has the most.",
    "ranking": "It says that {top} has the most {thing}, {most}, and who comes second, with the number.",
}
_ROWS = (("town", "towns"), ("shop", "shops"), ("team", "teams"))
_INVENTED = (
    "This is because of the good weather.",
    "Next year it will be more.",
    "The people there work very hard.",
    "The numbers have grown since last year.",
)
_PRAISE = (
    "What a great table!",
    "Great question!",
    "That is a very interesting request.",
    "You have a wonderful table.",
)
_JUSTIFICATION = (
    "This report is clear and short.",
    "This report meets all the requirements.",
    "All numbers are taken from the table.",
    "This answer fulfils your request.",
)


class ReportsFamily(QuestionFamily):
    """Short reports on a small table, which a critic has to grade."""

    name = "reports"
    skills: Sequence[str] = tuple(_ASKS)
    verified = False

    def sample(self, split: Split, seed: int) -> Task:
        rng = lexicon.make_rng(self.name, split, seed)
        level = rng.randrange(len(_LEVELS))
        focus = rng.choice(_LEVELS[level])
        width = max(rng.randint(1, 1 + level), 2 if focus == "row" else 1)
        row, rows = rng.choice(_ROWS)
        names = _distinct(rng, rng.randint(3 + level, 4 + 2 * level), partial(lexicon.place, rng, split))
        things = _distinct(rng, width, lambda: lexicon.plural(lexicon.noun(rng, split)), names)
        most = rng.choice((30, 100)) if level < 2 else 900
        columns = [rng.sample(range(2, most), len(names)) for _ in things]
        one, other = rng.sample(names, 2)
        [first] = _distinct(rng, 1, partial(lexicon.first_name, rng, split), [*names, *things])
        reader = f"{first} the {rng.choice(lexicon.nouns(split, 'person'))}"
        data: dict[str, Any] = {
            "level": level + 1,
            "focus": focus,
            "row": row,
            "rows": rows,
            "names": names,
            "things": things,
            "values": [list(line) for line in zip(*columns, strict=True)],
            "thing": rng.choice(things),
            "one": one,
            "other": other,
            "reader": reader,
            "sentences": min(4, 1 + level + rng.randint(0, 1)),
        }
        data["format"] = rng.choice(("csv", "markdown", "sentences"))
        words = _words(data)
        data["rubric"] = (
            _RUBRICS[focus].format(**words)
            + f" Every number and name is as in the table, and nothing is told that the table does not say. It is for "
            f"{reader}, and leaves out what was not asked for."
        )
        limit = "one sentence" if data["sentences"] == 1 else f"at most {data['sentences']} sentences"
        request = f"{_shown(data)}\n\nWrite a report for {reader} in {limit}. Focus: {_ASKS[focus].format(**words)}."
        return Task(f"{self.name}/{split}/{seed}", self.name, focus, seed, request, data, split)

    def check(self, task: Task, answer: str) -> Verdict:
        """No verdict, but on what is no report at all: nothing, or far more than was asked for."""
        if not answer.strip():
            return Verdict(False, "there is no report", 0.0)
        if over_long(task.data, answer):
            return Verdict(False, f"the report is far longer than {WORDS} words a sentence", 0.0)
        return Verdict(None, "a critic has to judge this")

    def gold(self, task: Task) -> str:
        """A report that tells every key fact, and nothing else."""
        return _report(key_facts(task.data), lexicon.make_rng(self.name, task.split, task.seed, "gold"))


def variants(task: Task, seed: int) -> list[str]:
    """A report of each kind in `VARIANTS`, in its order and in one style; a pure function of (task, seed)."""
    rng = lexicon.make_rng("reports variants", task.split, task.seed, seed)
    style = rng.random()

    def told(facts: Sequence[Fact]) -> str:
        return _report(facts, Random(style))

    key, table = key_facts(task.data), cells(task.data)
    names = sorted({fact.row for fact in key if fact.row})
    others = [name for name in task.data["names"] if name not in {*names, *(fact.other for fact in key)}]
    number = rng.choice([i for i, fact in enumerate(key) if fact.kind in ("value", "total")])
    # Larger than any number of the table, so that it is wrong for whomever it is told of.
    wrong = replace(key[number], value=key[number].value + max(table.values()) + rng.randint(1, 20))
    swapped, other, aside = rng.choice(names), rng.choice(others), rng.choice(others)
    thing, left_out = rng.choice(task.data["things"]), rng.randrange(len(key))
    return [
        good := told(key),
        told([*key[:number], wrong, *key[number + 1 :]]),
        told([_renamed(fact, swapped, other) for fact in key]),
        told([*key[:left_out], *key[left_out + 1 :]]),
        f"{good} {rng.choice(_INVENTED)}",
        f"{aside} has {table[aside, thing]} {thing}.",
        f"{rng.choice(_PRAISE)} {good}",
        f"{good} {rng.choice(_JUSTIFICATION)}",
    ]


def _renamed(fact: Fact, name: str, by: str) -> Fact:
    return replace(fact, row=by if fact.row == name else fact.row, other=by if fact.other == name else fact.other)


def _report(facts: Sequence[Fact], rng: Random) -> str:
    """Facts in sentences: what is said of one row together."""
    said: list[str] = []
    if facts[0].kind == "more":
        more, *facts = facts
        both = " against ".join(f"{fact.value:g}" for fact in facts) if len(facts) > 1 else ""
        said.append(f"{more.row} has more {more.column} than {more.other}{f': {both}' if both else ''}.")
        facts = [] if both else facts
    for row, group in groupby(facts, key=lambda fact: fact.row):
        those = list(group)
        kinds = {fact.kind for fact in those}
        if "total" in kinds:
            total = f"{those[0].value:g} {those[0].column}"
            said.append(rng.choice((f"In total there are {total}.", f"The total is {total}.")))
            continue
        values = [f"{fact.value:g} {fact.column}" for fact in those if fact.kind == "value"]
        counted = " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)
        thing = those[0].column
        rank = next((kind for kind in ("most", "least", "second") if kind in kinds), None)
        if rank is None:
            said.append(f"{row} has {counted}.")
        elif rank == "second":
            said.append(f"{row} comes second with {counted}." if values else f"{row} comes second.")
        else:
            most = "most" if rank == "most" else "fewest"
            forms = (
                f"{row} has the {most} {thing}, {counted.split(' ')[0]}.",
                f"With {counted}, {row} has the {most}.",
            )
            said.append(rng.choice(forms) if values else f"{row} has the {most} {thing}.")
    return " ".join(said)


def _distinct(rng: Random, count: int, make: Callable[[], str], taken: Sequence[str] = ()) -> list[str]:
    """Different words, none of which has a meaning of its own in a report."""
    found: list[str] = []
    while len(found) < count:
        word = make()
        known = {one.lower().rstrip("s") for one in (*found, *taken)}
        if word.lower().rstrip("s") not in known and len(word) > 2 and not means_something(word):
            found.append(word)
    return found


def _words(data: Mapping[str, Any]) -> dict[str, Any]:
    """What frames of the request and of the rubric are filled with: nothing but what the table says."""
    order, table, thing = ranked(data, data["thing"]), cells(data), data["thing"]
    ends = {"top": order[0], "bottom": order[-1], "most": table[order[0], thing], "least": table[order[-1], thing]}
    return {key: data[key] for key in ("row", "rows", "thing", "one", "other")} | ends


def _shown(data: Mapping[str, Any]) -> str:
    """The table as the request shows it."""
    names, things, values = data["names"], data["things"], data["values"]
    if data["format"] == "sentences":
        return " ".join(
            f"{name} has {', '.join(f'{value} {thing}' for value, thing in zip(line, things, strict=True))}."
            for name, line in zip(names, values, strict=True)
        )
    lines = [[data["row"], *things], *([name, *map(str, line)] for name, line in zip(names, values, strict=True))]
    if data["format"] == "csv":
        return "\n".join(",".join(line) for line in lines)
    lines.insert(1, ["-"] * len(lines[0]))
    return "\n".join(f"|{'|'.join(line)}|" for line in lines)
