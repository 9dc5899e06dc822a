"""Model folders in and out, one shard at a time.

`convert` reads a DeepSeek-V3 or Kimi-K2 folder, whatever its shards and types, checks every tensor and writes a folder
that transformers, vLLM and SGLang take as it is: safetensors shards with an index, config, generation config, and the
tokenizer with its chat template. Its memory is that of one shard and one tensor. Finished shards are kept: the same
call continues where it was stopped, after comparing their hashes.

`verify` compares two folders block by block on activations.

Legend: B batch, T time, D hidden.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
import torch.nn.functional as F

from openk2.core import UserError
from openk2.core.runs import Manifest, atomic_path, read_manifest, sha256_file, sha256_text, write_manifest, write_text
from openk2.model.checkpoint import (
    DTYPE_NAMES,
    TOKENIZER_FILES,
    check_names,
    fill,
    hf_names,
    shapes_of,
    write_tensors,
)
from openk2.model.config import ModelConfig
from openk2.model.layers import RMSNorm, rotary_table
from openk2.model.stored import INDEX, WEIGHTS, StoredTensors
from openk2.model.transformer import Block

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SHARD_BYTES = 4_000_000_000
PROGRESS = ".conversion"
"""A folder in the target with the manifest of the shards that are done; gone at the end."""

OnShard = Callable[[int, int, str], None]


def convert(
    source: Path, target: Path, *, dtype: str = "bf16", shard_bytes: int = SHARD_BYTES, on_shard: OnShard | None = None
) -> Manifest:
    """Write `source` as a folder in `dtype` (bf16, fp16, fp32); the router's biases stay fp32.

    The manifest of the result (`manifest.json`) has the hash of every file. Raises UserError for a folder of another
    family, a tensor that is missing, misshapen, not finite or in packed integers, and for a target that holds another
    model.
    """
    if dtype not in DTYPES:
        raise UserError(f"{dtype!r} is no type of weights: use {', '.join(DTYPES)}")
    if target.resolve() == source.resolve():
        raise UserError(f"{target} is the source itself: name another folder for the result")
    config = ModelConfig.from_folder(source)
    stored = StoredTensors(source)
    shapes = shapes_of(config)
    check_names(stored, config, shapes)
    plan = _plan(stored, shapes, DTYPES[dtype], shard_bytes)
    names = (
        [WEIGHTS]
        if len(plan) == 1
        else [f"model-{i:05d}-of-{len(plan):05d}.safetensors" for i in range(1, len(plan) + 1)]
    )
    job: dict[str, object] = {
        "source": _fingerprint(stored),
        "dtype": dtype,
        "shards": {n: len(p) for n, p in zip(names, plan, strict=True)},
    }
    done = _done(target, job)
    for i, (name, members) in enumerate(zip(names, plan, strict=True)):
        if on_shard is not None:
            on_shard(i, len(plan), name)
        path = target / name
        if name in done and path.exists() and sha256_file(path) == done[name]:
            continue
        write_tensors(path, {member: _cast(stored, member, DTYPES[dtype]) for member in members})
        done[name] = sha256_file(path)
        write_manifest(target / PROGRESS, Manifest(stage="conversion", config=job, outputs=done))
    if on_shard is not None:
        on_shard(len(plan), len(plan), "")
    return _finish(source, target, config, dtype, dict(zip(names, plan, strict=True)), job, done)


def _plan(
    stored: StoredTensors, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, shard_bytes: int
) -> list[list[str]]:
    """Which tensors go together: in the source's order, so that each of its files is opened once."""
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name in stored.names:
        if name not in shapes:
            continue
        size = prod(shapes[name]) * dtype.itemsize
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= size
    return shards


def _fingerprint(stored: StoredTensors) -> str:
    """Of the config and of the names, sizes and dates of the weight files: hashing terabytes twice would take hours."""
    files = sorted({stored.path(name) for name in stored.names})
    marks = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return sha256_text("\n".join([sha256_file(stored.folder / "config.json"), *marks]))


def _done(target: Path, job: dict[str, object]) -> dict[str, str]:
    """Hashes of the shards that an earlier call has finished. Raises UserError if the target is of another job."""
    before = read_manifest(target / PROGRESS)
    if before is None:
        if any(target.glob("*.safetensors")) or (target / "config.json").exists():
            raise UserError(f"{target} holds a model already: name an empty folder")
        return {}
    if before.config != job:
        raise UserError(f"{target} holds the beginning of another conversion: delete it or name an empty folder")
    return dict(before.outputs)


def _cast(stored: StoredTensors, name: str, dtype: torch.dtype) -> torch.Tensor:
    tensor = stored.read(name).to(torch.float32 if name.endswith("e_score_correction_bias") else dtype)
    if not tensor.isfinite().all():
        raise UserError(f"{stored.path(name)}: tensor {name} is too large for {dtype}: choose another type")
    return tensor.contiguous()


def _finish(
    source: Path,
    target: Path,
    config: ModelConfig,
    dtype: str,
    shards: dict[str, list[str]],
    job: dict[str, object],
    done: dict[str, str],
) -> Manifest:
    """Everything beside the weights, and the manifest last."""
    if len(shards) > 1:
        where = {member: name for name, members in shards.items() for member in members}
        total = sum((target / name).stat().st_size for name in shards)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        write_text(target / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
    stored_as = DTYPE_NAMES[DTYPES[dtype]]
    text = json.dumps(config.to_hf() | {"dtype": stored_as, "torch_dtype": stored_as}, indent=2, sort_keys=True)
    write_text(target / "config.json", text + "\n")
    if (source / "generation_config.json").exists():
        _copy(source / "generation_config.json", target)
    else:
        ids = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        known = {key: value for key, value in ids.items() if value is not None}
        write_text(target / "generation_config.json", json.dumps(known, indent=2, sort_keys=True) + "\n")
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            _copy(source / name, target)
    others = [path for path in sorted(target.iterdir()) if path.is_file() and path.name not in ("manifest.json", *done)]
    outputs = done | {path.name: sha256_file(path) for path in others}
    manifest = Manifest(stage="conversion", config=job, outputs=outputs)
    write_manifest(target, manifest)
    shutil.rmtree(target / PROGRESS)
    return manifest


def _copy(path: Path, folder: Path) -> None:
    with atomic_path(folder / path.name) as temporary:
        shutil.copyfile(path, temporary)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`max_abs_diff` is that of the first part that differs, or the largest of all parts if none does."""

    equal: bool
    first_difference: str | None
    max_abs_diff: float


TOLERANCE = 1e-4
"""Of the largest activation of a part: fp32 sums in another order stay far below, a wrong weight far above."""


@torch.no_grad()
def verify(first: Path, second: Path, *, tokens: int = 64, seed: int = 0) -> Comparison:
    """Run the same tokens through both folders, part by part, each part on the activations of the first folder.

    Names and shapes can agree where weights do not, so only what comes out counts. The memory is that of one layer of
    each. Stops at the first part that differs. Raises UserError for a folder that cannot be read.
    """
    sides = [_Side(folder) for folder in (first, second)]
    vocabulary = min(side.config.vocab_size for side in sides)
    ids_BT = torch.randint(vocabulary, (2, tokens), generator=torch.Generator().manual_seed(seed))
    parts = [list(side.parts()) for side in sides]
    x, largest = ids_BT, 0.0
    for name, other in zip(*parts, strict=False):
        if name != other:
            return Comparison(False, name, float("inf"))
        outputs = [side.run(name, x) for side in sides]
        if outputs[0].shape != outputs[1].shape:
            return Comparison(False, name, float("inf"))
        difference = (outputs[0] - outputs[1]).abs().max().item()
        if not difference <= TOLERANCE * outputs[0].abs().max().item():
            return Comparison(False, name, difference)
        largest = max(largest, difference)
        x = outputs[0]
    return Comparison(True, None, largest)


class _Side:
    """One folder, run part by part: the embedding, each layer, the last norm, the head."""

    def __init__(self, folder: Path) -> None:
        self.config = ModelConfig.from_folder(folder)
        self.stored = StoredTensors(folder)
        check_names(self.stored, self.config, shapes_of(self.config))

    def parts(self) -> Iterator[str]:
        yield "model.embed_tokens"
        yield from (f"model.layers.{layer}" for layer in range(self.config.num_hidden_layers))
        yield from ("model.norm", "lm_head")

    def run(self, part: str, x: torch.Tensor) -> torch.Tensor:
        """fp32 [B, T, D], or logits; `x` are ids for the embedding, the activations before the part otherwise."""
        if part == "model.embed_tokens":
            return F.embedding(x, self.stored.read(f"{part}.weight").float())
        if part == "lm_head":
            return F.linear(x, self.stored.read(f"{part}.weight").float())
        if part == "model.norm":
            norm = RMSNorm(self.config.hidden_size, self.config.rms_norm_eps)
            norm.weight.data.copy_(self.stored.read(f"{part}.weight"))
            normed: torch.Tensor = norm(x)
            return normed
        layer = int(part.rpartition(".")[2])
        with torch.device("meta"):
            block = Block(self.config, layer)
        block = block.to_empty(device="cpu").eval()
        fill(hf_names(block.state_dict(prefix=f"layers.{layer}.")), self.stored)
        time = x.shape[1]
        cos_NP, sin_NP = rotary_table(self.config, x.dtype, x.device)
        out: torch.Tensor = block(x, (cos_NP[:time, None], sin_NP[:time, None]))
        return out
