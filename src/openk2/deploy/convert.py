"""Model folders in and out, one shard at a time.

`convert` reads a DeepSeek-V3 or Kimi-K2 folder, whatever its shards and types, checks every tensor and writes a folder
that transformers, vLLM and SGLang take as it is: safetensors shards with an index, config, generation config, and the
tokenizer with its chat template. Its memory is that of one shard and one tensor. Finished shards are kept: the same
call continues where it was stopped, whenever that was, after comparing their hashes.

`verify` compares two folders layer by layer: every weight, and what comes out.

Legend: B batch, T time, D hidden.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path

import torch

from openk2.chat.tokenizer import Tokenizer, load_backend
from openk2.core import UserError
from openk2.core.runs import (
    LOCK,
    MANIFEST,
    Manifest,
    locked,
    read_manifest,
    sha256_file,
    sha256_text,
    write_manifest,
    write_text,
)
from openk2.model.checkpoint import (
    DTYPE_NAMES,
    check_names,
    copy_file,
    has_tokenizer,
    hf_names,
    shapes_of,
    tokenizer_files,
    write_tensors,
)
from openk2.model.config import ModelConfig, read_json
from openk2.model.layers import rotary_table
from openk2.model.stored import INDEX, WEIGHTS, StoredTensors
from openk2.model.transformer import Transformer, without_weights

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SHARD_BYTES = 4_000_000_000
PROGRESS = ".conversion"
"""A folder in the target where all is written first, with the manifest of the shards that are done; gone at the end."""
LEFT_OUT = "prediction_tensors_left_out"
"""In the manifest's results: how many tensors of multi-token prediction heads the source has besides."""

OnShard = Callable[[int, int, str], None]


def convert(
    source: Path, target: Path, *, dtype: str = "bf16", shard_bytes: int = SHARD_BYTES, on_shard: OnShard | None = None
) -> Manifest:
    """Write `source` as a folder in `dtype` (bf16, fp16, fp32); the router's biases stay fp32.

    The manifest of the result (`manifest.json`) has the hash of every file; of a conversion that is complete already
    it is returned as it stands. Raises UserError for a folder of another family, a tensor that is missing, misshapen,
    not finite or in packed integers, and for a target that holds anything else or a file that was changed afterwards.
    """
    if dtype not in DTYPES:
        raise UserError(f"{dtype!r} is no type of weights: use {', '.join(DTYPES)}")
    if target.resolve() == source.resolve():
        raise UserError(f"{target} is the source itself: name another folder for the result")
    config = ModelConfig.from_folder(source)
    stored = StoredTensors(source)
    shapes = shapes_of(config)
    left_out = check_names(stored, config, shapes)
    _tokenizer_texts(source, config)
    plan = _plan(stored, shapes, DTYPES[dtype], shard_bytes)
    names = (
        [WEIGHTS]
        if len(plan) == 1
        else [f"model-{i:05d}-of-{len(plan):05d}.safetensors" for i in range(1, len(plan) + 1)]
    )
    shards = dict(zip(names, plan, strict=True))
    job = Manifest(
        stage="conversion",
        config={
            "source": _fingerprint(stored),
            "dtype": dtype,
            "shards": {name: len(members) for name, members in shards.items()},
        },
        results={LEFT_OUT: left_out},
    )
    if (complete := _complete(target, job)) is not None:
        return complete
    work, made = target / PROGRESS, [path for path in (target, *target.parents) if not path.exists()]
    with locked(work, "name another folder"), _without_traces(work, made):
        progress = _begin(target, job)
        for i, (name, members) in enumerate(shards.items()):
            if on_shard is not None:
                on_shard(i, len(shards), name)
            if name in progress.outputs and any(
                (folder / name).exists() and sha256_file(folder / name) == progress.outputs[name]
                for folder in (work, target)
            ):
                continue
            write_tensors(work / name, {member: _as_stored(stored, member, DTYPES[dtype]) for member in members})
            progress.outputs[name] = sha256_file(work / name)
            write_manifest(work, progress)
        if on_shard is not None:
            on_shard(len(shards), len(shards), "")
        return _finish(source, target, config, dtype, shards, progress)


@contextmanager
def _without_traces(work: Path, made: list[Path]) -> Iterator[None]:
    """A conversion that is refused before a shard is done leaves nothing behind: neither what it was writing nor the
    folders that it made, the innermost first."""
    try:
        yield
    except UserError:
        begun = read_manifest(work)
        if begun is not None and not begun.outputs:
            shutil.rmtree(work)
            for folder in made:
                folder.rmdir()
        raise


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
    """Of the small files' content and of the names, sizes and dates of the weights: hashing terabytes would take hours.

    Raises UserError if the tokenizer's settings are damaged.
    """
    weights = sorted({stored.path(name) for name in stored.names})
    marks = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in weights]
    small = [stored.folder / "config.json", *_copied(stored.folder)]
    return sha256_text("\n".join([*(f"{path.name} {sha256_file(path)}" for path in small), *marks]))


def _copied(source: Path) -> list[Path]:
    """The files that are taken over as they are. Raises UserError for one that is damaged."""
    files = [*source.glob("generation_config.json"), *tokenizer_files(source)]
    for path in files:
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".jinja":
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError as e:
                raise UserError(f"{path} is damaged (not UTF-8): copy the model again") from e
    return files


def _tokenizer_texts(source: Path, config: ModelConfig) -> dict[str, str]:
    """What a tokenizer lacks that has no tokenizer.json but K2's tiktoken.model alone, which only code of its own
    reads. Raises UserError for a damaged tokenizer, and for one of another model."""
    if not has_tokenizer(source):
        return {}
    backend, read_from = load_backend(source)
    if (size := backend.get_vocab_size(with_added_tokens=True)) > config.vocab_size:
        raise UserError(
            f"{read_from} has {size} ids and config.json says {config.vocab_size}: they do not belong together"
        )
    if Path(read_from).name == "tokenizer.json":
        return {}
    texts = Tokenizer(backend, source=read_from).files()
    settings = read_json(source / "tokenizer_config.json")
    if isinstance(settings.get("chat_template"), str):
        texts["chat_template.jinja"] = settings["chat_template"]
    if (source / "chat_template.jinja").exists():
        del texts["chat_template.jinja"]
    return texts


def _complete(target: Path, job: Manifest) -> Manifest | None:
    """The manifest of a conversion that has nothing left to do.

    Raises UserError if the target is no folder, or holds files that are not ours or were changed since.
    """
    if not target.exists():
        return None
    if not target.is_dir():
        raise UserError(f"{target} is a file: name a folder for the result")
    work = target / PROGRESS
    manifest = None
    with suppress(UserError):
        manifest = read_manifest(target)
    if manifest is None or manifest.config != job.config:
        begun = read_manifest(work)
        placed = begun.outputs if begun is not None else {}
        others = [
            path
            for path in target.iterdir()
            if path != work and (path.name not in placed or sha256_file(path) != placed[path.name])
        ]
        if begun is None and work.is_dir():
            # A process that was killed at once leaves these.
            others += [path for path in work.iterdir() if path.name != LOCK and not path.name.endswith(".tmp")]
        if others:
            raise UserError(f"{target} is not empty ({others[0].name}): name an empty folder")
        return None
    for name, digest in manifest.outputs.items():
        if not (target / name).exists() or sha256_file(target / name) != digest:
            raise UserError(f"{target / name} is not what the conversion wrote: name an empty folder to make it again")
    # The last thing that is taken away: the process may have been killed before.
    shutil.rmtree(work, ignore_errors=True)
    return manifest


def _begin(target: Path, job: Manifest) -> Manifest:
    """What is done of a job, with the hashes of its shards as outputs. Raises UserError if another one was begun."""
    work = target / PROGRESS
    before = read_manifest(work)
    if before is not None and before.config != job.config and before.outputs:
        raise UserError(f"{target} holds the beginning of another conversion: delete it or name an empty folder")
    done = before if before is not None and before.config == job.config else job
    # What was being written when the process was killed, by `atomic_path` and by safetensors.
    for path in work.iterdir():
        if path.name not in (LOCK, MANIFEST, *done.outputs):
            path.unlink()
    write_manifest(work, done)
    return done


def _as_stored(stored: StoredTensors, name: str, dtype: torch.dtype) -> torch.Tensor:
    return stored.read_as(name, torch.float32 if name.endswith("e_score_correction_bias") else dtype).contiguous()


def _finish(
    source: Path,
    target: Path,
    config: ModelConfig,
    dtype: str,
    shards: dict[str, list[str]],
    progress: Manifest,
) -> Manifest:
    """Everything beside the weights; then all of it takes its place, the manifest last."""
    work = target / PROGRESS
    texts: dict[str, dict[str, object]] = {}
    if len(shards) > 1:
        where = {member: name for name, members in shards.items() for member in members}
        total = sum(_wherever(target, name).stat().st_size for name in shards)
        texts[INDEX] = {"metadata": {"total_size": total}, "weight_map": where}
    stored_as = DTYPE_NAMES[DTYPES[dtype]]
    texts["config.json"] = config.to_hf() | {"dtype": stored_as, "torch_dtype": stored_as}
    copied = _copied(source)
    if not any(path.name == "generation_config.json" for path in copied):
        ids = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        texts["generation_config.json"] = {key: value for key, value in ids.items() if value is not None}
    written = {name: json.dumps(content, indent=2, sort_keys=True) + "\n" for name, content in texts.items()}
    written |= _tokenizer_texts(source, config)
    for path in copied:
        if path.name not in written:
            copy_file(path, work)
    for name, text in written.items():
        write_text(work / name, text)
    others = sorted({*written, *(path.name for path in copied)})
    manifest = progress.model_copy(
        update={"outputs": progress.outputs | {name: sha256_file(work / name) for name in others}}
    )
    # From here on it is known of every file in the target whether it is ours.
    write_manifest(work, manifest)
    for name in manifest.outputs:
        _wherever(target, name).replace(target / name)
    write_manifest(target, manifest)
    shutil.rmtree(work)
    return manifest


def _wherever(target: Path, name: str) -> Path:
    """A file that is done: still where it was written, or in its place already."""
    written = target / PROGRESS / name
    return written if written.exists() else target / name


def tokenizer_remark(source: Path) -> list[str]:
    """What a person must know of a folder without a tokenizer."""
    if has_tokenizer(source):
        return []
    return ["the source has no tokenizer that is read here: AutoTokenizer may not load the result"]


def left_out_remark(count: int) -> list[str]:
    """What a person must know of a source with multi-token prediction heads."""
    if not count:
        return []
    return [f"{count} tensors of multi-token prediction heads were left out: such heads are not supported"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`max_abs_diff` is that of the weight or activation that differs, or the largest of all activations if none does;
    None where there is no such number, because shapes differ or a number is too large for the other's type.
    `not_compared` counts the tensors of multi-token prediction heads in both folders.
    """

    equal: bool
    first_difference: str | None
    max_abs_diff: float | None
    not_compared: int = 0


TOLERANCE = 1e-4
"""Of the largest activation of a row: fp32 sums in another order stay far below, a wrong setting far above."""
_ROWS = 4096
"""So many rows are compared at once: in fp32, K2's embedding is larger than what it is read from."""


@torch.no_grad()
def verify(first: Path, second: Path, *, tokens: int = 64, seed: int = 0) -> Comparison:
    """Whether two folders are the same model: layer by layer every weight, then what comes out for the same tokens.

    Where one side stores a tensor in 16 bits, the other's is rounded to the same type first: a bf16 import equals its
    FP8 or fp32 source if it is exactly what rounding gives. Weights are compared directly because no sample of tokens
    meets every row of the embedding and every expert; activations (each layer's on those of the first folder) because
    names, shapes and weights can agree where the settings do not. The memory is that of one layer of each side. Stops
    at the first layer that differs. Raises UserError for a folder that cannot be read.
    """
    sides = [_Side(folder) for folder in (first, second)]
    not_compared = sum(side.left_out for side in sides)
    tokens = min(tokens, *(side.config.max_position_embeddings for side in sides))
    largest = 0.0
    x = torch.randint(sides[0].config.vocab_size, (2, tokens), generator=torch.Generator().manual_seed(seed))
    for part in max((side.parts for side in sides), key=len):
        shapes, others = (side.parts.get(part) for side in sides)
        if shapes is None or shapes != others:
            return Comparison(False, part, None, not_compared)
        targets = [side.take(part) for side in sides]
        for name in shapes:
            tensors = [side.stored.read(name) for side in sides]
            for dtype in _roundings(tensors):
                same, difference = _compare(tensors, dtype, 0.0)
                if same:
                    break
            if not same:
                return Comparison(False, part, difference, not_compared)
            for target, tensor in zip(targets, tensors, strict=True):
                target[name].copy_(tensor.to(dtype))
        outputs = [side.run(part, x) for side in sides]
        same, difference = _compare(outputs, torch.float32, TOLERANCE)
        if not same:
            return Comparison(False, part, difference, not_compared)
        largest = max(largest, difference or 0.0)
        x = x + outputs[0] if ".layers." in part else outputs[0]
    return Comparison(True, None, largest, not_compared)


def _roundings(tensors: list[torch.Tensor]) -> list[torch.dtype]:
    """The types that one of two tensors may have been rounded to, to become the other: those of 16 bits among theirs.

    Block-FP8 has been read as fp32, the values that it stands for.
    """
    short = {tensor.dtype for tensor in tensors} & {torch.bfloat16, torch.float16}
    return sorted(short, key=str) or [torch.float32]


def _compare(pair: list[torch.Tensor], dtype: torch.dtype, tolerance: float) -> tuple[bool, float | None]:
    """Whether all rows agree once they are rounded to `dtype`, and the largest difference (None: it overflows)."""
    same, largest = True, 0.0
    for rows in zip(*(torch.split(tensor, _ROWS) for tensor in pair), strict=True):
        a, b = (row.to(dtype).float() for row in rows)
        difference = (a - b).abs()
        same = same and bool((difference <= tolerance * a.abs().amax(-1, keepdim=True)).all())
        largest = max(largest, difference.max().item())
    return same, largest if isfinite(largest) else None


class _Side:
    """One folder, a part in memory at a time: the embedding, each layer, the last norm, the head.

    `parts` has the names and shapes of each part's tensors.
    """

    def __init__(self, folder: Path) -> None:
        self.config = ModelConfig.from_folder(folder)
        self.stored = StoredTensors(folder)
        shapes = shapes_of(self.config)
        self.left_out = check_names(self.stored, self.config, shapes)
        self.parts: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, shape in shapes.items():
            layer = re.match(r"model\.layers\.\d+", name)
            self.parts.setdefault(layer[0] if layer else name.removesuffix(".weight"), {})[name] = shape
        with without_weights():
            self._model = Transformer(self.config).eval()

    def take(self, part: str) -> dict[str, torch.Tensor]:
        """Room for a part's tensors, in fp32."""
        inner = part.removeprefix("model.")
        module = self._model.get_submodule(inner).to_empty(device="cpu")
        return hf_names(module.state_dict(prefix=f"{inner}."))

    def run(self, part: str, x: torch.Tensor) -> torch.Tensor:
        """What a part makes of `x` (ids for the embedding, activations [B, T, D] for others), and give up its memory.

        Of a layer only what it adds: the residual stream would hide a small difference.
        """
        module = self._model.get_submodule(part.removeprefix("model."))
        if ".layers." in part:
            cos_NP, sin_NP = rotary_table(self.config, x.dtype, x.device)
            time = x.shape[1]
            out: torch.Tensor = module(x, (cos_NP[:time, None], sin_NP[:time, None])) - x
        else:
            out = module(x)
        module.to("meta")
        return out
