"""Calls do what is declared, all of it or nothing, and never fail otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.core import ToolCall
from openk2.worlds.apps import expression
from openk2.worlds.apps.declaration import read_domain
from openk2.worlds.apps.interpreter import Interpreter
from openk2.worlds.apps.state import diff
from worlds.apps.shop import GIVEN, SHOP, call, filled, shop

DOMAIN = shop()
APP = Interpreter(DOMAIN)


def test_a_call_changes_the_state() -> None:
    before = filled(DOMAIN)
    state = before.copy()
    result = call(APP, state, "cancel_order", order_id="ORD-1002")
    assert json.loads(result.content)["status"] == "cancelled" and not result.error
    assert diff(before, state) == [
        "customers CUS-1002: credit 100.0 -> 110.5",
        "orders ORD-1002: status open -> cancelled",
    ]
    placed = json.loads(call(APP, state, "place_order", total=5, day="2026-05-02").content)
    assert placed == {"id": "ORD-1009", "customer": "CUS-1002", "status": "open", "total": 5.0, "day": "2026-05-02"}
    assert diff(before, state)[-1] == "orders ORD-1009: new, customer CUS-1002, status open, total 5.0, day 2026-05-02"
    closed = call(APP, state, "close_account", customer_id="CUS-1002")
    assert json.loads(closed.content) == {"left": 3, "sold": 178.5}
    assert "orders ORD-1006: removed" in diff(before, state)
    listed = call(APP, state, "list_orders", customer_id="CUS-1004", least=40)
    assert json.loads(listed.content) == [{"id": "ORD-1008", "total": 73.5}]


def test_all_loops_of_a_call_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = {"that": "not any(o.total > customer.credit + 1000 for o in orders)", "error": "No."}
    tool = {
        "name": "look", "description": "Look.", "parameters": {"customer_id": {"ref": "customers"}},
        "requires": [guard] * 9, "effects": [{"update": "customer", "values": {"name": "'x'"}}],
        "returns": {"row": "customer"},
    }  # fmt: skip
    domain = read_domain({**SHOP, "tools": [tool]})
    app, before = Interpreter(domain), filled(domain)
    state = before.copy()
    monkeypatch.setattr(expression, "_MOST_ROWS", 8 * 8)
    result = call(app, state, "look", customer_id="CUS-1002")
    assert result.error and "look cannot be computed: it goes through more than 64 rows" in result.content
    assert diff(before, state) == []
    monkeypatch.setattr(expression, "_MOST_ROWS", 9 * 8)
    assert not call(app, state, "look", customer_id="CUS-1002").error


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("cancel_order", {"order_id": "ORD-1006"}, "Order ORD-1006 is sent."),
        ("cancel_order", {"order_id": "ORD-1003"}, "It is not yours."),
        ("cancel_order", {"order_id": "ORD-1"}, "no order has the id 'ORD-1'"),
        ("cancel_order", {}, "cancel_order needs 'order_id'"),
        ("cancel_order", {"order_id": 3}, "order_id must be a text, not 3"),
        ("cancel_order", {"order": "ORD-1003"}, "no parameter 'order': it has order_id"),
        ("place_order", {"total": 5000, "day": "2026-05-01"}, "Only 100.0 left."),
        ("place_order", {"total": 0, "day": "2026-05-01"}, "total must be at least 0.01"),
        ("place_order", {"total": True, "day": "2026-05-01"}, "must be a number, not true"),
        ("place_order", {"total": 1, "day": "May 1"}, "must be a date such as"),
        ("place_order", {"total": float("inf"), "day": "2026-05-01"}, "at most 1e+15"),
        ("place_order", {"total": 1, "day": "\ud800"}, "day must be a text"),
        ("sell", {}, "there is no tool 'sell'"),
        # The first of two effects fits, the second does not.
        ("befriend", {"friend_id": "CUS-1001", "fee": 101}, "credit would be -1, and at least 0 is allowed"),
    ],
)
def test_a_call_that_may_not_be_changes_nothing(name: str, arguments: dict[str, Any], words: str) -> None:
    state = filled(DOMAIN)
    before = state.hash()
    result = call(APP, state, name, **arguments)
    assert result.error and words in json.loads(result.content)["error"]
    assert state.hash() == before


def test_two_ways_to_one_end_are_one_end() -> None:
    first, second = filled(DOMAIN), filled(DOMAIN)
    call(APP, first, "place_order", total=5, day="2026-05-02")
    call(APP, first, "place_order", total=7, day="2026-05-03")
    call(APP, first, "cancel_order", order_id="ORD-1002")
    call(APP, second, "cancel_order", order_id="ORD-1002")
    call(APP, second, "place_order", total=7, day="2026-05-03")
    assert first.hash() != second.hash()
    call(APP, second, "place_order", total=5, day="2026-05-02")
    assert first.hash() == second.hash()
    # The ids that a state began with do count, and so does how often something was done.
    call(APP, second, "place_order", total=5, day="2026-05-02")
    assert first.hash() != second.hash()
    assert first.copy().hash() == first.hash() != first.begun().hash()


IDS = ["CUS-1002", "ORD-1002"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(IDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
NAMES = st.sampled_from(["order_id", "customer_id", "friend_id", "least", "total", "day", "fee", "x"])


@given(st.sampled_from([*DOMAIN.by_name, "x"]), st.dictionaries(NAMES, JSON, max_size=3) | JSON)
def test_any_call_has_a_result(name: str, arguments: Any) -> None:
    state = filled(DOMAIN)
    before = state.hash()
    result = APP.execute(state, ToolCall("c", name, json.dumps(arguments)), GIVEN)
    json.loads(result.content)
    if result.error:
        assert state.hash() == before
    result = APP.execute(state, ToolCall("c", name, str(arguments)), GIVEN)
    assert json.loads(result.content) is not None
