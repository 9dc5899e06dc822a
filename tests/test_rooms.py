"""A room imports only from the rooms above it in the table of docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "openk2"


def rooms() -> list[str]:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## The rooms")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.M)


def imported(file: Path) -> Iterator[str]:
    """The rooms that a file names in its imports, those inside of functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("openk2."))


def test_every_room_is_in_the_table() -> None:
    assert set(rooms()) == {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}


def test_a_room_imports_only_from_those_above() -> None:
    order = {room: number for number, room in enumerate(rooms())}
    upwards = [
        f"{file.relative_to(SOURCE)} imports {name}"
        for room in order
        for file in sorted((SOURCE / room).rglob("*.py"))
        for name in imported(file)
        if order.get(name, -1) > order[room]
    ]
    assert upwards == []


def test_what_to_read_first_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| `([\w.]+)` \|$", text, re.M)
    assert len(rows) == len(rooms())
    assert [f"{room}/{name}" for room, name in rows if not (SOURCE / room / name).exists()] == []
    paths = re.findall(r"`((?:\w+/)+\w+\.\w+)`", text)
    assert [p for p in paths if not ((SOURCE / p).exists() or (ROOT / p).exists())] == []
