"""Rollouts in step: the same ids as alone, the sampler's log-probs are the trainer's, circles are cut."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
import torch

from openk2.core import Limits, Trajectory
from openk2.core.families import get_family
from openk2.engine import Engine, Generation, Request
from openk2.policy.local import LocalPolicy
from openk2.policy.resolve import resolve_policy
from openk2.rl.episodes import sequences_of
from openk2.rl.objective import Sample, micro_batches, said_logprobs
from openk2.rl.sampler import Sampler, Seat, is_circle
from openk2.rollout import rollout

FUNCTIONS = get_family("functions")


@pytest.fixture(scope="module")
def engine() -> Engine:
    policy = resolve_policy("nano")
    assert isinstance(policy, LocalPolicy)
    return policy.engine


async def play(seed: int, seat: Seat, temperature: float = 1.0) -> Trajectory:
    task = FUNCTIONS.sample("train", seed)
    policy = seat.policy(grammar=False, temperature=temperature, seed=seed)
    return await rollout(policy, FUNCTIONS.world(task), task, Limits(steps=4, tokens=60))


def ids(trajectories: list[Trajectory]) -> list[list[tuple[int, ...]]]:
    return [[step.turn.completion_ids for step in t.steps] for t in trajectories]


def test_the_same_twice_and_few_at_a_time(engine: Engine) -> None:
    jobs = [partial(play, seed) for seed in range(4)]
    first = Sampler(engine).run(jobs, 4)
    again = Sampler(engine).run(jobs, 4)
    assert ids(first) == ids(again)
    assert [t.task.seed for t in Sampler(engine).run(jobs, 2)] == list(range(4))


def test_a_rollout_that_raises_ends_them_all(engine: Engine) -> None:
    async def bad(seat: Seat) -> Trajectory:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Sampler(engine).run([partial(play, 1), bad], 2)


def test_slow_worlds_are_waited_for(engine: Engine) -> None:
    async def slow(seed: int, seat: Seat) -> Trajectory:
        await asyncio.sleep(0.05 * seed)
        return await play(seed, seat, 0.0)

    hasty = Sampler(engine).run([partial(play, seed, temperature=0.0) for seed in range(3)], 3)
    assert ids(Sampler(engine).run([partial(slow, seed) for seed in range(3)], 3)) == ids(hasty)


@pytest.mark.parametrize(("dtype", "most", "mean"), [(torch.float32, 5e-4, 2e-5), (torch.bfloat16, 2.0, 0.02)])
def test_the_trainer_sees_the_log_probs_of_the_sampler(
    engine: Engine, dtype: torch.dtype, most: float, mean: float
) -> None:
    """In bf16 a token of a choice that is nearly even may differ by a rounding of its logit, the mean does not."""
    other = Engine(engine.model, engine.tokenizer, dtype=dtype)
    trajectories = Sampler(other).run([partial(play, seed) for seed in range(6)], 6)
    samples = [Sample(tuple(sequences_of(t)), 1.0, i) for i, t in enumerate(trajectories)]
    gaps: list[float] = []
    with torch.no_grad():
        for batch in micro_batches(samples, 4096):
            gaps += (
                (said_logprobs(other.model, batch.ids_T, batch.targets_T, batch.branches) - batch.old_N).abs().tolist()
            )
    assert max(gaps) < most
    assert sum(gaps) / len(gaps) < mean


def test_ids_are_one_sequence_in_which_each_turn_continues_the_last(engine: Engine) -> None:
    trajectories = Sampler(engine).run([partial(play, seed, temperature=0.0) for seed in range(4)], 4)
    assert any(len(t.steps) > 1 for t in trajectories)
    for trajectory in trajectories:
        (sequence,) = sequences_of(trajectory)
        said = [i for i, one in zip(sequence.ids, sequence.said, strict=True) if one]
        assert said == [i for step in trajectory.steps for i in step.turn.completion_ids]


def test_circles() -> None:
    assert is_circle([1, 2, 3] * 40)
    assert is_circle([*range(200), *[7] * 80])
    assert not is_circle(list(range(100)))
    assert not is_circle([1, 2] * 20)


def test_a_circle_is_cut_short(engine: Engine) -> None:
    """A request that can only say the same id for ever."""
    request = Request((5, 6, 7), 300, logit_bias=((70, 100.0),), grammar=False)

    async def ask(seat: Seat) -> tuple[Generation, int]:
        return await asyncio.wrap_future(seat.submit(request)), seat.circles

    ((generation, circles),) = Sampler(engine).run([ask], 1)
    assert circles == 1 and generation.finish_reason == "length"
    assert 80 <= len(generation.ids) == len(generation.logprobs) < 120
