"""Trajectories in ATIF, the interchange format of the `atif` package: what evaluation viewers and trainers read.

One ATIF step per system or user message and per assistant turn; a turn carries its calls, their results, and as metrics
the exact prompt ids, sampled ids and log-probabilities. What ATIF has no field for lives under fixed names in `extra`:

    trajectory  task, stop, verdict, seconds
    step        name, finish_reason, malformed, seconds, body_token_ids (if other than the sampled ids), given (a turn
                that the policy did not write)
    call        text (the arguments as written, if they are not compact JSON of an object)
    result      error

Clocks aside, `from_atif(to_atif(t))` equals `t`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openk2 import __version__
from openk2.core.errors import UserError, first_invalid
from openk2.core.messages import Message, ToolCall, ToolSpec, compact_json
from openk2.core.protocols import Task, ToolResult, Turn, Usage, Verdict
from openk2.core.runs import write_text
from openk2.core.trajectory import Step, Trajectory

if TYPE_CHECKING:
    import atif

SCHEMA = "ATIF-v1.8"


def to_atif(trajectory: Trajectory) -> atif.Trajectory:
    """The ATIF document of a trajectory."""
    import atif

    steps = [_atif_step(index, *entry) for index, entry in enumerate(_turns(trajectory), start=1)]
    sampled = [step.turn for step in trajectory.steps]
    return atif.Trajectory(
        schema_version=SCHEMA,
        session_id=_text(trajectory.task.id),
        agent=atif.Agent(
            name="openk2",
            version=__version__,
            model_name=trajectory.policy,
            tool_definitions=[tool.to_openai() for tool in trajectory.tools],
        ),
        steps=steps,
        final_metrics=atif.FinalMetrics(
            total_prompt_tokens=sum(_counted(turn).prompt_tokens for turn in sampled),
            total_completion_tokens=sum(_counted(turn).completion_tokens for turn in sampled),
            total_steps=len(steps),
        ),
        extra={
            "task": _task_fields(trajectory.task),
            "stop": trajectory.stop,
            "verdict": _verdict(trajectory.verdict),
            "seconds": trajectory.seconds,
        },
    )


def _task_fields(task: Task) -> dict[str, Any]:
    # What is in it is JSON and not copied, as `asdict` would: a task's data can be most of a trajectory.
    return {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    graded = {"score": verdict.score, "penalties": dict(verdict.penalties)}
    found = {key: value for key, value in graded.items() if value not in (None, {})}
    return {"passed": verdict.passed, "reason": verdict.reason} | found


def _counted(turn: Turn) -> Usage:
    return turn.usage or Usage(len(turn.prompt_ids), len(turn.completion_ids))


def step_to_atif(index: int, message: Message, step: Step | None, results: Sequence[Message]) -> dict[str, Any]:
    """One step of a document as JSON, its number from 1: a message with the tool results behind it, and the turn of the
    policy that it is of."""
    return _atif_step(index, message, step, results).model_dump(mode="json", exclude_none=True)


def from_atif(document: atif.Trajectory | Mapping[str, Any] | str) -> Trajectory:
    """A trajectory from an ATIF document or its JSON, ours or another agent's. Raises UserError if it is not one."""
    import atif
    from pydantic import ValidationError

    if isinstance(document, str):
        try:
            found: dict[str, Any] = json.loads(document)
        except (ValueError, RecursionError) as e:
            raise UserError(f"not JSON: {e}") from e
        document = found
    if not isinstance(document, atif.Trajectory):
        try:
            document = atif.Trajectory.model_validate(document)
        except ValidationError as e:
            place, problem = first_invalid(e)
            raise UserError(f"not a valid ATIF trajectory: {place or 'document'}: {problem}") from e
    extra = document.extra or {}
    trajectory = Trajectory(
        task=_task(document, extra.get("task")),
        policy=document.agent.model_name or document.agent.name,
        tools=tuple(ToolSpec.from_openai(tool) for tool in document.agent.tool_definitions or ()),
        verdict=Verdict(**extra["verdict"]) if "verdict" in extra else Verdict(None),
        stop=extra.get("stop", "answered"),
        seconds=extra.get("seconds", 0.0),
    )
    for step in document.steps:
        if step.source != "agent":
            name = (step.extra or {}).get("name")
            trajectory.messages.append(Message(step.source, _content(step.message), name=name))
        else:
            _read_turn(trajectory, step)
    return trajectory


def write_atif(path: Path, trajectory: Trajectory) -> None:
    """Write the ATIF file atomically. Raises UserError if it cannot be written."""
    write_text(path, json.dumps(to_atif(trajectory).to_json_dict()) + "\n")


def read_atif(path: Path) -> Trajectory:
    """Read an ATIF file. Raises UserError naming the file if it is missing or damaged."""
    try:
        return from_atif(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist: give an ATIF trajectory file") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not JSON: {e}") from e
    except UserError as e:
        raise UserError(f"{path}: {e}") from e


def _turns(trajectory: Trajectory) -> Iterator[tuple[Message, Step | None, list[Message]]]:
    """Every message but tool results, with the step it came from (if the policy wrote it) and its tool results."""
    steps = iter(trajectory.steps)
    step = next(steps, None)
    pending: tuple[Message, Step | None, list[Message]] | None = None
    for message in trajectory.messages:
        if message.role == "tool" and pending is not None:
            pending[2].append(message)
            continue
        if pending is not None:
            yield pending
        own = step if step is not None and message is step.turn.message else None
        if own is not None:
            step = next(steps, None)
        pending = (message, own, [])
    if pending is not None:
        yield pending


def _atif_step(index: int, message: Message, step: Step | None, results: Sequence[Message]) -> atif.Step:
    import atif

    named = {"name": message.name} if message.name is not None else {}
    if message.role in ("system", "user"):
        source = "system" if message.role == "system" else "user"
        extra = named or None
        return atif.Step.model_validate(
            {"step_id": index, "source": source, "message": _text(message.content), "extra": extra}
        )
    if message.role == "tool":
        raise UserError("a conversation cannot begin with a tool result: give the call before it")
    fields: dict[str, Any] = {"step_id": index, "source": "agent", "message": _text(message.content)}
    if message.tool_calls:
        fields["tool_calls"] = [_atif_call(call) for call in message.tool_calls]
    if results:
        errors = [result.error for _, result in step.results] if step is not None else [False] * len(results)
        fields["observation"] = atif.Observation(
            results=[
                atif.ObservationResult(
                    source_call_id=result.tool_call_id,
                    content=_text(result.content),
                    extra={"error": True} if error else None,
                )
                for result, error in zip(results, errors, strict=True)
            ]
        )
    if step is None:
        fields["extra"] = named | {"given": True}
        if message.token_ids is not None:
            fields["extra"]["body_token_ids"] = list(message.token_ids)
        return atif.Step.model_validate(fields)
    turn = step.turn
    fields["extra"] = named | {"finish_reason": turn.finish_reason, "seconds": step.seconds}
    if turn.malformed is not None:
        fields["extra"]["malformed"] = _text(turn.malformed)
    if message.token_ids is not None and message.token_ids != turn.completion_ids:
        fields["extra"]["body_token_ids"] = list(message.token_ids)
    elif message.token_ids is None and turn.completion_ids:
        fields["extra"]["body_token_ids"] = None
    if turn.model:
        fields["model_name"] = turn.model
    if turn.prompt_ids or turn.completion_ids:
        fields["metrics"] = atif.Metrics(
            prompt_tokens=len(turn.prompt_ids),
            completion_tokens=len(turn.completion_ids),
            prompt_token_ids=list(turn.prompt_ids),
            completion_token_ids=list(turn.completion_ids),
            logprobs=list(turn.logprobs) or None,
        )
    elif turn.usage is not None:
        fields["metrics"] = atif.Metrics(
            prompt_tokens=turn.usage.prompt_tokens,
            completion_tokens=turn.usage.completion_tokens,
            cached_tokens=turn.usage.cached_tokens,
        )
    return atif.Step.model_validate(fields)


def _read_turn(trajectory: Trajectory, raw: atif.Step) -> None:
    extra = raw.extra or {}
    metrics = raw.metrics
    completion = tuple((metrics.completion_token_ids if metrics else None) or ())
    body = extra.get("body_token_ids", completion or None)
    calls = tuple(_call(call) for call in raw.tool_calls or ())
    token_ids = None if body is None else tuple(int(i) for i in body)
    message = Message("assistant", _content(raw.message), calls, name=extra.get("name"), token_ids=token_ids)
    trajectory.messages.append(message)
    waiting = list(calls)
    results: list[tuple[ToolCall, ToolResult]] = []
    for result in raw.observation.results if raw.observation else ():
        content = _content(result.content or "")
        call = next((call for call in waiting if call.id == result.source_call_id), None)
        trajectory.messages.append(
            Message("tool", content, tool_call_id=result.source_call_id, name=call.name if call else None)
        )
        if call is not None:
            waiting.remove(call)
            results.append((call, ToolResult(content, error=bool((result.extra or {}).get("error")))))
    if extra.get("given"):
        return
    turn = Turn(
        message=message,
        finish_reason=extra.get("finish_reason", "tool_calls" if calls else "stop"),
        prompt_ids=tuple((metrics.prompt_token_ids if metrics else None) or ()),
        completion_ids=completion,
        logprobs=tuple((metrics.logprobs if metrics else None) or ()),
        malformed=extra.get("malformed"),
        model=raw.model_name or "",
        usage=_usage(metrics) if metrics is not None and metrics.completion_token_ids is None else None,
    )
    trajectory.steps.append(Step(turn, results, extra.get("seconds", 0.0)))


def _usage(metrics: atif.Metrics) -> Usage | None:
    if metrics.prompt_tokens is None or metrics.completion_tokens is None:
        return None
    return Usage(metrics.prompt_tokens, metrics.completion_tokens, metrics.cached_tokens or 0)


def _atif_call(call: ToolCall) -> dict[str, Any]:
    raw: dict[str, Any] = {"tool_call_id": _text(call.id), "function_name": _text(call.name), "arguments": {}}
    try:
        arguments = call.parsed()
        if compact_json(arguments) == call.arguments:
            json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
            return raw | {"arguments": arguments}
    except (ValueError, RecursionError):
        # Not an object, not JSON, or not writable as JSON: only the text is kept.
        return raw | {"extra": {"text": _text(call.arguments)}}
    return raw | {"arguments": json.loads(_text(call.arguments)), "extra": {"text": _text(call.arguments)}}


def _call(raw: atif.ToolCall) -> ToolCall:
    text = (raw.extra or {}).get("text")
    return ToolCall(raw.tool_call_id, raw.function_name, compact_json(raw.arguments) if text is None else text)


def _task(document: atif.Trajectory, raw: Mapping[str, Any] | None) -> Task:
    if raw is not None:
        try:
            return Task(**raw)
        except TypeError as e:
            raise UserError(f"the task in the trajectory's extra is not one of ours: {e}") from e
    request = next((_content(step.message) for step in document.steps if step.source == "user"), "")
    return Task(id=document.session_id or "", family="", skill="", seed=0, request=request)


def _content(content: str | Sequence[atif.ContentPart]) -> str:
    if isinstance(content, str):
        return content
    if any(part.type != "text" for part in content):
        raise UserError("the trajectory holds images: only text is supported")
    return "".join(part.text or "" for part in content)


def _text(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
