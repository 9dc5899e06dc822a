"""Looking at the gym: its families, and tasks with a gold answer and the verifier's verdict on it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

from openk2.core import Demonstration, Family, Split, Trajectory, UserError, Verdict
from openk2.core.families import GYM, demonstrate, family_class, get_family, option_of, sample_task
from openk2.core.messages import compact_json
from openk2.core.runs import atomic_path
from openk2.rl.recipe import RolloutConfig
from openk2.rl.watched import WatchedWorld, WorldFailed
from openk2.rollout.replay import retrace


def families() -> Iterator[dict[str, Any]]:
    """Name of each family, what its option is if it takes one, its skills, and the first sentence that it says of
    itself."""
    for name in GYM:
        about = cleandoc(family_class(name).__doc__ or "")
        yield {
            "name": name,
            "option": option_of(name),
            "about": " ".join(re.split(r"\.\s|\.$", about, maxsplit=1)[0].split()),
            "skills": list(get_family(name).skills),
        }


def samples(name: str, count: int, seed: int, split: str) -> Iterator[dict[str, Any]]:
    """Tasks of a family from `seed` on. Raises UserError as `get_family`, and for another split than train and test."""
    family = get_family(name)
    for shown in demonstrations(name, count, seed, split):
        verdict = asyncio.run(_verdict(family, shown))
        yield {
            "family": name,
            "task": shown.task.id,
            "skill": shown.task.skill,
            "prompt": "\n\n".join(message.content for message in shown.opening),
            "answer": _said(shown),
            "verdict": {
                "passed": verdict.passed, "reason": verdict.reason, "score": verdict.score,
                "penalties": dict(verdict.penalties), "reward": verdict.reward,
            },
        }  # fmt: skip


def demonstrations(name: str, count: int, seed: int, split: str) -> Iterator[Demonstration]:
    """Gold conversations of a family from `seed` on. Raises UserError as `get_family`, and for another split."""
    for number in range(seed, seed + count):
        yield demonstrate(name, sample_task(name, known_split(split), number))


def write_messages(path: Path, shown: Iterable[Demonstration]) -> int:
    """Conversations in OpenAI's form, one a line; how many."""
    written = 0
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for one in shown:
            line = {"messages": [m.to_openai() for m in one.messages], "tools": [t.to_openai() for t in one.tools]}
            file.write(compact_json(line) + "\n")
            written += 1
    return written


def known_split(name: str) -> Split:
    """`train` or `test`. Raises UserError for anything else."""
    splits: dict[str, Split] = {"train": "train", "test": "test"}
    if name not in splits:
        raise UserError(f"there is no split {name!r}: use train or test")
    return splits[name]


def _said(shown: Demonstration) -> str:
    """What the expert does, call by call, and says; where the user answers, both turn by turn."""
    lines: list[str] = []
    for message in shown.messages[len(shown.opening) :]:
        if message.role == "user":
            lines.append(f"User: {message.content}")
        elif message.role == "assistant":
            lines += [f"{call.name}({call.arguments})" for call in message.tool_calls] or [message.content]
    return "\n".join(lines)


async def _verdict(family: Family, shown: Demonstration) -> Verdict:
    """The verifier's own word on a demonstration, which is done again in a fresh world."""
    trajectory = Trajectory(shown.task, "expert", shown.tools, list(shown.messages))
    try:
        world = WatchedWorld(family, shown.task, RolloutConfig().world_seconds)
        try:
            difference = await retrace(trajectory, world)
            return await world.verify(trajectory.messages) if difference is None else Verdict(False, difference)
        finally:
            await world.close()
    except WorldFailed as e:
        # Where the verifier and then the end have failed, the first tells why.
        first = e.__context__ if isinstance(e.__context__, WorldFailed) else e
        raise UserError(str(first)) from e
