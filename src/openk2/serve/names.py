"""Names of tools that K2's rule does not know, mapped to names that it does, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable

_RULE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{2,63}")
_LONGEST = 64


class ToolNames:
    """One mapping per request.

    Args:
        declared: the names that the client declares, all different.

    A name that follows the rule stays as it is. Of others what does not belong is replaced, and a number makes it
    unique. Names that occur in the history alone are mapped in the same way when they are met.
    """

    def __init__(self, declared: Iterable[str]) -> None:
        self._to_model: dict[str, str] = {}
        self._to_client: dict[str, str] = {}
        names = list(declared)
        # Lawful names first: nothing else may take them.
        for name in sorted(names, key=lambda name: _RULE.fullmatch(name) is None):
            self.to_model(name)

    def to_model(self, name: str) -> str:
        """The name in the prompt."""
        if name not in self._to_model:
            mapped = self._unique(name)
            self._to_model[name], self._to_client[mapped] = mapped, name
        return self._to_model[name]

    def to_client(self, name: str) -> str:
        """The name that the client knows."""
        return self._to_client.get(name, name)

    def _unique(self, name: str) -> str:
        lawful = name
        if _RULE.fullmatch(name) is None:
            lawful = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_LONGEST]
            if not re.match(r"[a-zA-Z_]", lawful):
                lawful = f"_{lawful}"[:_LONGEST]
            lawful = lawful.ljust(3, "_")
        number, unique = 1, lawful
        while unique in self._to_client:
            number += 1
            unique = f"{lawful[: _LONGEST - 1 - len(str(number))]}_{number}"
        return unique
