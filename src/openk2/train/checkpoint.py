"""Training checkpoints: everything a run needs to go on with the same bytes.

`FOLDER/step-00000120/state.safetensors` holds master weights, buffers and optimizer state; the shape of the whole
(step, hyper-parameters, which tensor belongs where) is JSON in its header. A checkpoint is written under another name,
flushed to the disk and renamed: one that is there is whole. The last two are kept, at the end only the last. No state
of a random generator is stored because the loop draws no random number: data order is a function of (seed, step).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from openk2.core import UserError
from openk2.core.runs import half_written
from openk2.train.folder import STEP_PREFIX, checkpoints_in, remove_half_written, step_name

KEEP = 2
_FILE = "state.safetensors"


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any], keep: int = KEEP) -> None:
    """Write `state` (nested dicts, lists, tensors, JSON values) as the checkpoint of `step`, then drop old ones.

    Raises UserError when the disk is full; earlier checkpoints then stay as they are.
    """
    final = folder / step_name(step)
    building = half_written(final)
    tensors: dict[str, torch.Tensor] = {}
    structure = _pack(dict(state), "", tensors)
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        save_file(tensors, building / _FILE, metadata={"state": json.dumps(structure)})
        for path in (building / _FILE, building):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        shutil.rmtree(final, ignore_errors=True)
        building.replace(final)
    except (OSError, SafetensorError) as e:
        shutil.rmtree(building, ignore_errors=True)
        kept = "earlier checkpoints are intact" if checkpoints_in(folder) else "there is no earlier one"
        raise UserError(
            f"could not write the checkpoint {final}: {getattr(e, 'strerror', None) or e}; {kept}: free some space and "
            "run the same command again"
        ) from e
    for old in checkpoints_in(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def load_latest(folder: Path, device: str = "cpu") -> tuple[int, dict[str, Any]] | None:
    """Step and state of the newest checkpoint; None if there is none. Raises UserError if it is damaged."""
    remove_half_written(folder)
    found = checkpoints_in(folder)
    if not found:
        return None
    path = found[-1] / _FILE
    try:
        with safe_open(path, framework="pt", device=device) as file:
            structure = json.loads(file.metadata()["state"])
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            state = _unpack(structure, tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        earlier = f"go on from {found[-2].name}" if len(found) > 1 else "start this stage afresh"
        raise UserError(f"the checkpoint {path} is damaged or cut short: delete {found[-1]} to {earlier}") from e
    return int(found[-1].name.removeprefix(STEP_PREFIX)), state


def _pack(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON that stands for `value`; tensors go to `tensors` under their path. Keys keep their type, tuples do not."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().contiguous()
        return {"tensor": path}
    if isinstance(value, dict):
        return {
            "dict": [[key, _pack(item, f"{path}/{key}" if path else str(key), tensors)] for key, item in value.items()]
        }
    if isinstance(value, list | tuple):
        return {"list": [_pack(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    return {"value": value}


def _unpack(packed: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    ((kind, content),) = packed.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "dict":
            return {key: _unpack(item, tensors) for key, item in content}
        case "list":
            return [_unpack(item, tensors) for item in content]
        case "value":
            return content
        case _:
            raise ValueError(f"unknown kind {kind!r}")
