from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import UserError
from openk2.optim import MuonClip, fast_dtype, newton_schulz
from openk2.optim.newton_schulz import COEFFICIENTS, Coefficients, _iterate, _iterate_gram

# `openk2.optim.newton_schulz` is the function.
MODULE = importlib.import_module("openk2.optim.newton_schulz")


def scalar_map(sigma: torch.Tensor, steps: int = 5, coefficients: Coefficients = COEFFICIENTS) -> torch.Tensor:
    """What the iteration does to singular values: the reference, by the definition of a matrix polynomial."""
    a, b, c = coefficients
    for _ in range(steps):
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return sigma


def by_svd(m_RC: torch.Tensor, steps: int = 5, coefficients: Coefficients = COEFFICIENTS) -> torch.Tensor:
    u, s, vh = torch.linalg.svd(m_RC.double() / m_RC.double().norm(), full_matrices=False)
    return u @ torch.diag(scalar_map(s, steps, coefficients)) @ vh


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 120),
    count=st.integers(1, 4),
    steps=st.integers(1, 8),
    seed=st.integers(0, 999),
)
def test_equals_the_polynomial_of_the_singular_values(rows: int, cols: int, count: int, steps: int, seed: int) -> None:
    m_NRC = torch.randn(count, rows, cols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    out_NRC = newton_schulz(m_NRC, steps, dtype=torch.float64)
    assert out_NRC.shape == m_NRC.shape
    for m_RC, out_RC in zip(m_NRC, out_NRC, strict=True):
        torch.testing.assert_close(out_RC, by_svd(m_RC, steps), rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (8, 40)])
def test_other_coefficients(shape: tuple[int, int]) -> None:
    """Those of the plain iteration with a cubic only: every singular value goes to one from below."""
    m_RC = torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    out_RC = newton_schulz(m_RC, 20, (1.5, -0.5, 0.0), dtype=torch.float64)
    torch.testing.assert_close(out_RC, by_svd(m_RC, 20, (1.5, -0.5, 0.0)), rtol=0, atol=1e-8)
    torch.testing.assert_close(torch.linalg.svdvals(out_RC), torch.ones(min(shape), dtype=torch.float64))


@pytest.mark.parametrize("spectrum", ["gauss", "slow decay", "fast decay", "rank 4", "rank 16 and noise"])
def test_gram_form_is_as_good_in_bf16_as_the_definition(spectrum: str) -> None:
    generator = torch.Generator().manual_seed(0)
    m_NRC = torch.randn(4, 96, 288, generator=generator)
    if spectrum.startswith("rank"):
        rank, noise = (4, 1e-4) if spectrum == "rank 4" else (16, 0.03)
        left, right = torch.randn(4, 96, rank, generator=generator), torch.randn(4, rank, 288, generator=generator)
        m_NRC = left @ right / rank**0.5 + noise * m_NRC
    elif spectrum != "gauss":
        u, _, vh = torch.linalg.svd(m_NRC, full_matrices=False)
        decay = torch.arange(1, 97.0) ** -0.5 if spectrum == "slow decay" else torch.exp(-torch.arange(96) / 10.0)
        m_NRC = u * decay @ vh
    m_NRC /= m_NRC.norm(dim=(1, 2), keepdim=True)
    exact = _iterate(m_NRC.double(), 5, COEFFICIENTS).flatten()

    def likeness(x: torch.Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(x.double().flatten(), exact, dim=0))

    gram = _iterate_gram(m_NRC.bfloat16(), 5, COEFFICIENTS)
    assert likeness(gram) > likeness(_iterate(m_NRC.bfloat16(), 5, COEFFICIENTS)) - 0.005
    assert torch.linalg.svdvals(gram.float()).max() < 1.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(48, 96), (96, 48), (64, 64)])
def test_singular_values_come_near_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    m_NRC = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    # The smallest singular value of a square Gaussian is near zero and needs more steps to grow.
    steps = 10 if shape[0] == shape[1] else 5
    out_NRC = newton_schulz(m_NRC, steps, dtype=dtype)
    assert out_NRC.dtype == dtype
    sigma = torch.linalg.svdvals(out_NRC.float())
    assert sigma.min() > 0.6 and sigma.max() < 1.25


def test_a_batch_equals_one_by_one_and_a_single_matrix_keeps_its_shape() -> None:
    m_NRC = torch.randn(300, 24, 40, generator=torch.Generator().manual_seed(1))
    batch = newton_schulz(m_NRC, dtype=torch.float32)
    single = torch.stack([newton_schulz(m_RC, dtype=torch.float32) for m_RC in m_NRC])
    torch.testing.assert_close(batch, single, rtol=0, atol=1e-5)


def test_scale_and_zero() -> None:
    m_RC = torch.randn(8, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(newton_schulz(m_RC * 1e4, dtype=m_RC.dtype), newton_schulz(m_RC, dtype=m_RC.dtype))
    assert newton_schulz(torch.zeros(4, 6)).count_nonzero() == 0
    before = m_RC.clone()
    newton_schulz(m_RC)
    assert torch.equal(before, m_RC)


def test_bad_shapes_are_refused() -> None:
    for shape in [(5,), (2, 2, 2, 2), (0, 3)]:
        with pytest.raises(UserError, match="one matrix or a batch"):
            newton_schulz(torch.zeros(shape))


def test_fast_dtype_is_a_float_type_and_stable() -> None:
    assert fast_dtype(torch.device("cpu")) in (torch.bfloat16, torch.float32)
    assert fast_dtype(torch.device("cpu")) == fast_dtype(torch.device("cpu"))


def test_fast_dtype_is_what_the_probe_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    for bf16, wanted in ((1.0, torch.bfloat16), (1.9, torch.float32), (math.inf, torch.float32)):
        seconds = {torch.bfloat16: bf16, torch.float32: 2.0}
        monkeypatch.setattr(MODULE, "_seconds_of_products", lambda _, dtype, seconds=seconds: seconds[dtype])
        fast_dtype.cache_clear()
        assert fast_dtype(torch.device("cpu")) == wanted
    fast_dtype.cache_clear()


def test_a_dtype_that_the_device_does_not_have_takes_forever() -> None:
    assert 0 < MODULE._seconds_of_products(torch.device("cpu"), torch.float32) < math.inf
    assert MODULE._seconds_of_products(torch.device("cpu"), torch.bool) == math.inf


def test_the_dtype_of_a_run_goes_on_with_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped(dtype: torch.dtype, state: Any = None) -> dict[str, Any]:
        monkeypatch.setattr("openk2.optim.muonclip.fast_dtype", lambda _: dtype)
        layer = torch.nn.Linear(4, 4)
        optimizer = MuonClip(layer, lr=0.1)
        if state is not None:
            optimizer.load_state_dict(state)
        layer(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        return optimizer.state_dict()

    first = stepped(torch.float32)
    assert first["param_groups"][0]["ns_dtype"] == "float32"
    assert stepped(torch.bfloat16)["param_groups"][0]["ns_dtype"] == "bfloat16"
    assert stepped(torch.bfloat16, first)["param_groups"][0]["ns_dtype"] == "float32"


@pytest.mark.parametrize("wrong", [(math.nan, 1.0, 1.0), (1.0, 2.0), None])
def test_coefficients_are_three_finite_numbers(wrong: Any) -> None:
    with pytest.raises(UserError, match="three finite numbers"):
        newton_schulz(torch.ones(2, 2), 5, wrong)
    with pytest.raises(UserError, match="three finite numbers"):
        MuonClip(torch.nn.Linear(4, 4), lr=0.1, ns_coefficients=wrong)
