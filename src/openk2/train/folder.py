"""What a training stage keeps in its folder, by name. Without torch, which takes too long after a Ctrl-C."""

from __future__ import annotations

import shutil
from pathlib import Path

from openk2.core.errors import UserError
from openk2.core.runs import half_written

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"
"""What was computed, the same in every run, and how long it took."""
EXAMPLES = "examples.json"
"""Answers before and after, where a stage has some to show."""
BEGUN = "begun.json"
"""Configuration and inputs of a stage that is not finished."""
CHECKPOINTS = "checkpoints"
STEP_PREFIX = "step-"
WORKER_LOG = "worker-error.log"
"""What a worker said last that failed."""
PRECISION = "dtype"
"""What "auto" came to on the machine where the stage began."""


def step_name(step: int) -> str:
    """Of a checkpoint's folder; names sort as their steps do."""
    return f"{STEP_PREFIX}{step:08d}"


def checkpoints_in(folder: Path) -> list[Path]:
    """The whole ones, in the order of their steps."""
    found = folder.glob(f"{STEP_PREFIX}*")
    return sorted(path for path in found if path.name.removeprefix(STEP_PREFIX).isdecimal())


def has_checkpoint(stage: Path) -> bool:
    """Whether there is a whole one in the folder of a stage."""
    return bool(checkpoints_in(stage / CHECKPOINTS))


def check_link(stage: Path) -> None:
    """Raises UserError where the place of a stage's checkpoints is a link to a disk that is not there."""
    place = stage / CHECKPOINTS
    if place.is_symlink() and not place.is_dir():
        raise UserError(f"{place} leads to {place.readlink()}, where no folder is: mount its disk, or remove the link")


def remove_half_written(checkpoints: Path) -> None:
    """Remove what was left by a kill, and nothing that somebody else put there."""
    for path in checkpoints.glob(half_written(Path(f"{STEP_PREFIX}*")).name):
        shutil.rmtree(path, ignore_errors=True)
