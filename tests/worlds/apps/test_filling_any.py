"""Any declaration that is accepted can be filled, not only those whose fields are like ours."""

from __future__ import annotations

from typing import Any

import pytest

from openk2.worlds.apps.declaration import read_domain
from openk2.worlds.apps.filling import fill


def domain(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "any",
        "category": "c",
        "title": "t",
        "entities": {"things": {"prefix": "T", "singular": "thing", "fields": fields}},
        "tools": [{"name": "list_things", "description": "All.", "returns": {"rows": "things"}}],
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"start": {"type": "date"}, "end": {"type": "date", "optional": True}},
        {"start": {"type": "integer"}, "end": {"type": "date"}},
        {"start": {"type": "number"}, "end": {"type": "number"}},
        {"seats_taken": {"optional": True}, "seats": {"type": "integer"}},
        {"spent": {"type": "number", "optional": True}, "budget": {"type": "number", "optional": True}},
    ],
)
def test_any_declaration_can_be_filled(fields: dict[str, Any]) -> None:
    for seed in range(8):
        state = fill(read_domain(domain(fields)), seed)
        assert 6 <= len(state.rows("things")) <= 10
        state.close()
