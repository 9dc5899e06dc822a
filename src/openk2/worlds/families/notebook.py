"""Questions about a CSV file, answered by running pandas: the notebook family.

The user's side is worded by a wide grammar. The expert's side is always the same: look at the header and two rows, look
at the values of the text columns if the request names a value without its column, compute with one line of pandas, and
say the result in one sentence. What counts as right is computed without pandas (`tables`, `notebook_check`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from openk2.core import Demonstration, Message, Split, Task, ToolCall, Verdict, World, compact_json
from openk2.worlds.families import lexicon
from openk2.worlds.families import notebook_words as words
from openk2.worlds.families.notebook_check import check_answer, final_answer
from openk2.worlds.families.phrasing import Phrase, request
from openk2.worlds.families.tables import STATISTICS, Column, Table, correlation, make_table, numbers
from openk2.worlds.inline import InlineMachine
from openk2.worlds.machine import MACHINE_SYSTEM, MACHINE_TOOLS

SKILLS = ("count", "mean", "sum", "minmax", "groupby", "filter", "topk", "correlation", "missing", "argmax")
TRIES = 60


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on rows. `named` says whether the request names the column, `text` whether the value is text."""

    column: str
    relation: str
    value: str
    named: bool
    text: bool


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked, exactly. `op` with one or two `columns`, per group of `by`, on the rows that pass all `filters`.

    `label` is the column that is answered with in `top` and `bottom` queries of `k` rows or groups.
    """

    op: str
    columns: tuple[str, ...] = ()
    by: str | None = None
    filters: tuple[Filter, ...] = ()
    label: str | None = None
    k: int = 0
    descending: bool = True


class Unfit(Exception):
    """The drawn table or query does not give a clear question; draw again."""


# ---------------------------------------------------------------------------------------------------------------------
# What is right, in plain Python.


def passing(table: Table, filters: Sequence[Filter]) -> Table:
    """The rows that pass. A missing cell passes nothing."""

    def holds(row: tuple[str, ...], f: Filter) -> bool:
        cell = row[table.index(f.column)]
        if cell == "":
            return False
        if f.relation == "==":
            return cell == f.value if f.text else float(cell) == float(f.value)
        left, right = (cell, f.value) if f.text else (float(cell), float(f.value))
        if f.relation == ">":
            return left > right  # type: ignore[operator]  # both text or both numbers
        if f.relation == "<":
            return left < right  # type: ignore[operator]
        return left >= right if f.relation == ">=" else left <= right  # type: ignore[operator]

    return Table(table.file, table.columns, tuple(r for r in table.rows if all(holds(r, f) for f in filters)))


def statistic(op: str, table: Table, name: str) -> float:
    """One number over a column; whole columns of integers without gaps give integers, except for means."""
    cells = [c for c in table.cells(name) if c != ""]
    if not cells:
        raise Unfit
    value = STATISTICS[op](numbers(cells))
    return round(value) if op in ("sum", "max", "min") and table.column(name).kind == "int" else value


def expectation(table: Table, query: Query) -> dict[str, Any]:
    """What an answer must say, in the form that `notebook_check` reads. Raises Unfit when it is not clear-cut."""
    rows = passing(table, query.filters)
    if query.filters and (len(rows.rows) < 2 or len(rows.rows) == len(table.rows)):
        raise Unfit
    expect: dict[str, Any] = {"facts": [], "names": [table.file, *(c.name for c in table.columns)], "allowed": []}
    expect["names"] += [f.value for f in query.filters if f.text]
    expect["allowed"] += [float(f.value) for f in query.filters if not f.text]
    match query.op:
        case "rows" if query.by is None:
            numbers_said: list[float] = [len(rows.rows)]
        case "columns":
            numbers_said = [len(table.columns)]
        case "distinct":
            numbers_said = [len({c for c in rows.cells(query.columns[0]) if c != ""})]
        case "correlation":
            numbers_said = [_correlation(rows, *query.columns)]
        case "missing":
            numbers_said = [rows.cells(query.columns[0]).count("")]
        case "missing_all":
            numbers_said = [sum(row.count("") for row in rows.rows)]
        case "missing_rows":
            numbers_said = [sum("" in row for row in rows.rows)]
        case "missing_most":
            return expect | _best(expect, {c.name: rows.cells(c.name).count("") for c in table.columns}, query)
        case "first_date" | "last_date":
            dates = [c for c in rows.cells(query.columns[0]) if c != ""]
            return expect | {"texts": [min(dates) if query.op == "first_date" else max(dates)]}
        case "range":
            numbers_said = [statistic(op, rows, query.columns[0]) for op in ("min", "max")]
        case "top_rows":
            return expect | _best(expect, _labelled(rows, str(query.label), query.columns[0]), query)
        case _ if query.by is not None:
            groups = _grouped(rows, query)
            if query.k:
                return expect | _best(expect, {label: values[0] for label, values in groups.items()}, query)
            facts = [{"label": label, "numbers": values} for label, values in groups.items()]
            return expect | {"facts": facts}
        case _:
            numbers_said = [statistic(query.op, rows, name) for name in query.columns]
    return expect | {"facts": [{"numbers": numbers_said}]}


def _correlation(rows: Table, x: str, y: str) -> float:
    pairs = [(float(a), float(b)) for a, b in zip(rows.cells(x), rows.cells(y), strict=True) if a and b]
    if len(pairs) < 5 or len({a for a, _ in pairs}) < 3 or len({b for _, b in pairs}) < 3:
        raise Unfit
    return correlation(pairs)


def _labelled(rows: Table, label: str, column: str) -> dict[str, float]:
    whole = rows.column(column).kind == "int"
    pairs = [(a, b) for a, b in zip(rows.cells(label), rows.cells(column), strict=True) if a and b]
    if len({a for a, _ in pairs}) < len(pairs):
        raise Unfit
    return {a: int(b) if whole else float(b) for a, b in pairs}


def _grouped(rows: Table, query: Query) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for label in sorted({c for c in rows.cells(str(query.by)) if c != ""}):
        part = passing(rows, (Filter(str(query.by), "==", label, True, True),))
        groups[label] = (
            [len(part.rows)] if query.op == "rows" else [statistic(query.op, part, name) for name in query.columns]
        )
    if len(groups) < 2:
        raise Unfit
    return groups


def _best(expect: dict[str, Any], values: dict[str, float], query: Query) -> dict[str, Any]:
    """The k first of a ranking. Unfit when rounding to two decimals could change it."""
    ranked = sorted(values.items(), key=lambda item: -item[1] if query.descending else item[1])
    if len(ranked) <= query.k:
        raise Unfit
    for (_, a), (_, b) in pairwise(ranked[: query.k + 1]):
        if abs(a - b) < 0.011:
            raise Unfit
    chosen, others = ranked[: query.k], [label for label, _ in ranked[query.k : query.k + 8]]
    if query.op == "missing_most" and chosen[0][1] == 0:
        raise Unfit
    said = {str(name).lower() for name in expect["names"]} | {label.lower() for label, _ in chosen}
    others = [label for label in others if label.lower() not in said]
    return {
        "facts": [{"label": label, "numbers": [value]} for label, value in chosen],
        "ordered": query.k > 1,
        "others": others,
        "allowed": [*expect["allowed"], query.k],
    }


# ---------------------------------------------------------------------------------------------------------------------
# How the expert computes it and says it.


def rows_code(query: Query) -> str:
    """The data frame of the rows that are asked about."""
    conditions = []
    for f in query.filters:
        value = f"'{f.value}'" if f.text and f.value not in ("True", "False") else f.value
        conditions.append(f"df['{f.column}'] {f.relation} {value}")
    if not conditions:
        return "df"
    return f"df[{conditions[0]}]" if len(conditions) == 1 else "df[" + " & ".join(f"({c})" for c in conditions) + "]"


def code(query: Query) -> str:
    """One line of pandas that prints the result."""
    df = rows_code(query)
    x = f"['{query.columns[0]}']" if query.columns else ""
    if len(query.columns) == 2:
        x = f"[['{query.columns[0]}', '{query.columns[1]}']]"
    match query.op:
        case "rows" if query.by is None:
            return f"print(len({df}))"
        case "columns":
            return "print(len(df.columns))"
        case "distinct":
            return f"print({df}{x}.nunique())"
        case "correlation":
            return f"print(round({df}['{query.columns[0]}'].corr({df}['{query.columns[1]}']), 2))"
        case "missing":
            return f"print({df}{x}.isna().sum())"
        case "missing_all":
            return f"print({df}.isna().sum().sum())"
        case "missing_rows":
            return f"print({df}.isna().any(axis=1).sum())"
        case "missing_most":
            return f"print({df}.isna().sum().nlargest(1).to_csv(header=False))"
        case "first_date":
            return f"print({df}{x}.min())"
        case "last_date":
            return f"print({df}{x}.max())"
        case "range":
            return f"print({df}{x}.min(), {df}{x}.max())"
        case "top_rows":
            best = "nlargest" if query.descending else "nsmallest"
            columns = f"[['{query.label}', '{query.columns[0]}']]"
            return f"print({df}.{best}({query.k}, '{query.columns[0]}'){columns}.to_csv(index=False))"
        case _ if query.by is not None:
            per_group = "size()" if query.op == "rows" else f"{query.op}().round(2)"
            x = "" if query.op == "rows" else x
            if query.k:
                best = "nlargest" if query.descending else "nsmallest"
                return f"print({df}.groupby('{query.by}'){x}.{per_group}.{best}({query.k}).to_csv(header=False))"
            return f"print({df}.groupby('{query.by}'){x}.{per_group}.to_csv())"
        case _ if len(query.columns) == 2:
            return f"print({df}{x}.{query.op}().round(2).to_csv(header=False))"
        case _:
            return f"print(round({df}{x}.{query.op}(), 2))"


def where_text(query: Query) -> str:
    """The conditions in words, for the answer."""
    parts = [f"{f.column} {'is' if f.relation == '==' else f.relation} {f.value}" for f in query.filters]
    return f" where {' and '.join(parts)}" if parts else ""


def sentence(query: Query, printed: str) -> str:
    """The answer in words, from what the code printed."""
    lines = printed.strip().split("\n")
    where = where_text(query)
    x = query.columns[0] if query.columns else ""
    both = " and ".join(query.columns)
    match query.op:
        case "rows" if query.by is None:
            return f"There are {lines[0]} rows{where}."
        case "columns":
            return f"There are {lines[0]} columns."
        case "distinct":
            return f"There are {lines[0]} different values of {x}{where}."
        case "correlation":
            return f"The correlation of {both}{where} is {lines[0]}."
        case "missing":
            return f"There are {lines[0]} missing values in {x}{where}."
        case "missing_all":
            return f"There are {lines[0]} missing values in total."
        case "missing_rows":
            return f"There are {lines[0]} rows with missing values."
        case "missing_most":
            name, count = lines[0].rsplit(",", 1)
            return f"The column with the most missing values is {name} with {count}."
        case "first_date" | "last_date":
            return f"The {'first' if query.op == 'first_date' else 'last'} {x}{where} is {lines[0]}."
        case "range":
            low, high = lines[0].split(" ")
            return f"The min of {x}{where} is {low} and the max is {high}."
        case "top_rows":
            items = [line.rsplit(",", 1) for line in lines[1:]]
            if query.k == 1:
                extreme = "highest" if query.descending else "lowest"
                return f"The {query.label} with the {extreme} {x}{where} is {items[0][0]} with {items[0][1]}."
            extreme = "top" if query.descending else "bottom"
            listed = ", ".join(f"{name} {value}" for name, value in items)
            return f"The {extreme} {query.k} by {x}{where}: {listed}."
        case _ if query.by is not None:
            what = "number of rows" if query.op == "rows" else f"{query.op} of {both}"
            if query.k:
                name, value = lines[0].rsplit(",", 1)
                extreme = "highest" if query.descending else "lowest"
                return f"The {query.by} with the {extreme} {what}{where} is {name} with {value}."
            cells = [line.split(",") for line in lines[1:]]
            listed = ", ".join(f"{c[0]} {' and '.join(c[1:])}" for c in cells)
            return f"The {what} by {query.by}{where}: {listed}."
        case _ if len(query.columns) == 2:
            first, second = (line.rsplit(",", 1)[1] for line in lines)
            return f"The {query.op} of {query.columns[0]}{where} is {first} and of {query.columns[1]} is {second}."
        case _:
            return f"The {query.op} of {x}{where} is {lines[0]}."


LIST_FILES = "import glob\nprint(glob.glob('*.csv'))"
LIST_VALUES = "for c in df.select_dtypes(exclude='number'):\n    print(c, df[c].unique()[:8].tolist())"


def look_code(file: str) -> str:
    """The expert's first look at a table."""
    return f"import pandas as pd\ndf = pd.read_csv('{file}')\nprint(df.head(2).to_csv(index=False))"


class Expert:
    """Writes a demonstration call by call against an in-process machine."""

    def __init__(self, request_text: str, folder: Path) -> None:
        self.machine = InlineMachine(folder)
        self.messages = [Message("system", MACHINE_SYSTEM), Message("user", request_text)]
        self.calls = 0

    def call(self, tool: str, **arguments: str) -> str:
        """Make one call and return what came back."""
        call = ToolCall(f"functions.{tool}:{self.calls}", tool, compact_json(arguments))
        self.calls += 1
        result = self.machine.call(call)
        self.messages.append(Message("assistant", tool_calls=(call,)))
        self.messages.append(Message("tool", result.content, tool_call_id=call.id, name=tool))
        return result.content

    def say(self, text: str) -> None:
        self.messages.append(Message("assistant", text))


def demonstrate_query(task: Task, query: Query) -> Demonstration:
    """The expert's whole conversation about one table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup(task, folder)
        expert = Expert(task.request, folder)
        if not task.data["file_named"]:
            expert.call("python", code=LIST_FILES)
        expert.call("python", code=look_code(task.data["file"]))
        if any(not f.named for f in query.filters):
            expert.call("python", code=LIST_VALUES)
        printed = expert.call("python", code=code(query))
        expert.say(sentence(query, printed))
    return Demonstration(task, MACHINE_TOOLS, tuple(expert.messages))


def setup(task: Task, folder: Path) -> None:
    """Put the table into the folder."""
    (folder / task.data["file"]).write_text(task.data["csv"])


def verify(task: Task, folder: Path, messages: Sequence[Message]) -> Verdict:
    """The file must be as it was, and the answer right."""
    path = folder / task.data["file"]
    if not path.is_file() or path.read_text(errors="replace") != task.data["csv"]:
        return Verdict(False, f"{task.data['file']} was changed")
    return check_answer(final_answer(messages), task.data["expect"])


# ---------------------------------------------------------------------------------------------------------------------
# How it is asked.


class Asker:
    """Draws one question about a table."""

    def __init__(self, rng: Random, split: Split, table: Table) -> None:
        self.rng, self.split, self.table = rng, split, table

    def one(self, columns: Sequence[Column]) -> Column:
        if not columns:
            raise Unfit
        return self.rng.choice(list(columns))

    def meant_by(self, mention: str) -> list[str]:
        """The numeric columns whose words include all words of a mention."""
        wanted = set(mention.lower().split())
        return [c.name for c in self.table.numeric if wanted <= {w.lower() for w in c.words}]

    def mention(self, column: Column) -> str:
        """A column as the user calls it; never one that could mean another column too."""
        rng = self.rng
        spaced = " ".join(column.words)
        roll = rng.random()
        if roll < 0.45 or column.name == spaced:
            return column.name
        full = f"{spaced} {column.unit}" if column.unit else spaced
        if roll < 0.6:
            return full
        choices = [spaced, full]
        if column.numeric:
            choices += [w for w in column.words if self.meant_by(w) == [column.name]]
            choices = [c for c in choices if len(self.meant_by(" ".join(c.split()[: len(column.words)]))) == 1]
            choices += [] if choices else [column.name]
        return rng.choice(choices)

    def numeric(self) -> tuple[tuple[str, ...], str]:
        """One numeric column, or the two that a shared word means, and how they are mentioned."""
        column = self.one(self.table.numeric)
        shared = [w for w in column.words if len(self.meant_by(w)) == 2]
        if shared and self.rng.random() < 0.6:
            word = self.rng.choice(shared)
            return tuple(self.meant_by(word)), word
        return (column.name,), self.mention(column)

    def single(self) -> tuple[str, str]:
        """One numeric column and its mention."""
        column = self.one(self.table.numeric)
        return column.name, self.mention(column)

    def group(self) -> tuple[str, Phrase]:
        """A column to group by, and the clause."""
        column = self.one([*self.table.kinds("category"), *self.table.kinds("flag")])
        return column.name, words.BY.say(self.rng, self.split, g=self.mention(column))

    def filters(self) -> tuple[tuple[Filter, ...], Phrase]:
        """One condition, sometimes two, and the clause."""
        first, clause = self.condition()
        if self.rng.random() < 0.2:
            second, more = self.condition()
            if second.column != first.column and first.named and second.named:
                return (first, second), Phrase(f"{clause} and {more}")
        return (first,), clause

    def condition(self) -> tuple[Filter, Phrase]:
        rng, split, table = self.rng, self.split, self.table
        column = self.one([c for c in table.columns if c.kind != "label"])
        mention = self.mention(column)
        if column.kind in ("category", "flag"):
            value = rng.choice(sorted({c for c in table.cells(column.name) if c}))
            if column.kind == "category" and rng.random() < 0.4:
                return Filter(column.name, "==", value, False, True), words.VALUE.say(rng, split, v=value)
            return Filter(column.name, "==", value, True, True), words.EQUAL.say(rng, split, c=mention, v=value)
        cells = sorted(c for c in table.cells(column.name) if c)
        if column.kind == "date":
            value = rng.choice(cells[len(cells) // 5 : -len(cells) // 5] or cells)
            after = rng.random() < 0.5
            clause = (words.AFTER if after else words.BEFORE).say(rng, split, c=mention, v=value)
            return Filter(column.name, ">" if after else "<", value, True, True), clause
        values = sorted(numbers(cells))
        cut = values[int(rng.uniform(0.15, 0.85) * len(values))]
        value = _round_cut(cut, values)
        relation = rng.choice(("> ", "<", ">", "<", ">=", "<=")).strip()
        return Filter(column.name, relation, value, True, False), words.COMPARE[relation].say(
            rng, split, c=mention, v=value
        )

    def statistic(self, op: str, x: str, clause: str = "") -> Phrase:
        """A sentence about a statistic of one column."""
        noun = words.STATISTIC[op].say(self.rng, self.split, x=x)
        return self.wrapped(noun, clause)

    def wrapped(self, noun: Phrase, clause: str = "") -> Phrase:
        if clause and self.rng.random() < 0.15:
            inner = words.SENTENCE.say(self.rng, self.split, n=noun)
            return Phrase(f"{clause}, {inner}", inner.kind)
        noun = Phrase(f"{noun} {clause}") if clause else noun
        return words.SENTENCE.say(self.rng, self.split, n=noun)

    def with_file(self, phrase: Phrase, named: bool) -> Phrase:
        """The sentence with the file's name, or with words for the only file there is."""
        before = self.rng.random() < 0.4
        book = words.FILE_UNNAMED if not named else words.FILE_BEFORE if before else words.FILE_AFTER
        asked = book.say(self.rng, self.split, q=phrase, file=self.table.file)
        # "please" and its like go before a verb only: not before "in x.csv, ...".
        return Phrase(asked, "ask" if phrase.kind == "ask" else phrase.kind if asked.startswith(phrase) else "say")


def _round_cut(cut: float, values: Sequence[float]) -> str:
    """A threshold as a person would choose it, near `cut` and inside the range of the values."""
    span = values[-1] - values[0]
    for digits in (-3, -2, -1, 0, 1):
        rounded = round(cut, digits)
        if abs(rounded - cut) <= span / 12 and values[0] < rounded < values[-1]:
            return str(int(rounded)) if digits <= 0 else str(rounded)
    return str(int(cut)) if cut == int(cut) else str(cut)


def _count(a: Asker) -> tuple[Query, Phrase]:
    rng, split = a.rng, a.split
    roll = rng.random()
    if roll < 0.35:
        if rng.random() < 0.6:
            return Query("rows"), words.HOW_MANY_ROWS.say(rng, split)
        return Query("rows"), a.wrapped(words.ROWS.say(rng, split))
    if roll < 0.5:
        return Query("columns"), words.COLUMNS.say(rng, split)
    column = a.one([c for c in a.table.columns if c.kind in ("category", "label", "int")])
    return Query("distinct", (column.name,)), words.DISTINCT.say(rng, split, x=a.mention(column))


def _mean(a: Asker) -> tuple[Query, Phrase]:
    op = "mean" if a.rng.random() < 0.75 else "median"
    columns, x = a.numeric()
    return Query(op, columns), a.statistic(op, x)


def _sum(a: Asker) -> tuple[Query, Phrase]:
    columns, x = a.numeric()
    return Query("sum", columns), a.statistic("sum", x)


def _minmax(a: Asker) -> tuple[Query, Phrase]:
    rng, split = a.rng, a.split
    dates = a.table.kinds("date")
    if dates and rng.random() < 0.5:
        op = rng.choice(("first_date", "last_date"))
        book = words.FIRST_DATE if op == "first_date" else words.LAST_DATE
        return Query(op, (dates[0].name,)), a.wrapped(book.say(rng, split, x=a.mention(dates[0])))
    if rng.random() < 0.25:
        name, x = a.single()
        return Query("range", (name,)), a.wrapped(words.RANGE.say(rng, split, x=x))
    op = rng.choice(("min", "max"))
    name, x = a.single()
    return Query(op, (name,)), a.statistic(op, x)


def _groupby(a: Asker) -> tuple[Query, Phrase]:
    by, clause = a.group()
    if a.rng.random() < 0.2:
        return Query("rows", by=by), words.COUNT_BY.say(a.rng, a.split, by=clause)
    op = a.rng.choices(("mean", "sum", "max", "min", "median"), (5, 3, 1, 1, 1))[0]
    columns, x = a.numeric()
    return Query(op, columns, by), a.statistic(op, x, clause)


def _filter(a: Asker) -> tuple[Query, Phrase]:
    rng, split = a.rng, a.split
    filters, clause = a.filters()
    if rng.random() < 0.4:
        if rng.random() < 0.7:
            return Query("rows", filters=filters), words.HOW_MANY_WHERE.say(rng, split, where=clause)
        return Query("rows", filters=filters), a.wrapped(words.ROWS_WHERE.say(rng, split, where=clause))
    op = rng.choices(("mean", "sum", "max", "min", "median"), (5, 3, 2, 2, 1))[0]
    columns, x = a.numeric()
    return Query(op, columns, filters=filters), a.statistic(op, x, clause)


def _topk(a: Asker) -> tuple[Query, Phrase]:
    rng, split = a.rng, a.split
    label = a.one(a.table.kinds("label"))
    name, x = a.single()
    k = rng.choice((2, 3, 3, 3, 4, 5, 5))
    names = label.name
    if len(label.words) == 1 and rng.random() < 0.6:
        names = lexicon.plural(label.words[0])
    shown = str(k) if rng.random() < 0.75 else ("two", "three", "four", "five")[k - 2]
    descending = rng.random() < 0.65
    phrase = (words.TOP if descending else words.BOTTOM).say(rng, split, k=shown, names=names, x=x)
    return Query("top_rows", (name,), label=label.name, k=k, descending=descending), phrase


def _argmax(a: Asker) -> tuple[Query, Phrase]:
    rng, split = a.rng, a.split
    labels, groups = a.table.kinds("label"), a.table.kinds("category")
    roll = rng.random()
    descending = rng.random() < 0.65
    if labels and roll < 0.55:
        name, x = a.single()
        book = words.HIGHEST if descending else words.LOWEST
        phrase = book.say(rng, split, name=a.mention(labels[0]), x=x)
        return Query("top_rows", (name,), label=labels[0].name, k=1, descending=descending), phrase
    group = a.one(groups)
    if roll > 0.88:
        phrase = words.COMMON.say(rng, split, name=a.mention(group))
        return Query("rows", by=group.name, k=1), phrase
    op = rng.choice(("mean", "sum"))
    name, x = a.single()
    noun = Phrase(f"{rng.choice(('average', 'mean') if op == 'mean' else ('total', 'summed'))} {x}")
    phrase = (words.HIGHEST if descending else words.LOWEST).say(rng, split, name=a.mention(group), x=noun)
    return Query(op, (name,), group.name, k=1, descending=descending), phrase


def _correlate(a: Asker) -> tuple[Query, Phrase]:
    (x, said_x), (y, said_y) = a.single(), a.single()
    if x == y:
        raise Unfit
    if a.rng.random() < 0.6:
        return Query("correlation", (x, y)), a.wrapped(words.CORRELATION.say(a.rng, a.split, x=said_x, y=said_y))
    return Query("correlation", (x, y)), words.CORRELATED.say(a.rng, a.split, x=said_x, y=said_y)


def _missing(a: Asker) -> tuple[Query, Phrase]:
    rng, split = a.rng, a.split
    if not any("" in row for row in a.table.rows):
        raise Unfit
    roll = rng.random()
    if roll < 0.55:
        column = a.one([c for c in a.table.columns if "" in a.table.cells(c.name) or rng.random() < 0.15])
        return Query("missing", (column.name,)), words.MISSING.say(rng, split, x=a.mention(column))
    if roll < 0.7:
        return Query("missing_all"), words.MISSING_ALL.say(rng, split)
    if roll < 0.85:
        return Query("missing_rows"), words.MISSING_ROWS.say(rng, split)
    return Query("missing_most", k=1), words.MISSING_MOST.say(rng, split)


_ASK: dict[str, Callable[[Asker], tuple[Query, Phrase]]] = {
    "count": _count,
    "mean": _mean,
    "sum": _sum,
    "minmax": _minmax,
    "groupby": _groupby,
    "filter": _filter,
    "topk": _topk,
    "correlation": _correlate,
    "missing": _missing,
    "argmax": _argmax,
}


def query_of(data: dict[str, Any]) -> Query:
    """The query from its JSON form in a task."""
    filters = tuple(Filter(**f) for f in data["filters"])
    return Query(**{**data, "columns": tuple(data["columns"]), "filters": filters})


class NotebookFamily:
    """Questions about CSV files with unseen schemas."""

    name = "notebook"
    skills: Sequence[str] = SKILLS

    def sample(self, split: Split, seed: int) -> Task:
        """The task of a seed. Half of the skills need a table of a certain kind: tables are drawn until one fits."""
        rng = lexicon.make_rng(self.name, split, seed)
        skill = rng.choice(SKILLS)
        for _ in range(TRIES):
            table = make_table(rng, split)
            try:
                query, phrase = _ASK[skill](Asker(rng, split, table))
                expect = expectation(table, query)
            except Unfit:
                continue
            named = rng.random() < 0.85
            asker = Asker(rng, split, table)
            text = request(rng, split, asker.with_file(phrase, named), aside=False)
            data = {
                "file": table.file,
                "csv": table.text(),
                "file_named": named,
                "query": asdict(query),
                "expect": expect,
            }
            return Task(f"{self.name}/{split}/{seed}", self.name, skill, seed, text, data, split)
        raise AssertionError(f"no {skill} question in {TRIES} tables: split {split}, seed {seed}")

    def world(self, task: Task) -> World:
        from openk2.worlds.machine import TaskMachineWorld

        return TaskMachineWorld(setup, verify)

    def demonstrate(self, task: Task) -> Demonstration:
        return demonstrate_query(task, query_of(task.data["query"]))
