"""A rollout on disk: append-only JSON lines while it runs, ATIF when it is closed.

The first line is the ATIF document before any step, each further one a step, which is in the file when it is over. So a
killed process leaves everything up to its last finished step, and `recover` makes a trajectory of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openk2.core import Message, Step, Trajectory, UserError
from openk2.core.atif import from_atif, step_to_atif, to_atif, write_atif


class Recorder:
    """Writes one trajectory. `path` is the final file; the lines go to the same name with the suffix `.jsonl`."""

    def __init__(self, path: Path) -> None:
        if path.suffix == ".jsonl":
            raise UserError(f"{path} is the name of the running record: name the trajectory something like .json")
        self.path = path
        self.lines_path = path.with_suffix(".jsonl")
        self._steps = 0
        self._given: list[Message] = []
        """A turn of an earlier conversation, and what of its tool results is told so far."""

    def open(self) -> None:
        """Start an empty record. Raises UserError if the folder cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.lines_path.write_text("")
        except OSError as e:
            raise UserError(f"could not record to {self.lines_path}: {e.strerror}; choose another folder") from e

    def start(self, trajectory: Trajectory) -> None:
        """The task, who works on it, and with which tools; there is no message yet."""
        self._write(to_atif(trajectory).to_json_dict())

    def message(self, message: Message) -> None:
        """A message that the policy did not write."""
        if message.role == "tool" and self._given:
            self._given.append(message)
            if len(self._given) > len(self._given[0].tool_calls):
                self._step_given()
            return
        self._step_given()
        if message.tool_calls:
            self._given = [message]
        else:
            self._step(message, None, ())

    def step(self, step: Step) -> None:
        """A finished turn of the policy with its results."""
        self._step_given()
        results = [Message("tool", r.content, tool_call_id=call.id, name=call.name) for call, r in step.results]
        self._step(step.turn.message, step, results)

    def close(self, trajectory: Trajectory) -> None:
        """Write the whole trajectory as ATIF; the lines have then served. Raises UserError if the disk is full."""
        write_atif(self.path, trajectory)
        self.lines_path.unlink(missing_ok=True)

    def _step_given(self) -> None:
        if self._given:
            message, *results = self._given
            self._given = []
            self._step(message, None, results)

    def _step(self, message: Message, step: Step | None, results: Sequence[Message]) -> None:
        self._steps += 1
        self._write(step_to_atif(self._steps, message, step, results))

    def _write(self, line: dict[str, Any]) -> None:
        try:
            with open(self.lines_path, "a", encoding="ascii") as f:
                f.write(json.dumps(line, separators=(",", ":")) + "\n")
        except OSError as e:
            raise UserError(f"could not record to {self.lines_path}: {e.strerror}; free some space") from e


def recover(lines_path: Path) -> Trajectory:
    """The trajectory of a rollout that was killed, from its running record; its stop is `interrupted`.

    A last line that was cut is left out. Raises UserError if the file is not such a record.
    """
    try:
        lines = lines_path.read_text(encoding="ascii").split("\n")[:-1]
        if not lines:
            raise UserError("it has nothing yet, as the rollout was killed before its first line was written")
        document, *steps = map(json.loads, lines)
        trajectory = from_atif(document | {"steps": steps})
    except OSError as e:
        raise UserError(f"{lines_path} cannot be read ({e.strerror}): give the .jsonl file of a rollout") from e
    except (ValueError, TypeError, RecursionError, UserError) as e:
        raise UserError(f"{lines_path} is not the record of a rollout: {e}") from e
    trajectory.stop = "interrupted"
    return trajectory
