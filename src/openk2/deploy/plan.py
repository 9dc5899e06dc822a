"""How a model is spread over GPUs so that weights, cache and scratch memory fit. Plain arithmetic, nothing is run.

Per GPU, with tensor parallelism of T and P pipeline stages:

- weights: routed experts, heads and the other feed-forward layers by T, the projections into the latents, norms and
  routers whole; of these the layers of one stage. Embedding and head by T.
- cache: the latents of a token are shared by all heads, so each of the T GPUs has all of them. A model whose sizes the
  kernels of latent attention do not take is cached with keys and values of every head, by T.
- scratch: the activations of one piece of a prompt (`PREFILL` tokens), and `RUNTIME` for CUDA, NCCL and graphs.

With the layout `data` every GPU has all of attention and answers requests of its own; only the experts are split.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, floor
from typing import Literal

from openk2.core import UserError
from openk2.deploy.folder import ModelFolder
from openk2.deploy.hardware import GIB, USABLE, Hardware

Layout = Literal["auto", "data"]
Sharing = Literal["profiled", "static", "rest"]
"""What an engine's memory fraction counts: `profiled` all but the runtime (vLLM), `static` weights and cache (SGLang),
`rest` the cache's part of what the others leave (TensorRT-LLM)."""

PREFILL = 8192
"""Tokens of a prompt that go through the model at once. The commands set it, so that the scratch memory is known."""
RUNTIME = 3 * GIB
SEQUENCES = 256
"""Requests whose logits exist at the same time."""
WORKSPACE = 65536
"""Cached tokens that an engine expands to keys and values at once when it continues a long prompt."""
FRACTIONS = (0.90, 0.95)
RESERVE = 0.05
"""Part of a GPU's memory that must be to spare, or the plan may fail by what the estimates leave out. Moonshot names 16
GPUs of 141 GB as the smallest unit for K2 in FP8 with 128k of context; by this arithmetic 8 do, with 4 % to spare."""
LEAST_CONTEXT = 4096
"""With less a plan is of no use; a model with a shorter context needs that."""
NODE = 8
"""GPUs of a node where nodes are proposed."""
SIZES = (24, 32, 48, 80, 96, 141, 180, 192, 256, 288)
"""GB of the GPUs that are sold."""
CPU_SHARE = 0.9
CPU_RUNTIME = 3 * GIB


class DoesNotFit(UserError):
    """The model does not fit on this hardware, or does not divide by its GPUs; the sentence says what it takes."""

    exit_code = 1


@dataclass(frozen=True)
class Goal:
    """What is to be reached."""

    context: int | None = None
    """None: the model's, or as much of it as fits."""
    requests: int = 1
    """Of the full context, that the cache holds at once."""
    layout: Layout = "auto"
    cache_fp8: bool = False


@dataclass(frozen=True)
class Plan:
    """Bytes are per GPU, or of the CPU's memory where there is none."""

    tensor: int
    pipeline: int
    data: int
    """GPUs that answer requests of their own; above 1 only in the layout `data`, where experts are spread over them."""
    fraction: float
    """The number for the engine's memory option; 0 on a CPU."""
    memory: int
    weights: int
    scratch: int
    cache_per_token: int
    cache: int
    context: int
    experts_on_gpu: int = 0
    """Routed experts of every layer that are not left to the CPU (ktransformers)."""
    cpu_bytes: int = 0
    """Weights in the CPU's memory (ktransformers)."""

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def cached_tokens(self) -> int:
        """By all GPUs that answer requests of their own."""
        return self.data * (self.cache // self.cache_per_token)

    def spare(self, goal: Goal) -> int:
        """Of a GPU's memory, when the cache holds the goal and no more."""
        return self.memory - RUNTIME - self.weights - self.scratch - goal.requests * self.context * self.cache_per_token

    def tight(self, goal: Goal) -> bool:
        """Whether the engine may run out of memory although the sum says that it fits."""
        return self.fraction >= FRACTIONS[-1] or self.spare(goal) < RESERVE * self.memory


def plan_gpus(folder: ModelFolder, machine: Hardware, goal: Goal, sharing: Sharing) -> Plan:
    """The plan with the fewest stages and GPUs that reaches the goal, else the one with the longest context.

    One that is not tight is preferred, if it takes no more stages.

    Several nodes are always used in full. Raises DoesNotFit, and UserError for a goal that no machine could reach.
    """
    found = _best(folder, machine, goal, sharing)
    if found is not None:
        return found
    if next(_spreads(folder, machine, goal.layout), None) is None:
        raise DoesNotFit(_what_divides(folder, machine, goal, sharing))
    raise DoesNotFit(_what_it_takes(folder, machine, goal, sharing))


def roomier(folder: ModelFolder, machine: Hardware, goal: Goal, sharing: Sharing) -> str:
    """How many GPUs reach the goal with room to spare; empty if no number is known."""
    return _enough_gpus(folder, machine, goal, sharing, spare=True)


def plan_offload(folder: ModelFolder, machine: Hardware, goal: Goal) -> Plan:
    """Routed experts in the CPU's memory, everything else and as many experts as fit on the GPUs of one node."""
    assert machine.cpu_memory is not None
    parts = folder.parts
    if parts.experts > CPU_SHARE * machine.cpu_memory:
        raise DoesNotFit(
            f"the experts of {folder.name} are {_gb(parts.experts)} and nine tenths of {_gb(machine.cpu_memory)} "
            f"can be used: it takes {ceil(parts.experts / CPU_SHARE / 1e9):,} GB"
        )
    sizes = (size for size in range(1, machine.gpus + 1) if folder.splits_by(size))
    plans = [plan for size in sizes if (plan := _offloaded(folder, machine, goal, size))]
    if not plans:
        least = _least_gpu(folder, goal)
        raise DoesNotFit(
            f"{folder.name} without its experts and a cache for {goal.requests} x {_least(folder, goal):,} "
            f"tokens do not fit on {machine}: it takes a GPU of {least} GB"
        )
    # The first of equals has the fewest GPUs.
    return max(plans, key=lambda plan: (plan.context, plan.experts_on_gpu))


def _offloaded(folder: ModelFolder, machine: Hardware, goal: Goal, tensor: int) -> Plan | None:
    """What the goal leaves of the cache's room goes to experts; one expert of every layer is the unit."""
    found = _sized(folder, machine.gpu_memory, goal, "static", (tensor, 1, 1), experts_on_gpu=False)
    if found is None:
        return None
    stored = folder.parts.experts
    unit = ceil(stored / folder.config.n_routed_experts / tensor)
    left = found.cache - goal.requests * found.context * found.cache_per_token
    experts = min(folder.config.n_routed_experts, left // unit)
    return replace(
        found,
        experts_on_gpu=experts,
        weights=found.weights + experts * unit,
        cache=found.cache - experts * unit,
        cpu_bytes=stored,
    )


def plan_cpu(folder: ModelFolder, machine: Hardware, goal: Goal) -> Plan:
    """All of it in the CPU's memory."""
    assert machine.cpu_memory is not None
    per_token = folder.latent_cache_bytes if folder.kernel_sizes else folder.expanded_cache_bytes
    # The copies for latent attention are made there too.
    weights = folder.weight_bytes + (folder.absorbed_bytes if folder.kernel_sizes else 0)
    room = int(CPU_SHARE * machine.cpu_memory) - CPU_RUNTIME - weights
    context = _fitting(_wanted(folder, goal), room // per_token // goal.requests, goal)
    if context is None:
        least = (weights + CPU_RUNTIME + goal.requests * per_token * _least(folder, goal)) / CPU_SHARE
        raise DoesNotFit(
            f"{folder.name} in bf16 ({_gb(weights)} of weights) does not fit into {_gb(machine.cpu_memory)} of memory: "
            f"plan for GPUs with --gpus and --gpu-memory, or it takes {ceil(least / 1e9):,} GB"
        )
    return Plan(1, 1, 1, 0.0, machine.cpu_memory, weights, CPU_RUNTIME, per_token, room, context)


def _best(folder: ModelFolder, machine: Hardware, goal: Goal, sharing: Sharing) -> Plan | None:
    wanted = _wanted(folder, goal)
    best: Plan | None = None
    for spread in _spreads(folder, machine, goal.layout):
        found = _sized(folder, machine.gpu_memory, goal, sharing, spread)
        if best and best.context == wanted and spread[1] > best.pipeline:
            return best
        if found and found.context == wanted and not found.tight(goal):
            return found
        if found and (best is None or found.context > best.context):
            best = found
    return best


def _spreads(folder: ModelFolder, machine: Hardware, layout: Layout) -> Iterator[tuple[int, int, int]]:
    """(tensor, pipeline, data) in the order of preference."""
    total = machine.all_gpus
    if layout == "data":
        if total > 1 and folder.config.n_routed_experts % total == 0:
            yield 1, 1, total
        return
    spreads = [
        (tensor, stages, 1)
        for tensor in range(1, min(total, folder.config.num_attention_heads) + 1)
        if folder.splits_by(tensor)
        for stages in range(1, min(total // tensor, folder.config.num_hidden_layers) + 1)
        if machine.nodes == 1 or tensor * stages == total
    ]
    # Stages wait for one another: they come only where tensor parallelism alone does not reach.
    yield from sorted(spreads, key=lambda spread: (spread[1], spread[0]))


def _sized(
    folder: ModelFolder,
    memory: int,
    goal: Goal,
    sharing: Sharing,
    spread: tuple[int, int, int],
    experts_on_gpu: bool = True,
) -> Plan | None:
    """The plan of a spread, None if not even a short context fits."""
    tensor, stages, data = spread
    weights = weights_per_gpu(folder, spread, experts_on_gpu)
    scratch = scratch_bytes(folder, tensor, data)
    per_token = cache_per_token(folder, goal, tensor, stages)
    wanted = _wanted(folder, goal)
    best: Plan | None = None
    for fraction in FRACTIONS:
        used, cache = _cache_room(sharing, fraction, memory, weights, scratch)
        context = _fitting(wanted, cache // per_token // goal.requests, goal)
        if context is not None and (best is None or context > best.context):
            best = Plan(tensor, stages, data, used, memory, weights, scratch, per_token, cache, context)
    return best


def _cache_room(sharing: Sharing, fraction: float, memory: int, weights: int, scratch: int) -> tuple[float, int]:
    """The number that an engine is given, and the bytes of cache that it then takes."""
    if sharing == "rest":
        return fraction, floor(fraction * (memory - RUNTIME - scratch - weights))
    outside = RUNTIME + (scratch if sharing == "static" else 0)
    used = max(0.0, min(fraction, floor(100 * (1 - outside / memory)) / 100))
    inside = scratch if sharing == "profiled" else 0
    return used, floor(used * memory) - inside - weights


def weights_per_gpu(folder: ModelFolder, spread: tuple[int, int, int], experts_on_gpu: bool = True) -> int:
    """Of the GPU that has the most."""
    tensor, stages, data = spread
    parts, layers = folder.parts, folder.config.num_hidden_layers
    experts = parts.experts / (tensor * data) if experts_on_gpu else 0
    absorbed = folder.absorbed_bytes / tensor if folder.kernel_sizes else 0
    all_layers = experts + parts.split / tensor + parts.copied + absorbed
    # Layers with experts are the largest: a stage may have as many of them as it has layers.
    moe_layers = layers - folder.config.first_k_dense_replace
    largest = all_layers if stages == 1 else min(all_layers, all_layers / max(1, moe_layers) * ceil(layers / stages))
    return ceil(largest + (2 if stages == 1 else 1) * parts.table / tensor)


def cache_per_token(folder: ModelFolder, goal: Goal, tensor: int, stages: int) -> int:
    layers = folder.config.num_hidden_layers
    whole = folder.latent_cache_bytes if folder.kernel_sizes else folder.expanded_cache_bytes // tensor
    return ceil(whole / layers) * ceil(layers / stages) // (2 if goal.cache_fp8 else 1)


def scratch_bytes(folder: ModelFolder, tensor: int, data: int) -> int:
    """Activations of `PREFILL` tokens in bf16, expanded keys and values of `WORKSPACE` tokens, logits in fp32."""
    config = folder.config
    routed = config.num_experts_per_tok * (config.hidden_size + 3 * config.moe_intermediate_size // tensor)
    # The tokens of all GPUs meet where the experts are.
    gathered = 2 * (data - 1) * config.hidden_size
    activations = 2 * PREFILL * (routed + 8 * config.hidden_size + gathered)
    heads = config.num_attention_heads // tensor
    expanded = 2 * WORKSPACE * (config.latent_dim + heads * (config.qk_nope_head_dim + config.v_head_dim))
    return activations + expanded + 2 * 4 * SEQUENCES * config.vocab_size


def _wanted(folder: ModelFolder, goal: Goal) -> int:
    longest = folder.config.max_position_embeddings
    if goal.context is not None and goal.context > longest:
        raise UserError(f"--context is {goal.context:,} and {folder.name} was made for {longest:,}: ask for less")
    return goal.context or longest


def _least(folder: ModelFolder, goal: Goal) -> int:
    return goal.context or min(LEAST_CONTEXT, folder.config.max_position_embeddings)


def _fitting(wanted: int, room: int, goal: Goal) -> int | None:
    """The context to take where `room` tokens of each request fit: what is wanted, or less if nobody asked for it."""
    if room >= wanted:
        return wanted
    rounded = room // 1024 * 1024
    return rounded if goal.context is None and rounded >= min(LEAST_CONTEXT, wanted) else None


def _what_divides(folder: ModelFolder, machine: Hardware, goal: Goal, sharing: Sharing) -> str:
    """One sentence: why no spread uses all of the GPUs, whatever their memory, and which number of them does."""
    config, total = folder.config, machine.all_gpus
    count = _fewer_gpus(folder, machine, goal, sharing) or _enough_gpus(folder, machine, goal, sharing)
    ways = [f"use {count}"] if count else []
    if goal.layout == "data":
        if total == 1:
            why = "--layout data spreads experts over several GPUs and there is one"
        else:
            experts = config.n_routed_experts
            why = f"--layout data gives every GPU as many experts, and {experts} do not divide by {total}"
        if _best(folder, machine, replace(goal, layout="auto"), sharing):
            ways.append("leave out --layout data")
    else:
        sizes = [size for size in range(1, config.num_attention_heads + 1) if folder.splits_by(size)]
        why = (
            f"several nodes are used in full and {folder.name} does not divide by {total} GPUs: its heads and "
            f"feed-forward layers can be cut into {', '.join(map(str, sizes))} pieces and its "
            f"{config.num_hidden_layers} layers into as many stages"
        )
    return f"{why}: " + (" or ".join(ways) or "no other number of such GPUs is enough either, use larger ones")


def _fewer_gpus(folder: ModelFolder, machine: Hardware, goal: Goal, sharing: Sharing) -> str:
    """Most of these GPUs that can be used together."""
    # Nodes are left out before GPUs of each.
    for gpus, nodes in product(range(machine.gpus, 0, -1), range(machine.nodes, 0, -1)):
        if _best(folder, replace(machine, gpus=gpus, nodes=nodes), goal, sharing):
            options = f"--gpus {gpus}" + (f" --nodes {nodes}" if machine.nodes > 1 else "")
            return f"{gpus * nodes} of these GPUs ({options})"
    return ""


def _what_it_takes(folder: ModelFolder, machine: Hardware, goal: Goal, sharing: Sharing) -> str:
    """One sentence: what does not fit, the least hardware of both kinds that would do, and how much less fits."""
    more, larger = _enough_gpus(folder, machine, goal, sharing), _enough_memory(folder, machine, goal, sharing)
    less = _less(folder, machine, goal, sharing)
    kind = "block-FP8" if folder.fp8 else "bf16"
    what = f"{folder.name} in {kind} ({_gb(folder.weight_bytes)})"
    if goal.context is not None or goal.requests > 1:
        what += f" with a cache for {goal.requests:,} x {_least(folder, goal):,} tokens"
    if goal.layout == "data":
        what += " and all of attention on every GPU"
    hardware = " or ".join(way for way in (more, larger) if way)
    ways = [f"it takes {hardware}"] if hardware else []
    if less:
        ways.append(f"{less} fits")
    return f"{what} does not fit on {machine}: {'; '.join(ways) or 'use several nodes'}"


def _less(folder: ModelFolder, machine: Hardware, goal: Goal, sharing: Sharing) -> str:
    """The most requests that fit, else the longest context; empty if the weights are too large."""
    numbers = range(1, goal.requests)
    fewer = bisect_left(
        numbers, True, key=lambda number: _best(folder, machine, replace(goal, requests=number), sharing) is None
    )
    if fewer:
        return f"--requests {numbers[fewer - 1]}"
    shorter = _best(folder, machine, replace(goal, context=None, requests=1), sharing)
    return f"--context {shorter.context}{' --requests 1' if goal.requests > 1 else ''}" if shorter else ""


def _enough_gpus(folder: ModelFolder, machine: Hardware, goal: Goal, sharing: Sharing, *, spare: bool = False) -> str:
    for count in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        nodes = max(1, count // NODE)
        other = replace(machine, gpus=count // nodes, nodes=nodes)
        found = _best(folder, other, goal, sharing) if count > machine.all_gpus else None
        if found and not (spare and found.tight(goal)):
            return f"{count} GPUs like these" + (f" ({nodes} nodes of {NODE})" if nodes > 1 else "")
    return ""


def _enough_memory(folder: ModelFolder, machine: Hardware, goal: Goal, sharing: Sharing) -> str:
    for size in SIZES:
        other = replace(machine, gpu_memory=int(size * USABLE * GIB))
        if other.gpu_memory > machine.gpu_memory and _best(folder, other, goal, sharing):
            return f"{machine.all_gpus} of {size} GB"
    return ""


def _least_gpu(folder: ModelFolder, goal: Goal) -> int:
    return next(
        (
            size
            for size in SIZES
            if _sized(folder, int(size * USABLE * GIB), goal, "static", (1, 1, 1), experts_on_gpu=False)
        ),
        SIZES[-1],
    )


def _gb(size: float) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 1e10 else f"{size / 1e9:,.3g} GB"
