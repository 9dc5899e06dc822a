"""Batch plans: every token is visited, nothing is mixed, and a plan is a function of (seed, step)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import UserError
from openk2.data.batches import IGNORED, EpisodePlan, PackedPlan
from openk2.data.shards import Shards, ShardWriter

PAD = 9999


def make_shards(folder: Path, lengths: list[int], seed: int = 0) -> Shards:
    rng = np.random.default_rng(seed)
    with ShardWriter(folder) as writer:
        for length in lengths:
            mask = rng.random(length) < 0.5
            mask[-1] = True
            writer.add(rng.integers(0, 5000, length), mask)
    return Shards(folder)


@pytest.fixture
def episodes(tmp_path: Path) -> Shards:
    lengths = np.random.default_rng(1).integers(20, 400, 3000).tolist()
    return make_shards(tmp_path / "episodes", lengths)


def test_packed_rows_cover_an_epoch_once(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a") as writer:
        writer.add(range(1601))
    plan = PackedPlan(Shards(tmp_path / "a"), seq_len=16, rows=5, micro_batches=2, seed=3)
    seen = np.concatenate([plan.batch(s, i).input_ids_BT.ravel() for s in range(10) for i in range(2)])
    assert sorted(seen.tolist()) == list(range(1600))
    assert seen.tolist() != list(range(1600))
    batch = plan.batch(0, 0)
    assert np.array_equal(batch.targets_BT, batch.input_ids_BT + 1)
    second = np.concatenate([plan.batch(s, i).input_ids_BT.ravel() for s in range(10, 20) for i in range(2)])
    assert sorted(second.tolist()) == list(range(1600))
    assert second.tolist() != seen.tolist()


def test_packed_needs_one_row(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="less than one row"):
        PackedPlan(make_shards(tmp_path / "a", [16]), seq_len=16, rows=1, micro_batches=1, seed=0)


def test_every_episode_once_per_epoch_and_little_padding(episodes: Shards) -> None:
    plan = EpisodePlan(episodes, micro_tokens=4096, micro_batches=2, pad_id=PAD, seed=0)
    rows: list[tuple[int, ...]] = []
    padded = real = 0
    step = 0
    while len(rows) < len(episodes):
        for index in range(2):
            batch = plan.batch(step, index)
            assert batch.input_ids_BT.size <= 4096 + batch.input_ids_BT.shape[1] / 2
            padded += batch.input_ids_BT.size
            real += int((batch.input_ids_BT != PAD).sum())
            for inputs in batch.input_ids_BT:
                rows.append(tuple(inputs[inputs != PAD].tolist()))
        step += 1
    expected = {tuple(ids[:-1].tolist()) for ids, _ in episodes}
    assert set(rows[: len(episodes)]) == expected
    assert real / padded > 0.9


def test_episode_targets_follow_the_mask(episodes: Shards) -> None:
    plan = EpisodePlan(episodes, micro_tokens=4096, micro_batches=1, pad_id=PAD, seed=0)
    by_inputs = {tuple(ids[:-1].tolist()): (ids, mask) for ids, mask in episodes}
    batch = plan.batch(7, 0)
    for inputs, targets in zip(batch.input_ids_BT, batch.targets_BT, strict=True):
        length = int((inputs != PAD).sum())
        ids, mask = by_inputs[tuple(inputs[:length].tolist())]
        assert targets[:length].tolist() == [int(t) if m else IGNORED for t, m in zip(ids[1:], mask[1:], strict=True)]
        assert (targets[length:] == IGNORED).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 200), st.integers(0, 3), st.integers(0, 5))
def test_a_plan_is_a_function_of_seed_and_step(
    tmp_path_factory: pytest.TempPathFactory, step: int, index: int, seed: int
) -> None:
    shards = make_shards(tmp_path_factory.mktemp("x") / "a", [30, 40, 50, 60] * 50)
    for make in (
        lambda: EpisodePlan(shards, micro_tokens=512, micro_batches=4, pad_id=PAD, seed=seed),
        lambda: PackedPlan(shards, seq_len=32, rows=4, micro_batches=4, seed=seed),
    ):
        walked, jumped = make(), make()
        for earlier in range(step % 20):
            walked.batch(earlier, 0)
        a, b = walked.batch(step, index), jumped.batch(step, index)
        assert np.array_equal(a.input_ids_BT, b.input_ids_BT)
        assert np.array_equal(a.targets_BT, b.targets_BT)
        assert jumped.supervised(step) == sum(walked.batch(step, i).supervised for i in range(4))


def test_an_episode_that_does_not_fit_is_named(episodes: Shards) -> None:
    with pytest.raises(UserError, match="does not fit micro_tokens = 100"):
        EpisodePlan(episodes, micro_tokens=100, micro_batches=1, pad_id=PAD, seed=0)


def test_no_episodes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no episodes"):
        EpisodePlan(make_shards(tmp_path / "a", []), micro_tokens=100, micro_batches=1, pad_id=PAD, seed=0)


def test_short_episodes_come_first_then_all_of_them(episodes: Shards) -> None:
    def plan(short_steps: int, short_tokens: int = 100) -> EpisodePlan:
        return EpisodePlan(
            episodes,
            micro_tokens=4096,
            micro_batches=2,
            pad_id=PAD,
            seed=0,
            short_steps=short_steps,
            short_tokens=short_tokens,
        )

    curriculum, without = plan(5), plan(0)
    for step in range(5):
        for index in range(2):
            assert curriculum.batch(step, index).input_ids_BT.shape[1] < 100
            after = curriculum.batch(step + 5, index)
            assert np.array_equal(after.input_ids_BT, without.batch(step, index).input_ids_BT)
    with pytest.raises(UserError, match="short_tokens = 19"):
        plan(1, 19)
    assert plan(0, 19).supervised(0) == without.supervised(0)
