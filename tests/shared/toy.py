"""Families of tasks for tests of reinforcement learning: cheap, and with every fault that a world can have."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from zlib import crc32

from openk2.core import Split, Task, Verdict
from openk2.rl.gym.question import QuestionFamily


class Short(QuestionFamily):
    """An answer of at most 12 characters passes, longer ones have part of the points. `option`: the verifier's way."""

    name = "short"
    option = "WAY"
    skills = ("short",)

    def __init__(self, option: str = "well") -> None:
        self.option = option
        self.verified = option != "open"

    def sample(self, split: Split, seed: int) -> Task:
        if self.option == "no task":
            raise KeyError(seed)
        return Task(f"short/{split}/{seed}", self.name, "short", seed, f"Say something, {seed % 7}.", {}, split)

    def gold(self, task: Task) -> str:
        return "Yes."

    def check(self, task: Task, answer: str) -> Verdict:
        match self.option:
            case "raises":
                raise ZeroDivisionError("no numbers today")
            case "hangs":
                while True:
                    time.sleep(0.01)
            case "constant":
                return Verdict(True, score=0.5)
            case "no number":
                return Verdict(True, score=float("nan"))
            case "no verdict":
                # What somebody forgets.
                nothing: Any = None
                return nothing
            case "exits":
                raise SystemExit(3)
            case "open":
                return Verdict(None)
            case "dice":
                # Of right and wrong samples neither are the longer ones, so a critic can be taught by them.
                return Verdict(crc32(answer.encode()) % 2 == 0)
        return Verdict(len(answer) <= 12, f"{len(answer)} characters", max(0.0, min(1.0, 1.5 - len(answer) / 24)))

    async def judge(self, task: Task, answer: str) -> Verdict:
        if self.option in ("waits", "slow"):
            await asyncio.sleep(3600 if self.option == "waits" else 0.1)
        return self.check(task, answer)


PLACES: dict[str, Any] = {"short": "shared.toy:Short"}
