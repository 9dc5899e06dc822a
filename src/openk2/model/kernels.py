"""The hot spots of training on a CPU, each as one autograd step with a hand-written gradient.

Why they exist: on a CPU in bf16, torch's composed RMSNorm, its flash attention backward, strided SiLU, scatter-adds and
a full-size cross-entropy cost several times the matrix products around them. Every function here states the plain
expression that it equals; the tests compare values and gradients.

Without gradients the short ones skip the autograd step, whose overhead would dominate a single token.

Legend: B batch, T time, D hidden, H heads, Q query/key size, N nope size, R rotary size, V value size, G = B H,
I intermediate, M rows, K rows per token, W vocabulary. Positions (cos, sin) broadcast against [B, T, H, R/2].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F

Tensor = torch.Tensor
_BLOCK = 64
_HEAD_ROWS = 512


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        unit, inverse = _unit(x, eps)
        ctx.save_for_backward(unit, inverse, weight)
        out: Tensor = unit * weight
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, inverse, weight = ctx.saved_tensors
        size = unit.shape[-1]
        grad_weight = (grad * unit).view(-1, size).sum(0)
        grad_unit = grad * weight
        along = torch.linalg.vecdot(grad_unit, unit).unsqueeze(-1)
        # Two binary operations: addcmul has no vectorised path for the broadcast column.
        return grad_unit.sub_(unit * along, alpha=1 / size).mul_(inverse), grad_weight, None


def _unit(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / rms(x), and 1 / rms(x) with a last dimension of 1."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    # Rounding 1/rms to the working type scales a whole row by at most 2^-9 in bf16: as much as each of its elements is
    # rounded anyway. A product of bf16 with fp32 would be thirty times slower.
    inverse = torch.addcmul(_constant(eps, x.device), norm, norm, value=1 / x.shape[-1]).rsqrt_().to(x.dtype)
    return x * inverse, inverse


@lru_cache(maxsize=16)
def _constant(value: float, device: torch.device) -> Tensor:
    """A number as a tensor, made once: turning a Python number into one costs as much as the operation it is for."""
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=torch.float32, device=device)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, weight: Tensor | None) -> Tensor:
        # silu on a strided half misses the vectorised path: a copy first is twice as fast.
        gate, up = gate_up.chunk(2, dim=-1)
        gate = gate.contiguous()
        active = F.silu(gate)
        out = active * up
        ctx.weighted = weight is not None
        if weight is None:
            ctx.save_for_backward(gate, active, up)
            return out
        ctx.save_for_backward(gate, active, up, out, weight)
        return out * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        grad_weight = None
        if ctx.weighted:
            gate, active, up, out, weight = ctx.saved_tensors
            grad_weight = torch.linalg.vecdot(grad, out).unsqueeze(-1)
            grad = grad * weight
        else:
            gate, active, up = ctx.saved_tensors
        size = gate.shape[-1]
        joined = grad.new_empty(*grad.shape[:-1], 2 * size)
        joined[..., :size] = torch.ops.aten.silu_backward(grad * up, gate)
        torch.mul(grad, active, out=joined[..., size:])
        return joined, grad_weight


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, token_M: Tensor, back_M: Tensor) -> Tensor:
        ctx.save_for_backward(back_M)
        ctx.tokens = x.shape[0]
        return x.index_select(0, token_M)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _sum_rows(grad, ctx.saved_tensors[0], ctx.tokens), None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_MD: Tensor, token_M: Tensor, back_M: Tensor, tokens: int) -> Tensor:
        ctx.save_for_backward(token_M)
        return _sum_rows(y_MD, back_M, tokens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None, None


def _sum_rows(y_MD: Tensor, back_M: Tensor, tokens: int) -> Tensor:
    """y[back].view(tokens, K, D).sum(1), by the one CPU kernel that gathers and adds in a single pass."""
    return F.embedding_bag(back_M.view(tokens, -1), y_MD, mode="sum")


class _RotateQuery(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BTHQ: Tensor, cos: Tensor, sin: Tensor, nope: int) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.nope = nope
        batch, time, heads, size = q_BTHQ.shape
        out = q_BTHQ.new_empty(batch, heads, time, size)
        by_time = out.transpose(1, 2)
        by_time[..., :nope] = q_BTHQ[..., :nope]
        _rotate_into(by_time[..., nope:], q_BTHQ[..., nope:], cos, sin)
        return out

    @staticmethod
    def backward(ctx: Any, grad_BHTQ: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        nope, grad_BTHQ = ctx.nope, grad_BHTQ.transpose(1, 2)
        out = grad_BTHQ.new_empty(grad_BTHQ.shape)
        out[..., :nope] = grad_BTHQ[..., :nope]
        _rotate_back_into(out[..., nope:], grad_BTHQ[..., nope:], cos, sin)
        return out, None, None, None


class _ExpandKeyValue(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kv_BTHX: Tensor, rope_BTR: Tensor, cos: Tensor, sin: Tensor, nope: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        ctx.nope = nope
        batch, time, heads, size = kv_BTHX.shape
        rotary = rope_BTR.shape[-1]
        key = kv_BTHX.new_empty(batch, heads, time, nope + rotary)
        value = kv_BTHX.new_empty(batch, heads, time, size - nope)
        key.transpose(1, 2)[..., :nope] = kv_BTHX[..., :nope]
        value.transpose(1, 2)[...] = kv_BTHX[..., nope:]
        shared_BT1R = torch.empty_like(rope_BTR).unsqueeze(2)
        _rotate_into(shared_BT1R, rope_BTR.unsqueeze(2), cos, sin)
        key.transpose(1, 2)[..., nope:] = shared_BT1R
        return key, value

    @staticmethod
    def backward(ctx: Any, grad_key: Tensor, grad_value: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        nope = ctx.nope
        batch, heads, time, size = grad_key.shape
        grad_kv = grad_key.new_empty(batch, time, heads, nope + grad_value.shape[-1])
        grad_kv[..., :nope] = grad_key.transpose(1, 2)[..., :nope]
        grad_kv[..., nope:] = grad_value.transpose(1, 2)
        shared_BT1R = grad_key[..., nope:].sum(1).unsqueeze(2)
        grad_rope = shared_BT1R.new_empty(batch, time, size - nope)
        _rotate_back_into(grad_rope.unsqueeze(2), shared_BT1R, cos, sin)
        return grad_kv, grad_rope, None, None, None


def _rotate_into(out: Tensor, x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """`layers.rotate` without temporaries for the joined result: pairs in, halves out."""
    first, second = x[..., 0::2], x[..., 1::2]
    half = first.shape[-1]
    torch.mul(first, cos, out=out[..., :half])
    out[..., :half].addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out[..., half:])
    out[..., half:].addcmul_(first, sin)


def _rotate_back_into(out: Tensor, grad: Tensor, cos: Tensor, sin: Tensor) -> None:
    """The transpose of `_rotate_into`: halves in, pairs out, turned the other way."""
    first, second = grad.chunk(2, dim=-1)
    out[..., 0::2] = first * cos + second * sin
    out[..., 1::2] = second * cos - first * sin


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, want_max: bool) -> tuple[Tensor, Tensor]:
        time, key_t = q.shape[1], k.transpose(1, 2)
        before = k.shape[1] - time
        out = torch.empty_like(v[:, before:])
        best_G = q.new_full((q.shape[0],), -torch.inf)
        future = torch.ones(_BLOCK, _BLOCK, dtype=torch.bool, device=q.device).triu_(1)
        probabilities = []
        for start in range(0, time, _BLOCK):
            stop = min(start + _BLOCK, time)
            seen = before + stop
            logits = q.new_empty(q.shape[0], stop - start, seen)
            torch.baddbmm(logits, q[:, start:stop], key_t[:, :, :seen], beta=0, alpha=scale, out=logits)
            logits[:, :, before + start :].masked_fill_(future[: stop - start, : stop - start], -torch.inf)
            if want_max:
                best_G = torch.maximum(best_G, _row_max(logits.flatten(1)))
            p = torch.softmax(logits, -1, out=logits)
            torch.bmm(p, v[:, :seen], out=out[:, start:stop])
            probabilities.append(p)
        ctx.save_for_backward(q, k, v, *probabilities)
        ctx.scale = scale
        ctx.mark_non_differentiable(best_G)
        return out, best_G

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, *probabilities = ctx.saved_tensors
        grad, value_t = grad.contiguous(), v.transpose(1, 2)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for i, p in enumerate(probabilities):
            seen = p.shape[2]
            rows = slice(i * _BLOCK, i * _BLOCK + p.shape[1])
            grad_v[:, :seen] += torch.bmm(p.transpose(1, 2), grad[:, rows])
            grad_p = torch.bmm(grad[:, rows], value_t[:, :, :seen])
            grad_logits = torch._softmax_backward_data(grad_p, p, -1, p.dtype).mul_(ctx.scale)
            torch.bmm(grad_logits, k[:, :seen], out=grad_q[:, rows])
            grad_k[:, :seen] += torch.bmm(grad_logits.transpose(1, 2), q[:, rows])
        return grad_q, grad_k, grad_v, None, None


def _row_max(x: Tensor) -> Tensor:
    """x.amax(1). Positive bf16 numbers are ordered like their bit patterns, and integers compare eight times faster."""
    if x.dtype != torch.bfloat16:
        return x.amax(1)
    best = x.view(torch.int16).amax(1)
    return x.amax(1) if bool((best < 0).any()) else best.view(torch.bfloat16)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, weight_WD: Tensor, target_M: Tensor) -> Tensor:
        grad_x = torch.empty_like(x_MD)
        grad_weight = torch.zeros_like(weight_WD, dtype=torch.float32)
        total = torch.zeros((), dtype=torch.float32, device=x_MD.device)
        for start in range(0, x_MD.shape[0], _HEAD_ROWS):
            x, target = x_MD[start : start + _HEAD_ROWS], target_M[start : start + _HEAD_ROWS]
            p = F.linear(x, weight_WD)
            torch.softmax(p, -1, out=p)
            # Flat indices: gather and scatter along a dimension copy the whole matrix.
            flat = p.view(-1)
            place = torch.arange(0, flat.numel(), p.shape[1], device=p.device) + target
            hit = flat[place].float()
            # In bf16 a probability near one cannot be told from one. The sum of all the others can be, and it is both
            # the gradient at the target and what the loss must be computed from.
            flat.index_fill_(0, place, 0)
            rest = p.sum(-1)
            flat.index_copy_(0, place, -rest)
            rest = rest.float()
            whole = hit + rest
            total += torch.where(rest < hit, -torch.log1p(-rest / whole), -(hit / whole).log()).sum()
            torch.mm(p, weight_WD, out=grad_x[start : start + _HEAD_ROWS])
            grad_weight += p.T @ x
        ctx.save_for_backward(grad_x, grad_weight.to(weight_WD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grad, grad_weight * grad, None


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, weight_WD: Tensor, target_M: Tensor) -> Tensor:
        logprob_M = torch.empty(x_MD.shape[0], dtype=torch.float32, device=x_MD.device)
        for start in range(0, x_MD.shape[0], _HEAD_ROWS):
            rows = slice(start, start + _HEAD_ROWS)
            logits = F.linear(x_MD[rows], weight_WD).float()
            hit = logits.gather(1, target_M[rows, None])[:, 0]
            logprob_M[rows] = hit - logits.logsumexp(-1)
        ctx.save_for_backward(x_MD, weight_WD, target_M)
        return logprob_M

    @staticmethod
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor, Tensor, None]:
        x_MD, weight_WD, target_M = ctx.saved_tensors
        grad_x = torch.empty_like(x_MD)
        grad_weight = torch.zeros_like(weight_WD, dtype=torch.float32)
        for start in range(0, x_MD.shape[0], _HEAD_ROWS):
            rows = slice(start, start + _HEAD_ROWS)
            x, grad = x_MD[rows], grad_M[rows, None]
            p = F.linear(x, weight_WD).float().softmax(-1).mul_(-grad)
            p.scatter_add_(1, target_M[rows, None], grad)
            p = p.to(x.dtype)
            torch.mm(p, weight_WD, out=grad_x[rows])
            grad_weight += p.T @ x
        return grad_x, grad_weight.to(weight_WD.dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension."""
    if not torch.is_grad_enabled():
        return _unit(x, eps)[0].mul_(weight)
    return cast(Callable[..., Tensor], _RMSNorm.apply)(x, weight, eps)


def swiglu(gate_up: Tensor, weight: Tensor | None = None) -> Tensor:
    """silu(gate) * up * weight for `gate_up` [M, 2I] = [gate | up] and, if given, one weight per row [M, 1]."""
    if not torch.is_grad_enabled():
        gate, up = gate_up.chunk(2, dim=-1)
        out = F.silu(gate.contiguous()).mul_(up)
        return out if weight is None else out.mul_(weight)
    return cast(Callable[..., Tensor], _SwiGLU.apply)(gate_up, weight)


def dispatch(x: Tensor, token_M: Tensor, back_M: Tensor) -> Tensor:
    """x[token]: row m of the result is token `token_M[m]`; `back_M[n K + j]` says where the j-th row of token n is."""
    if not torch.is_grad_enabled():
        return x.index_select(0, token_M)
    return cast(Callable[..., Tensor], _Dispatch.apply)(x, token_M, back_M)


def combine(y_MD: Tensor, token_M: Tensor, back_M: Tensor, tokens: int) -> Tensor:
    """The transpose of `dispatch`: the sum of each token's K rows."""
    if not torch.is_grad_enabled():
        return _sum_rows(y_MD, back_M, tokens)
    return cast(Callable[..., Tensor], _Combine.apply)(y_MD, token_M, back_M, tokens)


def rotate_query(q_BTHQ: Tensor, cos: Tensor, sin: Tensor, nope: int) -> Tensor:
    """Queries [B, H, T, Q] with all but the first `nope` dimensions rotated."""
    return cast(Callable[..., Tensor], _RotateQuery.apply)(q_BTHQ, cos, sin, nope)


def expand_key_value(kv_BTHX: Tensor, rope_BTR: Tensor, cos: Tensor, sin: Tensor, nope: int) -> tuple[Tensor, Tensor]:
    """Keys [B, H, T, nope + R] and values [B, H, T, V] from per-head [nope | value] and the shared, unrotated key."""
    return cast(Callable[..., tuple[Tensor, Tensor]], _ExpandKeyValue.apply)(kv_BTHX, rope_BTR, cos, sin, nope)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, want_max: bool) -> tuple[Tensor, Tensor]:
    """Causal softmax(scale q k^T) v over [G, T, size], and the largest logit of each of the G (-inf if not wanted).

    Of more keys than queries the first ones come before all queries. Blocks of queries skip the masked half. The
    probabilities stay for the backward pass: T^2 / 2 numbers per head.
    """
    return cast(Callable[..., tuple[Tensor, Tensor]], _CausalAttention.apply)(q, k, v, scale, want_max)


def head_loss(x_MD: Tensor, weight_WD: Tensor, target_M: Tensor) -> Tensor:
    """cross_entropy(x W^T, target, reduction="sum") without ever holding all logits; fp32 scalar."""
    return cast(Callable[..., Tensor], _HeadLoss.apply)(x_MD, weight_WD, target_M)


def token_logprobs(x_MD: Tensor, weight_WD: Tensor, target_M: Tensor) -> Tensor:
    """-cross_entropy(x W^T, target, reduction="none") without ever holding all logits; fp32 [M].

    Logits are computed as the sampler computes them, so that both see the same log-probs.
    """
    return cast(Callable[..., Tensor], _TokenLogprobs.apply)(x_MD, weight_WD, target_M)
