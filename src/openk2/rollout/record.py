"""A rollout on disk: append-only JSON lines while it runs, ATIF when it is closed.

Each line is in the file when its step is over, so a killed process leaves everything up to its last finished step, and
`recover` makes a trajectory of it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from openk2.core import Message, Step, Task, ToolCall, ToolResult, ToolSpec, Trajectory, Turn, UserError
from openk2.core.atif import write_atif


class Recorder:
    """Writes one trajectory. `path` is the final file; the lines go to the same name with the suffix `.jsonl`."""

    def __init__(self, path: Path) -> None:
        if path.suffix == ".jsonl":
            raise UserError(f"{path} is the name of the running record: name the trajectory something like .json")
        self.path = path
        self.lines_path = path.with_suffix(".jsonl")

    def open(self) -> None:
        """Start an empty record. Raises UserError if the folder cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.lines_path.write_text("")
        except OSError as e:
            raise UserError(f"could not record to {self.lines_path}: {e.strerror}; choose another folder") from e

    def start(self, trajectory: Trajectory) -> None:
        """The task, who works on it, and with which tools."""
        self._write("start", task=_task(trajectory.task), policy=trajectory.policy, tools=_tools(trajectory.tools))

    def message(self, message: Message) -> None:
        """A message that the policy did not write."""
        self._write("message", message=message.to_openai())

    def step(self, step: Step) -> None:
        """A finished turn of the policy with its results."""
        turn = step.turn
        self._write(
            "step",
            message=turn.message.to_openai(),
            token_ids=turn.message.token_ids,
            finish_reason=turn.finish_reason,
            prompt_ids=turn.prompt_ids,
            completion_ids=turn.completion_ids,
            logprobs=turn.logprobs,
            malformed=turn.malformed,
            model=turn.model,
            results=[
                {"call": index, "content": r.content, "error": r.error} for index, (_, r) in enumerate(step.results)
            ],
            seconds=step.seconds,
        )

    def close(self, trajectory: Trajectory) -> None:
        """Write the whole trajectory as ATIF; the lines have then served. Raises UserError if the disk is full."""
        write_atif(self.path, trajectory)
        self.lines_path.unlink(missing_ok=True)

    def _write(self, kind: str, **fields: Any) -> None:
        try:
            with open(self.lines_path, "a", encoding="ascii") as f:
                f.write(json.dumps({"line": kind, **fields}, separators=(",", ":")) + "\n")
        except OSError as e:
            raise UserError(f"could not record to {self.lines_path}: {e.strerror}; free some space") from e


def recover(lines_path: Path) -> Trajectory:
    """The trajectory of a rollout that was killed, from its running record; its stop is `interrupted`.

    A last line that was cut is left out. Raises UserError if the file is not such a record.
    """
    try:
        lines = [json.loads(line) for line in lines_path.read_text(encoding="ascii").split("\n")[:-1]]
    except FileNotFoundError as e:
        raise UserError(f"{lines_path} does not exist: give the .jsonl file of a rollout") from e
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as e:
        raise UserError(f"{lines_path} is not the record of a rollout: {e}") from e
    try:
        return _rebuild(lines)
    except (KeyError, TypeError, IndexError, AttributeError) as e:
        raise UserError(f"{lines_path} is not the record of a rollout: {type(e).__name__} {e}") from e


def _rebuild(lines: list[dict[str, Any]]) -> Trajectory:
    head = lines[0]
    tools = tuple(ToolSpec.from_openai(tool) for tool in head["tools"])
    trajectory = Trajectory(task=Task(**head["task"]), policy=head["policy"], tools=tools, stop="interrupted")
    for line in lines[1:]:
        message = Message.from_openai(line["message"])
        if line["line"] == "message":
            trajectory.messages.append(message)
            continue
        if line["token_ids"] is not None:
            message = replace(message, token_ids=tuple(line["token_ids"]))
        step = Step(
            Turn(
                message=message,
                finish_reason=line["finish_reason"],
                prompt_ids=tuple(line["prompt_ids"]),
                completion_ids=tuple(line["completion_ids"]),
                logprobs=tuple(line["logprobs"]),
                malformed=line["malformed"],
                model=line["model"],
            ),
            seconds=line["seconds"],
        )
        trajectory.steps.append(step)
        trajectory.messages.append(message)
        for raw in line["results"]:
            call: ToolCall = message.tool_calls[raw["call"]]
            step.results.append((call, ToolResult(raw["content"], raw["error"])))
            trajectory.messages.append(Message("tool", raw["content"], tool_call_id=call.id, name=call.name))
    return trajectory


def _task(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "family": task.family,
        "skill": task.skill,
        "seed": task.seed,
        "request": task.request,
        "data": task.data,
        "split": task.split,
    }


def _tools(tools: tuple[ToolSpec, ...]) -> list[dict[str, Any]]:
    return [tool.to_openai() for tool in tools]
