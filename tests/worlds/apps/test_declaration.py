"""A declaration is checked as a whole, and each mistake is one sentence that names where it is."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from openk2.core import UserError
from openk2.worlds.apps.declaration import read_domain
from worlds.apps.shop import SHOP, shop


def changed(path: str, value: Any) -> dict[str, Any]:
    """The shop with another value at a path."""
    raw = copy.deepcopy(SHOP)
    *parents, last = path.split(".")
    holder: Any = raw
    for part in parents:
        holder = holder[int(part)] if isinstance(holder, list) else holder[part]
    holder[int(last) if isinstance(holder, list) else last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("tools.0.requires.0.that", 'order.state == "open"', "tool cancel_order: requires.0: .*no field 'state'"),
        ("tools.0.requires.0.that", "order.total", "tool cancel_order: requires.0: .*true or false"),
        ("tools.0.requires.0.error", "{order.x}", "tool cancel_order: requires.0: .*no field 'x'"),
        ("tools.0.effects.0.update", "ordr", "tool cancel_order: effects.0: 'ordr' is no row"),
        ("tools.0.effects.0.values", {"total": '"x"'}, "orders.total is a number"),
        ("tools.0.effects.0.values", {}, "update needs values"),
        ("tools.0.effects.1.where", "c.id", "effects.1: .*true or false"),
        ("tools.2.effects.0.values", {"customer": "user"}, "a row of orders needs status, total, day"),
        ("tools.2.effects.0.delete", "order", "one of create, update and delete"),
        ("tools.2.returns", {"row": "ordr"}, "returns: row is 'ordr'"),
        ("tools.2.returns", {}, "returns one of row, rows and values"),
        ("tools.1.returns.sort", "price", "no field 'price'"),
        ("tools.1.returns.rows", "order", "no such entity"),
        ("tools.0.parameters.order_id", {"ref": "order"}, "parameter order_id refers to 'order'"),
        ("tools.0.parameters", {"user": {}}, "the name 'user' is taken"),
        ("tools.0.parameters", {"order_id": {"reff": "orders"}}, "cancel_order.parameters.order_id.reff: there is"),
        ("tools.0.name", "list_orders", "two tools have the same name"),
        ("tools.0.name", "Cancel!", "tools.Cancel!.name"),
        ("tools", [], "it has no tools"),
        ("users", "people", "users is 'people'"),
        ("entities.orders.prefix", "CUS", "same prefix"),
        ("entities.orders.label", "nam", "label is 'nam'"),
        ("entities.orders.fields.customer", {"ref": "cats"}, "field customer refers to 'cats'"),
        ("entities.orders.fields.id", {}, "has an id of its own"),
        ("entities.orders.fields.total", {"type": "float"}, "entities.orders.fields.total.type"),
        ("entities.sqlite_x", {"prefix": "SQL", "singular": "x", "fields": {}}, "entity sqlite_x: names with sqlite_"),
        ("entities.orders.fields", {f"f{n}": {} for n in range(2100)}, "entity orders: it has 2100 fields"),
    ],
)  # fmt: skip
def test_mistakes(path: str, value: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as e:
        read_domain(changed(path, value), "shop.json")
    assert str(e.value).startswith("shop.json: ") and "\n" not in str(e.value)


def test_text_that_is_no_json() -> None:
    with pytest.raises(UserError, match="it is not JSON"):
        read_domain("{", "x.json")
    with pytest.raises(UserError, match="it is not JSON"):
        read_domain('{"entities": ' + "[" * 100_000 + "]" * 100_000 + "}", "x.json")
    assert read_domain(json.dumps(SHOP)) == shop()


def test_tools_are_declared_to_a_model() -> None:
    specs = {tool.name: tool.spec() for tool in shop().tools}
    for spec in specs.values():
        Draft202012Validator.check_schema(dict(spec.parameters))
    assert specs["place_order"].parameters == {
        "type": "object",
        "properties": {
            "total": {"type": "number", "minimum": 0.01},
            "day": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
        },
        "required": ["total", "day"],
        "additionalProperties": False,
    }
    assert specs["list_orders"].parameters["required"] == ["customer_id"]
