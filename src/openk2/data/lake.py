"""The lake: what a run of the factory has made, in Parquet, and questions about it in SQL.

    RUN/synth/domains.parquet, tools.parquet, agents.parquet
    RUN/synth/refused.parquet                 domains that a model invented wrongly, and why
    RUN/synth/asked/                          the answers of models, by the hash of what was asked
    RUN/synth/judged.parquet                  grades of a model for the manner of attempts, with its reasons
    RUN/synth/tasks/00000.parquet ...         one row for each task, with its users, plan and rubric
    RUN/synth/attempts/00000.parquet ...      one row for each attempt at a task, kept or not, with its ATIF
    RUN/synth/kept.parquet                    which of them are data, and why others are not

Views: `domains`, `tools`, `agents`, `refused`, `tasks`, `attempts`, `judged`, `trajectories`, the attempts that are
kept, and `near_misses`, those that have failed with half of the points or more.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openk2.core import UserError
from openk2.core.runs import MANIFEST, atomic_path, check_utf8

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

STAGE, RECIPE = "synth", "recipe.json"
DOMAINS, TOOLS, AGENTS, KEPT = "domains.parquet", "tools.parquet", "agents.parquet", "kept.parquet"
REFUSED, JUDGED, ASKED = "refused.parquet", "judged.parquet", "asked"
TASKS, ATTEMPTS = "tasks", "attempts"
_PARTS = {
    "domains": DOMAINS, "tools": TOOLS, "agents": AGENTS, "made": f"{TASKS}/*.parquet",
    "tried": f"{ATTEMPTS}/*.parquet", "verdicts": KEPT, "refused": REFUSED, "judged": JUDGED,
}  # fmt: skip
"""The files behind each view."""
_NEAR = 0.5
"""What has failed with so many points is nearly right: a negative to learn from."""
_PACKED_AT_ONCE = 2048
_TASK_TEXTS = ("task", "domain", "category", "agent", "kinds", "data")
_TEXTS = ("task", "hash", "policy", "tools", "calls", "stop", "reason", "atif")
_COUNTS = ("number", "attempt", "steps", "n_calls", "malformed", "user_turns", "prompt_tokens", "tokens")


def packages() -> tuple[Any, Any]:
    """pyarrow and its Parquet. Raises UserError if they are not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as e:
        raise UserError("the lake needs pyarrow and duckdb: pip install 'openk2[data]'") from e
    return pa, pq


def tasks_schema() -> pa.Schema:
    """The columns of a task. `kinds` are names with a blank between them; `data` is null where no task was found."""
    pa, _ = packages()
    return pa.schema([("number", pa.int64()), *((name, pa.string()) for name in _TASK_TEXTS)])


def attempts_schema() -> pa.Schema:
    """The columns of an attempt. `tools` and `calls` are names with a blank between them; `malformed` counts the calls
    that could not be read."""
    pa, _ = packages()
    counts = [(name, pa.int64()) for name in _COUNTS]
    return pa.schema(
        [*counts, *((name, pa.string()) for name in _TEXTS), ("passed", pa.bool_()), ("score", pa.float64())]
    )


def refused_schema() -> pa.Schema:
    """The columns of what was refused."""
    pa, _ = packages()
    return pa.schema([(name, pa.string()) for name in ("name", "reason", "detail")])


def judged_schema() -> pa.Schema:
    """The columns of a judgement. `grade` is null where the attempt is excluded; `grades` and `reasons` are JSON."""
    pa, _ = packages()
    texts = ("judge", "verdict", "grades", "reasons", "excluded")
    return pa.schema(
        [("number", pa.int64()), ("attempt", pa.int64()), ("grade", pa.float64()), *((n, pa.string()) for n in texts)]
    )


class Rows:
    """Rows that become a table, packed as they come: as dicts, some ten thousand take hundreds of megabytes."""

    def __init__(self, schema: pa.Schema | None = None) -> None:
        self._schema = schema
        self._packed: list[pa.Table] = []
        self._loose: list[dict[str, Any]] = []

    def append(self, row: dict[str, Any]) -> None:
        self._loose.append(row)
        if len(self._loose) == _PACKED_AT_ONCE:
            self._pack()

    def table(self) -> pa.Table:
        """All rows, in their order."""
        pa, _ = packages()
        if self._loose or not self._packed:
            self._pack()
        return pa.concat_tables(self._packed).combine_chunks()

    def _pack(self) -> None:
        pa, _ = packages()
        self._packed.append(pa.Table.from_pylist(self._loose, schema=self._schema))
        self._loose = []


def write_table(path: Path, rows: Iterable[dict[str, Any]] | Rows, schema: pa.Schema | None = None) -> None:
    """A Parquet file, atomically: the same rows give the same bytes. Raises UserError if it cannot be written."""
    pa, pq = packages()
    table = rows.table() if isinstance(rows, Rows) else pa.Table.from_pylist(list(rows), schema=schema)
    with atomic_path(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=3,
            use_dictionary=_dictionary(table),
            write_page_checksum=True,
        )


def _dictionary(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name not in ("atif", "hash", "declaration", "data", "task")]


def rows_in(path: Path) -> int:
    """How many rows a Parquet file has; -1 if there is none that can be read. Raises UserError if it has columns of
    tasks or attempts missing: what a model has said is not thrown away."""
    _, pq = packages()
    try:
        file = pq.ParquetFile(path)
    except _unreadable():
        return -1
    schemas = {TASKS: tasks_schema, ATTEMPTS: attempts_schema}
    if path.parent.name in schemas:
        there = {field.name: field.type for field in file.schema_arrow}
        wrong = [field.name for field in schemas[path.parent.name]() if there.get(field.name) != field.type]
        if wrong:
            raise UserError(
                f"{path} has no column {wrong[0]!r} as it is now: another version of this program has written it; "
                "look at it with that one, or make a run in a new folder"
            )
    return int(file.metadata.num_rows)


def is_whole(path: Path) -> bool:
    """Whether all of a Parquet file can be read, and not its end alone. Raises UserError as `rows_in` does."""
    if rows_in(path) < 0:
        return False
    try:
        for batch in _batches(path, 1024):
            # A file without checksums may give texts that are none.
            batch.validate(full=True)
    except _unreadable():
        return False
    return True


def files_of(folder: Path) -> Iterator[Path]:
    """All Parquet files of a lake."""
    for files in _PARTS.values():
        yield from sorted(folder.glob(files))


def tasks_in(path: Path) -> int:
    """How many tasks of a shard could be made; -1 if the file cannot be read."""
    _, pq = packages()
    return rows_in(path) - pq.read_table(path, columns=["data"])["data"].null_count if rows_in(path) >= 0 else -1


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, a few at a time. Raises UserError if it is damaged."""
    try:
        for batch in _batches(path, 64):
            yield from batch.to_pylist()
    except _unreadable() as e:
        raise damaged(path) from e


def _batches(path: Path, size: int) -> Iterator[pa.RecordBatch]:
    _, pq = packages()
    yield from pq.ParquetFile(path, page_checksum_verification=True).iter_batches(size)


def _unreadable() -> tuple[type[BaseException], ...]:
    """What pyarrow raises for a file that is damaged somewhere."""
    pa, _ = packages()
    return OSError, ValueError, MemoryError, pa.ArrowException


def damaged(path: Path) -> UserError:
    """What is said of a Parquet file that cannot be read."""
    return UserError(f"{path} is damaged: the same synth run command makes it anew")


def lake_folder(run: Path) -> Path:
    """The folder of a run's lake. Raises UserError if there is none, or if its recipe is damaged."""
    check_utf8(run)
    folder = run / STAGE
    if not (folder / RECIPE).exists():
        raise UserError(f"{run} is not a run of the data factory: name the folder that was given to synth run as --run")
    recipe_of(folder)
    return folder


def recipe_of(folder: Path) -> dict[str, Any]:
    """The recipe that the folder of a lake was made by. Raises UserError if it is damaged."""
    path = folder / RECIPE
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        kinds = {str: (recipe["name"], recipe["attempts"]["model"]), int: (recipe["seed"], recipe["tasks"]["count"])}
        if all(isinstance(value, kind) for kind, values in kinds.items() for value in values):
            return dict(recipe)
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    raise damaged_recipe(path)


def damaged_recipe(path: Path) -> UserError:
    """What is said of a recipe in a run that cannot be read."""
    return UserError(f"{path} is damaged: delete the folder {path.parent} to begin anew")


class Lake:
    """Reads a run."""

    def __init__(self, run: Path) -> None:
        self.folder = lake_folder(run)
        packages()
        import duckdb

        self._connection: duckdb.DuckDBPyConnection = duckdb.connect()
        # It thinks that a notebook, or `python -c`, wants to see its bar among the rows of whatever takes two seconds.
        self._connection.execute("SET enable_progress_bar = false")
        try:
            self._make_views()
        except duckdb.Error as e:
            raise UserError(f"the files in {self.folder} do not fit together: {_first_line(e)}") from None

    def _make_views(self) -> None:
        there = {view for view, files in _PARTS.items() if any(self.folder.glob(files))}
        for path in files_of(self.folder):
            if rows_in(path) < 0:
                raise damaged(path)
        for view in sorted(there):
            where = f"{glob.escape(str(self.folder))}/{_PARTS[view]}".replace("'", "''")
            self._connection.execute(f"CREATE VIEW {view} AS SELECT * FROM read_parquet('{where}')")
        for view, schema in ((REFUSED, refused_schema), (JUDGED, judged_schema)):
            # A question may name what no run without a model has.
            if (name := Path(view).stem) not in there:
                self._connection.register(name, schema().empty_table())
        if "made" in there:
            tried = "tried" if "tried" in there else "(SELECT 0 number, false passed WHERE false)"
            self._connection.execute(
                "CREATE VIEW tasks AS SELECT m.*, coalesce(t.attempts, 0) attempts, coalesce(t.passed, 0) passed, "
                "1 - t.passed / nullif(t.attempts, 0) difficulty FROM made m LEFT JOIN "
                "(SELECT number, count(passed) attempts, "
                f"count(*) FILTER (passed) passed FROM {tried} GROUP BY number) t ON m.number = t.number"
            )
        if "tried" in there:
            about, judgement = "m.domain, m.category, m.agent, m.kinds", ""
            if "judged" in there:
                about += ", j.judge, j.grade, j.verdict manner, j.reasons manner_reasons"
                judgement = "LEFT JOIN judged j ON t.number = j.number AND t.attempt = j.attempt"
            self._connection.execute(
                f"CREATE VIEW attempts AS SELECT t.*, {about} FROM tried t JOIN made m ON t.number = m.number "
                f"{judgement}"
            )
            self._connection.execute(
                f"CREATE VIEW near_misses AS SELECT * FROM attempts WHERE NOT passed AND score >= {_NEAR}"
            )
            chosen = "passed" if "verdicts" not in there else "dropped = ''"
            joined = "" if "verdicts" not in there else "JOIN verdicts v USING (number, attempt)"
            self._connection.execute(
                f"CREATE VIEW trajectories AS SELECT a.* FROM attempts a {joined} WHERE {chosen} "
                "ORDER BY a.number, a.attempt"
            )

    def query(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Names of columns and rows. Raises UserError with DuckDB's words for what is wrong in a question."""
        import duckdb

        try:
            return self._ask(sql)
        except duckdb.Error as e:
            raise self._unanswered(e) from None

    def pieces(self, sql: str, size: int = 1000) -> tuple[list[str], Iterator[list[tuple[Any, ...]]]]:
        """As `query`, but the rows come in pieces, at least one: an answer of any size passes through little memory."""
        import duckdb

        try:
            found = self._begun(sql)
        except duckdb.Error as e:
            raise self._unanswered(e) from None

        def rows() -> Iterator[list[tuple[Any, ...]]]:
            try:
                piece = found.fetchmany(size)
                yield piece
                while len(piece) == size:
                    piece = found.fetchmany(size)
                    yield piece
            except duckdb.Error as e:
                raise self._unanswered(e) from None

        return [column[0] for column in found.description or []], rows()

    def _begun(self, sql: str) -> duckdb.DuckDBPyConnection:
        # Without a statement DuckDB answers nothing at all.
        found: duckdb.DuckDBPyConnection | None = self._connection.execute(sql)
        if found is None:
            raise UserError("the query is empty: ask something in SQL, such as select count(*) from trajectories")
        return found

    def _ask(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        found = self._begun(sql)
        return [column[0] for column in found.description or []], found.fetchall()

    def one(self, sql: str) -> Any:
        """A single value, 0 where the table is not there yet."""
        _, rows = self.query_if_there(sql)
        return rows[0][0] if rows else 0

    def declarations(self) -> dict[str, str]:
        """Of the simulated domains: by name, as JSON."""
        return {str(name): str(text) for name, text in self.query("SELECT name, declaration FROM domains")[1]}

    def query_if_there(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """As `query`; nothing where a table is not there yet."""
        import duckdb

        try:
            return self._ask(sql)
        except duckdb.CatalogException:
            return [], []
        except duckdb.Error as e:
            raise self._unanswered(e) from None

    def stream(self, sql: str, size: int = 256) -> Any:
        """Rows in pieces, so that a lake of any size can be read in little memory. Raises UserError as `query` does."""
        import duckdb

        try:
            found = self._connection.execute(sql)
            while rows := found.fetchmany(size):
                yield from rows
        except duckdb.Error as e:
            raise self._unanswered(e) from None

    def _unanswered(self, error: Exception) -> UserError:
        """What is wrong: a file that is damaged inside, else DuckDB's words for the question."""
        import duckdb

        if not isinstance(error, duckdb.ParserException | duckdb.CatalogException | duckdb.BinderException):
            for path in files_of(self.folder):
                if not is_whole(path):
                    return damaged(path)
        return UserError(f"the query cannot be answered: {_first_line(error)}")

    def status(self) -> dict[str, Any]:
        """Counts for each stage."""
        dropped: dict[str, int] = {}
        if (self.folder / KEPT).exists():
            _, rows = self.query(
                "SELECT dropped, count(*) FROM verdicts WHERE dropped <> '' GROUP BY 1 ORDER BY 2 DESC, 1"
            )
            dropped = {str(reason): int(count) for reason, count in rows}
            kept = self.one("SELECT count(*) FROM verdicts WHERE dropped = ''")
        else:
            kept = self.one("SELECT count(*) FROM tried WHERE passed")
        _, refused = self.query_if_there(
            "SELECT reason, count(*) FROM ("
            + ("SELECT reason FROM refused UNION ALL " if (self.folder / REFUSED).exists() else "")
            + "SELECT 'tool ' || split_part(dropped, ':', 1) reason FROM tools WHERE dropped LIKE '%:%'"
            ") GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        return {
            "domains": int(self.one("SELECT count(*) FROM domains")),
            "tools": int(self.one("SELECT count(*) FROM tools WHERE dropped = ''")),
            "agents": int(self.one("SELECT count(*) FROM agents")),
            "tasks": int(self.one("SELECT count(*) FROM tasks WHERE data IS NOT NULL")),
            "attempts": int(self.one("SELECT count(*) FROM tried")),
            "kept": int(kept),
            "dropped": dropped,
            "refused": {str(reason): int(count) for reason, count in refused},
            "wanted": int(recipe_of(self.folder)["tasks"]["count"]),
            "finished": (self.folder / MANIFEST).exists(),
        }


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
