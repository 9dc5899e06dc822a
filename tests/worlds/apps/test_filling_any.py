"""Any declaration that is accepted can be filled, not only those whose fields are like ours."""

from __future__ import annotations

from typing import Any

import pytest

from openk2.core import UserError
from openk2.worlds.apps.declaration import KINDS, read_domain
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


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 4}, "nothing lies between its minimum and its maximum"),
        ({"type": "integer", "minimum": 0.2, "maximum": 0.8}, "nothing lies between"),
        ({"type": "number", "maximum": 1e300}, "lie between -1e"),
        ({"type": "number", "minimum": float("inf")}, "finite"),
        ({"values": []}, "values is empty"),
        ({"type": "date", "minimum": 3}, "it is a date: leave out minimum"),
    ],
)
def test_what_nothing_can_be_is_refused(field: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_domain(domain({"x": field}))
    raw = domain({})
    raw["tools"][0]["parameters"] = {"x": field}
    with pytest.raises(UserError, match=words):
        read_domain(raw)


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"field x: there is no kind 'monney': there are name, title, .*money"):
        read_domain(domain({"x": {"type": "number", "kind": "monney"}}))


@pytest.mark.parametrize("kind", ["", *KINDS])
@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"maximum": 2},
        {"minimum": 100},
        {"minimum": 1000, "maximum": 1001},
        {"maximum": -0.5},
        {"minimum": 0.5},
        {"minimum": -3.25, "maximum": -2.75},
    ],
)
def test_numbers_are_of_their_type_and_within_their_bounds(kind: str, bounds: dict[str, float]) -> None:
    fields = {"a": {"type": "integer", "kind": kind, **bounds}, "b": {"type": "number", "kind": kind, **bounds}}
    for seed in range(4):
        for row in fill(read_domain(domain(fields)), seed).rows("things"):
            assert type(row["a"]) is int and type(row["b"]) is float
            for value in row.values():
                low, high = bounds.get("minimum", -1000), bounds.get("maximum", 2000)
                assert isinstance(value, str) or low <= value <= high


def test_bounds_below_zero() -> None:
    fields = {"a": {"type": "integer", "maximum": -5}, "b": {"type": "number", "maximum": -5}}
    rows = fill(read_domain(domain(fields)), 0).rows("things")
    assert all(row["a"] <= -5 and row["b"] <= -5 for row in rows)
