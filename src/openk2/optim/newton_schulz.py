"""Newton-Schulz orthogonalisation of a batch of matrices: the heart of Muon.

Given M = U S V^T it returns about U V^T (singular values between 0.67 and 1.14) with matrix products only.

Shapes: N matrices, R rows, C columns, R <= C inside the iteration.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache

import torch
from torch import Tensor

from openk2.core import UserError

# The quintic of Keller Jordan that Moonlight and K2 use: the steepest slope at zero that keeps values near one.
Coefficients = tuple[float, float, float]
COEFFICIENTS: Coefficients = (3.4445, -4.7750, 2.0315)
EPS = 1e-7
# Large enough on an accelerator that starting the product takes no time beside it.
_PROBE_SHAPE, _PROBE_SHAPE_FAST = (8, 256, 256), (16, 1024, 1024)
_PROBE_TRIALS = 16
# A chunk of matrices and its temporaries should stay in a core's own cache.
_CHUNK_BYTES = 1 << 20
# Columns per row from which the Gram form is faster (fewer products from 1.5 on, but each is smaller).
_GRAM_FROM = 2.5


@lru_cache(maxsize=64)
def fast_dtype(device: torch.device) -> torch.dtype:
    """The dtype in which Newton-Schulz is fastest without harm, by a short probe of the device, once in a process.

    bfloat16 if its products take less than three quarters of float32's time, else float32. CPUs without bf16
    instructions emulate it many times slower. MuonClip keeps the answer with its state: a run that goes on computes in
    what it began with.
    """
    # In turns, and often: a core's speed changes with what the others do.
    seconds = {torch.bfloat16: math.inf, torch.float32: math.inf}
    for trial in range(_PROBE_TRIALS):
        for dtype, best in seconds.items():
            seconds[dtype] = min(best, _seconds_of_products(device, dtype))
        # Where it is emulated there is no doubt, and a trial takes long.
        if trial >= 2 and seconds[torch.bfloat16] > 4 * seconds[torch.float32]:
            break
    return torch.bfloat16 if seconds[torch.bfloat16] < 0.75 * seconds[torch.float32] else torch.float32


def _seconds_of_products(device: torch.device, dtype: torch.dtype) -> float:
    """Of one trial; infinity where the device does not have the dtype."""
    try:
        x = torch.ones(_PROBE_SHAPE if device.type == "cpu" else _PROBE_SHAPE_FAST, dtype=dtype, device=device)
        # On a CPU the time that this thread had a core for: what else the machine does must not decide.
        clock = time.thread_time if device.type == "cpu" else time.perf_counter
        start = clock()
        torch.bmm(x, x.mT).sum().item()
        return clock() - start
    except (RuntimeError, TypeError):
        return math.inf


def check_coefficients(coefficients: Coefficients) -> None:
    """Raise UserError unless they are three finite numbers."""
    if not (isinstance(coefficients, tuple) and len(coefficients) == 3 and all(map(_is_finite, coefficients))):
        raise UserError(f"the coefficients of Newton-Schulz are three finite numbers (a, b, c), not {coefficients}")


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number)


def newton_schulz(
    m_NRC: Tensor, steps: int = 5, coefficients: Coefficients = COEFFICIENTS, dtype: torch.dtype | None = None
) -> Tensor:
    """Orthogonalise every matrix of a batch (or a single 2-D matrix); same shape back, in `dtype`.

    X0 = M / |M|_F, then `steps` times X <- aX + (bA + cA^2)X with A = XX^T and `coefficients` (a, b, c) (Moonlight,
    section 2.1). Tall matrices are transposed for the work, so that A is the small Gram matrix. A zero matrix stays
    zero. `dtype` None means `fast_dtype`. Raises UserError for tensors that are not matrices.
    """
    if m_NRC.ndim not in (2, 3) or m_NRC.numel() == 0:
        raise UserError(f"Newton-Schulz needs one matrix or a batch [N, rows, columns], got shape {list(m_NRC.shape)}")
    check_coefficients(coefficients)
    dtype = fast_dtype(m_NRC.device) if dtype is None else dtype
    x_NRC = m_NRC.unsqueeze(0) if m_NRC.ndim == 2 else m_NRC
    tall = x_NRC.shape[1] > x_NRC.shape[2]
    if tall:
        x_NRC = x_NRC.mT
    x_NRC = x_NRC.to(dtype, copy=True, memory_format=torch.contiguous_format)
    newton_schulz_(x_NRC, steps, coefficients)
    if tall:
        x_NRC = x_NRC.mT
    return x_NRC.squeeze(0) if m_NRC.ndim == 2 else x_NRC


def newton_schulz_(x_NRC: Tensor, steps: int = 5, coefficients: Coefficients = COEFFICIENTS) -> None:
    """In place, for a contiguous batch with R <= C, in the dtype that it has. What `newton_schulz` does after checks.

    Wide matrices take the Gram form, whose products are mostly R x R: with 5 steps 8 R^2 C + 28 R^3 multiplications
    instead of 20 R^2 C + 10 R^3.
    """
    rows, cols = x_NRC.shape[1:]
    iterate = _iterate_gram if cols >= _GRAM_FROM * rows else _iterate
    size = max(1, _CHUNK_BYTES // (rows * cols * x_NRC.element_size())) if x_NRC.device.type == "cpu" else len(x_NRC)
    for x_nRC in torch.split(x_NRC, size):
        norm_n11 = torch.linalg.vector_norm(x_nRC, dim=(1, 2), keepdim=True).clamp_(min=EPS)
        x_nRC.copy_(iterate(x_nRC / norm_n11, steps, coefficients))


def _iterate(x_NRC: Tensor, steps: int, coefficients: Coefficients) -> Tensor:
    """The definition. `x_NRC` has Frobenius norm one."""
    a, b, c = coefficients
    for _ in range(steps):
        gram_NRR = torch.bmm(x_NRC, x_NRC.mT)
        poly_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, poly_NRR, x_NRC, beta=a)
    return x_NRC


def _iterate_gram(x_NRC: Tensor, steps: int, coefficients: Coefficients) -> Tensor:
    """The same polynomial, iterated on the Gram matrix G = XX^T alone.

    A step multiplies X by aI + Z, with Z = bG + cG^2, and G by (aI + Z) on both sides; everything commutes. The
    product of the factors, P + qI, is applied to X at the end of a part. In bf16 the error of G grows with every step
    that is not restarted from X: one part of three steps, then parts of two, stay as close to the exact polynomial as
    the definition does for every spectrum that was tried; longer parts blow up.
    """
    a, b, c = coefficients
    done = 0
    while done < steps:
        part = min(3 if done == 0 else 2, steps - done)
        gram_NRR = torch.bmm(x_NRC, x_NRC.mT)
        product_NRR = z_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        identity = a
        for _ in range(part - 1):
            half_NRR = torch.baddbmm(gram_NRR, z_NRR, gram_NRR, beta=a)
            gram_NRR = torch.baddbmm(half_NRR, half_NRR, z_NRR, beta=a)
            z_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
            product_NRR = torch.baddbmm(product_NRR, z_NRR, product_NRR, beta=a).add_(z_NRR, alpha=identity)
            identity *= a
        x_NRC = torch.baddbmm(x_NRC, product_NRR, x_NRC, beta=identity)
        done += part
    return x_NRC
