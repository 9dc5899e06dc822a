"""MuonClip: Muon for matrices, AdamW for the rest, QK-Clip after the step (K2 report, algorithm 1).

    M <- mu M + (1 - mu) G;  O = NS((1 - mu) G + mu M) * 0.2 sqrt(max(rows, cols));  W <- W - lr (O + decay W)

The factor (1 - mu) only rescales what Newton-Schulz normalises anyway; it keeps the momentum on the gradient's scale.
The 0.2 sqrt(max) gives updates the RMS of AdamW's, so that one learning rate and one weight decay serve both
(Moonlight, section 2.2).

Fast: all matrices of one shape, from every layer and expert, tall ones transposed, are orthogonalised as one batch.

Shapes: N matrices, R rows, C columns; L layers, H heads.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.adamw import adamw
from torch.optim.optimizer import Optimizer

from openk2.core import UserError
from openk2.optim.groups import Method, Plan, module_of, plan_parameters
from openk2.optim.newton_schulz import COEFFICIENTS, Coefficients, check_coefficients, fast_dtype, newton_schulz_
from openk2.optim.qk_clip import (
    Attention,
    Form,
    Monitor,
    attention_layers,
    check_form,
    clip_heads,
    find_monitor,
    head_count,
)
from openk2.optim.sharding import groups_of, holds_whole_matrices, is_sharded, local, piece, total_norm, whole

_GATHERED = 1 << 27
"""Numbers of sharded matrices that are put together at a time."""


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one step did. `max_logit` is None when nothing was monitored; below the threshold it may be an upper
    bound that exceeds the true maximum by at most ln(keys), above the threshold it is exact."""

    step: int
    lr: float
    grad_norm: float
    max_logit: float | None
    clipped_heads: int
    heads: int


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where the matrices that are at hand of a parameter sit in its bucket: [start, stop)."""

    plan: Plan
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Bucket:
    """All matrices of one shape (rows <= cols after transposing), and each rank's share of them: `apart` says that a
    rank has only its own, which are pieces of sharded stacks; of other buckets all ranks have all matrices."""

    rows: int
    cols: int
    device: torch.device
    count: int
    slots: tuple[_Slot, ...]
    shares: tuple[tuple[int, int], ...]
    apart: bool


_NS_DTYPES = torch.bfloat16, torch.float16, torch.float32, torch.float64


class MuonClip(Optimizer):
    """A torch optimizer for a whole model; parameters are grouped automatically (`param_groups_table` prints how).

    Instead of the model it takes `named_parameters()`, of the whole or a part. It then knows no attention but that
    which it is given, embeddings by their names only, and neither convolutions nor a gate_up whose columns take turns:
    look at `param_groups_table(module_of(named))` and correct it by `overrides`.

    Two groups, `muon` and `adamw`, with the same `lr` and `weight_decay`; norms are decayed too (Moonlight, app. D).
    `overrides` decides for parameters by name, {"*.router.*": "adamw"} (see `plan_parameters`).
    Parameters must be float32 or float64 master weights; gradients may have any floating dtype.

    `attention` are the model's attention modules unless given. `logit_monitor` is the one they carry (see
    `attach_logit_monitor`); a model of this project gets one, any other without one is not clipped. An infinite
    threshold clips nothing.
    `qk_clip_form` and `qk_clip_alpha` are those of `qk_clip_`.
    `step()` reads the monitor, clips, and resets it. If the forward pass runs on a copy of the model, pass the copy's
    monitor. `ns_dtype` None means `fast_dtype`, asked at the first step; the answer is part of the state, so a
    checkpoint goes on with it.

    A `DistributedDataParallel` model brings its `process_group`; an optimizer that is made from the model inside of it,
    or before it is wrapped, has to be given it. With one (same gradients on every rank) each rank orthogonalises its
    share, the results are gathered, and the logit maxima are reduced; every rank ends with the same bits.
    For a model under FSDP2 (`fully_shard` first, then the optimizer) no group is given: momenta stay sharded, stacks of
    experts are orthogonalised where they are, single matrices are put together in `ns_dtype` for it on every rank, a
    few at a time (about 256 MB).

    Clip gradients before `step()`, if at all: Muon's update does not depend on the gradient's length, so clipping acts
    through AdamW's parameters and through how much a single step weighs in the momentum. QK-Clip is independent of it.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[tuple[str, nn.Parameter]],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        qk_clip_threshold: float = 100.0,
        ns_steps: int = 5,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-8,
        *,
        overrides: Mapping[str, Method] | None = None,
        qk_clip_form: Form = "head",
        qk_clip_alpha: float = 0.5,
        ns_coefficients: Coefficients = COEFFICIENTS,
        ns_dtype: torch.dtype | None = None,
        logit_monitor: Monitor | None = None,
        attention: Sequence[Attention] | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        model = model if isinstance(model, nn.Module) else module_of(model)
        if process_group is None:
            process_group = next(
                (m.process_group for m in model.modules() if isinstance(m, DistributedDataParallel)), None
            )
        _check_numbers(lr, weight_decay, momentum, qk_clip_threshold, ns_steps, adam_betas, adam_eps)
        check_form(qk_clip_form, qk_clip_alpha)
        check_coefficients(ns_coefficients)
        plans = plan_parameters(model, overrides)
        for plan in plans:
            if plan.parameter.dtype not in (torch.float32, torch.float64):
                raise UserError(
                    f"parameter {plan.name} is {plan.parameter.dtype}: MuonClip updates float32 master weights, "
                    "so call model.float() and run the forward pass on a lower-precision copy"
                )
        self._plans = {plan.parameter: plan for plan in plans}
        groups: list[dict[str, Any]] = []
        muon = [plan.parameter for plan in plans if plan.method == "muon"]
        adam = [plan.parameter for plan in plans if plan.method == "adamw"]
        if ns_dtype is not None and ns_dtype not in _NS_DTYPES:
            raise UserError(f"ns_dtype must be None or one of {', '.join(map(str, _NS_DTYPES))}, not {ns_dtype!r}")
        self._given_ns_dtype = None if ns_dtype is None else str(ns_dtype).removeprefix("torch.")
        if muon:
            shared = {"ns_steps": ns_steps, "ns_dtype": self._given_ns_dtype}
            groups.append({"params": muon, "method": "muon", **shared})
        if adam:
            groups.append({"params": adam, "method": "adamw", "betas": adam_betas, "eps": adam_eps})
        # Schedulers that cycle the momentum look for it here, and set it in every group.
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "steps": 0})
        self._ready = True
        self.ns_coefficients = ns_coefficients
        self.threshold, self.form, self.alpha = qk_clip_threshold, qk_clip_form, qk_clip_alpha
        self.attention = list(attention) if attention is not None else attention_layers(model)
        self.monitor = logit_monitor if logit_monitor is not None else find_monitor(self.attention)
        own = [module for module in model.modules() if hasattr(module, "attach_monitor")]
        if self.monitor is None and self.attention and len(own) == 1:
            self.monitor = cast(Monitor, cast(Any, own[0]).attach_monitor(qk_clip_threshold))
        if self.monitor is not None:
            self.monitor.threshold = qk_clip_threshold
            self._check_monitor(self.monitor)
        groups_of_shards = groups_of(plan.parameter for plan in plans)
        if groups_of_shards and process_group is not None:
            raise UserError("parameters that are sharded know their process group: leave process_group out")
        self._groups = groups_of_shards or ([process_group] if process_group is not None else [])
        # All ranks of this one hold the same whole matrices, so they share the work.
        self._group = self._groups[-1] if self._groups else None
        self._ranks = dist.get_world_size(self._group) if self._group is not None else 1
        self._rank = dist.get_rank(self._group) if self._group is not None else 0
        self._buckets: dict[tuple[int, ...], tuple[_Bucket, ...]] = {}
        self._frozen = [(name, p) for name, p in model.named_parameters() if not p.requires_grad]
        self._warned: set[str] = set()

    def _check_monitor(self, monitor: Monitor) -> None:
        """Raises UserError if it does not watch these attention layers."""
        shape = list(monitor.max_logit_LH.shape)
        wanted = [len(self.attention), head_count(self.attention[0])] if self.attention else shape
        if shape != wanted:
            raise UserError(
                f"the logit monitor watches {shape[0]} attention layers of {shape[-1]} heads and QK-Clip would scale "
                f"{wanted[0]} of {wanted[-1]}: give attention=attention_layers(the part that it is attached to)"
            )

    def __getstate__(self) -> dict[str, Any]:
        # torch's own has no more than a state_dict: a copy would not know its monitor.
        if self._groups:
            raise UserError("an optimizer with a process group cannot be pickled: save its state_dict()")
        return self._own()

    def __deepcopy__(self, memo: dict[int, Any]) -> MuonClip:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        # Frozen parameters are copied only with their model.
        frozen = [(name, memo[id(p)]) for name, p in self._frozen if id(p) in memo]
        shared = {"_groups": self._groups, "_group": self._group, "_frozen": frozen}
        own = {key: value for key, value in self._own().items() if key not in shared}
        other.__setstate__(copy.deepcopy(own, memo) | shared)
        return other

    def _own(self) -> dict[str, Any]:
        """All but what others have hung on it: hooks, and the `step` of a scheduler, which knows its first owner."""
        ours = {
            key: value for key, value in self.__dict__.items() if key != "step" and not key.startswith("_optimizer_")
        }
        return ours | {"_buckets": {}, "_frozen": []}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Only while the optimizer is made: it plans all parameters at once."""
        if hasattr(self, "_ready"):
            raise UserError(
                "MuonClip plans all parameters at once: make a new one for the parameters to be trained now"
            )
        _uncompiled(Optimizer.add_param_group)(self, param_group)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every group, as a schedule does before each step."""
        _check_lr(lr)
        for group in self.param_groups:
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """As of any optimizer of torch."""
        return cast(dict[str, Any], _uncompiled(Optimizer.state_dict)(self))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Exactly the state that `state_dict()` gave, or torch.distributed.checkpoint made of it, but an `ns_dtype`
        that this optimizer was given stays. Raises UserError if it belongs to another model."""
        here, there = self.param_groups, state_dict.get("param_groups", [])
        fits = [(g["method"], len(g["params"])) for g in here] == [(g.get("method"), len(g["params"])) for g in there]
        # Numbers in torch's own form, names in the other.
        ids = [name for g in there for name in g["params"]]
        shapes = dict(zip(ids, (p.shape for g in here for p in g["params"]), strict=False))
        for index, state in state_dict.get("state", {}).items():
            tensors = (value for name, value in state.items() if name != "step")
            fits = fits and index in shapes and all(value.shape == shapes[index] for value in tensors)
        if not fits:
            raise UserError("this optimizer state belongs to a model with other parameters: use the one saved with it")
        _uncompiled(Optimizer.load_state_dict)(self, state_dict)
        for group in self.param_groups:
            if group["method"] == "muon" and self._given_ns_dtype is not None:
                group["ns_dtype"] = self._given_ns_dtype
            for parameter in group["params"]:
                # The fused AdamW wants the count where the parameter is.
                if "step" in (state := self.state.get(parameter, {})):
                    state["step"] = state["step"].to(local(parameter).device)

    @torch.no_grad()
    def step(self, closure: Any = None) -> StepStats:  # type: ignore[override]  # the statistics replace torch's loss
        """Update every parameter that has a gradient, clip, reset the monitor. A `closure` is called for the gradients.

        Raises UserError if a gradient or an attention logit is not finite: nothing is changed then but the monitor,
        which begins anew, so that the batch can be left out.
        """
        if closure is not None:
            with torch.enable_grad():
                closure()
        self._warn_of_strangers()
        grad_norm = self._grad_norm()
        max_logit_LH = self._max_logits()
        for group in self.param_groups:
            with_grad = [p for p in group["params"] if p.grad is not None]
            if not with_grad:
                continue
            if group["method"] == "muon":
                self._muon(group, with_grad)
            else:
                self._adamw(group, with_grad)
        # torch.distributed.checkpoint makes the state of a new optimizer by a step with zeros, which is none.
        counts = grad_norm > 0 or any(group["lr"] > 0 for group in self.param_groups)
        for group in self.param_groups:
            group["steps"] += counts
        max_logit, clipped = None, 0
        if counts and max_logit_LH is not None and self.monitor is not None:
            clipped, left = clip_heads(self.attention, max_logit_LH, self.threshold, self.form, self.alpha)
            self.monitor.reset()
            largest = float(max_logit_LH.max())
            if largest == -math.inf:
                self._warn(
                    "the logit monitor saw no attention since the last step, so nothing is clipped: it watches in "
                    "training mode (model.train()), and the attention that was set when it was attached"
                )
            elif left:
                self._warn(
                    "logits are over qk_clip_threshold in heads that cannot be clipped: the weights that would have to "
                    "shrink are frozen (adapters over frozen weights are watched only), or parts of other projections, "
                    "or below adapters of an unknown kind"
                )
            max_logit = largest if math.isfinite(largest) else None
        return StepStats(
            step=self.param_groups[0]["steps"],
            lr=self.param_groups[0]["lr"],
            grad_norm=grad_norm,
            max_logit=max_logit,
            clipped_heads=clipped,
            heads=0 if max_logit_LH is None else max_logit_LH.numel(),
        )

    def _warn(self, text: str) -> None:
        """Once."""
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, stacklevel=5)

    def _warn_of_strangers(self) -> None:
        """Parameters and ranks that came after the optimizer, which it does not know."""
        for name, parameter in self._frozen:
            if parameter.requires_grad and parameter.grad is not None:
                self._warn(
                    f"{name} was frozen when the optimizer was made, so it is not trained: make a new MuonClip for "
                    "the parameters to be trained now"
                )
                break
        clips = self.monitor is not None and self.attention and math.isfinite(self.threshold)
        if clips and not self._groups and _rank_count() > 1:
            self._warn(
                f"this is one of {_rank_count()} ranks and the optimizer knows no process group, so QK-Clip would "
                "scale each rank's weights by its own logits: make it from the DistributedDataParallel model, or give "
                "it process_group=torch.distributed.group.WORLD"
            )

    def _grad_norm(self) -> float:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not grads:
            raise UserError("no parameter has a gradient: call backward() before step()")
        if any(grad.layout != torch.strided for grad in grads):
            raise UserError("a gradient is sparse (nn.Embedding with sparse=True): MuonClip takes dense ones")
        norm = total_norm(grads)
        if not math.isfinite(norm):
            self._forget_logits()
            raise UserError(
                f"the gradient is not finite at step {self.param_groups[0]['steps'] + 1}: training has diverged, "
                "lower the learning rate or go back to an earlier checkpoint"
            )
        return norm

    def _max_logits(self) -> Tensor | None:
        if self.monitor is None or not self.attention:
            return None
        max_logit_LH = self.monitor.max_logit_LH.detach().to(torch.float32, copy=True)
        if self._groups:
            # NaN does not survive a max-reduce on every backend; +inf does, and is refused just as well.
            max_logit_LH.nan_to_num_(nan=math.inf, posinf=math.inf, neginf=-math.inf)
            max_logit_LH = max_logit_LH.to(self.param_groups[0]["params"][0].device)
        for process_group in self._groups:
            dist.all_reduce(max_logit_LH, dist.ReduceOp.MAX, group=process_group)
        if bool((max_logit_LH.isnan() | max_logit_LH.isposinf()).any()):
            self._forget_logits()
            raise UserError("an attention logit is not finite: training has diverged, lower the learning rate")
        return max_logit_LH

    def _forget_logits(self) -> None:
        if self.monitor is not None:
            self.monitor.reset()

    def _muon(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        buckets = self._buckets_of(parameters)
        # Sharded matrices are whole only for a while: one bucket at a time. Else one gather serves all.
        for some in [[bucket] for bucket in buckets] if is_sharded(parameters[0]) else [buckets]:
            self._muon_buckets(group, some)

    def _muon_buckets(self, group: dict[str, Any], buckets: Sequence[_Bucket]) -> None:
        mu, lr = group["momentum"], group["lr"]
        batches = []
        for bucket in buckets:
            x_NRC = torch.empty(
                bucket.count, bucket.rows, bucket.cols, dtype=self._ns_dtype(group, bucket.device), device=bucket.device
            )
            low, high = (0, bucket.count) if bucket.apart else bucket.shares[self._rank]
            for slot in bucket.slots:
                parameter = slot.plan.parameter
                grad, momentum = self._accumulate(parameter, mu)
                # The others' shares are theirs to compute; sharded matrices need every rank to be put together.
                if (slot.start < high and slot.stop > low) or is_sharded(parameter):
                    direction = torch.lerp(grad, momentum, mu)
                    direction = local(direction) if bucket.apart else whole(direction.to(x_NRC.dtype))
                    matrices = _as_matrices(direction, slot.plan)
                    x_NRC[slot.start : slot.stop].view_as(matrices).copy_(matrices)
            if high > low:
                newton_schulz_(x_NRC[low:high], group["ns_steps"], self.ns_coefficients)
            batches.append(x_NRC)
        shared = [index for index, bucket in enumerate(buckets) if not bucket.apart]
        if self._ranks > 1 and shared:
            self._exchange([buckets[index] for index in shared], [batches[index] for index in shared])
        for bucket, x_NRC in zip(buckets, batches, strict=True):
            scale = -lr * 0.2 * math.sqrt(bucket.cols)
            for slot in bucket.slots:
                parameter = slot.plan.parameter
                mine = local(parameter)
                mine.mul_(1.0 - lr * group["weight_decay"])
                if is_sharded(parameter) and not bucket.apart:
                    update = x_NRC.new_empty(parameter.shape)
                    matrices = _as_matrices(update, slot.plan)
                    matrices.copy_(x_NRC[slot.start : slot.stop].view_as(matrices))
                    mine.add_(piece(update, parameter), alpha=scale)
                else:
                    matrices = _as_matrices(mine, slot.plan)
                    matrices.add_(x_NRC[slot.start : slot.stop].view_as(matrices), alpha=scale)

    def _ns_dtype(self, group: dict[str, Any], device: torch.device) -> torch.dtype:
        """The dtype of the group's Newton-Schulz; the first rank's choice counts for all."""
        if group.get("ns_dtype") is None:
            chosen = fast_dtype(device)
            for process_group in self._groups:
                is_bf16 = torch.tensor(float(chosen == torch.bfloat16), device=device)
                dist.broadcast(is_bf16, group=process_group, group_src=0)
                chosen = torch.bfloat16 if is_bf16.item() else torch.float32
            group["ns_dtype"] = str(chosen).removeprefix("torch.")
        return cast(torch.dtype, getattr(torch, group["ns_dtype"]))

    def _accumulate(self, parameter: nn.Parameter, mu: float) -> tuple[Tensor, Tensor]:
        """Fold the gradient into the momentum; returns both, shaped and sharded as the parameter."""
        assert parameter.grad is not None
        grad = parameter.grad.to(parameter.dtype)
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        momentum: Tensor = state["momentum_buffer"]
        return grad, momentum.lerp_(grad, 1.0 - mu)

    def _adamw(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            [local(p) for p in parameters],
            [local(p.grad).to(p.dtype) for p in parameters if p.grad is not None],
            [local(state["exp_avg"]) for state in states],
            [local(state["exp_avg_sq"]) for state in states],
            [],
            [state["step"] for state in states],
            fused=all(p.device.type in ("cpu", "cuda") for p in parameters),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _buckets_of(self, parameters: Iterable[nn.Parameter]) -> tuple[_Bucket, ...]:
        parameters = list(parameters)
        key = tuple(id(parameter) for parameter in parameters)
        if key not in self._buckets:
            self._buckets[key] = _make_buckets([self._plans[parameter] for parameter in parameters], self._ranks)
        return self._buckets[key]

    def _exchange(self, buckets: Sequence[_Bucket], batches: Sequence[Tensor]) -> None:
        """Give every rank the results of all others, in one gather of equally long flat buffers."""

        def size(bucket: _Bucket, rank: int) -> int:
            low, high = bucket.shares[rank]
            return (high - low) * bucket.rows * bucket.cols

        longest = max(sum(size(bucket, rank) for bucket in buckets) for rank in range(self._ranks))
        mine = batches[0].new_zeros(longest)
        torch.cat(
            [x[slice(*b.shares[self._rank])].flatten() for b, x in zip(buckets, batches, strict=True)],
            out=mine[: sum(size(bucket, self._rank) for bucket in buckets)],
        )
        everyone = [torch.empty_like(mine) for _ in range(self._ranks)]
        dist.all_gather(everyone, mine, group=self._group)
        for rank, flat in enumerate(everyone):
            if rank == self._rank:
                continue
            sizes = [size(bucket, rank) for bucket in buckets]
            parts = torch.split(flat[: sum(sizes)], sizes)
            for bucket, x_NRC, part in zip(buckets, batches, parts, strict=True):
                low, high = bucket.shares[rank]
                x_NRC[low:high].copy_(part.view(high - low, bucket.rows, bucket.cols))


def _as_matrices(tensor: Tensor, plan: Plan) -> Tensor:
    """View a parameter-shaped contiguous tensor as `plan.view` does, transposed to R <= C."""
    view = plan.view(tensor)
    return view.mT if plan.rows > plan.cols else view


def _make_buckets(plans: Sequence[Plan], ranks: int) -> tuple[_Bucket, ...]:
    by_shape: dict[tuple[int, int, torch.device, bool, int], list[Plan]] = defaultdict(list)
    gathered: dict[tuple[int, int, torch.device, bool], int] = defaultdict(int)
    for plan in plans:
        apart = holds_whole_matrices(plan.parameter)
        shape = min(plan.rows, plan.cols), max(plan.rows, plan.cols), plan.parameter.device, apart
        by_shape[*shape, gathered[shape] // _GATHERED].append(plan)
        if is_sharded(plan.parameter) and not apart:
            gathered[shape] += plan.parameter.numel()
    load = [0] * ranks
    buckets = []
    # The most expensive shapes first; what does not divide evenly goes to the ranks with the least work so far.
    costly_first = sorted(by_shape, key=lambda k: (-(k[0] ** 2) * k[1], k[0], k[1], str(k[2]), *k[3:]))
    for key in costly_first:
        rows, cols, device, apart, _ = key
        slots, count = [], 0
        for plan in by_shape[key]:
            at_hand = local(plan.parameter).numel() // (rows * cols) if apart else plan.matrices
            slots.append(_Slot(plan, count, count + at_hand))
            count += at_hand
        each, rest = divmod(count, ranks)
        extra = set(sorted(range(ranks), key=lambda rank: (load[rank], rank))[:rest])
        shares, low = [], 0
        for rank in range(0 if apart else ranks):
            high = low + each + (rank in extra)
            shares.append((low, high))
            load[rank] += (high - low) * rows * rows * (2 * cols + rows)
            low = high
        buckets.append(_Bucket(rows, cols, device, count, tuple(slots), tuple(shares), apart))
    return tuple(buckets)


def _rank_count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _check_numbers(
    lr: float,
    weight_decay: float,
    momentum: float,
    threshold: float,
    ns_steps: int,
    betas: tuple[float, float],
    eps: float,
) -> None:
    named: dict[str, object] = {
        "lr": lr,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "qk_clip_threshold": threshold,
        "ns_steps": ns_steps,
        "adam_eps": eps,
    }
    no_number = next((name for name, value in named.items() if not isinstance(value, Real | Tensor)), None)
    wrong = None
    if no_number:
        wrong = f"{no_number} must be a number, not {named[no_number]!r}"
    elif not (math.isfinite(weight_decay) and weight_decay >= 0):
        wrong = f"weight_decay must be a finite number >= 0, not {weight_decay}"
    elif not 0 <= momentum < 1:
        wrong = f"momentum must lie in [0, 1), not {momentum}"
    elif not threshold > 0:
        wrong = f"qk_clip_threshold must be positive (infinity switches clipping off), not {threshold}"
    elif not (isinstance(ns_steps, int) and 1 <= ns_steps <= 20):
        wrong = f"ns_steps must be a whole number between 1 and 20, not {ns_steps}"
    elif not _are_betas(betas):
        wrong = f"adam_betas must be two numbers in [0, 1), not {betas}"
    elif not eps > 0:
        wrong = f"adam_eps must be positive, not {eps}"
    if wrong:
        raise UserError(f"MuonClip: {wrong}")
    _check_lr(lr)


def _uncompiled(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of torch's optimizers without the guard around it, whose first call imports torch's compiler: two
    seconds of each process, for what nobody compiles."""
    return cast(Callable[..., Any], getattr(method, "__wrapped__", method))


def _check_lr(lr: object) -> None:
    """A tensor of one number is one as well."""
    if isinstance(lr, Tensor | np.generic) and (not isinstance(lr, Tensor) or lr.numel() == 1):
        lr = lr.item()
    if not (isinstance(lr, int | float) and math.isfinite(lr) and lr >= 0):
        raise UserError(f"MuonClip: lr must be a finite number >= 0, not {lr!r}")


def _are_betas(betas: object) -> bool:
    return (
        isinstance(betas, tuple | list)
        and len(betas) == 2
        and all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas)
    )
