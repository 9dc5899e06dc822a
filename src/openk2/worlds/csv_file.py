"""A CSV file of a person's own as a table, or the sentence that says why it is none."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from openk2.core import UserError
from openk2.worlds.families.tables import Column, Kind, Table

MAX_BYTES = 20_000_000
MOST_COLUMNS = 1000
HEAD_LINES = 1000
UNNAMED = "Unnamed: "
"""How pandas calls a column without a name, with its number behind."""

# What pandas reads as a missing value.
_MISSING = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "<NA>"),
        *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "-NaN", "-nan"),
    )
)
# Longer ones are account numbers and the like, and no float holds them exactly.
_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
_LONG = re.compile(r"[+-]?[0-9]{16,}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_YEAR = re.compile(r"(1[89]|20)[0-9]{2}")


def load_csv(path: Path) -> Table:
    """Read and check a comma-separated file with a header.

    Raises UserError, one sentence, if it is missing, unreadable, empty, binary, too large, not separated by commas,
    without a header or without rows.
    """
    return _table(path, _rows(path, _text(path)))


def check_csv(path: Path) -> None:
    """Raise UserError, one sentence, for a file that is no table with a header to any reader.

    That is less than `load_csv` asks for; of what comes after the first lines only the encoding is looked at.
    """
    lines = itertools.islice(io.StringIO(_text(path), newline=""), HEAD_LINES)
    with suppress(csv.Error):
        head, *body = [row for row in csv.reader(lines) if row]
        rows = [head, *(row for row in body if len(row) == len(head))]
        _check_header(path, [tuple(row[i].strip() for row in rows) for i in range(len(head))])


def _text(path: Path) -> str:
    """The text of a file that is not empty. Raises UserError."""
    if not str(path).isprintable():
        raise UserError(f"the name {str(path)!r} has bytes that are not UTF-8, or control characters: rename the file")
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: name a CSV file")
        if not path.exists():
            raise UserError(f"there is no file {path}: name a CSV file")
        if not path.is_file():
            raise UserError(f"{path} is a device or a pipe: name a CSV file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"{path} has {size / 1e6:,.1f} MB, more than the {MAX_BYTES / 1e6:.0f} MB that this takes: cut it down"
            )
        data = path.read_bytes()
    except OSError as e:
        raise UserError(f"{path} cannot be read ({e.strerror}): name a CSV file that you can read") from e
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path} is UTF-16 text: convert it to UTF-8 first, e.g. with iconv")
    if b"\0" in data:
        raise UserError(f"{path} is binary, not text: name a comma-separated text file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8 text (byte {e.start}): convert it first, e.g. with iconv") from e
    if not text.strip():
        raise UserError(f"{path} is empty: name a CSV file with a header and rows")
    return text


def _rows(path: Path, text: str) -> list[list[str]]:
    """Header and rows, all of the same length. Raises UserError."""
    first, *others = [line for line in text.splitlines() if line.strip()][:5]
    if re.fullmatch(r"sep=.", first):
        raise UserError(f"{path} begins with {first!r}, which only Excel understands: take that line out")
    mark = max(";\t|", key=first.count)
    # A mark that only the header has is a part of a name.
    if first.count(mark) > first.count(",") and all(mark in line for line in others):
        raise UserError(f"{path} is not separated by commas (its first line is {first[:60]!r}): convert it first")
    rows: list[list[str]] = []
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, strict=True)
    try:
        for row in reader:
            # What pandas takes for a blank line; blanks in quotation marks are a cell.
            if not lines[reader.line_num - 1].strip(" \t\r\n") and len(row) <= 1:
                continue
            if rows and len(row) != len(rows[0]):
                raise UserError(
                    f"{path} has {len(row)} cells in line {reader.line_num} and {len(rows[0])} in its header: repair it"
                )
            rows.append(row)
    except csv.Error as e:
        raise UserError(f"{path} is not a readable CSV (line {reader.line_num}: {e}): repair it") from e
    return rows


def _table(path: Path, rows: list[list[str]]) -> Table:
    """The table of checked rows. Raises UserError where there is no header or nothing to ask about."""
    head, *body = rows
    if len(head) > MOST_COLUMNS:
        raise UserError(
            f"{path} has {len(head):,} columns, more than the {MOST_COLUMNS:,} that this takes: cut it down"
        )
    columns = [tuple(row[i].strip() for row in rows) for i in range(len(head))]
    _check_header(path, columns)
    # A column without a name, as an index has that was written along, gets the name that pandas gives it.
    names = [cell or f"{UNNAMED}{i}" for i, cell in enumerate(head)]
    if odd := [name for name in names if not name.isprintable()]:
        raise UserError(f"{path} has a column name with control characters ({odd[0][:60]!r}): rename the column")
    twice, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path} has two columns named {twice!r}: rename one")
    if not body:
        raise UserError(f"{path} has a header but no rows: there is nothing to ask about")
    cells = tuple(tuple("" if cell in _MISSING else cell for cell in row) for row in body)
    kinds = [_kind([row[i] for row in cells]) for i in range(len(names))]
    return Table(path.name, tuple(Column(name, kind, (name,)) for name, kind in zip(names, kinds, strict=True)), cells)


def _check_header(path: Path, columns: Sequence[Sequence[str]]) -> None:
    if _no_header(columns):
        first = ",".join(column[0] for column in columns)[:60]
        raise UserError(f"{path} seems to have no header (its first line is {first!r}): add column names")


def _no_header(columns: Sequence[Sequence[str]]) -> bool:
    """Whether the first line looks like data: numbers that are no years, nothing at all, or a value that comes again.

    Years may head the columns of a wide table, next to names or, where no year stands below, alone. A word over a
    column of numbers is a header whatever comes again elsewhere.
    """
    head = [column[0] for column in columns]
    # What pandas writes for columns that nobody named.
    if head == ["", *map(str, range(len(head) - 1))] and len(head) > 1:
        return False
    named = [cell for cell in head if cell]
    numbers = [cell for cell in named if _DECIMAL.fullmatch(cell)]
    if not named or any(not _YEAR.fullmatch(cell) for cell in numbers):
        return True
    if len(numbers) == len(named):
        below = {cell for column in columns for cell in column[1:]}
        return len(set(named)) < len(named) or any(map(_YEAR.fullmatch, below))
    if any(cell and all(map(_DECIMAL.fullmatch, filter(None, rest))) and any(rest) for cell, *rest in columns):
        return False
    return any(cell and cell in rest for cell, *rest in columns)


def _kind(cells: Sequence[str]) -> Kind:
    """Numbers as pandas would read them; a column without any value is not one."""
    present = [cell.strip() for cell in cells if cell]
    if present and all(_INTEGER.fullmatch(cell) for cell in present):
        return "int"
    if present and all(_is_decimal(cell) for cell in present):
        return "float"
    return "category"


def _is_decimal(cell: str) -> bool:
    return bool(_DECIMAL.fullmatch(cell)) and not _LONG.fullmatch(cell) and math.isfinite(float(cell))
