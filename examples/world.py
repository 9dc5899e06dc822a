"""A new world in a few dozen lines: a vending machine.

A world offers tools, keeps state, may play the user, and judges the end. Any policy can act in it, here a scripted one:

    python examples/world.py
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from openk2.core import Message, Task, ToolCall, ToolResult, ToolSpec, Trajectory, Turn, Verdict
from openk2.rollout import rollout

PRICES = {"tea": 2, "soup": 3}
NUMBER = {"type": "object", "properties": {"coins": {"type": "integer"}}, "required": ["coins"]}
DRINK = {"type": "object", "properties": {"drink": {"enum": list(PRICES)}}, "required": ["drink"]}


class VendingMachine:
    """Coins in, drinks out. The task's data say how many coins there are and which drink is wanted."""

    tools = (ToolSpec("insert", "Insert coins.", NUMBER), ToolSpec("buy", "Buy a drink.", DRINK))

    async def start(self, task: Task) -> list[Message]:
        self.purse, self.wanted = task.data["purse"], task.data["wanted"]
        self.credit, self.bought = 0, list[str]()
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
        return None

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        return Verdict(self.bought == [self.wanted] and self.credit == 0, f"bought {self.bought}, left {self.credit}")

    async def close(self) -> None:
        """Nothing to clean up."""


class Buyer:
    """A policy in a few lines: try to buy, pay what the machine asks for, buy."""

    name = "buyer"

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        last = messages[-1]
        if last.role == "user":
            return self._calls("buy", drink="tea")
        if "costs" in last.content:
            return self._calls("insert", coins=int(last.content.split("costs ")[1].split(",")[0]))
        if "credit" in last.content:
            return self._calls("buy", drink="tea")
        return Turn(Message("assistant", "Your tea is ready."), "stop")

    def _calls(self, name: str, **arguments: object) -> Turn:
        call = ToolCall(f"functions.{name}:0", name, json.dumps(arguments))
        return Turn(Message("assistant", "", (call,)), "tool_calls")

    async def close(self) -> None: ...


def main() -> Trajectory:
    task = Task("vending/1", "vending", "buy", 0, "A tea, please.", {"purse": 5, "wanted": "tea"})
    trajectory = asyncio.run(rollout(Buyer(), VendingMachine(), task))
    for message in trajectory.messages:
        calls = "".join(f" {call.name}({call.arguments})" for call in message.tool_calls)
        print(f"{message.role:>9}: {message.content}{calls}")
    print("passed" if trajectory.verdict.passed else f"failed: {trajectory.verdict.reason}")
    return trajectory


if __name__ == "__main__":
    main()
