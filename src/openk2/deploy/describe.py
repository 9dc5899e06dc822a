"""What a configuration amounts to: shapes, parameters, cache, FLOPs and bytes. No weight is ever allocated.

Counting (all of it forward, one token, a multiply-add is two FLOPs):

- Every activated weight but the embedding table is multiplied with once: 2 FLOPs each.
- Attention to a context of L tokens, per layer and head, with keys and values expanded: 2 L (qk_head_dim + v_head_dim).
  A decoder that attends to the cached latents instead ("absorbed") has 2 L (2 kv_lora_rank + qk_rope_head_dim).

Legend: L context length in tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, erfc, prod, sqrt
from pathlib import Path

import numpy as np
from rich.table import Table

from openk2.core import UserError
from openk2.core.progress import new_console
from openk2.model.checkpoint import shapes_of
from openk2.model.config import PRESETS, ModelConfig
from openk2.model.stored import BLOCK

CONTEXTS = (1024, 2048, 4096, 8192, 32768, 131072)


@dataclass(frozen=True, slots=True)
class Tensors:
    """Tensors of one shape whose names differ in the numbers of layers and experts only.

    `name` has these numbers as ranges, `model.layers.1-60.mlp.experts.0-383.up_proj.weight`.
    """

    name: str
    shape: tuple[int, ...]
    copies: int

    @property
    def parameters(self) -> int:
        return self.copies * prod(self.shape)


@dataclass(frozen=True, slots=True)
class Description:
    """Totals are numbers of weights without the routers' selection biases; cache and files are in bytes."""

    tensors: list[Tensors]
    total_parameters: int
    activated_parameters: int
    embedding_parameters: int
    all_moe_parameters: int
    """The total if the first, dense layers had experts too (the way to the 1.04T of the K2 report)."""
    kv_cache_bytes_per_token: int
    expanded_cache_bytes_per_token: int
    """What attention with keys and values of every head would cache."""
    flops_per_token: dict[int, int]
    bytes_bf16: int
    bytes_fp8: int
    balanced_scaling_factor: float | None
    """What `routed_scaling_factor` should be (see `balanced_scaling_factor`); None with groups of experts."""


def describe(config: ModelConfig, contexts: Sequence[int] = CONTEXTS) -> Description:
    """Everything that follows from the sizes. FLOPs are for the `contexts` that the model takes, and its longest."""
    tensors = tensors_of(config)
    longest = config.max_position_embeddings
    lengths = sorted({length for length in contexts if length <= longest} | {longest})
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    return Description(
        tensors=tensors,
        total_parameters=config.parameter_count(),
        activated_parameters=config.parameter_count(active=True),
        embedding_parameters=config.vocab_size * config.hidden_size,
        all_moe_parameters=config.model_copy(update={"first_k_dense_replace": 0}).parameter_count(),
        kv_cache_bytes_per_token=2 * layers * config.latent_dim,
        flops_per_token={length: flops_per_token(config, length) for length in lengths},
        bytes_bf16=sum(stored_bytes(t, fp8=False) for t in tensors),
        bytes_fp8=sum(stored_bytes(t, fp8=True) for t in tensors),
        expanded_cache_bytes_per_token=2 * layers * heads * (config.qk_head_dim + config.v_head_dim),
        balanced_scaling_factor=(
            balanced_scaling_factor(config.n_routed_experts, config.num_experts_per_tok)
            if config.n_group == 1
            else None
        ),
    )


def balanced_scaling_factor(experts: int, chosen: int) -> float:
    """The factor with which routed experts add up to an output of the shared expert's size: E[1 / |w|_2].

    w are the weights of the chosen experts, sigmoids of normal logits that sum to one; outputs of different experts
    are taken as independent (Moonlight report, section 3 and figure 6: 2.446 for 6 of 64; K2's 2.827 for 8 of 384).
    Drawn with a fixed seed, exact to about 3e-4. The largest of E uniform numbers are made one after the other, each
    the largest of those that are left, so the cost does not grow with E.
    """
    draws = min(100_000, 10_000_000 // chosen + 1)
    uniform = np.random.default_rng(0).random((draws, chosen))
    left = experts - np.arange(chosen)
    largest = np.cumprod(uniform ** (1.0 / left), axis=1)
    # The quantiles of the normal distribution on a grid that is fine where it is steep.
    grid = np.linspace(-8.0, 8.0, 20_001)
    weight = 1.0 / (1.0 + np.exp(-np.interp(largest, _normal_cdf(grid), grid)))
    weight /= weight.sum(axis=1, keepdims=True)
    return float(np.mean(1.0 / np.linalg.norm(weight, axis=1)))


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * erfc(-value / sqrt(2)) for value in x.tolist()])


def flops_per_token(config: ModelConfig, context: float, absorbed: bool = False) -> int:
    """Forward FLOPs of one token that attends to `context` tokens, itself among them (see the module's docstring)."""
    weights = config.parameter_count(active=True) - config.vocab_size * config.hidden_size
    per_head = 2 * config.kv_lora_rank + config.qk_rope_head_dim if absorbed else config.qk_head_dim + config.v_head_dim
    return round(2 * weights + 2 * config.num_hidden_layers * config.num_attention_heads * context * per_head)


_WAYS = {"prefill": "average of a prefill", "full": "last token", "absorbed": "last token, absorbed"}


def named_config(name: str) -> ModelConfig:
    """The configuration of a preset or of a folder. Raises UserError for a name that is neither."""
    if name in PRESETS:
        return ModelConfig.preset(name)
    # Path("") is the folder of today.
    if not name or not Path(name).is_dir():
        raise UserError(f"{name!r} is neither a preset ({', '.join(PRESETS)}) nor a model folder: name one of them")
    return ModelConfig.from_folder(name)


def with_heads(config: ModelConfig, heads: int) -> ModelConfig:
    return ModelConfig.build(config.model_dump() | {"num_attention_heads": heads}, where="--heads")


def compare_heads(config: ModelConfig, other: ModelConfig, context: int) -> dict[str, float]:
    """How many times the FLOPs of `config` the `other` one costs at a context length, by the way of counting.

    `prefill`: the average token of a causal pass over the context; `full`: the last token of it; `absorbed`: the last
    token, decoded over cached latents. The K2 report (section 2.3) says +83 % for 128 heads at 128k, not how.
    """
    return {
        "prefill": flops_per_token(other, context / 2) / flops_per_token(config, context / 2),
        "full": flops_per_token(other, context) / flops_per_token(config, context),
        "absorbed": flops_per_token(other, context, absorbed=True) / flops_per_token(config, context, absorbed=True),
    }


def tensors_of(config: ModelConfig) -> list[Tensors]:
    """The tensors of a checkpoint under their Hugging Face names, in the order of the layers."""
    groups: dict[tuple[str, tuple[int, ...]], list[tuple[int, ...]]] = {}
    for name, shape in shapes_of(config).items():
        parts = name.split(".")
        numbers = tuple(int(part) for part in parts if part.isdigit())
        pattern = ".".join("#" if part.isdigit() else part for part in parts)
        groups.setdefault((pattern, shape), []).append(numbers)
    found = []
    for (pattern, shape), members in groups.items():
        name = pattern
        for position in zip(*members, strict=True):
            name = name.replace("#", _range(position), 1)
        found.append(Tensors(name, shape, len(members)))
    return found


def _range(numbers: Sequence[int]) -> str:
    first, last = min(numbers), max(numbers)
    return str(first) if first == last else f"{first}-{last}"


def stored_bytes(tensors: Tensors, fp8: bool) -> int:
    """On disk. In FP8 the matrices of attention and feed-forward have a byte each and an fp32 scale per block."""
    if tensors.name.endswith("e_score_correction_bias"):
        return 4 * tensors.parameters
    in_fp8 = len(tensors.shape) == 2 and tensors.name.startswith("model.layers.")
    if not fp8 or not in_fp8 or tensors.name.endswith("mlp.gate.weight"):
        return 2 * tensors.parameters
    rows, columns = tensors.shape
    return tensors.parameters + 4 * tensors.copies * ceil(rows / BLOCK) * ceil(columns / BLOCK)


def _tensor_table(tensors: Sequence[Tensors]) -> Table:
    table = Table(box=None, padding=(0, 1), collapse_padding=True)
    table.add_column("tensor", overflow="fold")
    for title in ("shape", "copies", "parameters"):
        table.add_column(title, justify="right", no_wrap=True)
    prefix = ""
    for tensor in tensors:
        found = re.match(r"(model\.layers\.[\d-]+)\.(.*)", tensor.name)
        name = tensor.name
        if found:
            if found[1] != prefix:
                table.add_row(f"[dim]{found[1]}[/]")
            name = f"  .{found[2]}"
        prefix = found[1] if found else ""
        shape = " x ".join(map(str, tensor.shape))
        table.add_row(name, shape, f"{tensor.copies:,}", amount(tensor.parameters, "KMB"))
    return table


def _facts(name: str, found: Description) -> list[tuple[str, str]]:
    """`name` is the preset's if it is described as it is."""
    matrices = found.activated_parameters - found.embedding_parameters
    facts = [
        ("parameters", f"{amount(found.total_parameters, 'KMB')} ({found.total_parameters:,})"),
        (
            "activated per token",
            f"{amount(found.activated_parameters, 'KMB')}, without the embedding table {amount(matrices, 'KMB')}",
        ),
        (
            "cache per token",
            f"{found.kv_cache_bytes_per_token:,} bytes in bf16 (keys and values of every head: "
            f"{found.expanded_cache_bytes_per_token:,})",
        ),
        ("files", f"{amount(found.bytes_bf16)}B in bf16, {amount(found.bytes_fp8)}B in block FP8"),
    ]
    flops = ", ".join(f"{amount(count)} at {length:,}" for length, count in found.flops_per_token.items())
    facts.append(("FLOPs per token", flops))
    if found.balanced_scaling_factor is not None:
        facts.append(
            ("routed_scaling_factor", f"{found.balanced_scaling_factor:.3f} would balance the shared expert's output")
        )
    if name == "k2":
        facts.append(
            ("the report's 1.04T", f"counts experts in every layer: {amount(found.all_moe_parameters, 'KMB')}")
        )
    return facts


def amount(number: float, letters: str = "KMGT") -> str:
    """A number in four digits with the letter of its thousands; beyond the last letter it has more digits."""
    power = 0
    while number >= 1000 and power < len(letters):
        number, power = number / 1000, power + 1
    digits = f"{number:,.0f}" if number >= 1000 or not power else f"{number:.4g}"
    return digits + letters[power - 1 : power]


def print_description(name: str, *, heads: int | None, as_json: bool) -> None:
    """Print the description of a preset or a folder. Raises UserError for a name that is neither."""
    config = named_config(name)
    described = config if heads is None else with_heads(config, heads)
    other = with_heads(config, 2 * config.num_attention_heads) if heads is None else described
    longest = config.max_position_embeddings
    description = describe(described)
    ratios = compare_heads(config, other, longest)
    if as_json:
        tensors = [{"name": t.name, "shape": t.shape, "copies": t.copies} for t in description.tensors]
        heads_compared = {
            "heads": [config.num_attention_heads, other.num_attention_heads],
            "context": longest,
            **ratios,
        }
        print(json.dumps({"name": name, **asdict(description), "tensors": tensors, "heads_compared": heads_compared}))
        return
    console = new_console()
    console.print(_tensor_table(description.tensors))
    console.print()
    facts = Table.grid(padding=(0, 2))
    for label, text in _facts(name if heads is None else "", description):
        facts.add_row(f"[bold]{label}[/]", text)
    console.print(facts)
    if other == config:
        console.print(f"\n{config.num_attention_heads} heads are what {name} has.")
        return
    console.print(
        f"\n{other.num_attention_heads} heads instead of {config.num_attention_heads}, {longest:,} tokens of context:"
    )
    for key, label in _WAYS.items():
        console.print(f"  {label:22}{ratios[key]:.2f} x the FLOPs")
    if name == "k2" and heads is None:
        console.print("  The K2 report says 1.83 x and does not say which of these it counts.")
