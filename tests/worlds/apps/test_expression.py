"""Expressions compute what they say, and what is wrong with one is named."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.worlds.apps import expression
from openk2.worlds.apps.expression import ExpressionError, RowOf, Type, parse, parse_condition, parse_template
from worlds.apps.shop import filled, shop

TYPES: dict[str, Type] = {
    "user": "text", "today": "date", "customer": RowOf("customers"), "order": RowOf("orders"), "n": "integer",
    "x": "number", "nobody": RowOf("customers"), "word": "text", "unknown": "integer",
}  # fmt: skip


def nested(depth: int) -> str:
    """Loops over rows in each other, which find nothing."""
    text = "n > 5"
    for level in range(depth):
        text = f"any({text} for o{level} in orders)"
    return text


@pytest.fixture(scope="module")
def compute() -> Any:
    domain = shop()
    state = filled(domain)
    scope = {
        "user": "CUS-1002", "today": "2026-05-01", "customer": state.row("customers", "CUS-1003"),
        "order": state.row("orders", "ORD-1003"), "n": 3, "x": 2.5, "nobody": None, "word": "Tea", "unknown": None,
    }  # fmt: skip
    return lambda text: parse(text, TYPES, domain.field_types).compute(scope, state)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("customer.credit", 200.0),
        ("customers[order.customer].name", "N2"),
        ('order.status == "open" and n > 2', True),
        ('order.status in ("sent", "cancelled")', False),
        ('"te" in lower(word) and length(word) == 3', True),
        ("n + 1 if n < 5 else 0", 4),
        ("-n * x / 2", -3.75),
        ("n // 2 + n % 2", 2),
        ("x / 0", None),
        ("days(order.day, today)", 1),
        ('plus_days(today, n) > "2026-05-03"', True),
        ("count(o for o in orders if o.customer == customer.id)", 2),
        ("sum(o.total for o in orders)", 294.0),
        ("max(o.total for o in orders if o.total > 999)", None),
        ("any(o.total > 70 for o in orders) and not all(o.total > 70 for o in orders)", True),
        ("round(x * 1.111, 1)", 2.8),
        # No power of ten is computed that no number needs.
        ("round(5, -3000000000)", 0),
        ("round(x, 3000000000)", 2.5),
        ("sum(1000000000000000 for o in orders)", None),
        ("sum(sum(1000000000000000 for o in orders) for c in customers)", 0),
        # What is missing makes nothing fail.
        ("nobody.credit is None", True),
        ("nobody.credit + 1 is None", True),
        ("nobody.credit > 0", False),
        ("unknown <= 3", False),
        ('customers["CUS-1"].name == None', True),
        ("customers[nobody.friend] is None", True),
    ],
)
def test_values(compute: Any, text: str, value: Any) -> None:
    assert compute(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("order.statu == 1", "no field 'statu'"),
        ("order.status == 1", "cannot be compared"),
        ("order == customer", "compares a row"),
        ("word + 1", "only numbers"),
        ("nothing", "unknown"),
        ("customers", "an entity"),
        ("wares[n]", "no entity 'wares'"),
        ("customers[n]", "text is needed"),
        ("__import__('os')", "no function '__import__'"),
        ("order.__class__", "no field '__class__'"),
        ("(lambda: 1)()", "no part of these"),
        ("[o for o in orders]", "no part of these"),
        ("1 < n < 3", "no part of these"),
        ("n ** 9 ** 9", "joined by"),
        ("1e300", "no value"),
        ("sum(o.status for o in orders)", "only numbers have a sum"),
        ("any(o.total for o in orders)", "needs true or false"),
        ("count(order for order in orders)", "is taken"),
        ("count(o for o in orders for c in customers)", "write NAME"),
        ("days(n, today)", "a date is needed"),
        ("order.day > n", "cannot be compared"),
        ("x is 3", "only None"),
        ("'a' 'b", "cannot be read"),
        ("n + " * 300 + "1", "too long"),
        ("(" * 500 + "n" + ")" * 500, "cannot be read"),
        ("n if n else 1", "boolean is needed"),
        ("n in (1, 'a')", "values of the type"),
        (nested(5), "more than 4 loops over rows stand in each other"),
        (nested(24), "more than 4 loops over rows stand in each other"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(ExpressionError, match=words.replace("(", r"\(")):
        parse(text, TYPES, shop().field_types)


def test_what_goes_through_too_many_rows_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = shop()
    state = filled(domain)
    many = parse(nested(4), TYPES, domain.field_types)
    assert many.compute({"n": 3}, state) is False
    monkeypatch.setattr(expression, "_MOST_ROWS", 4000)
    with pytest.raises(expression.TooManyRows, match="more than 4000 rows"):
        many.compute({"n": 3}, state)
    # Side by side they count each by itself.
    assert parse(f"{nested(3)} or {nested(3)}", TYPES, domain.field_types).compute({"n": 3}, state) is False


def test_a_condition_is_true_or_false() -> None:
    with pytest.raises(ExpressionError, match="a condition is true or false"):
        parse_condition("n + 1", TYPES, shop().field_types)


def test_templates() -> None:
    domain = shop()
    state = filled(domain)
    fill = parse_template("{customer.name} has {customer.credit + 1}, {{{nobody}}}", TYPES, domain.field_types)
    scope = {"customer": state.row("customers", "CUS-1002"), "nobody": None}
    assert fill(scope, state) == "N1 has 101.0, {none}"
    for text in ("{", "{customer.nam}", "{n:>5}", "{}"):
        with pytest.raises(ExpressionError):
            parse_template(text, TYPES, domain.field_types)


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_a_mistake(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        parse(text, TYPES, shop().field_types)
