"""Thirty questions about ten real CSV files that Python packages ship.

The files are read where the packages are installed; the questions of a package that is not installed are left out, and
`RealFamily.skipped` says so. Answers are computed in plain Python from the file, not by pandas.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from openk2.core import Demonstration, Message, Split, Task, UserError, Verdict, World
from openk2.worlds.families.expert import demonstrated
from openk2.worlds.families.notebook import run_expert
from openk2.worlds.families.notebook_check import check_answer, final_answer
from openk2.worlds.families.notebook_query import Filter, Query, expectation
from openk2.worlds.families.tables import Column, Kind, Table

# What pandas reads as a missing value in these files.
_MISSING = frozenset(("", "NA", "N/A", "NaN", "nan", "null", "None"))

# Package and path in it, by the name that the file has in the workspace.
FILES = {
    "penguins.csv": ("palmerpenguins", "data/penguins.csv"),
    "penguins-raw.csv": ("palmerpenguins", "data/penguins-raw.csv"),
    "airports.csv": ("vega_datasets", "_data/airports.csv"),
    "iowa-electricity.csv": ("vega_datasets", "_data/iowa-electricity.csv"),
    "la-riots.csv": ("vega_datasets", "_data/la-riots.csv"),
    "seattle-temps.csv": ("vega_datasets", "_data/seattle-temps.csv"),
    "seattle-weather.csv": ("vega_datasets", "_data/seattle-weather.csv"),
    "stocks.csv": ("vega_datasets", "_data/stocks.csv"),
    "us-employment.csv": ("vega_datasets", "_data/us-employment.csv"),
    "msft.csv": ("matplotlib", "mpl-data/sample_data/msft.csv"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """A question in a person's words and what it means."""

    skill: str
    file: str
    request: str
    query: Query


def _is(column: str, value: str, named: bool = True) -> tuple[Filter, ...]:
    return (Filter(column, "==", value, named, True),)


def _than(column: str, relation: str, value: str) -> tuple[Filter, ...]:
    return (Filter(column, relation, value, True, False),)


QUESTIONS = (
    Question(
        "groupby",
        "penguins.csv",
        "what is the average bill by species in penguins.csv?",
        Query("mean", ("bill_length_mm", "bill_depth_mm"), "species"),
    ),
    Question(
        "filter",
        "penguins.csv",
        "How many rows of penguins.csv are there where island is Dream?",
        Query("rows", filters=_is("island", "Dream")),
    ),
    Question(
        "argmax",
        "penguins.csv",
        "Which species has the highest average body mass in penguins.csv?",
        Query("mean", ("body_mass_g",), "species", k=1),
    ),
    Question("count", "penguins-raw.csv", "How many records are in penguins-raw.csv?", Query("rows")),
    Question(
        "mean",
        "penguins-raw.csv",
        "I need the average Culmen Length (mm) from penguins-raw.csv.",
        Query("mean", ("Culmen Length (mm)",)),
    ),
    Question(
        "missing",
        "penguins-raw.csv",
        "in penguins-raw.csv, how many values are missing in the Sex column?",
        Query("missing", ("Sex",)),
    ),
    Question(
        "filter",
        "airports.csv",
        "How many airports are in airports.csv where state is TX?",
        Query("rows", filters=_is("state", "TX")),
    ),
    Question(
        "count", "airports.csv", "How many different states does airports.csv have?", Query("distinct", ("state",))
    ),
    Question("minmax", "airports.csv", "what's the maximum latitude in airports.csv", Query("max", ("latitude",))),
    Question(
        "sum",
        "iowa-electricity.csv",
        "Add up the net_generation column of iowa-electricity.csv, please.",
        Query("sum", ("net_generation",)),
    ),
    Question(
        "groupby",
        "iowa-electricity.csv",
        "total net generation by source in iowa-electricity.csv",
        Query("sum", ("net_generation",), "source"),
    ),
    Question(
        "filter",
        "iowa-electricity.csv",
        "What was the average net generation for Renewables in iowa-electricity.csv?",
        Query("mean", ("net_generation",), filters=_is("source", "Renewables", named=False)),
    ),
    Question("mean", "la-riots.csv", "what is the average age in la-riots.csv?", Query("mean", ("age",))),
    Question("groupby", "la-riots.csv", "Count the rows of la-riots.csv by gender.", Query("rows", by="gender")),
    Question(
        "argmax",
        "la-riots.csv",
        "Look at la-riots.csv: which type has the most rows?",
        Query("rows", by="type", k=1),
    ),
    Question("mean", "seattle-temps.csv", "What's the median temp in seattle-temps.csv?", Query("median", ("temp",))),
    Question("minmax", "seattle-temps.csv", "lowest temp in seattle-temps.csv", Query("min", ("temp",))),
    Question(
        "filter",
        "seattle-temps.csv",
        "How many rows in seattle-temps.csv have a temp below 50?",
        Query("rows", filters=_than("temp", "<", "50")),
    ),
    Question(
        "groupby",
        "seattle-weather.csv",
        "Give me the mean wind for each weather in seattle-weather.csv.",
        Query("mean", ("wind",), "weather"),
    ),
    Question(
        "filter",
        "seattle-weather.csv",
        "how many rows are there in seattle-weather.csv where weather is snow",
        Query("rows", filters=_is("weather", "snow")),
    ),
    Question(
        "correlation",
        "seattle-weather.csv",
        "What is the correlation between temp_max and temp_min in seattle-weather.csv?",
        Query("correlation", ("temp_max", "temp_min")),
    ),
    Question(
        "groupby",
        "stocks.csv",
        "Show me the average price per symbol in stocks.csv",
        Query("mean", ("price",), "symbol"),
    ),
    Question(
        "filter",
        "stocks.csv",
        "What is the highest price in stocks.csv for AAPL?",
        Query("max", ("price",), filters=_is("symbol", "AAPL", named=False)),
    ),
    Question("count", "stocks.csv", "How many distinct symbols are in stocks.csv?", Query("distinct", ("symbol",))),
    Question(
        "topk",
        "us-employment.csv",
        "Which 3 months have the highest construction in us-employment.csv?",
        Query("top_rows", ("construction",), label="month", k=3),
    ),
    Question(
        "correlation",
        "us-employment.csv",
        "how strongly are utilities and manufacturing correlated in us-employment.csv?",
        Query("correlation", ("utilities", "manufacturing")),
    ),
    Question(
        "minmax",
        "us-employment.csv",
        "Find the smallest nonfarm value in us-employment.csv",
        Query("min", ("nonfarm",)),
    ),
    Question("mean", "msft.csv", "hi, can you compute the average Close in msft.csv?", Query("mean", ("Close",))),
    Question("sum", "msft.csv", "What is the total Volume in msft.csv?", Query("sum", ("Volume",))),
    Question(
        "argmax",
        "msft.csv",
        "Which Date has the highest Volume in msft.csv?",
        Query("top_rows", ("Volume",), label="Date", k=1),
    ),
)


def _bytes(file: str) -> bytes | None:
    """The content of a file; None if its package is not installed."""
    package, path = FILES[file]
    try:
        return resources.files(package).joinpath(path).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError):
        return None


def _kind(cells: Sequence[str]) -> Kind:
    present = [c for c in cells if c]
    try:
        whole = all(float(c) == int(float(c)) and "." not in c for c in present)
    except ValueError:
        return "category"
    return "int" if whole else "float"


def read_table(file: str, content: str) -> Table:
    """A CSV as a table; what pandas takes for missing is an empty cell."""
    head, *rows = [row for row in csv.reader(content.splitlines()) if row]
    cells = tuple(tuple("" if c in _MISSING else c for c in row) for row in rows)
    columns = tuple(Column(name, _kind([row[i] for row in cells]), (name,)) for i, name in enumerate(head))
    return Table(file, columns, cells)


@cache
def _tasks() -> tuple[Task, ...]:
    tasks = []
    for seed, question in enumerate(QUESTIONS):
        content = _bytes(question.file)
        if content is None:
            continue
        expect = expectation(read_table(question.file, content.decode()), question.query)
        data = {"file": question.file, "question": seed, "expect": expect}
        tasks.append(Task(f"real/{seed}", "real", question.skill, seed, question.request, data, "test"))
    return tuple(tasks)


def setup(task: Task, folder: Path) -> None:
    """Put the file into the folder."""
    content = _bytes(task.data["file"])
    if content is None:
        raise UserError(f"{task.data['file']} needs the package {FILES[task.data['file']][0]}: pip install it")
    (folder / task.data["file"]).write_bytes(content)


def verify(task: Task, folder: Path, messages: Sequence[Message]) -> Verdict:
    """The file must be as it was, and the answer right."""
    path = folder / task.data["file"]
    if not path.is_file() or path.read_bytes() != _bytes(task.data["file"]):
        return Verdict(False, f"{task.data['file']} was changed")
    return check_answer(final_answer(messages), task.data["expect"])


class RealFamily:
    """Questions about real CSV files: a fixed set."""

    name = "real"
    needs_sandbox = True
    skills: Sequence[str] = tuple(sorted({q.skill for q in QUESTIONS}))

    def tasks(self) -> list[Task]:
        """All tasks whose file is there."""
        return list(_tasks())

    def skipped(self) -> list[str]:
        """One sentence for every file whose package is not installed."""
        return [
            f"{file}: the package {package} is not installed, its questions are left out"
            for file, (package, _) in FILES.items()
            if _bytes(file) is None
        ]

    def sample(self, split: Split, seed: int) -> Task:
        """The task of that position, counted around. There are no training tasks: raises UserError for that split."""
        if split == "train":
            raise UserError("the real tables are for evaluation only: use split 'test'")
        tasks = self.tasks()
        return tasks[seed % len(tasks)]

    def world(self, task: Task) -> World:
        from openk2.worlds.machine import TaskMachineWorld

        return TaskMachineWorld(setup, verify)

    def demonstrate(self, task: Task) -> Demonstration:
        query = QUESTIONS[task.data["question"]].query
        return demonstrated(task, setup, lambda folder: run_expert(task, folder, query))
