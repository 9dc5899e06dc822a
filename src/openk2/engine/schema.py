"""Parameter schemas as the grammar needs them: the root is an object, and objects take declared properties only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where a JSON Schema holds further schemas: one, a list of them, or a mapping of names to them.
_ONE = ("items", "additionalProperties", "contains", "propertyNames")
_MANY = ("anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
# Beside these a closed object could contradict its siblings: {allOf: [{a}, {b}]} closed twice accepts nothing.
_COMPOSED = ("allOf", "anyOf", "oneOf", "not", "if", "$ref", "$dynamicRef", "unevaluatedProperties")


def arguments_schema(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments with an object at the root; no declared properties means no arguments.

    Raises ValueError when the root declares another type.
    """
    root = dict(parameters)
    kind = root.setdefault("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise ValueError(f"the arguments must be a JSON object, not {kind!r}")
    root["type"] = "object"
    if not any(key in root for key in (*_COMPOSED, "properties", "patternProperties", "additionalProperties")):
        root["properties"] = {}
    return root


def close_objects(schema: Any) -> Any:
    """Set `additionalProperties: false` wherever properties are declared and nothing is said about others.

    JSON Schema's default allows any other property; a caller who declares properties means those. Objects without
    declared properties stay free. Parts under `allOf` are left alone, they constrain the same object together.
    """
    if not isinstance(schema, Mapping):
        return schema
    closed: dict[str, Any] = dict(schema)
    for key in _ONE:
        if key in closed:
            closed[key] = close_objects(closed[key])
    for key in _MANY:
        if isinstance(closed.get(key), list):
            closed[key] = [close_objects(part) for part in closed[key]]
    for key in _NAMED:
        if isinstance(closed.get(key), Mapping):
            closed[key] = {name: close_objects(part) for name, part in closed[key].items()}
    if "properties" in closed and not any(key in closed for key in _COMPOSED):
        closed.setdefault("additionalProperties", False)
    return closed
