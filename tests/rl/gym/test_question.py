"""One question, one answer: what of a conversation is judged."""

from __future__ import annotations

import pytest

from openk2.core import Message, ToolCall
from openk2.core.families import get_family

CALL = ToolCall("functions.look:0", "look", "{}")


@pytest.mark.parametrize("family", ["math", "instructions", "reasoning:basic_arithmetic"])
async def test_the_last_answer_is_judged_and_none_is_no_points(family: str) -> None:
    gym = get_family(family)
    task = gym.sample("test", 0)
    world = gym.world(task)
    opening = await world.start(task)
    gold = [message for message in gym.demonstrate(task).messages if message.role == "assistant"][-1]
    for said in ([], [Message("assistant", "Wait.", (CALL,))]):
        verdict = await world.verify([*opening, *said])
        assert (verdict.passed, verdict.score) == (False, 0.0) and verdict.reason == "there is no answer"
    assert (await world.verify([*opening, gold, Message("assistant", "?")])).passed is False
    assert (await world.verify([*opening, Message("assistant", "?"), gold])).passed is True
    result = await world.call(CALL)
    assert result.error and "there are no tools" in result.content
