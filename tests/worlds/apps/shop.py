"""A shop: the app that the tests of apps work with."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from openk2.core import ToolCall, ToolResult
from openk2.worlds.apps.declaration import Domain, read_domain
from openk2.worlds.apps.interpreter import Interpreter
from openk2.worlds.apps.state import State

SHOP: dict[str, Any] = tomllib.loads((Path(__file__).parent / "shop.toml").read_text(encoding="utf-8"))
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
    return state.begun()


def call(interpreter: Interpreter, state: State, name: str, **arguments: Any) -> ToolResult:
    return interpreter.execute(state, ToolCall("c", name, json.dumps(arguments)), GIVEN)
