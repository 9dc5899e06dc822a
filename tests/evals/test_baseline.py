"""The baseline without a model: it acts, and it passes less than half."""

from __future__ import annotations

from openk2.core import Message, Policy, ToolSpec
from openk2.evals.baseline import BaselinePolicy, fill
from openk2.worlds.families.functions import FunctionsFamily, FunctionsWorld

FAMILY = FunctionsFamily()


async def passes(seed: int) -> bool:
    task = FAMILY.sample("test", seed)
    world = FunctionsWorld(task)
    policy: Policy = BaselinePolicy()
    messages = await world.start(task)
    for _ in range(10):
        turn = await policy.act(messages, world.tools, max_tokens=512)
        messages.append(turn.message)
        for call in turn.message.tool_calls:
            result = await world.call(call)
            messages.append(Message("tool", result.content, tool_call_id=call.id, name=call.name))
        if not turn.message.tool_calls:
            reply = await world.reply(turn.message)
            if reply is None:
                break
            messages.append(reply)
    return bool((await world.verify(messages)).passed)


async def test_the_baseline_passes_something_but_less_than_half() -> None:
    passed = sum([await passes(seed) for seed in range(600)])
    assert 0.05 < passed / 600 < 0.5


def test_values_are_found_by_name_and_by_type() -> None:
    tool = ToolSpec(
        "book",
        "Book.",
        {
            "type": "object",
            "properties": {"size": {"type": "integer"}, "guest": {"type": "string"}, "day": {"type": "string"}},
            "required": ["size", "guest", "day"],
        },
    )
    assert fill("book it for Mira Tolan, size 12, day 2025-01-02", tool) == {
        "size": 12,
        "guest": "Mira Tolan",
        "day": "2025-01-02",
    }
