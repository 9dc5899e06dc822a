"""Token shards: documents as one long run of ids on disk, read through memory maps.

A shard folder holds three plain numpy files: `tokens.npy` (uint16, all documents end to end), `mask.npy` (bool, one
entry per token: whether the token is learned from) and `offsets.npy` (int64, where each document begins, plus the end).
A folder appears under its name only when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from openk2.core import UserError
from openk2.core.runs import half_written

TOKEN_DTYPE = np.dtype(np.uint16)
MASK_DTYPE = np.dtype(np.bool_)
OFFSET_DTYPE = np.dtype(np.int64)
LARGEST_ID = int(np.iinfo(TOKEN_DTYPE).max)


class _GrowingArray:
    """A 1-D `.npy` file that is appended to; numpy leaves room in the header for the final length."""

    def __init__(self, path: Path, dtype: np.dtype[np.generic]) -> None:
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115  (lives as long as the writer; closed by `close`)
        self._dtype = dtype
        self._length = 0
        self._write_header()

    def _write_header(self) -> None:
        description = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._length,)}
        npy.write_array_header_1_0(self._file, description)

    def append(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).tobytes())
        self._length += len(values)

    def finish(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def close(self) -> None:
        self._file.close()


class ShardWriter:
    """Writes a shard folder; as a context manager it completes the folder only when the block ends well.

    An existing folder of that name is replaced at that moment. Raises UserError when the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._building = half_written(folder)
        self._offsets = [0]
        shutil.rmtree(self._building, ignore_errors=True)
        try:
            self._building.mkdir(parents=True)
            self._tokens = _GrowingArray(self._building / "tokens.npy", TOKEN_DTYPE)
            self._mask = _GrowingArray(self._building / "mask.npy", MASK_DTYPE)
        except OSError as e:
            raise _cannot_write(folder, e) from e

    @property
    def tokens(self) -> int:
        """Tokens added so far."""
        return self._offsets[-1]

    @property
    def documents(self) -> int:
        return len(self._offsets) - 1

    def add(self, ids: Sequence[int] | np.ndarray, mask: Sequence[bool] | np.ndarray | None = None) -> None:
        """Append one document. Without a mask every token is learned from.

        Raises UserError for an id that does not fit 16 bits; ValueError if ids and mask differ in length.
        """
        ids_N = np.asarray(ids, dtype=np.int64)
        mask_N = np.ones(len(ids_N), dtype=MASK_DTYPE) if mask is None else np.asarray(mask, dtype=MASK_DTYPE)
        if len(mask_N) != len(ids_N):
            raise ValueError(f"{len(ids_N)} ids but {len(mask_N)} mask entries")
        if len(ids_N) and (ids_N.min() < 0 or ids_N.max() > LARGEST_ID):
            raise UserError(
                f"token id {int(ids_N.max())} does not fit the 16-bit shards in {self.folder}: "
                f"use a vocabulary of at most {LARGEST_ID + 1}"
            )
        self._append(ids_N, mask_N)
        self._offsets.append(self._offsets[-1] + len(ids_N))

    def extend(self, shards: Shards) -> None:
        """Append all documents of another folder, in order."""
        self._append(shards.tokens, shards.mask)
        start = self._offsets[-1]
        self._offsets.extend(int(end) + start for end in shards.offsets[1:])

    def _append(self, ids_N: np.ndarray, mask_N: np.ndarray) -> None:
        try:
            self._tokens.append(ids_N)
            self._mask.append(mask_N)
        except OSError as e:
            raise _cannot_write(self.folder, e) from e

    def close(self) -> None:
        """Complete the folder. Raises UserError when the disk is full."""
        try:
            self._tokens.finish()
            self._mask.finish()
            offsets = _GrowingArray(self._building / "offsets.npy", OFFSET_DTYPE)
            offsets.append(np.asarray(self._offsets, dtype=OFFSET_DTYPE))
            offsets.finish()
            shutil.rmtree(self.folder, ignore_errors=True)
            self._building.replace(self.folder)
        except OSError as e:
            raise _cannot_write(self.folder, e) from e

    def abandon(self) -> None:
        """Throw away what was written."""
        self._tokens.close()
        self._mask.close()
        shutil.rmtree(self._building, ignore_errors=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


class Shards:
    """A shard folder, memory-mapped. Raises UserError naming the file that is missing, cut short or inconsistent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = _load(folder / "tokens.npy", TOKEN_DTYPE)
        self.mask = _load(folder / "mask.npy", MASK_DTYPE)
        self.offsets = np.array(_load(folder / "offsets.npy", OFFSET_DTYPE))
        lengths_agree = (
            len(self.offsets) > 0
            and self.offsets[0] == 0
            and bool(np.all(np.diff(self.offsets) >= 0))
            and self.offsets[-1] == len(self.tokens) == len(self.mask)
        )
        if not lengths_agree:
            raise UserError(f"the token shards in {folder} do not fit together: delete the folder to make them again")

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per document, [documents]."""
        return np.diff(self.offsets)

    def document(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids (uint16) and mask (bool) of one document, as views of the memory maps."""
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.tokens[start:end], self.mask[start:end]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.document(i) for i in range(len(self)))


def _load(path: Path, dtype: np.dtype[np.generic]) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as e:
        raise UserError(f"{path} is missing: delete {path.parent} to make these token shards again") from e
    except (ValueError, OSError, EOFError) as e:
        # numpy cannot map an empty array: a valid file of length 0 is read instead.
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            raise UserError(f"{path} is damaged or cut short: delete {path.parent} to make it again") from e
    if array.dtype != dtype or array.ndim != 1:
        raise UserError(f"{path} holds {array.dtype} of {array.ndim} dimensions, not a run of {dtype}: delete it")
    return np.asarray(array) if len(array) == 0 else array


def _cannot_write(folder: Path, error: OSError) -> UserError:
    return UserError(f"could not write token shards to {folder}: {error.strerror or error}; free some space")
