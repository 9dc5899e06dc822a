from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.core import UserError
from openk2.optim import WSD


@given(
    warmup=st.integers(0, 50),
    stable=st.integers(0, 50),
    decay=st.integers(0, 50),
    shape=st.sampled_from(["linear", "sqrt", "cosine"]),
    floor=st.floats(0, 1),
)
def test_up_flat_down_and_never_outside(warmup: int, stable: int, decay: int, shape: str, floor: float) -> None:
    steps = warmup + stable + decay
    if steps == 0:
        return
    schedule = WSD(lr=2.0, steps=steps, warmup=warmup, decay=decay, shape=shape, final_lr=2.0 * floor)  # type: ignore[arg-type]
    rates = [schedule.at(step) for step in range(steps)]
    up, flat, down = rates[:warmup], rates[warmup : warmup + stable], rates[warmup + stable :]
    assert up == sorted(up) and all(rate == 2.0 for rate in flat) and down == sorted(down, reverse=True)
    assert all(rate > 0 or floor == 0 for rate in rates)
    assert all(min(2.0 * floor, min(up, default=2.0)) <= rate <= 2.0 for rate in rates)
    assert schedule.at(steps + 7) == rates[-1]


def test_known_values() -> None:
    schedule = WSD(lr=1.0, steps=10, warmup=2, decay=3, shape="linear")
    assert [schedule.at(step) for step in range(10)] == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert WSD(lr=1.0, steps=4, decay=3, shape="sqrt").at(1) == pytest.approx(0.5)
    assert WSD(lr=1.0, steps=4, decay=3, shape="cosine").at(2) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lr": 0.0}, "positive"),
        ({"lr": float("nan")}, "positive"),
        ({"steps": 0}, "steps >= 1"),
        ({"warmup": 8, "decay": 3}, "longer than the 10 steps"),
        ({"final_lr": 2.0}, "between 0 and lr"),
        ({"shape": "step"}, "unknown"),
    ],
)
def test_impossible_numbers_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        WSD(**({"lr": 1.0, "steps": 10} | wrong))  # type: ignore[arg-type]
