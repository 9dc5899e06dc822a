"""How a person says which row they mean, and how an agent finds it.

A row is named by its id, by what it is called, or through what it belongs to ("the checkup of Bella on 2026-05-03").
Every way is tried against the state: the calls of a way end in a result that shows the row, and the words fit no other.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openk2.synth.wording import in_first_person, label, said
from openk2.worlds.apps.declaration import Domain, Tool
from openk2.worlds.apps.expression import Row
from openk2.worlds.apps.interpreter import Interpreter, Refused
from openk2.worlds.apps.state import State

Call = tuple[str, dict[str, Any]]
_BY_ID = 0.2
_DEPTH = 2
_QUOTED = ("title", "subject")


@dataclass(frozen=True, slots=True)
class Found:
    """Words for a row, and the calls that find it, in their order."""

    words: str
    calls: tuple[Call, ...]


class Locator:
    """Finds rows with the tools that an agent has."""

    def __init__(
        self,
        interpreter: Interpreter,
        state: State,
        tools: Mapping[str, Tool],
        given: Mapping[str, Any],
        rng: random.Random,
    ) -> None:
        self._interpreter, self._state, self._given, self._rng = interpreter, state, given, rng
        self._domain: Domain = interpreter.domain
        self._readers = [tool for tool in tools.values() if not tool.writes and tool.returns.rows]

    def find(self, entity: str, row: Row, depth: int = _DEPTH) -> Found:
        """Words for a row and the way to it; its id by chance, or where nothing else does."""
        declared = self._domain.entities[entity]
        if row["id"] == self._given["user"] and self._rng.random() < 0.7:
            return Found("me", ())
        plain = Found(f"{declared.singular.replace('_', ' ')} {row['id']}", ())
        if self._rng.random() < _BY_ID:
            return plain
        ways = [self._by_label, self._by_parent] if self._rng.random() < 0.6 else [self._by_parent, self._by_label]
        for way in ways:
            if (found := way(entity, row, depth)) is not None:
                return found
        return plain

    def _by_label(self, entity: str, row: Row, depth: int) -> Found | None:
        declared = self._domain.entities[entity]
        if declared.label is None:
            return None
        name = row[declared.label]
        same = [other for other in self._state.rows(entity) if str(name).lower() in str(other[declared.label]).lower()]
        if len(same) != 1:
            return None
        for tool in self._readers:
            needed = [key for key, parameter in tool.parameters.items() if not parameter.optional]
            if tool.returns.rows != entity or len(needed) != 1 or len(tool.parameters) != 1:
                continue
            parameter = tool.parameters[needed[0]]
            if parameter.ref or parameter.values or parameter.type != "text":
                continue
            call: Call = tool.name, {needed[0]: name}
            if self._shows(call, row):
                singular = declared.singular.replace("_", " ")
                called = f'"{name}"' if declared.label in _QUOTED else str(name)
                words = called if self._rng.random() < 0.3 else f"the {singular} {called}"
                return Found(words, (call,))
        return None

    def _by_parent(self, entity: str, row: Row, depth: int) -> Found | None:
        if depth == 0:
            return None
        declared = self._domain.entities[entity]
        for tool in self._rng.sample(self._readers, len(self._readers)):
            needed = [key for key, parameter in tool.parameters.items() if not parameter.optional]
            if tool.returns.rows != entity or len(needed) != 1 or not (ref := tool.parameters[needed[0]].ref):
                continue
            for field, own in declared.fields.items():
                if own.ref != ref or row[field] is None:
                    continue
                call: Call = tool.name, {needed[0]: row[field]}
                parent = self._state.row(ref, row[field])
                shown = self._shown(call)
                mine = next((one for one in shown if one.get("id") == row["id"]), None)
                if parent is None or mine is None:
                    continue
                which = self._distinction(entity, mine, shown)
                if which is None:
                    continue
                above = self.find(ref, parent, depth - 1)
                singular = declared.singular.replace("_", " ")
                words = in_first_person(f"the {singular} of {above.words}")
                return Found(f"{words}{which}", (*above.calls, call))
        return None

    def _distinction(self, entity: str, row: Row, others: list[Row]) -> str | None:
        """What tells a row from the others that are shown with it; nothing if it is alone."""
        if len(others) == 1:
            return ""
        for field in self._rng.sample(list(row), len(row)):
            value = row[field]
            if field == "id" or value is None or isinstance(value, bool):
                continue
            if sum(other[field] == value for other in others) > 1 or self._is_reference(value):
                continue
            if field == "date":
                return f" on {value}"
            if field in _QUOTED:
                return f' called "{value}"'
            if field == "name":
                return f" called {value}"
            declared = self._domain.entities[entity].fields[field]
            words = said(value) if declared.values or declared.type != "text" else f'"{value}"'
            return f" with the {label(field, declared.type)} {words}"
        return None

    def _is_reference(self, value: Any) -> bool:
        prefix = str(value).partition("-")[0]
        return any(entity.prefix == prefix for entity in self._domain.entities.values())

    def _shown(self, call: Call) -> list[Row]:
        try:
            shown = self._interpreter.run(self._state, self._domain.by_name[call[0]], call[1], self._given)
        except Refused:
            return []
        return shown if isinstance(shown, list) else []

    def _shows(self, call: Call, row: Row) -> bool:
        return any(one.get("id") == row["id"] for one in self._shown(call))
