"""A trajectory to look at: on the terminal as it was when it happened, or as one page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from openk2.agent.store import find
from openk2.core import Event, Message, ToolCall, ToolResult, Trajectory, UserError
from openk2.core.atif import read_atif
from openk2.core.runs import check_new_file, write_text
from openk2.rollout.record import recover
from openk2.worlds.text import clean


def read_trajectory(name: str) -> Trajectory:
    """The trajectory of a file in ATIF, of a running record (.jsonl), or of a session by its folder or id.

    Raises UserError if there is none or it is damaged.
    """
    path = Path(name)
    if path.is_dir():
        path = next((path / each for each in ("trajectory.jsonl", "trajectory.json") if (path / each).exists()), path)
        if path.is_dir():
            raise UserError(f"{name} is a folder without trajectory.json: name a file, or a session")
    if not path.exists() and "/" not in name:
        return find(name).trajectory()
    return recover(path) if path.suffix == ".jsonl" else read_atif(path)


def events(trajectory: Trajectory) -> Iterator[Event]:
    """What a watcher saw of it, the system message apart."""
    results = {call.id: result for step in trajectory.steps for call, result in step.results}
    calls: dict[str, ToolCall] = {}
    for message in trajectory.messages:
        if message.role == "user":
            yield Event("user", trajectory.task, message=message)
        elif message.role == "assistant":
            yield Event("assistant", trajectory.task, message=message)
            calls |= {call.id: call for call in message.tool_calls}
        elif message.role == "tool":
            yield from _executed(trajectory, message, calls, results)
    yield Event("verdict", trajectory.task, verdict=trajectory.verdict)


def _executed(
    trajectory: Trajectory, message: Message, calls: dict[str, ToolCall], results: dict[str, ToolResult]
) -> Iterator[Event]:
    identifier = message.tool_call_id or ""
    call = calls.get(identifier, ToolCall(identifier, message.name or "tool", "{}"))
    yield Event("call", trajectory.task, call=call)
    result = results.get(identifier, ToolResult(message.content))
    yield Event("tool_result", trajectory.task, call=call, result=result)


def write_page(trajectory: Trajectory, path: Path, *, force: bool = False) -> None:
    """One HTML file with everything in it. Raises UserError for a file that is there without `force`."""
    from jinja2 import Environment

    check_new_file(path, force=force)
    template = (resources.files("openk2.agent") / "page.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    said = [entry for event in events(trajectory) for entry in _entries(event)]
    system = next((message.content for message in trajectory.messages if message.role == "system"), "")
    write_text(
        path,
        page.render(
            title=clean(trajectory.task.request)[:80] or trajectory.task.id,
            policy=trajectory.policy,
            stop=trajectory.stop,
            seconds=trajectory.seconds,
            turns=len(trajectory.steps),
            system=clean(system),
            tools=[(tool.name, clean(tool.description)) for tool in trajectory.tools],
            entries=said,
        ),
    )


def _entries(event: Event) -> Iterator[dict[str, Any]]:
    if event.message is not None and event.message.content:
        yield {"kind": event.kind, "text": clean(event.message.content)}
    elif event.kind == "call" and event.call is not None:
        yield {"kind": "call", "name": event.call.name, "arguments": _arguments(event.call)}
    elif event.kind == "tool_result" and event.result is not None:
        yield {"kind": "error" if event.result.error else "result", "text": clean(event.result.content)}
    elif event.kind == "verdict" and event.verdict is not None and event.verdict.passed is not None:
        word = "passed" if event.verdict.passed else "failed"
        yield {"kind": "verdict", "text": f"{word}: {clean(event.verdict.reason)}".rstrip(": ")}


def _arguments(call: ToolCall) -> list[tuple[str, str]]:
    try:
        arguments = call.parsed()
    except (ValueError, RecursionError):
        return [("", clean(call.arguments))]
    return [
        (name, clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)))
        for name, value in arguments.items()
    ]
