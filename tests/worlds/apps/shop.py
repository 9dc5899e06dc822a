"""A shop: the app that the tests of apps work with."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from openk2.core import ToolCall, ToolResult
from openk2.worlds.apps.declaration import Domain, read_domain
from openk2.worlds.apps.interpreter import Interpreter
from openk2.worlds.apps.state import State

SHOP: dict[str, Any] = tomllib.loads("""
name = "shop"
category = "Retail"
title = "Shop"
users = "customers"

[entities.customers]
prefix = "CUS"
singular = "customer"
label = "name"
fields.name = {}
fields.credit = { type = "number", minimum = 0 }
fields.friend = { ref = "customers", optional = true }

[entities.orders]
prefix = "ORD"
singular = "order"
fields.customer = { ref = "customers" }
fields.status = { values = ["open", "sent", "cancelled"] }
fields.total = { type = "number" }
fields.day = { type = "date" }

[[tools]]
name = "cancel_order"
description = "Cancel an order that was not sent yet; what it cost is given back."
parameters.order_id = { ref = "orders" }
requires = [
    { that = 'order.status == "open"', error = "Order {order.id} is {order.status}." },
    { that = "order.customer == user or customers[order.customer].friend == user", error = "It is not yours." },
]
effects = [
    { update = "order", values = { status = '"cancelled"' } },
    { each = "customers", update = "c", where = "c.id == order.customer", values = { credit = "c.credit + order.total" } },
]
returns = { row = "order" }

[[tools]]
name = "list_orders"
description = "The orders of a customer, the cheapest first."
parameters.customer_id = { ref = "customers" }
parameters.least = { type = "number", optional = true }
returns = { rows = "orders", name = "o", where = "o.customer == customer.id and (least is None or o.total >= least)", sort = "total", fields = ["id", "total"] }

[[tools]]
name = "place_order"
description = "Order something for an amount."
parameters.total = { type = "number", minimum = 0.01 }
parameters.day = { type = "date" }
requires = [{ that = "total <= customers[user].credit", error = "Only {customers[user].credit} left." }]
effects = [
    { create = "orders", name = "order", values = { customer = "user", status = '"open"', total = "total", day = "day" } },
    { each = "customers", update = "c", where = "c.id == user", values = { credit = "c.credit - total" } },
]
returns = { row = "order" }

[[tools]]
name = "close_account"
description = "Delete a customer and all that is open."
parameters.customer_id = { ref = "customers" }
effects = [
    { each = "orders", delete = "o", where = "o.customer == customer.id" },
    { delete = "customer" },
]
returns = { values = { left = "count(c for c in customers)", sold = "sum(o.total for o in orders if o.status == 'sent')" } }

[[tools]]
name = "befriend"
description = "Name a friend and take a fee, which may be more than there is."
parameters.friend_id = { ref = "customers" }
parameters.fee = { type = "integer" }
effects = [
    { each = "customers", update = "c", where = "c.id == user", values = { friend = "friend.id" } },
    { each = "customers", update = "d", where = "d.id == user", values = { credit = "d.credit - fee" } },
]
returns = { values = { friend = "friend.name" } }
""")
GIVEN = {"today": "2026-05-01", "user": "CUS-1002"}


def shop() -> Domain:
    return read_domain(SHOP)


def filled(domain: Domain) -> State:
    state = State(domain)
    for number in range(4):
        state.create("customers", {"name": f"N{number}", "credit": 100.0 * number})
    for number in range(8):
        status = ("open", "sent")[number // 4]
        values = {"customer": f"CUS-{1001 + number % 4}", "status": status, "total": 10.5 * number, "day": "2026-04-30"}
        state.create("orders", values)
    return state.copy()


def call(interpreter: Interpreter, state: State, name: str, **arguments: Any) -> ToolResult:
    return interpreter.execute(state, ToolCall("c", name, json.dumps(arguments)), GIVEN)
