"""What is asked about a person's own CSV, and what is known about it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import Message, UserError
from openk2.evals.own_csv import csv_tasks, csv_world
from openk2.worlds.csv_file import load_csv
from openk2.worlds.machine import TaskMachineWorld

GOOD = "name,team,points\nAnn,red,3\nBob,blue,5\nCid,red,4\nDee,blue,\n"


def write(folder: Path, content: str | bytes, name: str = "my data.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_the_questions_and_their_answers(tmp_path: Path) -> None:
    tasks = csv_tasks(write(tmp_path, GOOD))
    assert [(t.skill, t.request) for t in tasks] == [
        ("count", "How many rows are in my data.csv?"),
        ("mean", "What is the average points in my data.csv?"),
        ("groupby", "What is the maximum points by team in my data.csv?"),
    ]
    facts = [t.data["expect"]["facts"] for t in tasks]
    assert facts == [
        [{"numbers": [4]}],
        [{"numbers": [4.0]}],
        [{"label": "blue", "numbers": [5]}, {"label": "red", "numbers": [4]}],
    ]


async def test_the_world_has_a_copy_and_judges(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    task = csv_tasks(path)[0]
    for answer, right in (("There are 4 rows.", True), ("There are 5 rows.", False)):
        world = csv_world(task)
        try:
            opening = await world.start(task)
            assert isinstance(world, TaskMachineWorld)
            (found,) = world.workspace.iterdir()
            assert found.name == path.name and found.read_text() == GOOD
            verdict = await world.verify([*opening, Message("assistant", answer)])
            assert verdict.passed is right
        finally:
            await world.close()
    assert path.read_text() == GOOD


def test_columns_that_only_number_the_rows_are_not_averaged(tmp_path: Path) -> None:
    path = write(tmp_path, "id,user_id,orderId,humid\n1,1,1,30\n2,2,2,40\n")
    assert "average humid" in csv_tasks(path)[1].request
    path = write(tmp_path, ",humid\n0,30\n1,40\n")
    assert "average humid" in csv_tasks(path)[1].request


def test_a_group_without_values_is_not_asked_about(tmp_path: Path) -> None:
    path = write(tmp_path, "team,points\nred,1\nblue,\nred,3\nblue,\n")
    assert [t.skill for t in csv_tasks(path)] == ["count", "mean"]


def test_a_sum_beyond_all_floats_is_not_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("price,kind\n1e308,a\n1.5e308,b\n")
    assert [task.skill for task in csv_tasks(path)] == ["count"]


CELLS = st.one_of(
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", "NA", "1e5", "-0", "1,000", "red", "blue", '"', "2024-01-01"]),
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_file_is_refused_or_read_as_pandas_reads_it(data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    width = data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=6))
    out = io.StringIO()
    csv.writer(out).writerows([[f"c{i}" for i in range(width)], *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(out.getvalue().encode("utf-8", "surrogatepass"))
    try:
        tasks = csv_tasks(path)
    except UserError as e:
        assert "\n" not in str(e)
        return
    frame = pd.read_csv(path)
    assert tasks[0].data["expect"]["facts"] == [{"numbers": [len(frame)]}]
    for column in load_csv(path).columns:
        if column.kind != "category":
            assert pd.api.types.is_numeric_dtype(frame[column.name])
