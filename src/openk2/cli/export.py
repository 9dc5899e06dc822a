"""`openk2 export`: trajectories of any run for other programs, runs of reinforcement learning for other trainers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import ForceOption, given_path
from openk2.core import UserError
from openk2.core.errors import Interrupted


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run of synth or rl, a folder of eval --save, or one of ATIF files.",
            parser=given_path,
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="DST", help="What to make: a file; for atif, and of a run of rl, a folder.", parser=given_path
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="openai, trl, verl, verifiers or atif.")],
    everything: Annotated[bool, typer.Option("--all", help="Failed trajectories too, with their score.")] = False,
    force: ForceOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Write the trajectories of a run as others read them.

    openai is JSON lines (.jsonl) with messages and tools. trl is Parquet for SFTTrainer; with --all it has prompt,
    completion and label, for KTOTrainer. verl and verifiers have a row for each task, with all that is needed to
    execute it again: Parquet, or JSON lines for verifiers. atif is a folder with a file for each trajectory.

    Of a run of synth what it has kept is written, elsewhere what has not failed. The same run gives the same bytes.

    Of a run of rl, finished or not, the tasks are written with their worlds and verifiers: verifiers is an installable
    package with an environment for each family and one of all, verl a folder with tasks, reward and command.

    Examples: ./k2 export runs/synth-offline --to trl train.parquet; ./k2 export runs/nano-rl --to verifiers DIR
    """
    from openk2.core.progress import ConsoleReporter
    from openk2.data.export import export as write
    from openk2.rl.run import is_rl_run

    if is_rl_run(source):
        _export_rl(source, to, target, everything=everything, force=force, as_json=as_json)
        return
    try:
        with ConsoleReporter().stage("export") as bar:
            done = write(source, to, target, everything=everything, force=force, watch=bar)
    except KeyboardInterrupt as e:
        raise Interrupted(f"interrupted: {target} was not written") from e
    if as_json:
        print(json.dumps({"path": str(done.path), "rows": done.rows, "failed": done.failed}))
        return
    left = f"; {done.failed:,} that failed are left out" if done.failed else ""
    print(f"{done.path}: {done.rows:,} rows{left}")


def _export_rl(source: Path, to: str, target: Path, *, everything: bool, force: bool, as_json: bool) -> None:
    from openk2.core.progress import ConsoleReporter
    from openk2.rl.export import export_rl

    if everything:
        raise UserError(
            f"{source} is a run of reinforcement learning, of which no trajectories are written: leave --all out"
        )
    try:
        with ConsoleReporter().stage("export") as bar:
            done = export_rl(source, to, target, force=force, watch=bar)
    except KeyboardInterrupt as e:
        raise Interrupted(f"interrupted: {target} was not written") from e
    if as_json:
        left_out = list(done.left_out)
        print(json.dumps({"path": str(done.path), **done.tasks, "families": list(done.families), "left_out": left_out}))
        return
    print(
        f"{done.path}: {done.tasks['train']:,} tasks to train on and {done.tasks['test']:,} to test on, "
        f"of {', '.join(done.families)}"
    )
    if done.left_out:
        print(f"left out, as only a critic can judge it: {', '.join(done.left_out)}")
