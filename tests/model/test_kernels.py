"""Every hand-written kernel equals its plain expression, values and gradients, in fp32 and, loosely, in bf16."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from openk2.model import kernels
from openk2.model.layers import rotate

Fn = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]
DTYPES = [torch.float32, torch.bfloat16]


def compare(fast: Fn, plain: Fn, inputs: list[torch.Tensor], dtype: torch.dtype) -> None:
    """`plain` always runs in fp32, on the same (rounded) numbers."""
    results = []
    for fn, kind in ((fast, dtype), (plain, torch.float32)):
        leaves = [x.to(dtype).to(kind).requires_grad_() for x in inputs]
        out = fn(*leaves)
        outs = out if isinstance(out, tuple) else (out,)
        generator = torch.Generator().manual_seed(1)
        grads = [torch.randn(o.shape, generator=generator).to(dtype).to(o.dtype) for o in outs]
        torch.autograd.backward(outs, grads)
        results.append([*(o.detach().float() for o in outs), *(leaf.grad.float() for leaf in leaves)])
    for got, wanted in zip(*results, strict=True):
        if dtype == torch.float32:
            torch.testing.assert_close(got, wanted, atol=2e-5, rtol=2e-5)
        else:
            assert (got - wanted).norm() <= 0.02 * wanted.norm() + 1e-6


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm(dtype: torch.dtype) -> None:
    compare(
        lambda x, w: kernels.rms_norm(x, w, 1e-3),
        lambda x, w: x * (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt() * w,
        [torch.randn(3, 5, 24) * 0.1, torch.randn(24)],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_swiglu(dtype: torch.dtype, weighted: bool) -> None:
    def plain(x: torch.Tensor, w: torch.Tensor | None = None) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate) * up * (1 if w is None else w)

    inputs = [torch.randn(9, 32)] + ([torch.rand(9, 1)] if weighted else [])
    compare(kernels.swiglu, plain, inputs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dispatch_and_combine(dtype: torch.dtype) -> None:
    tokens, per_token = 7, 3
    order_M = torch.randperm(tokens * per_token)
    back_M, token_M = order_M.argsort(), order_M // per_token
    compare(lambda x: kernels.dispatch(x, token_M, back_M), lambda x: x[token_M], [torch.randn(tokens, 16)], dtype)
    compare(
        lambda y: kernels.combine(y, token_M, back_M, tokens),
        lambda y: torch.zeros(tokens, 16).index_add(0, token_M, y),
        [torch.randn(tokens * per_token, 16)],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_queries_keys_and_values(dtype: torch.dtype) -> None:
    angle = torch.rand(5, 1, 4) * 6
    cos, sin = angle.cos(), angle.sin()

    def query(q: torch.Tensor) -> torch.Tensor:
        return torch.cat([q[..., :6], rotate(q[..., 6:], cos, sin)], -1).transpose(1, 2)

    def key_value(kv: torch.Tensor, rope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shared = rotate(rope.unsqueeze(2), cos, sin).expand(-1, -1, 3, -1)
        return torch.cat([kv[..., :6], shared], -1).transpose(1, 2), kv[..., 6:].transpose(1, 2)

    low = cos.to(dtype), sin.to(dtype)
    compare(lambda q: kernels.rotate_query(q, *low, 6), query, [torch.randn(2, 5, 3, 14)], dtype)
    compare(
        lambda kv, rope: kernels.expand_key_value(kv, rope, *low, 6),
        key_value,
        [torch.randn(2, 5, 3, 11), torch.randn(2, 5, 8)],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("time", [1, 17, 64, 65, 150])
def test_causal_attention(dtype: torch.dtype, time: int) -> None:
    def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        logits = (q @ k.transpose(1, 2) * 0.4).masked_fill(torch.ones(time, time).triu(1).bool(), -torch.inf)
        return logits.softmax(-1) @ v

    compare(
        lambda q, k, v: kernels.causal_attention(q, k, v, 0.4, False)[0],
        plain,
        [torch.randn(3, time, 16), torch.randn(3, time, 16), torch.randn(3, time, 8)],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sign", [1, -1])
def test_causal_attention_reports_the_largest_visible_logit(dtype: torch.dtype, sign: int) -> None:
    q, k = torch.rand(3, 70, 16).to(dtype) + 0.1, sign * (torch.rand(3, 70, 16).to(dtype) + 0.1)
    _, best_G = kernels.causal_attention(q, k, torch.randn(3, 70, 8).to(dtype), 0.25, True)
    logits = (q.float() @ k.float().transpose(1, 2) * 0.25).masked_fill(torch.ones(70, 70).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(best_G.float(), logits.amax((1, 2)), atol=1e-5, rtol=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 700])
def test_head_loss(dtype: torch.dtype, rows: int) -> None:
    target = torch.randint(0, 50, (rows,))
    compare(
        lambda x, w: kernels.head_loss(x, w, target),
        lambda x, w: F.cross_entropy(x @ w.T, target, reduction="sum"),
        [torch.randn(rows, 16), torch.randn(50, 16)],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 700])
def test_token_logprobs(dtype: torch.dtype, rows: int) -> None:
    target, weight_M = torch.randint(0, 50, (rows,)), torch.randn(rows)
    compare(
        lambda x, w: (kernels.token_logprobs(x, w, target) * weight_M).sum(),
        lambda x, w: (-F.cross_entropy(x @ w.T, target, reduction="none") * weight_M).sum(),
        [torch.randn(rows, 16), torch.randn(50, 16)],
        dtype,
    )


def test_head_loss_in_bf16_sees_losses_far_below_its_resolution() -> None:
    """A token predicted with probability 0.9997 has a loss of 0.0003; 1 - p in bf16 would be 0."""
    weight = torch.zeros(50, 8, dtype=torch.bfloat16)
    weight[3, 0] = 12.0
    x = torch.zeros(4, 8, dtype=torch.bfloat16)
    x[:, 0] = 1.0
    x.requires_grad_()
    loss = kernels.head_loss(x, weight, torch.full((4,), 3))
    exact = F.cross_entropy(x.detach().float() @ weight.float().T, torch.full((4,), 3), reduction="sum")
    torch.testing.assert_close(loss, exact, rtol=0.01, atol=0)
    loss.backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0, 0].float(), -exact / 4 * 12, rtol=0.02, atol=0)
