"""`openk2 synth`: the data factory. Domains, agents, tasks, trajectories, and what of them is kept."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from openk2.cli.common import MODEL_HELP, ForceOption, RecipeRunOption, given_path, set_option
from openk2.core import UserError
from openk2.core.errors import Interrupted

app = typer.Typer(
    name="synth",
    help="The data factory: apps, agents, tasks and trajectories.",
    no_args_is_help=True,
)
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder that synth run was given as --run.", parser=given_path)
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, max=256, help="Processes.", show_default="one for each core"),
]


_REJECTED = 0.95
"""So many of the attempts with a mistake must be rejected, and of the right ones accepted."""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@app.command()
def run(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="Such as recipes/synth-offline.toml.", parser=given_path)
    ],
    folder: RecipeRunOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help=f"Who tries the tasks: {MODEL_HELP}", show_default="the recipe's"
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Only so many tasks.", show_default=False)
    ] = None,
    workers: WorkersOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="S", help="Another seed than the recipe's.", show_default=False)
    ] = None,
    overrides: Annotated[list[str] | None, set_option("attempts.per_task=4")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make data, or go on where it stopped.

    The same command again continues: what is finished is kept, and the bytes are the same whatever the number of
    workers. A larger --limit adds tasks to those that are there; none that was tried is left out. Without --model a
    program that knows the plan acts, so that no model is needed.
    """
    from openk2.synth.factory import run_factory
    from openk2.synth.recipe import load_synth_recipe

    given = [("tasks.count", limit), ("seed", seed), ("attempts.model", model and json.dumps(model))]
    changes = [*(overrides or []), *(f"{key}={value}" for key, value in given if value is not None)]
    loaded = load_synth_recipe(recipe, changes)
    where = folder or Path("runs") / loaded.name
    try:
        status_ = run_factory(loaded, where, workers=workers or _cores())
    except KeyboardInterrupt as e:
        raise Interrupted(f"interrupted: all that was finished is kept in {where}") from e
    _show_status(status_, as_json)


@app.command()
def status(folder: RunArgument, as_json: JsonOption = False) -> None:
    """Counts for each stage of a run.

    Domains, tools, agents, tasks, attempts, kept, and dropped by reason.
    """
    from openk2.data.lake import Lake

    _show_status(Lake(folder).status(), as_json)


@app.command()
def verify(
    folder: RunArgument,
    workers: WorkersOption = None,
    self_test: Annotated[
        int | None,
        typer.Option(
            "--self-test", metavar="N", help="Change one value in each of N trajectories instead: all must disagree.",
            min=1, show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Execute every kept trajectory again.

    From its seed and offline; exits with 1 if one disagrees, and if there is none.

    With --self-test the verifiers themselves are tried: on changed trajectories, on an agent that makes one of the
    mistakes that models make in each task, and on one that says what is right in other words. Exits with 1 if a change
    goes unnoticed, or more than 5 % of the mistakes, or if more than 5 % of what is right is rejected.
    """
    if self_test is not None:
        _self_test(folder, self_test, as_json)
        return
    from openk2.synth.verify import verify_run

    found = verify_run(folder, workers=workers or _cores())
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        print(f"{found.checked} checked, {found.agreed} agreed, {found.checked - found.agreed} disagreed")
        for line in found.differences:
            print(f"  {line}")
    if found.agreed < found.checked or not found.checked:
        raise typer.Exit(1)


def _self_test(folder: Path, count: int, as_json: bool) -> None:
    from openk2.synth.selftest import self_test

    found = self_test(folder, count)
    changed, mistakes = found.noticed, found.rejected
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        low, high = mistakes.to_json()["ci95"]
        print(f"{changed.n} changed, {changed.passed} noticed, {found.by_execution.passed} by execution alone")
        print(
            f"{mistakes.n} attempts with a mistake, {mistakes.passed} rejected: "
            f"{mistakes.passed / max(mistakes.n, 1):.1%} (95 % CI {low:.1%} to {high:.1%})"
        )
        print(f"{found.accepted.n} right ones in other words, {found.accepted.passed} accepted")
        for kind, times in found.missed.most_common():
            print(f"  {kind}: {times}")
    right = found.accepted.passed >= _REJECTED * found.accepted.n
    if changed.passed < changed.n or mistakes.passed < _REJECTED * mistakes.n or not right:
        raise typer.Exit(1)


@app.command()
def query(
    folder: RunArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A question to DuckDB.")],
    as_json: JsonOption = False,
) -> None:
    """Ask a run in SQL.

    There are the views domains, tools, agents, refused, tasks, attempts, judged, trajectories and near_misses.

    For example: select domain, count(*) from trajectories group by 1 order by 2 desc limit 10
    """
    from openk2.data.lake import Lake

    columns, rows = Lake(folder).pieces(sql)
    if as_json:
        _print_json(columns, rows)
    else:
        _print_table(columns, rows)


def _print_json(columns: list[str], pieces: Iterator[list[tuple[Any, ...]]]) -> None:
    """A list of objects, piece by piece."""
    before = "["
    for rows in pieces:
        for row in rows:
            print(before + json.dumps(_finite(dict(zip(columns, row, strict=True))), default=str), end="")
            before = ", "
    print("[]" if before == "[" else "]")


def _finite(value: Any) -> Any:
    """A value with null for each number that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _print_table(columns: list[str], pieces: Iterator[list[tuple[Any, ...]]]) -> None:
    """A table, piece by piece: those that follow the first one are at least as wide. No word is cut, as half a hash is
    none: where the words do not fit beside each other, what is left stands below each other, row by row."""
    from rich.cells import cell_len
    from rich.table import Table

    from openk2.core.progress import new_console

    console = new_console()
    room = console.width - 2 * len(columns)
    widths = [0] * len(columns)
    number, below = 0, False
    for rows in pieces:
        texts = [[str(value) for value in row] for row in rows]
        cells = list(zip(*([] if number else [columns]), *texts, strict=True))
        words = [max((cell_len(word) for text in cell for word in text.split()), default=0) for cell in cells]
        below = below or sum(words) > room
        if below:
            _print_rows(columns, texts, number)
        elif rows or not number:
            lines = [max((cell_len(line) for text in cell for line in text.split("\n")), default=0) for cell in cells]
            widths = _widths(list(map(max, words, widths)), lines, room) or _widths(words, lines, room)
            table = Table(box=None, pad_edge=False, show_header=number == 0)
            for column, width in zip(columns, widths, strict=True):
                table.add_column(column, width=width)
            for row in texts:
                table.add_row(*row)
            console.print(table, markup=False)
        number += len(rows)


def _widths(least: list[int], wanted: list[int], room: int) -> list[int]:
    """How wide columns are: the narrowest gets more first, until all is shown. Empty if there is no room."""
    widths = list(least)
    for _ in range(room - sum(widths)):
        if short := [i for i, width in enumerate(widths) if width < wanted[i]]:
            widths[min(short, key=widths.__getitem__)] += 1
    return widths if sum(widths) <= room else []


def _print_rows(columns: list[str], rows: list[list[str]], before: int) -> None:
    """Rows below each other, with the names beside the values."""
    label = max(map(len, columns), default=0)
    if not rows and not before:
        print(*columns)
    for number, row in enumerate(rows, start=before + 1):
        print(f"- {number}")
        for column, value in zip(columns, row, strict=True):
            print(f"{column:<{label}}  " + value.replace("\n", "\n" + " " * (label + 2)))


@app.command()
def report(
    folder: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where to write.", show_default="RUN/synth/report", parser=given_path
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="FILE",
            help="Specs of MCP servers, as JSON lines with server, domain and tools, to compare the tools with.",
            show_default="toucan_mcp/servers.jsonl of OPENK2_DATA, if it is there",
            parser=given_path,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a page with figures and pictures of a run.

    What it covers, how varied, hard and long it is, and what was dropped. report.html is one file that asks nobody
    for anything, with a table behind each picture; beside it are the pictures as PNG. The run may still be under way.
    --json prints all figures.

    Example: ./k2 synth report runs/synth-offline
    """
    from openk2.synth.report import summary, write_report

    figures, paths = write_report(folder, out, compare)
    if as_json:
        print(json.dumps(figures | {"paths": [str(path) for path in paths]}))
        return
    from rich.table import Table

    from openk2.core.progress import new_console

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for label, value in summary(figures):
        table.add_row(label, value)
    new_console().print(table, markup=False)
    for path in paths:
        print(path)


@app.command()
def show(
    folder: RunArgument,
    n: Annotated[int, typer.Option("-n", "--n", metavar="N", min=1, help="How many tasks.")] = 50,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Another seed draws other tasks.")] = 0,
    trajectories: Annotated[
        bool, typer.Option("--trajectories/--no-trajectories", help="With what was said and called, or without.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write a file.", show_default="print", parser=given_path),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Print tasks drawn at random, to be read.

    With their users, rubrics and trajectories, unedited, in Markdown. Failed attempts are drawn like those that are
    kept; each says what became of it.

    Example: ./k2 synth show runs/synth-offline --n 5
    """
    from openk2.core.runs import check_new_file, write_text
    from openk2.synth.show import markdown

    if out is not None:
        check_new_file(out, force=force)
    text = markdown(folder, n=n, seed=seed, trajectories=trajectories)
    if out is None:
        print(text, end="")
        return
    write_text(out, text)
    print(out)


def _show_status(found: dict[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    for name in ("domains", "tools", "agents", "tasks", "attempts", "kept"):
        print(f"{name:>9}  {found[name]:>9,}")
    dropped = found["dropped"]
    if not isinstance(dropped, dict):
        raise UserError("the status is damaged: run synth run again")
    for reason, count in dropped.items():
        print(f"  dropped  {count:>9,}  {reason}")
    refused = found["refused"]
    for reason, count in refused.items() if isinstance(refused, dict) else ():
        print(f"  refused  {count:>9,}  {reason}")
    if not found["finished"]:
        print("not finished: the same synth run command continues")
