"""A small run of the data factory, made once for all tests of a process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from openk2.synth.factory import run_factory
from openk2.synth.recipe import SynthRecipe

FEW = SynthRecipe.model_validate(
    {
        "name": "few",
        "seed": 3,
        "domains": {"count": 5, "tools": 60},
        "tasks": {"count": 30, "in_a_row": 3, "per_shard": 10},
    }
)


@cache
def few() -> Path:
    """The folder of a run with 30 tasks, all tried by the planner. It must not be changed."""
    folder = Path(tempfile.mkdtemp(prefix="openk2-few-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run_factory(FEW, folder, workers=1)
    return folder


def damaged(folder: Path) -> Path:
    """A copy in which the first task was failed: its attempt at it, and the verdict on that."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(few() / "synth", folder / "synth")
    path = folder / "synth" / "attempts" / "00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0] |= {"passed": False, "score": 0.4, "reason": "the state at the end is another"}
    rows[0]["atif"] = rows[0]["atif"].replace('"verdict":{"passed":true', '"verdict":{"passed":false')
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    path = folder / "synth" / "kept.parquet"
    verdicts = pq.read_table(path)
    rows = verdicts.to_pylist()
    rows[0]["dropped"] = "failed: state at the end"
    pq.write_table(pa.Table.from_pylist(rows, schema=verdicts.schema), path)
    return folder
