"""What a tool does, up to renaming: two tools with the same structure differ in words and numbers alone.

Names of parameters, rows, entities, fields and states are replaced by the order in which they come, numbers by their
type; what remains is which things are compared, counted, created and changed, and how. Near-doubles are found by names,
schemas and structures, and by the words of their descriptions (MinHash).
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from openk2.worlds.apps.declaration import GIVEN, Domain, Tool, row_name
from openk2.worlds.apps.expression import FUNCTIONS

_KEPT = frozenset({*GIVEN, *FUNCTIONS, "any", "all", "count", "sum", "min", "max", "True", "False", "None"})
_PERMUTATIONS, _BANDS, _ALIKE = 64, 8, 0.9


class _Renamed(ast.NodeTransformer):
    """Names by the order in which they come."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def rename(self, name: str, what: str) -> str:
        return self.names.setdefault(f"{what} {name}", f"{what}{len(self.names)}")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return node if node.id in _KEPT else ast.Name(self.rename(node.id, "n"))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        value = self.visit(node.value)
        return ast.Attribute(value, "id" if node.attr == "id" else self.rename(node.attr, "f"))

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            return ast.Name(self.rename(node.value, "s"))
        if isinstance(node.value, bool) or node.value is None:
            return node
        return ast.Name("number")


def structure(tool: Tool) -> str:
    """The preconditions and effects of a tool that writes, what a tool that reads looks for, up to renaming."""
    renamed = _Renamed()

    def plain(text: str | None) -> str:
        return "" if text is None else ast.unparse(renamed.visit(_tree(text)))

    parameters = []
    for name, parameter in tool.parameters.items():
        kind = renamed.rename(parameter.ref, "n") if parameter.ref else "choice" if parameter.values else parameter.type
        parameters.append([renamed.rename(name, "n"), kind, parameter.optional])
        if parameter.ref:
            renamed.rename(row_name(name), "n")
    guards = sorted(plain(guard.that) for guard in tool.requires)
    effects = []
    for effect in tool.effects:
        values = sorted((renamed.rename(field, "f"), plain(text)) for field, text in effect.values.items())
        whole = [("create", effect.create), ("update", effect.update), ("delete", effect.delete), ("each", effect.each)]
        named = [(kind, renamed.rename(name, "n")) for kind, name in whole if name]
        effects.append([named, plain(effect.where), values])
    # Of a call that changes something it is no matter what is shown of it.
    returns: list[object] = []
    if not tool.effects:
        given = tool.returns
        returns = [
            bool(given.row),
            bool(given.rows),
            plain(given.where),
            given.sort is not None,
            given.limit is not None,
        ]
        returns += sorted(plain(text) for text in given.values.values())
    return json.dumps([parameters, guards, effects, returns])


def _tree(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def schema_of(tool: Tool) -> str:
    """The schema of the arguments, without descriptions."""
    parts = {
        name: [p.type, p.ref is not None, p.values, p.minimum, p.maximum, p.optional]
        for name, p in tool.parameters.items()
    }
    return json.dumps(parts, sort_keys=True)


class Doubles:
    """Finds tools that are nearly those that came before."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._meanings: set[str] = set()
        self._buckets: dict[tuple[str, int, bytes], list[NDArray[np.uint64]]] = {}
        rng = np.random.default_rng(0)
        self._odd = rng.integers(0, 1 << 63, _PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._mixed = rng.integers(0, 1 << 63, _PERMUTATIONS, dtype=np.uint64)

    def reason(self, tool: Tool) -> str | None:
        """Why a tool is a double of an earlier one: `name`, `meaning` or `description`; None if it is new, and from
        now on it is an earlier one."""
        meaning = structure(tool)
        if self._names.get(tool.name) == meaning:
            return "name"
        words = _words(tool.name.replace("_", " "))
        exact = hashlib.sha256((" ".join(sorted(words)) + schema_of(tool) + meaning).encode()).hexdigest()
        if exact in self._meanings:
            return "meaning"
        signature = self._signature(_words(tool.description + " " + tool.name.replace("_", " ")))
        width = _PERMUTATIONS // _BANDS
        keys = [(meaning, at, signature[at : at + width].tobytes()) for at in range(0, _PERMUTATIONS, width)]
        if any(float((other == signature).mean()) >= _ALIKE for key in keys for other in self._buckets.get(key, ())):
            return "description"
        for key in keys:
            self._buckets.setdefault(key, []).append(signature)
        self._names[tool.name] = meaning
        self._meanings.add(exact)
        return None

    def _signature(self, words: Iterable[str]) -> NDArray[np.uint64]:
        hashes = np.array([_hash(word) for word in words], dtype=np.uint64)
        if not len(hashes):
            return np.zeros(_PERMUTATIONS, dtype=np.uint64)
        least: NDArray[np.uint64] = ((hashes[:, None] ^ self._mixed) * self._odd).min(axis=0)
        return least


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))


def structures(domains: Iterable[Domain]) -> dict[str, int]:
    """How many tools have each structure."""
    counts: dict[str, int] = {}
    for domain in domains:
        for tool in domain.tools:
            found = structure(tool)
            counts[found] = counts.get(found, 0) + 1
    return counts
