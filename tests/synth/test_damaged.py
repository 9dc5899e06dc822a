"""A run's folder that is not as it was left: one sentence that names the file, and synth run makes it whole again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from openk2.core import UserError
from openk2.core.runs import sha256_file
from openk2.data.export import export
from openk2.data.lake import Lake, is_whole, read_rows, rows_in
from openk2.synth import factory
from openk2.synth.factory import run_factory
from openk2.synth.figures import figures_of
from openk2.synth.recipe import SynthRecipe
from openk2.synth.show import markdown
from openk2.synth.verify import verify_run

SMALL = SynthRecipe.model_validate(
    {
        "name": "small",
        "domains": {"count": 4, "tools": 60},
        "tasks": {"count": 12, "in_a_row": 3, "per_shard": 5},
    }
)
FILES = ["domains", "tools", "agents", "kept", "tasks/00001", "attempts/00001"]
READERS: dict[str, Callable[[Path], Any]] = {
    "status": lambda run: Lake(run).status(),
    "verify": lambda run: verify_run(run, workers=1),
    "report": figures_of,
    "query": lambda run: Lake(run).query("select 1"),
    "show": lambda run: markdown(run, n=1, seed=0),
    "export": lambda run: export(run, "openai", run / "out.jsonl"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run_factory(SMALL, folder, workers=1)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def bytes_of(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): sha256_file(path) for path in run.rglob("*") if path.is_file()}


def few(count: int) -> SynthRecipe:
    return SMALL.model_copy(update={"tasks": SMALL.tasks.model_copy(update={"count": count})})


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_is_named_and_made_anew(name: str, made: Path, run: Path) -> None:
    path = run / "synth" / f"{name}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for reader, read in READERS.items():
        # Trajectories alone are exported.
        if reader != "export" or name in ("kept", "attempts/00001"):
            with pytest.raises(UserError, match=rf"{path.name} is damaged: the same synth run command"):
                read(run)
    assert not (run / "out.jsonl").exists()
    run_factory(SMALL, run, workers=1)
    assert bytes_of(run) == bytes_of(made)


def damage(path: Path, start: int, count: int, whole: bytes) -> None:
    """Turn the bits of some bytes around."""
    turned = bytes(255 - byte for byte in whole[start : start + count])
    path.write_bytes(whole[:start] + turned + whole[start + count :])


def damage_values(path: Path, name: str = "") -> None:
    """Of a column, or of the largest one. The file's end, which says how many rows there are, can still be read."""
    import pyarrow.parquet as pq

    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    column = max(columns, key=lambda one: (one.path_in_schema == name, one.total_compressed_size))
    end = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size
    count = min(64, column.total_compressed_size // 4)
    damage(path, end - count, count, path.read_bytes())
    assert rows_in(path) >= 0


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_damaged_inside_is_named_and_made_anew(name: str, made: Path, run: Path) -> None:
    path = run / "synth" / f"{name}.parquet"
    whole, rows = path.read_bytes(), list(read_rows(path))
    damage_values(path)
    assert not is_whole(path)
    with pytest.raises(UserError, match=rf"{path.name} is damaged: the same synth run command"):
        list(read_rows(path))
    run_factory(SMALL, run, workers=1)
    assert bytes_of(run) == bytes_of(made)
    for part in range(1, 20):
        damage(path, len(whole) * part // 20, 64, whole)
        # Least and largest values of a page have no checksum, and nobody reads them.
        assert not is_whole(path) or list(read_rows(path)) == rows


def test_a_query_that_meets_damage_names_the_file(run: Path) -> None:
    path = run / "synth" / "attempts" / "00001.parquet"
    damage_values(path, "atif")
    for read in (lambda: verify_run(run, workers=1), lambda: Lake(run).query("select sum(length(atif)) from attempts")):
        with pytest.raises(UserError, match=r"00001\.parquet is damaged: the same synth run command"):
            read()
    with pytest.raises(UserError, match=r"the query cannot be answered: .*nonsense"):
        Lake(run).query("select nonsense from attempts")


@pytest.mark.parametrize("text", ['{"name": "sm', "{}", "[]", '{"name": 5, "seed": "x", "tasks": []}', "\udcff"])
def test_a_damaged_recipe_is_named(text: str, run: Path) -> None:
    (run / "synth" / "recipe.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    for read in (*READERS.values(), lambda run: run_factory(SMALL, run, workers=1)):
        with pytest.raises(UserError, match=r"recipe\.json is damaged: delete the folder"):
            read(run)


def test_files_that_do_not_fit_together_are_one_sentence(run: Path) -> None:
    shutil.copy(run / "synth" / "domains.parquet", run / "synth" / "kept.parquet")
    with pytest.raises(UserError, match="do not fit together"):
        Lake(run)


def test_a_run_of_another_version_is_named_and_nothing_of_it_is_lost(run: Path) -> None:
    import pyarrow.parquet as pq

    path = run / "synth" / "attempts" / "00001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["malformed"]), path)
    # What is exported is the ATIF alone.
    readers = [read for name, read in READERS.items() if name != "export"]
    for read in (*readers, lambda run: run_factory(SMALL, run, workers=1)):
        with pytest.raises(UserError, match=r"has no column 'malformed' as it is now: another version of this program"):
            read(run)
    assert path.exists()


@pytest.mark.parametrize("names", [["attempts/00001"], ["tasks/00001"], ["attempts/00000", "attempts/00001"], None])
def test_kept_trajectories_that_are_missing_disagree(names: list[str] | None, made: Path, run: Path) -> None:
    kept = Lake(run).status()["kept"]
    for path in (run / "synth" / "attempts").glob("*") if names is None else ():
        path.unlink()
    for name in names or ():
        (run / "synth" / f"{name}.parquet").unlink()
    found = verify_run(run, workers=1)
    assert found.checked == kept and 0 < kept - found.agreed <= kept and len(found.differences) == 1
    assert f"{kept - found.agreed} kept trajectories are missing from" in found.differences[0]
    run_factory(SMALL, run, workers=1)
    assert bytes_of(run) == bytes_of(made)


@pytest.mark.parametrize("sql", ["", ";", "-- nothing"])
def test_an_empty_question(sql: str, made: Path) -> None:
    with pytest.raises(UserError, match="the query is empty"):
        Lake(made).query(sql)


def test_benchmarks_are_looked_for_first_and_can_be_corrected(run: Path, tmp_path: Path) -> None:
    wrong = SMALL.model_copy(update={"filter": SMALL.filter.model_copy(update={"against": (str(tmp_path / "no"),)})})
    with pytest.raises(UserError, match=r"filter\.against names .*no, which is not a folder"):
        run_factory(wrong, tmp_path / "new", workers=1)
    assert not (tmp_path / "new").exists()
    # The words of one trajectory are a benchmark's.
    before = bytes_of(run)
    ((number, say),) = Lake(run).query(
        "select a.number, string_agg(m.data, ' ') from trajectories a join tasks m using (number) "
        "group by 1 order by 1 limit 1"
    )[1]
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "tests.json").write_text(say)
    right = SMALL.model_copy(
        update={"filter": SMALL.filter.model_copy(update={"against": (str(tmp_path / "benchmark"),)})}
    )
    status = run_factory(right, run, workers=1)
    assert status["finished"] and status["dropped"]["shares text with a benchmark"] >= 1
    assert not Lake(run).one(f"select count(*) from trajectories where number = {number}")
    changed = {name for name, digest in bytes_of(run).items() if before[name] != digest}
    assert changed == {"synth/kept.parquet", "synth/recipe.json", "synth/manifest.json"}
    run_factory(SMALL, run, workers=1)
    assert bytes_of(run) == before


def test_a_smaller_limit_deletes_nothing(made: Path, run: Path) -> None:
    for count in (3, 11):
        with pytest.raises(UserError, match=r"holds attempts at 12 tasks.*give --limit 12, or a larger one"):
            run_factory(few(count), run, workers=1)
        assert bytes_of(run) == bytes_of(made)


@pytest.mark.parametrize("stage", ["make_tasks", "run_planner"])
def test_more_tasks_that_are_not_made_yet_take_nothing_away(
    stage: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_factory(few(7), tmp_path, workers=1)
    before = Lake(tmp_path).status()

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(factory, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            run_factory(SMALL, tmp_path, workers=1)
    status = Lake(tmp_path).status()
    assert status["attempts"] == before["attempts"] and status["tasks"] >= before["tasks"] and not status["finished"]
    found = verify_run(tmp_path, workers=1)
    assert found.checked == found.agreed >= before["kept"]
    # Nobody has tried the new ones yet.
    run_factory(few(7), tmp_path, workers=1)
    assert Lake(tmp_path).status() == before
    run_factory(SMALL, tmp_path, workers=1)
    assert bytes_of(tmp_path) == bytes_of(made)


def test_nothing_to_verify_is_not_well(run: Path) -> None:
    for path in (*(run / "synth" / "attempts").glob("*"), run / "synth" / "kept.parquet"):
        path.unlink()
    found = verify_run(run, workers=1)
    assert found.checked == 0 and found.differences == [f"nothing was checked: {run} has no trajectories yet"]


def test_tasks_that_nobody_has_tried_can_be_left_out(run: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (run / "synth" / "attempts" / f"0000{number}.parquet").unlink()
    run_factory(few(5), run, workers=1)
    run_factory(few(5), tmp_path / "other", workers=1)
    assert bytes_of(run) == bytes_of(tmp_path / "other")
    assert rows_in(run / "synth" / "kept.parquet") == Lake(run).status()["attempts"]
