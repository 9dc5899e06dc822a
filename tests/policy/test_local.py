"""The local policy: turns with ids, many at a time, without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
import torch

from openk2.chat import parse_completion, render
from openk2.core import ContextOverflow, Message, Policy, ToolCall, ToolSpec, Turn, UserError
from openk2.engine import Batch, Engine, Request
from openk2.engine.sequence import Sequence
from openk2.policy.local import LocalPolicy
from openk2.policy.resolve import resolve_policy

TOOLS = [ToolSpec("ping", "", {"type": "object", "properties": {"way": {"enum": ["up", "down"]}}})]


@pytest.fixture(scope="module")
def engine() -> Engine:
    policy = resolve_policy("random:test")
    assert isinstance(policy, LocalPolicy)
    return policy.engine


@pytest.fixture
async def policy(engine: Engine) -> AsyncIterator[LocalPolicy]:
    policy = LocalPolicy(engine, temperature=1.0, name="under test")
    yield policy
    await policy.close()


def dialog(text: str) -> list[Message]:
    return [Message("system", "s"), Message("user", text)]


async def test_a_turn_carries_its_ids(policy: LocalPolicy) -> None:
    assert isinstance(policy, Policy)
    turn = await policy.act(dialog("hi"), TOOLS, max_tokens=12)
    tokenizer = policy.engine.tokenizer
    assert turn.model == "under test"
    assert list(turn.prompt_ids) == render(dialog("hi"), TOOLS, tokenizer=tokenizer, add_generation_prompt=True).ids
    assert turn.message == parse_completion(turn.completion_ids, tokenizer).message
    assert turn.message.token_ids == turn.completion_ids
    assert len(turn.logprobs) == len(turn.completion_ids) <= 12
    assert turn.finish_reason == "length" or turn.completion_ids[-1] == tokenizer.eos_id


async def test_sampled_ids_come_back_verbatim_in_the_next_prompt(policy: LocalPolicy) -> None:
    first = await policy.act(dialog("hi"), TOOLS, max_tokens=8)
    messages = [*dialog("hi"), first.message, Message("user", "and now?")]
    second = await policy.act(messages, TOOLS, max_tokens=4)
    so_far = [*first.prompt_ids, *first.completion_ids]
    assert list(second.prompt_ids[: len(so_far)]) == so_far


async def test_many_at_once_equal_one_at_a_time(engine: Engine, policy: LocalPolicy) -> None:
    texts = [f"request {'and more ' * (i % 4)}{i}" for i in range(10)]
    together = await asyncio.gather(
        *(policy.seeded(i).act(dialog(t), TOOLS, max_tokens=10) for i, t in enumerate(texts))
    )
    for i, text in enumerate(texts):
        prompt = render(dialog(text), TOOLS, tokenizer=engine.tokenizer, add_generation_prompt=True).ids
        request = Request(tuple(prompt), 10, temperature=1.0, seed=i, tools=tuple(TOOLS))
        assert together[i].completion_ids == engine.generate([request])[0].ids


async def test_the_event_loop_stays_free(policy: LocalPolicy) -> None:
    turn = asyncio.create_task(policy.act(dialog("long"), [], max_tokens=200))
    ticks = 0
    while not turn.done():
        await asyncio.sleep(0)
        ticks += 1
    assert ticks > 50
    assert (await turn).completion_ids


async def test_a_cancelled_turn_harms_nobody(policy: LocalPolicy) -> None:
    lost = asyncio.create_task(policy.act(dialog("never awaited"), [], max_tokens=1500))
    kept = asyncio.create_task(policy.act(dialog("kept"), [], max_tokens=10))
    await asyncio.sleep(0.05)
    lost.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lost
    assert (await kept).completion_ids


async def test_bad_requests_fail_for_their_caller_only(policy: LocalPolicy) -> None:
    good = policy.act(dialog("fine"), TOOLS, max_tokens=5)
    long = policy.act(dialog("word " * 4000), [], max_tokens=5)
    tools = policy.act(dialog("tools"), [*TOOLS, *TOOLS], max_tokens=5)
    results = await asyncio.gather(good, long, tools, return_exceptions=True)
    assert isinstance(results[0], Turn)
    assert isinstance(results[1], ContextOverflow)
    assert isinstance(results[2], UserError)


async def test_an_engine_failure_reaches_the_caller_and_the_next_turn_works(
    policy: LocalPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(policy.engine.model, "hidden", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            await policy.act(dialog("hi"), [], max_tokens=5)
    assert (await policy.act(dialog("hi"), [], max_tokens=5)).completion_ids


@pytest.mark.parametrize("when", ["add", "accept"])
async def test_one_request_that_cannot_be_served_does_not_fail_the_others(
    engine: Engine, policy: LocalPolicy, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    add, accept = Batch.add, Sequence.accept

    def bad_add(batch: Batch, request: Request) -> int:
        if when == "add" and request.seed == 2:
            raise RuntimeError("bad request")
        return add(batch, request)

    def bad_accept(sequence: Sequence, token: int) -> None:
        if when == "accept" and sequence.request.seed == 2 and len(sequence.ids) == 3:
            raise RuntimeError("bad request")
        accept(sequence, token)

    monkeypatch.setattr(Batch, "add", bad_add)
    monkeypatch.setattr(Sequence, "accept", bad_accept)
    async with asyncio.timeout(300):
        turns = await asyncio.gather(
            *(policy.seeded(i).act(dialog("hi"), TOOLS, max_tokens=8) for i in range(5)), return_exceptions=True
        )
    prompt = render(dialog("hi"), TOOLS, tokenizer=engine.tokenizer, add_generation_prompt=True).ids
    for i, turn in enumerate(turns):
        if i == 2:
            assert isinstance(turn, RuntimeError) and str(turn) == "bad request"
            continue
        assert isinstance(turn, Turn)
        request = Request(tuple(prompt), 8, temperature=1.0, seed=i, tools=tuple(TOOLS))
        assert turn.completion_ids == engine.generate([request])[0].ids


async def test_giving_up_in_the_moment_of_a_failure_is_survived(
    policy: LocalPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = Future.set_exception

    def broken(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    def given_up(future: Future[Any], error: BaseException | None) -> None:
        future.cancel()
        tell(future, error)

    with monkeypatch.context() as patch:
        patch.setattr(policy.engine.model, "hidden", broken)
        patch.setattr(Future, "set_exception", given_up)
        await asyncio.gather(policy.act(dialog("hi"), [], max_tokens=5), return_exceptions=True)
    async with asyncio.timeout(120):
        assert (await policy.act(dialog("hi"), [], max_tokens=5)).completion_ids


async def test_closing_cancels_what_runs(engine: Engine) -> None:
    policy = LocalPolicy(engine)
    turn = asyncio.create_task(policy.act(dialog("long"), [], max_tokens=1500))
    await asyncio.sleep(0.05)
    await policy.close()
    with pytest.raises(asyncio.CancelledError):
        await turn
    with pytest.raises(RuntimeError, match="closed"):
        await policy.act(dialog("again"), [], max_tokens=1)


async def test_foreign_calls_are_made_canonical_and_counted(policy: LocalPolicy) -> None:
    call = ToolCall("call_abc", "ping", '{ "way": "up" }')
    messages = [
        *dialog("hi"),
        Message("assistant", tool_calls=(call,)),
        Message("tool", "ok", tool_call_id="call_abc"),
    ]
    turn = await policy.act(messages, TOOLS, max_tokens=5)
    text = policy.engine.tokenizer.decode(turn.prompt_ids)
    assert 'functions.ping:0<|tool_call_argument_begin|>{"way":"up"}' in text
    assert "## Return of functions.ping:0\nok" in text
    again = await policy.act([replace(m) for m in messages], TOOLS, max_tokens=5)
    assert again.prompt_ids == turn.prompt_ids
