"""A run of reinforcement learning: from a recipe and a model folder to a model folder.

RUN/rl/                 metrics.jsonl, timings.jsonl, examples.json, checkpoints/, model/ (fp32 weights)
RUN/instruct/           the model, as others load it (Hugging Face names, bf16, with the tokenizer)
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from openk2.core.errors import EndedAtOnce, Interrupted, UserError
from openk2.core.progress import Bar, ConsoleReporter, Reporter
from openk2.core.runs import LOCK, MANIFEST, Manifest, check_utf8, locked, read_small_text, sha256_file, sha256_text
from openk2.rl.recipe import RLRecipe
from openk2.train.folder import (
    BEGUN,
    CHECKPOINTS,
    EXAMPLES,
    METRICS,
    PRECISION,
    TIMINGS,
    check_link,
    has_checkpoint,
    remove_half_written,
)
from openk2.train.stages import (
    Stage,
    check_stage,
    check_training_device,
    export_stage,
    run_stage,
    start_folder,
    weights_of,
)
from openk2.train.worker import LOCK_SECONDS

STAGE = "rl"
BEGUN_FROM = ("weights", "own_families")
"""What a run's record says beside its recipe."""
_WITHOUT_EFFECT = {"checkpoint_every"}


def run_rl(recipe: RLRecipe, run: Path, *, device: str = "cpu", reporter: Reporter | None = None) -> dict[str, Any]:
    """Run a recipe in the folder `run`, or go on where it stopped; the results of the stage.

    Raises UserError for a folder that holds another recipe's results, for a start that is no model, and for whatever
    goes wrong in the run; Interrupted on Ctrl-C, after the iteration that was under way has been saved.
    """
    reporter = reporter or ConsoleReporter()
    check_utf8(run)
    check_training_device(device, recipe.workers)
    start = start_folder(recipe.start, recipe.name).resolve()
    check_utf8(start)
    config = config_of(recipe) | begun_from(recipe, start)
    with locked(run, "choose another with --run"):
        make = partial(_train, recipe, start, config, device, reporter)
        stages = (
            Stage(STAGE, config, (), make, ("model/*",), (CHECKPOINTS,)),
            export_stage("instruct", recipe.name, run / STAGE, start, (STAGE,)),
        )
        _make_room(run)
        for stage in stages:
            check_stage(stage, run)
        done: dict[str, Manifest] = {}
        try:
            for stage in stages:
                done[stage.name] = run_stage(stage, run, done, reporter)
        except UserError:
            if not _is_measured(run):
                with suppress(OSError):
                    _forget(run / STAGE)
            raise
        except KeyboardInterrupt as e:
            if not _is_measured(run):
                _forget(run / STAGE)
                raise Interrupted(f"interrupted before the start was measured, so nothing is kept in {run}") from None
            if isinstance(e, EndedAtOnce):
                raise Interrupted(
                    f"ended at once: the last checkpoint in {run} is kept, the same command goes on"
                ) from None
            raise Interrupted(f"interrupted: nothing is lost in {run}, the same command goes on") from None
    return done[STAGE].results


def _is_measured(run: Path) -> bool:
    """Whether something would be lost with the folder: the measures of the start are in the first checkpoint."""
    return has_checkpoint(run / STAGE) or is_finished(run)


def _make_room(run: Path) -> None:
    """Forget a start that was killed before it was measured. Raises UserError if more would be lost by it."""
    folder = run / STAGE
    if _is_measured(run):
        return
    check_link(folder)
    log = folder / METRICS
    # The measures before the first iteration may be there before the first checkpoint, and are made anew. But so does
    # a run look whose checkpoints are on a disk that is not mounted.
    lines = 0 if (folder / CHECKPOINTS).is_symlink() else 1
    if log.exists() and (not is_rl_run(run) or len(log.read_bytes().splitlines()) > lines):
        raise UserError(
            f"{log} is all that is left of a run, whose checkpoints are gone, and would be lost: bring them back, "
            "choose another folder with --run, or delete it"
        )
    if is_rl_run(run):
        # Workers of a process that was killed may need a moment to let go of the folder.
        with locked(folder, "choose another with --run", LOCK_SECONDS):
            _forget(folder)


def _forget(folder: Path) -> None:
    """Leave a stage as if it had never begun: open to another recipe, on another machine, and no run to a report."""
    remove_half_written(folder / CHECKPOINTS)
    # The record last: what is there without it is another run's.
    for name in (METRICS, TIMINGS, EXAMPLES, PRECISION, LOCK, BEGUN):
        (folder / name).unlink(missing_ok=True)
    for path in (folder / CHECKPOINTS, folder):
        with suppress(OSError):
            path.rmdir()


def is_rl_run(run: Path) -> bool:
    """Whether the folder is that of a run of reinforcement learning, finished or not."""
    return _record_of(run) is not None


def is_finished(run: Path) -> bool:
    """Whether reinforcement learning has come to its end in that folder."""
    return (run / STAGE / MANIFEST).is_file()


def record_of(run: Path) -> tuple[Path, dict[str, Any]]:
    """What a run was made with, and the file that says so. Raises UserError if there is none or it is damaged."""
    path = _record_of(run)
    if path is None:
        if not run.is_dir():
            raise UserError(f"there is no folder {run}: name what rl run was given as --run")
        raise UserError(
            f"{run} is not a run of reinforcement learning: name what rl run was given as --run, and give that command "
            "again if it was stopped at its start"
        )
    try:
        return path, dict(json.loads(read_small_text(path))["config"])
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as e:
        raise UserError(f"{path} is damaged: delete {path.parent} to redo this stage") from e


def _record_of(run: Path) -> Path | None:
    found = (run / STAGE / name for name in (MANIFEST, BEGUN))
    return next((path for path in found if path.is_file()), None)


def config_of(recipe: RLRecipe) -> dict[str, Any]:
    """What of a recipe makes its results, with every default as it is meant."""
    meant = recipe.model_copy(update={"critic": recipe.critic.model_copy(update={"valid": recipe.critic_pairs})})
    return meant.model_dump(mode="json", exclude=_WITHOUT_EFFECT)


def begun_from(recipe: RLRecipe, start: Path) -> dict[str, Any]:
    """The hashes of what a run's results depend on beside its recipe, by the names in `BEGUN_FROM`."""
    own = {name: sha256_file(path) for name, path in recipe.own_files.items()}
    # A run without families of its own says nothing of them.
    return {"weights": weights_of(start)} | ({"own_families": own} if own else {})


def _train(
    recipe: RLRecipe, start: Path, config: dict[str, Any], device: str, reporter: Reporter, folder: Path, bar: Bar
) -> dict[str, Any]:
    from openk2.rl.worker import RLJob
    from openk2.train.launch import SCRATCH_PREFIX, train_in_workers

    begun, at, success, reward = False, 0, "", ""

    def on_event(event: dict[str, Any]) -> None:
        nonlocal begun, at, success, reward
        match event["event"]:
            case "start":
                if event["resumed"]:
                    reporter.note(f"rl: goes on from iteration {event['iteration']} of {event['iterations']}")
                else:
                    reporter.note(f"rl: computes in {event['dtype']}")
                at = event["iteration"]
                bar(at, recipe.iterations)
            case "begun":
                begun = True
            case "progress":
                bar(at, recipe.iterations, f"{reward} {event['text']}".strip())
            case "note":
                reporter.note(f"rl: {event['text']}")
            case "iteration":
                if event["success"] is not None:
                    success = f" held out {event['success']:.1%}"
                reward = "" if event["reward"] is None else f"reward {event['reward']:.3f}"
                speed = f"{event['episodes_per_second']:.1f} episodes/s"
                at = event["iteration"]
                bar(at, recipe.iterations, f"{reward}{success} {speed}")
            case "stopping":
                if not begun:
                    # Nothing is saved yet, and to measure the start may take minutes.
                    raise KeyboardInterrupt
                reporter.note("rl: stopping after this iteration ...")

    where = folder.resolve()
    end = train_in_workers(
        RLJob(
            folder=where,
            workers=recipe.workers,
            device=device,
            identity=sha256_text(json.dumps(config, sort_keys=True)),
            # The process number keeps a dying worker of a killed run from meeting the new ones.
            scratch=where / f"{SCRATCH_PREFIX}{os.getpid()}",
            recipe=recipe,
            start_from=start,
        ),
        on_event,
        "openk2.rl.worker",
    )
    return {"iterations": end["iteration"]}
