"""Tasks drawn from a run at random, to be read by people: users, rubrics and trajectories in Markdown, unedited."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

from openk2.core import Message, Trajectory, UserError
from openk2.core.atif import from_atif
from openk2.data.lake import KEPT, recipe_of
from openk2.synth.figures import begun
from openk2.synth.real import MACHINE, RealTask
from openk2.worlds.apps.world import AppTask


def markdown(run: Path, *, n: int, seed: int, trajectories: bool = True) -> str:
    """A document with `n` tasks, or all if there are fewer, with the trajectories or without.

    Raises UserError if the run has no attempts yet.
    """
    lake = begun(run)
    _, rows = lake.query("SELECT DISTINCT number FROM attempts ORDER BY number")
    numbers = [int(number) for (number,) in rows]
    drawn = sorted(random.Random(seed).sample(numbers, min(n, len(numbers))))
    recipe = recipe_of(lake.folder)
    parts = [
        f"# {len(drawn)} tasks of {recipe['name']}\n\n"
        f"Drawn at random (seed {seed}) from the {len(numbers):,} tasks that were tried, and not edited."
        + (" Of each, the first attempt is shown.\n" if trajectories else "\n")
    ]
    if drawn:
        finished = (lake.folder / KEPT).exists()
        dropped, join = ("v.dropped", "LEFT JOIN verdicts v USING (number, attempt)") if finished else ("NULL", "")
        _, rows = lake.query(
            f"SELECT a.number, a.domain, a.category, a.kinds, a.score, a.atif, {dropped} FROM attempts a {join} "
            f"WHERE a.number IN ({', '.join(map(str, drawn))}) "
            "QUALIFY row_number() OVER (PARTITION BY a.number ORDER BY a.attempt) = 1 ORDER BY a.number"
        )
        for number, domain, category, kinds, score, atif, why in rows:
            try:
                trajectory = from_atif(atif)
            except UserError as e:
                raise UserError(f"the attempt at task {number} of {run} is damaged ({e}): run synth run again") from e
            fate = "not decided yet" if why is None else f"dropped ({why})" if why else "kept"
            points = "no score" if score is None else f"score {score:.2f}"
            parts.append(
                f"## Task {number}: {domain} ({category})\n\n"
                f"Turns: {kinds.replace(' ', ', ')}. Acted by {trajectory.policy}, {points}, {fate}"
                f"{': ' + _inline(trajectory.verdict.reason) if trajectory.verdict.reason else ''}.\n"
            )
            data = trajectory.task.data
            parts.extend(
                _job(RealTask.model_validate(data)) if domain == MACHINE else _task(AppTask.model_validate(data))
            )
            if trajectories:
                parts.extend(_trajectory(trajectory))
    return "\n".join(parts)


def _task(task: AppTask) -> Iterator[str]:
    yield "### The user\n"
    for at, turn in enumerate(task.turns, 1):
        yield f"{at}. Says: {_inline(turn.say)}"
        for fact in turn.facts:
            yield f"   - if asked ({_inline(', '.join(fact.words))}): {_inline(fact.answer)}"
        if turn.tell:
            yield f"   - has to hear: {', '.join(map(_inline, turn.tell))}"
        if turn.others:
            yield f"   - must not hear: {', '.join(map(_inline, turn.others))}"
        if turn.refuse:
            yield "   - the right answer is a no"
    yield "\n### The rubric\n"
    rubric = task.rubric
    points = ", ".join(f"{name} {weight:g}" for name, weight in rubric.weights.items())
    yield f"- the state behind each turn: {', '.join(f'`{one[:12]}`' for one in rubric.checkpoints)}"
    yield f"- must not be done: {_names(rubric.forbidden)}"
    yield f"- a direct way uses: {_names(rubric.pattern)}"
    yield f"- points: {points}"
    faults = {name: value for name, value in task.faults.model_dump().items() if value and name != "seed"}
    if faults:
        yield f"- the app fails at times: {', '.join(f'{name} {value}' for name, value in faults.items())}"
    yield ""


def _job(task: RealTask) -> Iterator[str]:
    yield f"### The user\n\n1. Says: {_inline(task.say)}\n\n### The folder\n"
    for path, content in task.files.items():
        yield f"{_code(path)}\n"
        yield _fenced(content)
    yield "### The checks\n"
    yield _fenced("\n".join(f"{check.code}  ->  {check.expected}" for check in task.checks))


def _trajectory(trajectory: Trajectory) -> Iterator[str]:
    yield "### The trajectory\n"
    yield f"{len(trajectory.tools)} tools: {_names(tool.name for tool in trajectory.tools)}\n"
    for message in trajectory.messages:
        yield from _message(message)


def _message(message: Message) -> Iterator[str]:
    if message.role == "tool":
        yield f"**result** of {_code(message.name or '')} `{message.tool_call_id}`\n"
        yield _fenced(message.content, "json")
        return
    yield f"**{message.role}**\n"
    if message.content:
        yield _fenced(message.content)
    for call in message.tool_calls:
        yield f"calls {_code(call.name)} `{call.id}`\n"
        yield _fenced(call.arguments, "json")


def _fenced(text: str, language: str = "") -> str:
    """Text as it is, within a fence that it cannot end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}\n"


def _inline(text: str) -> str:
    """Text within a line: nothing in it is taken for Markdown."""
    return re.sub(r"([\\`*_<>\[\]])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    return f"`{text}`"


def _names(names: Iterator[str] | tuple[str, ...]) -> str:
    return ", ".join(map(_code, names)) or "nothing"
