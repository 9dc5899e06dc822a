"""The worker's news of a request add up to its result, also when a batch fails on the way."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest

from openk2.chat import Tokenizer
from openk2.engine import Batch, Engine, Generation, Part, Request, Worker
from openk2.model import ModelConfig, Transformer


@pytest.fixture(scope="module")
def engine(tokenizer: Tokenizer) -> Engine:
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    return Engine(Transformer(ModelConfig.preset("test", vocab_size=tokenizer.vocab_size, **ids)).eval(), tokenizer)


def wanted(engine: Engine) -> list[Request]:
    return [
        Request(tuple(engine.tokenizer.encode(f"request {i}")), max_tokens=12 + i, temperature=1.0, seed=i)
        for i in range(4)
    ]


def added(parts: list[Part]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return sum((part.ids for part in parts), ()), sum((part.logprobs for part in parts), ())


@pytest.mark.parametrize("fails", [False, True])
def test_news_add_up(engine: Engine, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    requests = wanted(engine)
    expected = engine.generate(requests)
    step, steps = Batch.step, 0

    def sometimes(batch: Batch) -> list[tuple[int, Generation]]:
        nonlocal steps
        steps += 1
        if fails and steps == 6:
            raise RuntimeError("a moment's weakness")
        return step(batch)

    monkeypatch.setattr(Batch, "step", sometimes)
    worker = Worker(engine)
    parts: list[list[Part]] = [[] for _ in requests]
    futures = [worker.submit(request, heard.append) for request, heard in zip(requests, parts, strict=True)]
    for future, heard, generation in zip(futures, parts, expected, strict=True):
        assert future.result(60).ids == generation.ids
        assert added(heard)[0] == generation.ids
        assert added(heard)[1] == pytest.approx(generation.logprobs, abs=1e-4)
        assert len(heard) > 2
    worker.close()
    with pytest.raises(RuntimeError, match="closed"):
        worker.submit(requests[0])


def test_a_listener_that_fails_fails_its_request_alone(engine: Engine) -> None:
    worker = Worker(engine)

    def broken(part: Part) -> None:
        raise RuntimeError("nobody listens")

    for request in (wanted(engine)[1], Request(wanted(engine)[1].prompt_ids, max_tokens=1, grammar=False)):
        lost, kept = worker.submit(request, broken), worker.submit(wanted(engine)[2])
        with pytest.raises(RuntimeError, match="nobody listens"):
            lost.result(60)
        assert kept.result(60).ids
    worker.close()


def test_what_is_given_up_says_no_more(engine: Engine) -> None:
    worker = Worker(engine)
    heard: list[Part] = []
    long = Request(tuple(engine.tokenizer.encode("long")), max_tokens=10_000, grammar=False)
    future = worker.submit(long, heard.append)
    while not heard:
        pass
    future.cancel()
    # Whoever comes later is served: the slot is free.
    assert worker.submit(wanted(engine)[0]).result(60).ids
    count = len(heard)
    assert worker.submit(wanted(engine)[1]).result(60).ids
    assert len(heard) == count
    assert worker.load == (0, 0)
    with pytest.raises(CancelledError):
        future.result(1)
    worker.close()
