"""A person's own CSV as tasks: checked first, then three questions whose answers plain Python computes."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

from openk2.core import Message, Task, UserError, Verdict, World
from openk2.evals.real import read_table
from openk2.worlds.families.notebook_check import check_answer, final_answer
from openk2.worlds.families.notebook_query import Query, expectation
from openk2.worlds.families.tables import Table
from openk2.worlds.text import is_binary

MAX_BYTES = 50_000_000
# A column is worth grouping by when it has so few different values that a person would read the answer.
MOST_GROUPS = 8


def load_csv(path: Path) -> Table:
    """Read and check a comma-separated file with a header.

    Raises UserError, one sentence, if it is missing, unreadable, empty, binary, too large, not separated by commas,
    without a header or without rows.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: name a CSV file")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"{path} has {size / 1e6:.0f} MB, more than the {MAX_BYTES / 1e6:.0f} MB that this takes: cut it down"
            )
        data = path.read_bytes()
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from e
    if not data.strip():
        raise UserError(f"{path} is empty: name a CSV file with a header and rows")
    if is_binary(data[:100_000]):
        raise UserError(f"{path} is binary, not text: name a comma-separated text file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8 text (byte {e.start}): convert it first, e.g. with iconv") from e
    try:
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except csv.Error as e:
        raise UserError(f"{path} is not a readable CSV: {e}") from e
    _check_rows(path, rows)
    return read_table(path.name, text)


def _check_rows(path: Path, rows: list[list[str]]) -> None:
    head = rows[0]
    if len(head) == 1 and any(mark in head[0] for mark in ";\t|"):
        raise UserError(f"{path} is not separated by commas (its first line is {head[0][:60]!r}): convert it first")
    if any(_is_number(cell) for cell in head) or any(not cell.strip() for cell in head):
        raise UserError(f"{path} seems to have no header (its first line is {','.join(head)[:60]!r}): add column names")
    if len(set(head)) < len(head):
        raise UserError(f"{path} has two columns of the same name: rename one")
    if len(rows) < 2:
        raise UserError(f"{path} has a header but no rows: there is nothing to ask about")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(head):
            raise UserError(f"{path} has {len(row)} cells in row {number} and {len(head)} in its header: repair it")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def questions(table: Table) -> list[tuple[str, str, Query]]:
    """Skill, request and meaning of up to three questions that fit the table."""
    numeric = [c.name for c in table.columns if c.kind in ("int", "float") and not c.name.lower().endswith("id")]
    groups = [c.name for c in table.columns if c.kind == "category" and 2 <= _distinct(table, c.name) <= MOST_GROUPS]
    asked = [("count", f"How many rows are in {table.file}?", Query("rows"))]
    if numeric:
        asked.append(("mean", f"What is the average {numeric[0]} in {table.file}?", Query("mean", (numeric[0],))))
    if groups and numeric:
        request = f"What is the maximum {numeric[-1]} by {groups[0]} in {table.file}?"
        asked.append(("groupby", request, Query("max", (numeric[-1],), groups[0])))
    return asked


def _distinct(table: Table, column: str) -> int:
    at = table.index(column)
    return len({row[at] for row in table.rows if row[at]})


def csv_tasks(path: Path) -> list[Task]:
    """The questions about `path` as tasks. Raises as `load_csv`."""
    table = load_csv(path)
    return [
        Task(
            id=f"csv/{path.name}/{skill}",
            family="csv",
            skill=skill,
            seed=0,
            request=request,
            data={"path": str(path.resolve()), "expect": expectation(table, query)},
            split="test",
        )
        for skill, request, query in questions(table)
    ]


def csv_world(task: Task) -> World:
    """A scratch folder with a copy of the file; the answer is checked against what was computed beforehand."""
    from openk2.worlds.machine import TaskMachineWorld

    return TaskMachineWorld(_setup, _verify)


def _setup(task: Task, folder: Path) -> None:
    source = Path(task.data["path"])
    shutil.copy(source, folder / source.name)


def _verify(task: Task, folder: Path, messages: Sequence[Message]) -> Verdict:
    return check_answer(final_answer(messages), task.data["expect"])
