"""A person's own CSV as tasks: checked first, then three questions whose answers plain Python computes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from openk2.core import Message, Task, UserError, Verdict, World
from openk2.worlds.csv_file import UNNAMED, load_csv
from openk2.worlds.families.notebook_check import check_answer, final_answer
from openk2.worlds.families.notebook_query import Query, Unfit, expectation
from openk2.worlds.families.tables import Table

# A column is worth grouping by when it has so few different values that a person would read the answer, and most of
# them come again.
MOST_GROUPS = 8

_IDENTIFIER = re.compile(r"(^|[ _-])[iI][dD]$|[a-z]I[dD]$")


def questions(table: Table) -> list[tuple[str, str, Query]]:
    """Skill, request and meaning of up to three questions that fit the table."""
    numeric = [c.name for c in table.columns if c.kind in ("int", "float") and not _is_identifier(c.name)]
    most = min(MOST_GROUPS, len(table.rows) // 2)
    groups = [c.name for c in table.columns if c.kind == "category" and 2 <= _distinct(table, c.name) <= most]
    asked = [("count", f"How many rows are in {table.file}?", Query("rows"))]
    if numeric:
        asked.append(("mean", f"What is the average {numeric[0]} in {table.file}?", Query("mean", (numeric[0],))))
    if groups and numeric:
        request = f"What is the maximum {numeric[-1]} by {groups[0]} in {table.file}?"
        asked.append(("groupby", request, Query("max", (numeric[-1],), groups[0])))
    return asked


def _is_identifier(name: str) -> bool:
    """Whether numbers only tell rows apart: ids, and the index that pandas writes along."""
    return name.startswith(UNNAMED) or _IDENTIFIER.search(name) is not None


def _distinct(table: Table, column: str) -> int:
    return len({cell for cell in table.cells(column) if cell})


def csv_tasks(path: Path) -> list[Task]:
    """The questions about `path` as tasks. Raises as `load_csv`."""
    table = load_csv(path)
    tasks = []
    for skill, request, query in questions(table):
        try:
            expect = expectation(table, query)
        except (Unfit, OverflowError):
            # Say, a group without a single value, or a sum beyond all floats: there is no clear answer.
            continue
        data = {"path": str(path.resolve()), "expect": expect}
        tasks.append(Task(f"csv/{path.name}/{skill}", "csv", skill, 0, request, data, "test"))
    return tasks


def csv_world(task: Task) -> World:
    """A scratch folder with a copy of the file; the answer is checked against what was computed beforehand."""
    from openk2.worlds.machine import TaskMachineWorld

    return TaskMachineWorld(_setup, _verify)


def _setup(task: Task, folder: Path) -> None:
    source = Path(task.data["path"])
    try:
        shutil.copyfile(source, folder / source.name)
    except OSError as e:
        raise UserError(f"{source} cannot be copied ({e.strerror}): leave it in place while the demo runs") from e


def _verify(task: Task, folder: Path, messages: Sequence[Message]) -> Verdict:
    return check_answer(final_answer(messages), task.data["expect"])
