"""A new world in a few dozen lines, a vending machine, and a family of tasks in it.

A world offers tools, keeps state, may play the user, and judges the end. Any policy can act in it, here a scripted one:

    python examples/world.py

A family draws tasks for a world, by seed, and shows how an expert solves them. So models can be trained, rewarded and
evaluated in it:

    ./k2 rl gym sample examples/world.py:Vending
    ./k2 eval nano --family examples/world.py:Vending
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence

from openk2.core import (
    Demonstration,
    Message,
    Split,
    Task,
    ToolCall,
    ToolResult,
    ToolSpec,
    Trajectory,
    Turn,
    Verdict,
)  # fmt: skip
from openk2.rollout import rollout

PRICES = {"tea": 2, "soup": 3, "cocoa": 2, "juice": 4}
WANTED = {"train": ("tea", "soup"), "test": ("cocoa", "juice")}
NUMBER = {"type": "object", "properties": {"coins": {"type": "integer"}}, "required": ["coins"]}
DRINK = {"type": "object", "properties": {"drink": {"enum": list(PRICES)}}, "required": ["drink"]}


class VendingMachine:
    """Coins in, drinks out. The task's data say how many coins there are and which drink is wanted; a user who did not
    say so tells it when asked."""

    tools = (ToolSpec("insert", "Insert coins.", NUMBER), ToolSpec("buy", "Buy a drink.", DRINK))

    async def start(self, task: Task) -> list[Message]:
        self.purse, self.wanted = task.data["purse"], task.data["wanted"]
        self.credit, self.bought = 0, list[str]()
        self.told = self.wanted in task.request
        return [Message("user", task.request)]

    async def call(self, call: ToolCall) -> ToolResult:
        try:
            return getattr(self, f"_{call.name}")(**call.parsed())
        except (AttributeError, TypeError, KeyError, ValueError) as e:
            return ToolResult(f"bad call: {e}", error=True)

    def _insert(self, coins: int) -> ToolResult:
        if not 0 < coins <= self.purse:
            return ToolResult(f"there are {self.purse} coins", error=True)
        self.purse, self.credit = self.purse - coins, self.credit + coins
        return ToolResult(f"credit {self.credit}")

    def _buy(self, drink: str) -> ToolResult:
        if PRICES[drink] > self.credit:
            return ToolResult(f"{drink} costs {PRICES[drink]}, credit {self.credit}", error=True)
        self.credit -= PRICES[drink]
        self.bought.append(drink)
        return ToolResult(f"here is your {drink}")

    async def reply(self, message: Message) -> Message | None:
        """The user's answer to what was said; None ends the conversation."""
        if self.told:
            return None
        self.told = True
        return Message("user", f"The {self.wanted}.")

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        return Verdict(self.bought == [self.wanted] and self.credit == 0, f"bought {self.bought}, left {self.credit}")

    async def close(self) -> None:
        """Nothing to clean up."""


class Buyer:
    """A policy in a few lines: ask for what is missing, try to buy, pay what the machine asks for, buy."""

    name = "buyer"

    def __init__(self, drink: str) -> None:
        self.drink = drink

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        last = messages[-1]
        if last.role == "user" and self.drink not in last.content:
            return Turn(Message("assistant", "Which drink?"), "stop")
        if last.role == "user":
            return self._calls("buy", drink=self.drink)
        if "costs" in last.content:
            return self._calls("insert", coins=int(last.content.split("costs ")[1].split(",")[0]))
        if "credit" in last.content:
            return self._calls("buy", drink=self.drink)
        return Turn(Message("assistant", f"Your {self.drink} is ready."), "stop")

    def _calls(self, name: str, **arguments: object) -> Turn:
        call = ToolCall(f"functions.{name}:0", name, json.dumps(arguments))
        return Turn(Message("assistant", "", (call,)), "tool_calls")

    async def close(self) -> None: ...


class Vending:
    """Buying a drink for a user, who may not have said which. Other drinks are wanted in test tasks."""

    name = "vending"
    skills = ("buy", "ask")

    def sample(self, split: Split, seed: int) -> Task:
        rng = random.Random(f"{split} {seed}")
        skill, wanted = rng.choice(self.skills), rng.choice(WANTED[split])
        data = {"purse": rng.randrange(4, 20), "wanted": wanted}
        request = f"A {wanted if skill == 'buy' else 'drink'}, please."
        return Task(f"vending/{split}/{seed}", self.name, skill, seed, request, data, split)

    def world(self, task: Task) -> VendingMachine:
        return VendingMachine()

    def demonstrate(self, task: Task) -> Demonstration:
        """What the buyer does in the world itself."""
        shown = asyncio.run(rollout(Buyer(str(task.data["wanted"])), self.world(task), task))
        return Demonstration(task, tuple(VendingMachine.tools), tuple(shown.messages))


def main() -> Trajectory:
    task = Vending().sample("train", 4)
    trajectory = asyncio.run(rollout(Buyer(str(task.data["wanted"])), VendingMachine(), task))
    for message in trajectory.messages:
        calls = "".join(f" {call.name}({call.arguments})" for call in message.tool_calls)
        print(f"{message.role:>9}: {message.content}{calls}")
    print("passed" if trajectory.verdict.passed else f"failed: {trajectory.verdict.reason}")
    return trajectory


if __name__ == "__main__":
    main()
