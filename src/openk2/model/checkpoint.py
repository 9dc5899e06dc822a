"""Weights in and out of folders with Hugging Face names: the same folder loads in transformers, vLLM and SGLang.

In memory a layer's routed experts are fused into two tensors; on disk each expert has its own `gate_proj`, `up_proj`
and `down_proj` (k2.md 1.4). The router's bias is always stored in fp32.

Legend: E experts, D hidden, I expert intermediate size.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from openk2.chat.k2_vocabulary import RANKS
from openk2.core import UserError
from openk2.core.runs import atomic_path, write_text
from openk2.model.config import ModelConfig, read_json
from openk2.model.stored import INDEX, WEIGHTS, StoredTensors
from openk2.model.transformer import Block, Transformer, without_weights

# A multi-token prediction head joins the next token's embedding to what it continues.
_PREDICTION_PARTS = ("eh_proj", "enorm", "hnorm")
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "tiktoken.model", "tokenizer.model"),
)
DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def hf_state_dict(model: Transformer) -> dict[str, torch.Tensor]:
    """The weights under their Hugging Face names; experts are views into the fused tensors."""
    return hf_names(model.state_dict())


def hf_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same for a part of a model, `tensors` being named as in the whole of it."""
    state: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("experts.gate_up_proj"):
            for expert, gate_up in enumerate(tensor):
                gate, up = gate_up.chunk(2)
                state[_expert(name, expert, "gate_proj")] = gate
                state[_expert(name, expert, "up_proj")] = up
        elif name.endswith("experts.down_proj"):
            for expert, down in enumerate(tensor):
                state[_expert(name, expert, "down_proj")] = down
        else:
            state[name if name.startswith("lm_head.") else f"model.{name}"] = tensor
    return state


def _expert(fused_name: str, expert: int, part: str) -> str:
    return f"model.{fused_name.rpartition('.')[0]}.{expert}.{part}.weight"


def save(
    model: Transformer,
    folder: str | Path,
    tokenizer_folder: str | Path | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write config.json, model.safetensors and, from `tokenizer_folder`, the tokenizer's files.

    `dtype` is the storage type of the weights (default: the model's own). Each file is replaced atomically.
    Raises UserError when the disk is full or the tokenizer's folder is not there.
    """
    folder = Path(folder)
    if tokenizer_folder is not None and not (Path(tokenizer_folder) / "tokenizer.json").exists():
        raise UserError(f"{tokenizer_folder} holds no tokenizer.json: name a tokenizer folder")
    dtype = dtype or model.lm_head.weight.dtype
    state = {
        name: tensor.detach().to("cpu", torch.float32 if name.endswith("bias") else dtype).contiguous().clone()
        for name, tensor in hf_state_dict(model).items()
    }
    config = model.config.to_hf() | {"dtype": DTYPE_NAMES[dtype], "torch_dtype": DTYPE_NAMES[dtype]}
    write_tensors(folder / WEIGHTS, state)
    (folder / INDEX).unlink(missing_ok=True)
    write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    if tokenizer_folder is not None and Path(tokenizer_folder).resolve() != folder.resolve():
        for path in tokenizer_files(Path(tokenizer_folder)):
            copy_file(path, folder)


def tokenizer_files(folder: Path) -> list[Path]:
    """What a tokenizer consists of: the files that are in the folder, and the code that its settings name."""
    names = {*_TOKENIZER_FILES, *(path.name for path in folder.glob("tokenization*.py"))}
    if (settings := folder / "tokenizer_config.json").exists():
        # "module.Class", or "owner/repository--module.Class" for code that may have been copied here.
        code = re.findall(r'"(?:[^"]*--)?(\w+)\.\w+"', json.dumps(read_json(settings).get("auto_map")))
        names |= {f"{module}.py" for module in code}
    return [folder / name for name in sorted(names) if (folder / name).exists()]


def has_tokenizer(folder: Path) -> bool:
    """Whether there is a tokenizer that this project reads."""
    return any((folder / name).exists() for name in ("tokenizer.json", RANKS))


def copy_file(path: Path, folder: Path) -> None:
    """Copy a file into a folder atomically. Raises UserError when the disk is full."""
    with atomic_path(folder / path.name) as temporary:
        shutil.copyfile(path, temporary)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write one safetensors file atomically. Raises UserError when the disk is full."""
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as e:
            # A full disk is none of OSError here.
            raise UserError(f"could not write {path} ({e}): free some space or choose another folder") from e


def load(folder: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> Transformer:
    """Read a model folder written by `save`, by transformers or as block-FP8, in evaluation mode.

    `dtype` None keeps the storage type of the head. Raises UserError naming the file and the tensor when a file is
    missing, cut short, or belongs to another configuration.
    """
    folder = Path(folder)
    config = ModelConfig.from_folder(folder)
    stored = StoredTensors(folder)
    check_names(stored, config, shapes_of(config))
    with without_weights():
        model = Transformer(config)
    dtype = dtype or stored.read("lm_head.weight").dtype
    # Not `to_empty`, which imports sympy for tensors without memory: a second before the first word of any model.
    sizes = model.to(dtype).state_dict()
    empty = {name: torch.empty(one.shape, dtype=one.dtype, device=device) for name, one in sizes.items()}
    model.load_state_dict(empty, assign=True)
    fill(hf_state_dict(model), stored)
    for moe in model.moe_layers():
        moe.expert_counts_E = torch.zeros(config.n_routed_experts, dtype=moe.expert_counts_E.dtype, device=device)
    return model.eval()


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a checkpoint's tensors by their Hugging Face names, in the order of the layers."""
    table = (config.vocab_size, config.hidden_size)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": table}
    # One layer of each kind stands for all: a model of 61 layers takes seconds to build.
    kinds: dict[bool, dict[str, tuple[int, ...]]] = {}
    for layer in range(config.num_hidden_layers):
        moe = config.is_moe(layer)
        if moe not in kinds:
            kinds[moe] = _block_shapes(config, layer)
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in kinds[moe].items()}
    return shapes | {"model.norm.weight": table[1:], "lm_head.weight": table}


def _block_shapes(config: ModelConfig, layer: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one layer's tensors by their names within it."""
    with without_weights():
        block = Block(config, layer)
    tensors = hf_names(block.state_dict(prefix="layers.0."))
    return {name.removeprefix("model.layers.0."): tuple(tensor.shape) for name, tensor in tensors.items()}


def check_names(stored: StoredTensors, config: ModelConfig, wanted: Mapping[str, tuple[int, ...]]) -> int:
    """Raise UserError unless the folder has exactly the tensors that the configuration asks for, in their shapes.

    Rotary tables (computed, not stored) and multi-token prediction heads (not supported: layers past the last one, as
    many as config.json has of them) may be there besides. Returns how many tensors belong to such heads.
    """
    left_out = 0
    end = config.num_hidden_layers + _prediction_layers(stored.folder)
    for name in stored.names:
        if name not in wanted:
            found = re.match(r"model\.layers\.(\d+)\.", name)
            layer = int(found[1]) if found else 0
            if layer >= end:
                raise UserError(
                    f"{stored.path(name)}: tensor {name} is of a layer that config.json does not have: the weights "
                    "belong to another configuration"
                )
            if layer >= config.num_hidden_layers:
                if not any(f"model.layers.{layer}.{part}.weight" in stored for part in _PREDICTION_PARTS):
                    raise UserError(
                        f"{stored.path(name)}: layer {layer} is past the last one of config.json and no prediction "
                        "head: num_hidden_layers is too small, or the weights belong to another configuration"
                    )
                left_out += 1
            elif not name.endswith("rotary_emb.inv_freq"):
                raise UserError(
                    f"{stored.path(name)}: tensor {name} does not belong to the model that config.json describes"
                )
            continue
        if (shape := stored.shape(name)) != wanted[name]:
            raise UserError(
                f"{stored.path(name)}: tensor {name} has shape {list(shape)}, config.json asks for "
                f"{list(wanted[name])}: the weights belong to another configuration"
            )
    missing = sorted(name for name in wanted if name not in stored)
    if missing:
        raise UserError(
            f"{stored.folder}: {len(missing)} tensors are missing from the weights, the first is {missing[0]}"
        )
    return left_out


def _prediction_layers(folder: Path) -> int:
    """How many layers after the last one predict further tokens (DeepSeek-V3 has one, K2 none)."""
    path = folder / "config.json"
    count = read_json(path).get("num_nextn_predict_layers") or 0
    if not isinstance(count, int) or count < 0:
        raise UserError(f"{path}: num_nextn_predict_layers is {count!r}, not a number of layers: repair the file")
    return count


@torch.no_grad()
def fill(targets: Mapping[str, torch.Tensor], stored: StoredTensors) -> None:
    """Copy stored values into tensors by name, in the order of the files."""
    for name in stored.names:
        if name in targets:
            targets[name].copy_(stored.read(name))
