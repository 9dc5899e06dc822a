"""A trajectory once more, without its policy: what the assistant said and called is done again in a fresh world."""

from __future__ import annotations

from openk2.core import Message, Trajectory, UserError, World

COMPLAINT = Message("system", "Malformed tool call. Write it again.")
"""What the loop says of a tool section that cannot be read."""

_SHOWN = 80


async def replay(trajectory: Trajectory, world: World) -> str | None:
    """The first thing that is other when a trajectory is executed again in `world`; None if all is the same.

    Compared are the tools, the opening, each result, the user's words and the verdict. The world is closed.
    """
    try:
        return await _difference(trajectory, world)
    finally:
        await world.close()


async def _difference(trajectory: Trajectory, world: World) -> str | None:
    if difference := await retrace(trajectory, world):
        return difference
    passed = bool((await world.verify(tuple(trajectory.messages))).passed) and trajectory.finished
    if passed != trajectory.verdict.passed:
        return f"the verdict was {trajectory.verdict.passed}, and is {passed}"
    return None


async def retrace(trajectory: Trajectory, world: World) -> str | None:
    """Bring a fresh world to where a trajectory has ended; what was other on the way, None if nothing was."""
    try:
        opening = await world.start(trajectory.task)
    except (ValueError, KeyError, UserError) as e:
        return f"its task cannot be set up again ({str(e).splitlines()[0]})"
    if tuple(world.tools) != trajectory.tools:
        return "other tools were on offer"
    messages = trajectory.messages
    if messages[: len(opening)] != opening:
        return "the conversation began with other words"
    at = len(opening)
    while at < len(messages):
        message = messages[at]
        at += 1
        if message == COMPLAINT:
            continue
        if message.role != "assistant":
            return f"a message of the {message.role} that nothing explains: {message.content[:_SHOWN]!r}"
        for call in message.tool_calls:
            result = await world.call(call)
            told = messages[at] if at < len(messages) else None
            at += 1
            if told is None or told.content != result.content or told.tool_call_id != call.id:
                before = told.content[:_SHOWN] if told else "nothing"
                return f"{call.name} gave {before!r}, and gives {result.content[:_SHOWN]!r}"
        if message.tool_calls or (at < len(messages) and messages[at] == COMPLAINT):
            continue
        said = await world.reply(message)
        if said is None:
            break
        if at >= len(messages) or messages[at].role != said.role or messages[at].content != said.content:
            return f"the user said other words than {said.content[:_SHOWN]!r}"
        at += 1
    if at < len(messages):
        return "the conversation went on behind its end"
    return None
