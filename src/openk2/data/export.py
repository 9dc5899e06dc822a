"""Trajectories for other programs: one exporter for every kind of run.

A source is a run of the data factory, the folder where an evaluation saved its trajectories, or any folder of ATIF
files. Of them those are written that were not found to have failed; `everything` adds the failed ones, with their
score.

    openai     JSON lines: messages and tools of OpenAI's chat format, arguments as JSON text
    trl        Parquet for SFTTrainer: messages whose arguments are objects, and tools; `everything`: prompt,
               completion and label, for KTOTrainer
    verl       Parquet, a row for each task: prompt, data_source, ability, reward_model, extra_info
    verifiers  Parquet or JSON lines, a row for each task: prompt, answer, info, id
    atif       a folder with one .json for each trajectory

The same source gives the same bytes, and trajectories pass through one by one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openk2.core import Message, Trajectory, UserError
from openk2.core.atif import from_atif
from openk2.core.messages import as_unicode, compact_json
from openk2.core.runs import atomic_path, check_new_file, check_utf8, remove_stale, there_already, write_text
from openk2.data.lake import ATTEMPTS, KEPT, RECIPE, STAGE, lake_folder, packages, read_rows, recipe_of

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 256
"""Rows that are written at a time."""
FAILED = "failed"
"""How the reason begins for which a run of the factory drops what has not passed."""
Watch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """One trajectory of a source. `id` is unique there, and a path; without a score nothing has judged it."""

    id: str
    trajectory: Trajectory
    document: dict[str, Any]
    score: float | None

    @property
    def passed(self) -> bool:
        """Whether it was not found to have failed."""
        return self.trajectory.verdict.passed is not False


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported: how many trajectories there are, one after the other."""

    name: str
    total: int
    samples: Callable[[], Iterator[Sample]]


@dataclass(frozen=True, slots=True)
class Form:
    """A format: how its files are called (none: it is a folder), and whether a row is a task and not a trajectory."""

    suffixes: tuple[str, ...]
    row: Callable[[Sample, int, bool], dict[str, Any]] | None = None
    schema: Callable[[bool], pa.Schema] | None = None
    tasks: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how many trajectories had failed and were left out."""

    rows: int
    failed: int
    path: Path


# Sources


def open_source(path: Path, everything: bool = False) -> Source:
    """What a folder holds. Raises UserError if it holds nothing that can be exported."""
    if (path / STAGE / RECIPE).exists():
        return _factory_run(path, everything)
    if path.is_file():
        raise UserError(f"{path} is a file: name the folder of a run, or one with ATIF files")
    if not path.is_dir():
        raise UserError(
            f"there is no folder {path}: name a run of synth or rl, a folder of eval --save, or one of ATIF files"
        )
    files = sorted(path.rglob("*.json"))
    if not files:
        raise UserError(
            f"{path} has no trajectories: name a folder of synth run --run, of eval --save, or of ATIF files, or a run "
            "of rl that was not stopped at its start"
        )

    def samples() -> Iterator[Sample]:
        for file in files:
            yield _sample(file.relative_to(path).with_suffix("").as_posix(), _document(file), None, str(file))

    return Source(path.resolve().name, len(files), samples)


def _factory_run(path: Path, everything: bool) -> Source:
    folder = lake_folder(path)
    packages()
    if not (folder / KEPT).exists():
        raise UserError(
            f"{path} is not finished, so nothing is decided to be kept: the same synth run command goes on, and with "
            "--limit ends with what is there"
        )
    name = str(recipe_of(folder)["name"])

    def wanted(verdict: dict[str, Any]) -> bool:
        dropped = str(verdict["dropped"])
        return not dropped or (everything and dropped.startswith(FAILED))

    def samples() -> Iterator[Sample]:
        # Both are in the order of the tasks. A join would sort all texts of all attempts at once.
        files = sorted((folder / ATTEMPTS).glob("*.parquet"))
        attempts = (row for file in files for row in read_rows(file))
        for row, verdict in zip_longest(attempts, read_rows(folder / KEPT)):
            if not row or not verdict or (row["number"], row["attempt"]) != (verdict["number"], verdict["attempt"]):
                raise UserError(f"the attempts in {folder} are not those that were judged: run the synth run command")
            if wanted(verdict):
                where = f"task {row['task']} of {path}"
                yield _sample(f"{row['task']}-{row['attempt']}", _parsed(row["atif"], where), row["score"], where)

    return Source(name, sum(map(wanted, read_rows(folder / KEPT))), samples)


def _document(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not JSON: take it out of the folder, or name the folder of a run") from e


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UserError(f"{where} is not JSON: take it out of the folder, or name the folder of a run") from e
    if not isinstance(found, dict):
        raise UserError(f"{where} is not a trajectory: take it out of the folder, or name the folder of a run")
    return found


def _sample(name: str, document: dict[str, Any], score: float | None, where: str) -> Sample:
    try:
        trajectory = from_atif(document)
    except (UserError, TypeError) as e:
        raise UserError(f"{where}: {e}; take it out of what is exported") from e
    if score is None and trajectory.verdict.passed is not None:
        score = float(trajectory.verdict.passed)
    return Sample(name, trajectory, document, score)


# Rows


def _openai(sample: Sample, _: int, everything: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "messages": [message.to_openai() for message in sample.trajectory.messages],
        "tools": [tool.to_openai() for tool in sample.trajectory.tools],
    }
    # A row of successes alone has nothing that OpenAI's fine-tuning does not know.
    return row | {"passed": sample.trajectory.verdict.passed, "score": sample.score} if everything else row


def _trl(sample: Sample, _: int, everything: bool) -> dict[str, Any]:
    messages = [_with_objects(message, sample.id) for message in sample.trajectory.messages]
    tools = [compact_json(tool.to_openai()) for tool in sample.trajectory.tools]
    texts = [compact_json(message) for message in messages]
    if not everything:
        return {"messages": texts, "tools": tools}
    opening = len(_opening(sample.trajectory))
    return {
        "prompt": texts[:opening], "completion": texts[opening:], "tools": tools, "label": sample.passed,
        "score": sample.score,
    }  # fmt: skip


def _with_objects(message: Message, name: str) -> dict[str, Any]:
    """A message as chat templates want it. Arguments that are no object are a failure's: their text stays."""
    raw = message.to_openai()
    for call, one in zip(message.tool_calls, raw.get("tool_calls", ()), strict=True):
        try:
            arguments: Any = call.parsed()
            compact_json(arguments, finite=True)
        except (ValueError, RecursionError):
            arguments = call.arguments
        one["function"]["arguments"] = arguments
    return raw


def _verl(sample: Sample, index: int, everything: bool) -> dict[str, Any]:
    task = sample.trajectory.task
    extra = {
        "index": index,
        "split": task.split,
        "id": task.id,
        "task": compact_json(dataclasses.asdict(task)),
        "tools": compact_json([tool.to_openai() for tool in sample.trajectory.tools]),
    }
    return {
        "data_source": f"openk2/{task.family or 'tasks'}",
        "prompt": [{"role": m.role, "content": m.content} for m in _opening(sample.trajectory)],
        "ability": task.skill or task.family or "tools",
        "reward_model": {"style": "rule", "ground_truth": compact_json(task.data.get("rubric", task.data))},
        "extra_info": extra | ({"score": sample.score} if everything else {}),
    }


def _verifiers(sample: Sample, _: int, everything: bool) -> dict[str, Any]:
    task = sample.trajectory.task
    info = {
        # Not "task", here or as a column: to verifiers that is the whole row in another form, since 0.1.14.
        "openk2_task": dataclasses.asdict(task),
        # What verifiers gives the model as tools.
        "tool_defs": [dataclasses.asdict(tool) for tool in sample.trajectory.tools],
    } | ({"score": sample.score} if everything else {})
    return {
        "prompt": [{"role": m.role, "content": m.content} for m in _opening(sample.trajectory)],
        "answer": sample.trajectory.answer if sample.passed else "",
        # As text, since no two tasks' data have the same fields.
        "info": compact_json(info),
        "id": task.id or sample.id,
    }


def _opening(trajectory: Trajectory) -> list[Message]:
    """What is said before the policy's first turn."""
    return list(takewhile(lambda message: message.role != "assistant", trajectory.messages))


def _trl_schema(everything: bool) -> pa.Schema:
    import pyarrow as pa

    # Objects of any fields: `datasets` reads this type as it was written, without a null for each field of others.
    objects = pa.list_(pa.json_())
    if not everything:
        return pa.schema([("messages", objects), ("tools", objects)])
    return pa.schema(
        [
            ("prompt", objects),
            ("completion", objects),
            ("tools", objects),
            ("label", pa.bool_()),
            ("score", pa.float64()),
        ]
    )


def _prompt_type() -> pa.DataType:
    import pyarrow as pa

    return pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def _verl_schema(everything: bool) -> pa.Schema:
    import pyarrow as pa

    extra = [("index", pa.int64()), *((name, pa.string()) for name in ("split", "id", "task", "tools"))]
    return pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", _prompt_type()),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
            ("extra_info", pa.struct([*extra, *([("score", pa.float64())] if everything else [])])),
        ]
    )


def _verifiers_schema(everything: bool) -> pa.Schema:
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("answer", "info", "id")]
    return pa.schema([("prompt", _prompt_type()), *texts])


FORMS = {
    "openai": Form((".jsonl",), _openai),
    "trl": Form((".parquet",), _trl, _trl_schema),
    "verl": Form((".parquet",), _verl, _verl_schema, tasks=True),
    "verifiers": Form((".parquet", ".jsonl"), _verifiers, _verifiers_schema, tasks=True),
    "atif": Form(()),
}


# Writing


def export(
    source: Path,
    to: str,
    target: Path,
    *,
    everything: bool = False,
    force: bool = False,
    watch: Watch = lambda done, total: None,
) -> Exported:
    """Write a source in a format. Raises UserError, and leaves nothing behind, if something cannot be read or written,
    if `target` is there without `force`, and if there is nothing to write."""
    if to not in FORMS:
        raise UserError(f"there is no format {to!r}: use one of {', '.join(FORMS)}")
    form = FORMS[to]
    # First: of a run that is not there, nobody can say whether DST should have been a file or, as of rl, a folder.
    found = open_source(source, everything)
    _check_target(form, to, target, force)
    if form.schema is not None and target.suffix == ".parquet":
        need_pyarrow()
        check_utf8(target)
    if form.row is None:
        _check_apart(source.resolve(), target.resolve(), target)
    counts = {"rows": 0, "failed": 0}
    samples = _chosen(found, form, everything, watch, counts)
    if form.row is None:
        _write_folder(target, samples, counts)
    else:
        rows = _counted((form.row(sample, at, everything) for at, sample in enumerate(samples)), counts)
        with atomic_path(target) as temporary:
            if target.suffix == ".parquet" and form.schema is not None:
                _write_parquet(temporary, rows, form.schema(everything))
            else:
                with open(temporary, "w", encoding="utf-8", newline="\n") as f:
                    f.writelines(as_unicode(compact_json(row)) + "\n" for row in rows)
            _check_some(counts, source)
    return Exported(counts["rows"], counts["failed"], target)


def _check_target(form: Form, to: str, target: Path, force: bool) -> None:
    if form.row is not None and target.suffix not in form.suffixes:
        raise UserError(f"{to} is a file: name one that ends in {' or '.join(form.suffixes)}, and not {target}")
    if form.row is not None:
        check_new_file(target, force=force)
        return
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file, and {to} is a folder: name a folder")
    if not target.exists() or not any(target.iterdir()):
        return
    if not force:
        raise there_already(target)
    if any(file.suffix != ".json" for file in target.rglob("*") if not file.is_dir()):
        raise UserError(f"{target} has files that no export wrote, so it is not replaced: name another folder")


def _check_apart(source: Path, target: Path, given: Path) -> None:
    """Neither would be read while it is written, nor be replaced together with the other."""
    if source == target or source in target.parents or target in source.parents:
        raise UserError(f"{given} and what is exported are one within the other: name another folder")


def need_pyarrow() -> None:
    try:
        # Not only looked for: an installation may be there and broken.
        import_module("pyarrow.parquet")
    except ImportError as e:
        raise UserError("Parquet needs pyarrow: pip install 'openk2[data]'") from e


def _chosen(found: Source, form: Form, everything: bool, watch: Watch, counts: dict[str, int]) -> Iterator[Sample]:
    """The samples that are written: where a row is a task, the first of each."""
    tasks: set[str] = set()
    watch(0, found.total)
    for done, sample in enumerate(found.samples(), 1):
        watch(done, found.total)
        if not everything and not sample.passed:
            counts["failed"] += 1
            continue
        if form.tasks:
            name = sample.trajectory.task.id or sample.id
            if name in tasks:
                continue
            tasks.add(name)
        yield sample


def _counted(rows: Iterable[dict[str, Any]], counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    for row in rows:
        counts["rows"] += 1
        yield row


def _check_some(counts: dict[str, int], source: Path) -> None:
    if not counts["rows"]:
        why = (
            f"all {counts['failed']} trajectories failed: --all exports them" if counts["failed"] else "none were kept"
        )
        raise UserError(f"{source} has nothing to export: {why}")


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []

        def flush() -> None:
            columns = [_column([row[field.name] for row in batch], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            batch.clear()

        for row in rows:
            batch.append(_as_unicode(row))
            if len(batch) == _BATCH:
                flush()
        if batch:
            flush()


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if kind != pa.list_(pa.json_()):
        return pa.array(values, kind)
    # Arrow makes no lists of JSON from Python: they are lists of text with another name.
    texts = pa.array(values, pa.list_(pa.string()))
    return pa.ListArray.from_arrays(texts.offsets, pa.ExtensionArray.from_storage(pa.json_(), texts.values))


def _as_unicode(value: Any) -> Any:
    """Without halves of characters, which a model can write and no file can hold."""
    if isinstance(value, str):
        return as_unicode(value)
    if isinstance(value, dict):
        return {key: _as_unicode(one) for key, one in value.items()}
    return [_as_unicode(one) for one in value] if isinstance(value, list) else value


def _write_folder(target: Path, samples: Iterator[Sample], counts: dict[str, int]) -> None:
    """All files in a folder beside the target, which takes its place when they are complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    old = target.with_name(f".{target.name}.{os.getpid()}.old.tmp")
    try:
        for sample in samples:
            counts["rows"] += 1
            write_text(temporary / f"{sample.id}.json", json.dumps(_valid(sample)) + "\n")
        _check_some(counts, target)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _valid(sample: Sample) -> dict[str, Any]:
    import atif

    document: dict[str, Any] = atif.Trajectory.model_validate(sample.document).to_json_dict()
    return document
