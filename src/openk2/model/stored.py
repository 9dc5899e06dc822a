"""The tensors of a model folder on disk, read one at a time whatever its size: shards, block-FP8, checks.

Block-FP8 (DeepSeek-V3, k2.md 1.5): a matrix in e4m3 and one fp32 factor per block of 128 x 128, stored under the same
name with `_scale_inv`; weight = block * factor, edge blocks are smaller.

Legend: R rows, C columns, r and c blocks of them.
"""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from openk2.core import UserError
from openk2.model.config import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
BLOCK = 128
FP8 = torch.float8_e4m3fn
SCALE = "_scale_inv"


class StoredTensors:
    """Names, shapes and values of the tensors in a folder's safetensors files.

    One file is open at a time and nothing is kept, so a pass in the order of `names` needs the memory of one tensor.
    Raises UserError naming the file: one that is missing or cut short, or an index that says otherwise than the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            str(folder).encode()
        except UnicodeEncodeError as e:
            raise UserError(
                f"{folder}: the name is not UTF-8, which weights cannot be read by: rename the folder"
            ) from e
        self._path: Path | None = None
        self._open: Any = None
        self._files: dict[str, Path] = {}
        # A single file goes before an index, which transformers leaves where it was.
        listed = None if (folder / WEIGHTS).exists() else _listed(folder)
        for path in [folder / WEIGHTS] if listed is None else sorted(set(listed.values())):
            if not path.exists():
                raise UserError(f"{path} does not exist: the folder holds no complete model")
            # What the index does not list may be there as well, and is left out.
            names = self._file(path).keys()
            self._files |= {name: path for name in names if listed is None or listed.get(name) == path}
        if wrong := sorted((listed or {}).keys() - self._files.keys()):
            raise UserError(f"{folder / INDEX}: tensor {wrong[0]} is not where the index says: copy the model again")
        self.names = [name for name in self._files if not name.endswith(SCALE)]

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._files[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Without reading the values."""
        return tuple(self._file(self._files[name]).get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        """The values as stored, block-FP8 as fp32.

        Raises UserError for integers, for other packed floats than block-FP8, for numbers that are not finite, and
        for factors that do not fit.
        """
        path = self._files[name]
        tensor: torch.Tensor = self._get(path, name)
        if not tensor.is_floating_point():
            raise UserError(
                f"{path}: tensor {name} holds {tensor.dtype}, not floats: only block-FP8 is read of packed weights"
            )
        if tensor.dtype.itemsize == 1 or name + SCALE in self:
            if tensor.dtype != FP8:
                raise UserError(
                    f"{path}: tensor {name} is packed as {tensor.dtype}: only {FP8} with one factor per block is read"
                )
            if name + SCALE not in self:
                raise UserError(f"{path}: tensor {name} is FP8 and {name + SCALE} is missing: copy the model again")
            scale_rc = self._get(self._files[name + SCALE], name + SCALE)
            blocks = [ceil(size / BLOCK) for size in tensor.shape]
            if tensor.dim() != 2 or list(scale_rc.shape) != blocks or not scale_rc.is_floating_point():
                raise UserError(
                    f"{path}: tensor {name + SCALE} has shape {list(scale_rc.shape)} in {scale_rc.dtype}, not one "
                    "factor per block: copy the model again"
                )
            tensor = dequantise(tensor, scale_rc)
        if not tensor.isfinite().all():
            raise UserError(f"{path}: tensor {name} holds NaN or infinite numbers: copy the model again")
        return tensor

    def read_as(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """The values in another type. Raises UserError as `read`, and for numbers that are too large for it."""
        tensor = self.read(name).to(dtype)
        if not tensor.isfinite().all():
            raise UserError(f"{self.path(name)}: tensor {name} is too large for {dtype}: choose another type")
        return tensor

    def _get(self, path: Path, name: str) -> torch.Tensor:
        try:
            tensor: torch.Tensor = self._file(path).get_tensor(name)
        except (SafetensorError, OSError) as e:
            raise UserError(f"{path} is cut short or damaged ({e}): copy or save the model again") from e
        return tensor

    def _file(self, path: Path) -> Any:
        if path != self._path:
            self._open = None
            if not os.access(path, os.R_OK):
                raise UserError(f"{path} may not be read (permission denied): let yourself read it")
            try:
                self._open = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as e:
                raise UserError(f"{path} is cut short or damaged ({e}): copy or save the model again") from e
            self._path = path
        return self._open


def dequantise(weight_RC: torch.Tensor, scale_rc: torch.Tensor) -> torch.Tensor:
    """Block-FP8 to fp32."""
    rows, columns = weight_RC.shape
    scale_RC = scale_rc.float().repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :columns]
    return weight_RC.float() * scale_RC


def _listed(folder: Path) -> dict[str, Path] | None:
    """Where the index says that each tensor is; None if there is no index."""
    index = folder / INDEX
    if not index.exists():
        return None
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise UserError(f"{index} is damaged (no names of files in weight_map): copy or save the model again")
    return {name: folder / place for name, place in places.items()}
