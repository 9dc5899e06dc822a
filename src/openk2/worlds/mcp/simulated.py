"""A simulated server: what was inferred of its tools, executed by the interpreter of simulated apps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from openk2.core import ToolCall, ToolResult, UserError
from openk2.core.messages import compact_json
from openk2.worlds.apps.declaration import read_domain
from openk2.worlds.apps.filling import fill, today_of
from openk2.worlds.apps.interpreter import Interpreter
from openk2.worlds.mcp.specs import Spec, arguments_of, validator_of


class Bridge(BaseModel):
    """How a call of the original tool becomes one of the declared tool: its name, what its arguments are called, which
    of them are JSON as text, and which has no effect or only bounds a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str
    arguments: dict[str, str]
    encoded: tuple[str, ...] = ()
    limit: str = ""


class Simulation(BaseModel):
    """A declaration, and how each simulated tool comes to it. `names` are the fields as the server writes them,
    `encoded` those that hold JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    declaration: dict[str, Any]
    bridges: dict[str, Bridge]
    names: dict[str, str] = {}
    encoded: tuple[str, ...] = ()


class Simulated:
    """A simulated server: the tools as they are declared by the original, over a state of its own."""

    def __init__(self, simulation: Simulation, specs: Sequence[Spec], seed: int = 0) -> None:
        self._simulation = simulation
        domain = read_domain(simulation.declaration)
        self.specs = {spec.name: spec for spec in specs if spec.name in simulation.bridges}
        self._validators = {spec.name: validator_of(spec) for spec in self.specs.values()}
        self._interpreter = Interpreter(domain)
        self.state = fill(domain, seed)
        self._given = {"today": today_of(seed), "user": ""}

    def call(self, call: ToolCall) -> ToolResult:
        """What a call returns, once its arguments fit the original schema."""
        bridge = self._simulation.bridges.get(call.name)
        if bridge is None:
            return ToolResult.failure(f"there is no tool {call.name!r}")
        try:
            given = arguments_of(call, self._validators[call.name])
        except UserError as e:
            return ToolResult.failure(str(e))
        arguments: dict[str, Any] = {}
        for original, value in given.items():
            name = bridge.arguments.get(original)
            if name is not None and value is not None:
                arguments[name] = compact_json(value) if name in bridge.encoded else value
        declared = ToolCall(call.id, bridge.tool, compact_json(arguments))
        result = self._interpreter.execute(self.state, declared, self._given)
        if result.error:
            return result
        content = json.loads(result.content)
        limit = given.get(bridge.limit)
        if isinstance(content, list):
            if isinstance(limit, int | float) and limit >= 0:
                content = content[: int(limit)]
            return ToolResult(compact_json([self._renamed(row) for row in content]))
        return ToolResult(compact_json(self._renamed(content) if isinstance(content, dict) else content))

    def _renamed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        names, encoded = self._simulation.names, self._simulation.encoded
        return {names.get(key, key): _decoded(value) if key in encoded else value for key, value in row.items()}


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        # Rows that a state begins with hold plain text there.
        return value
