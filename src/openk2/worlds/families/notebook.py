"""Questions about a CSV file, answered by running pandas: the notebook family.

The user's side is worded by a wide grammar. The expert's side is always the same: look at the header and two rows, look
at the columns with few values if the request names a value, compute with one line of pandas, and say the result in one
sentence. What counts as right is computed without pandas (`tables`, `notebook_check`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

from openk2.core import Demonstration, Message, Split, Task, Verdict, World
from openk2.worlds.families import lexicon
from openk2.worlds.families import notebook_clause_words as clauses
from openk2.worlds.families import notebook_words as words
from openk2.worlds.families.expert import Expert, demonstrated
from openk2.worlds.families.mix import draw_skill
from openk2.worlds.families.notebook_check import check_answer, final_answer
from openk2.worlds.families.notebook_query import Filter, Query, Unfit, code, expectation, query_of, sentence
from openk2.worlds.families.phrasing import Phrase, request
from openk2.worlds.families.tables import Column, Table, by_split, make_table, numbers

SKILLS = ("count", "mean", "sum", "minmax", "groupby", "filter", "topk", "correlation", "missing", "argmax")
TRIES = 60

LIST_FILES = "import glob\nprint(glob.glob('*.csv'))"
LIST_VALUES = "for c in df:\n    if df[c].nunique() < 9:\n        print(c, df[c].unique().tolist())"


def look_code(file: str) -> str:
    """The expert's first look at a table."""
    return f"import pandas as pd\ndf = pd.read_csv('{file}')\nprint(df.head(2).to_csv(index=False))"


def run_expert(task: Task, folder: Path, query: Query) -> tuple[Message, ...]:
    """The expert's conversation in a folder that is set up."""
    expert = Expert(task.request, folder)
    if not task.data.get("file_named", True):
        expert.call("python", code=LIST_FILES)
    expert.call("python", code=look_code(task.data["file"]))
    # Also where the column is named: whether it is needs no decision then.
    if any(f.relation == "==" for f in query.filters):
        expert.call("python", code=LIST_VALUES)
    printed = expert.call("python", code=code(query))
    expert.say(sentence(query, printed))
    return tuple(expert.messages)


def setup(task: Task, folder: Path) -> None:
    """Put the table into the folder."""
    (folder / task.data["file"]).write_text(task.data["csv"], encoding="utf-8", newline="\n")


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
        if shared and self.rng.random() < by_split(self.split, 0.6, 0.8):
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
        return column.name, clauses.BY.say(self.rng, self.split, g=self.mention(column))

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
            if column.kind == "category" and rng.random() < by_split(split, 0.4, 0.6) and self.only_in(value, column):
                return Filter(column.name, "==", value, False, True), clauses.VALUE.say(rng, split, v=value)
            return Filter(column.name, "==", value, True, True), clauses.EQUAL.say(rng, split, c=mention, v=value)
        cells = sorted(c for c in table.cells(column.name) if c)
        if column.kind == "date":
            value = rng.choice(cells[len(cells) // 5 : -len(cells) // 5] or cells)
            after = rng.random() < 0.5
            clause = (clauses.AFTER if after else clauses.BEFORE).say(rng, split, c=mention, v=value)
            return Filter(column.name, ">" if after else "<", value, True, True), clause
        values = sorted(numbers(cells))
        cut = values[int(rng.uniform(0.15, 0.85) * len(values))]
        value = _round_cut(cut, values)
        relation = rng.choice(("> ", "<", ">", "<", ">=", "<=")).strip()
        return Filter(column.name, relation, value, True, False), clauses.COMPARE[relation].say(
            rng, split, c=mention, r=relation, v=value
        )

    def only_in(self, value: str, column: Column) -> bool:
        """Whether a value alone tells its column."""
        others = [c for c in self.table.columns if c.name != column.name]
        return not any(value in self.table.cells(c.name) or value.lower() in c.words for c in others)

    def statistic(self, op: str, x: str, clause: str = "") -> Phrase:
        """A sentence about a statistic of one column."""
        noun = words.STATISTIC[op].say(self.rng, self.split, x=x)
        return self.wrapped(noun, clause)

    def wrapped(self, noun: Phrase, clause: str = "") -> Phrase:
        if clause and self.rng.random() < 0.15:
            inner = clauses.SENTENCE.say(self.rng, self.split, n=noun)
            return Phrase(f"{clause}, {inner}", inner.kind)
        noun = Phrase(f"{noun} {clause}") if clause else noun
        return clauses.SENTENCE.say(self.rng, self.split, n=noun)

    def with_file(self, phrase: Phrase, named: bool) -> Phrase:
        """The sentence with the file's name, or with words for the only file there is."""
        before = self.rng.random() < 0.4
        book = clauses.FILE_UNNAMED if not named else clauses.FILE_BEFORE if before else clauses.FILE_AFTER
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
    if dates and rng.random() < by_split(split, 0.5, 0.7):
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
    if a.rng.random() < by_split(a.split, 0.2, 0.35):
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
    if roll > by_split(split, 0.88, 0.8):
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


class NotebookFamily:
    """Questions about CSV files with unseen schemas."""

    name = "notebook"
    needs_sandbox = True
    skills: Sequence[str] = SKILLS

    def sample(self, split: Split, seed: int) -> Task:
        """The task of a seed. Half of the skills need a table of a certain kind: tables are drawn until one fits."""
        rng = lexicon.make_rng(self.name, split, seed)
        skill = draw_skill(rng, self.name, split)
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
        return demonstrated(task, setup, lambda folder: run_expert(task, folder, query_of(task.data["query"])))
