"""Keeps benchmark text out of training text: no document may share 13 words in a row with a benchmark.

Words are runs of letters and digits, case ignored. Every 13-word window is hashed to 64 bits, so that tens of millions
of windows fit into one sorted array (suffix legend: N windows or words).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openk2.core import UserError
from openk2.core.runs import sha256_file

WINDOW = 13
_WORD = re.compile(r"[^\W_]+")
# What lies in the data pack without being a benchmark: licences, provenance notes, K2's vocabulary.
_NOT_BENCHMARK_FILES = re.compile(r"(^|/)(LICEN[CS]E[^/]*|SOURCE|README[^/]*|k2_tokenizer/.*)$")
_BINARY_SUFFIXES = (".png", ".jpg", ".gif", ".svg", ".jar", ".zip", ".gz", ".parquet", ".model", ".lock")

Hashes = NDArray[np.uint64]


class BenchmarkIndex:
    """All 13-word windows of some texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._word_hashes = _WordHashes()
        found = [hashes for text in texts if (hashes := self._windows(text)).size]
        self._sorted_N: Hashes = np.sort(np.concatenate(found)) if found else np.empty(0, np.uint64)

    @classmethod
    def from_folder(cls, folder: Path) -> BenchmarkIndex:
        """Of every benchmark file in a data pack. Raises UserError if the folder does not exist."""
        check_pack(folder)
        return cls(_folder_texts(folder))

    def __len__(self) -> int:
        """How many windows there are, repeated ones counted."""
        return len(self._sorted_N)

    def overlap(self, text: str) -> str | None:
        """The first 13 words that `text` shares with the benchmarks, or None."""
        hashes_N = self._windows(text)
        if not hashes_N.size or not self._sorted_N.size:
            return None
        at_N = np.minimum(np.searchsorted(self._sorted_N, hashes_N), len(self._sorted_N) - 1)
        hits = np.flatnonzero(self._sorted_N[at_N] == hashes_N)
        if not hits.size:
            return None
        first = int(hits[0])
        return " ".join(_words(text)[first : first + WINDOW])

    def _windows(self, text: str) -> Hashes:
        # Cells of a table, most of all: so many words do not fit in, even without blanks between them.
        if len(text) < WINDOW:
            return np.empty(0, np.uint64)
        words = _words(text)
        if len(words) < WINDOW:
            return np.empty(0, np.uint64)
        word_N = np.fromiter(map(self._word_hashes.__getitem__, words), np.uint64, len(words))
        count = len(words) - WINDOW + 1
        total_N = np.zeros(count, np.uint64)
        # A polynomial over the words, modulo 2^64 (numpy wraps around).
        for i in range(WINDOW):
            total_N = total_N * np.uint64(0x9E3779B97F4A7C15) + word_N[i : i + count]
        return total_N


def check_pack(folder: Path) -> None:
    """Raises UserError if a data pack does not exist."""
    if not folder.is_dir():
        raise UserError(f"the data pack {folder} (OPENK2_DATA) is not a folder: unset the variable or correct it")


class _WordHashes(dict[str, int]):
    """64-bit hashes of words, each computed once."""

    def __missing__(self, word: str) -> int:
        self[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return self[word]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _folder_texts(folder: Path) -> Iterator[str]:
    seen: set[str] = set()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative = path.relative_to(folder).as_posix()
        if _NOT_BENCHMARK_FILES.search(relative) or path.suffix in _BINARY_SUFFIXES:
            continue
        # A test library lies beside every exercise of a benchmark.
        digest = sha256_file(path)
        if digest not in seen:
            seen.add(digest)
            yield from _file_texts(path)


def _file_texts(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".csv":
        yield from (cell for row in csv.reader(text.splitlines()) for cell in row)
        return
    if path.suffix in (".json", ".jsonl"):
        try:
            values = [json.loads(text)]
        except (ValueError, RecursionError):
            try:
                values = [json.loads(line) for line in text.splitlines() if line.strip()]
            except (ValueError, RecursionError):
                values = []
        # Escapes such as \n would glue themselves to words, so strings are read, not the file's text.
        yield from (s for value in values for s in _strings(value))
        if values:
            return
    yield text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
