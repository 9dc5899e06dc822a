"""Weights in and out of folders with Hugging Face names: the same folder loads in transformers, vLLM and SGLang.

In memory a layer's routed experts are fused into two tensors; on disk each expert has its own `gate_proj`, `up_proj`
and `down_proj` (k2.md 1.4). The router's bias is always stored in fp32.

Legend: E experts, D hidden, I expert intermediate size.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from openk2.core import UserError
from openk2.core.runs import atomic_path, write_text
from openk2.model.config import ModelConfig
from openk2.model.transformer import Transformer

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
_DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def hf_state_dict(model: Transformer) -> dict[str, torch.Tensor]:
    """The weights under their Hugging Face names; experts are views into the fused tensors."""
    state: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
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
    config = model.config.to_hf() | {"dtype": _DTYPE_NAMES[dtype], "torch_dtype": _DTYPE_NAMES[dtype]}
    with atomic_path(folder / _WEIGHTS) as temporary:
        try:
            save_file(state, temporary, metadata={"format": "pt"})
        except SafetensorError as e:
            # A full disk is none of OSError here.
            raise UserError(
                f"could not write {folder / _WEIGHTS} ({e}): free some space or choose another folder"
            ) from e
    (folder / _INDEX).unlink(missing_ok=True)
    write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    if tokenizer_folder is not None and Path(tokenizer_folder).resolve() != folder.resolve():
        for name in _TOKENIZER_FILES:
            source = Path(tokenizer_folder) / name
            if source.exists():
                with atomic_path(folder / name) as temporary:
                    shutil.copyfile(source, temporary)


def load(folder: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> Transformer:
    """Read a model folder written by `save` or by transformers, in evaluation mode.

    `dtype` None keeps the storage type of the head. Raises UserError naming the file and the tensor when a file is
    missing, cut short, or belongs to another configuration.
    """
    folder = Path(folder)
    config = ModelConfig.from_folder(folder)
    try:
        str(folder).encode()
    except UnicodeEncodeError as e:
        raise UserError(f"{folder}: the name is not UTF-8, which weights cannot be read by: rename the folder") from e
    with torch.device("meta"):
        model = Transformer(config)
    wanted = {name: tensor.shape for name, tensor in hf_state_dict(model).items()}
    stored: dict[str, torch.Tensor] = {}
    for path, name, tensor in _stored_tensors(folder):
        if name not in wanted:
            if _may_ignore(name, config):
                continue
            raise UserError(f"{path}: tensor {name} does not belong to the model that config.json describes")
        if tensor.shape != wanted[name]:
            raise UserError(
                f"{path}: tensor {name} has shape {list(tensor.shape)}, config.json asks for {list(wanted[name])}: "
                "the weights belong to another configuration"
            )
        if not tensor.is_floating_point():
            raise UserError(f"{path}: tensor {name} holds {tensor.dtype}, not floats: quantised weights are not read")
        stored[name] = tensor
    missing = sorted(wanted.keys() - stored.keys())
    if missing:
        raise UserError(f"{folder}: {len(missing)} tensors are missing from the weights, the first is {missing[0]}")
    dtype = dtype or stored["lm_head.weight"].dtype
    model = model.to(dtype).to_empty(device=device)
    _fill(model, stored)
    for moe in model.moe_layers():
        moe.expert_counts_E.zero_()
    return model.eval()


@torch.no_grad()
def _fill(model: Transformer, stored: dict[str, torch.Tensor]) -> None:
    for name, target in hf_state_dict(model).items():
        target.copy_(stored[name])


def _stored_tensors(folder: Path) -> Iterator[tuple[Path, str, torch.Tensor]]:
    """Every (file, name, tensor) of the folder's safetensors files."""
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                for name in names:
                    yield path, name, file.get_tensor(name)
        except (SafetensorError, OSError) as e:
            raise UserError(f"{path} is cut short or damaged ({e}): copy or save the model again") from e


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.exists():
        files = [folder / _WEIGHTS]
    else:
        try:
            raw: Any = json.loads(index.read_text(encoding="utf-8"))
            files = sorted({folder / name for name in raw["weight_map"].values()})
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as e:
            raise UserError(f"{index} is damaged ({type(e).__name__}): copy or save the model again") from e
    for file in files:
        if not file.exists():
            raise UserError(f"{file} does not exist: the folder holds no complete model")
    return files


def _may_ignore(name: str, config: ModelConfig) -> bool:
    """Rotary tables (computed, not stored) and layers past the last one (multi-token prediction heads)."""
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    return name.endswith("rotary_emb.inv_freq") or (layer is not None and int(layer[1]) >= config.num_hidden_layers)
