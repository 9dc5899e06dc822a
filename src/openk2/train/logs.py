"""Logs of a run, one JSON object a line: appended to, and cut back to the checkpoint that a run goes on from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from openk2.core import UserError
from openk2.core.runs import write_text


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a line. Raises UserError if the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as e:
        raise UserError(
            f"could not write {path}: {e.strerror or e}; free some space, the checkpoints are intact"
        ) from e


def cut_back(path: Path, key: str, last: int) -> None:
    """Drop the lines whose `key` is beyond `last`, and one that a kill cut short: they will be written again."""
    if path.exists():
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _number(line, key) <= last]
        write_text(path, "".join(f"{line}\n" for line in kept))


def _number(line: str, key: str) -> float:
    try:
        return float(json.loads(line)[key])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
