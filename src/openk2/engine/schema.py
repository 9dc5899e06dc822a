"""Parameter schemas as the grammar needs them: the root is an object, and objects take declared properties only.

A keyword that the grammar does not know (`uniqueItems`, `not`, `if`, an unknown `format`) is passed over by its
compiler; a pattern that it cannot follow is left out here. `Grammar.compile` names both. Everything else stays
enforced, and worlds check the arguments of every call themselves.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from openk2.core.messages import is_unicode

_COSTLY = ("pattern", "patternProperties", "multipleOf", "format", "enum", "anyOf", "oneOf")
# Where a JSON Schema holds further schemas: one, a list of them, or a mapping of names to them.
_ONE = ("items", "additionalItems", "additionalProperties")
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
# Bounds of numbers, and the direction in which they only become stricter.
_BOUNDS = (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1))
_EXACT = 2**53
"""Up to here a double holds every integer."""
# Beside these a closed object could contradict its siblings: {allOf: [{a}, {b}]} closed twice accepts nothing.
_COMPOSED = (
    "allOf", "anyOf", "oneOf", "if", "$ref", "$dynamicRef", "unevaluatedProperties", "dependentSchemas", "dependencies",
)  # fmt: skip


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


def enforceable(
    schema: Any, knows: Callable[[str], bool], *, close: bool, large_bounds: bool = True, multiples: bool = True
) -> Any:
    """The schema without patterns that the grammar does not know and, with `close`, with closed objects.

    Without `large_bounds` no number is bounded by one of 2**53 or more, which the grammar cannot always follow; without
    `multiples` there is no `multipleOf`, which can take it long.

    The grammar computes with doubles: of `enum` and `const` only numbers that a double holds stay possible, others
    would be written as a neighbour, and integer bounds move inwards to the next double.

    Closing sets `additionalProperties: false` wherever properties are declared and nothing is said about others. JSON
    Schema's default allows any other property; a caller who declares properties means those. Objects without declared
    properties stay free. Parts of an `allOf` are not closed, they constrain the same object together.
    """
    if not isinstance(schema, Mapping):
        return schema
    out: dict[str, Any] = dict(schema)
    if isinstance(out.get("pattern"), str) and not knows(out["pattern"]):
        del out["pattern"]
    if not multiples and type(out.get("multipleOf")) in (int, float) and out["multipleOf"] > 0:
        del out["multipleOf"]
    if isinstance(out.get("enum"), list):
        out["enum"] = [value for value in out["enum"] if _is_exact(value)]
    if "const" in out and not _is_exact(out["const"]):
        del out["const"]
        out["enum"] = []
    for key, exclusive, side in _BOUNDS:
        if not large_bounds:
            for name in (key, exclusive):
                if isinstance(out.get(name), int | float) and abs(out[name]) >= _EXACT:
                    del out[name]
        # The step from an exclusive bound to the first number is rounded as well: a large one becomes inclusive.
        if type(out.get(exclusive)) is int and abs(out[exclusive]) >= _EXACT:
            inside = out.pop(exclusive) + side
            out[key] = side * max(side * inside, side * out.get(key, inside))
        if type(out.get(key)) is int:
            out[key] = _next_double(out[key], side)
    named = out.get("patternProperties")
    if isinstance(named, Mapping) and not all(map(knows, named)):
        out["patternProperties"] = {pattern: part for pattern, part in named.items() if knows(pattern)}
        # Names that only the lost patterns allow must stay possible.
        out["additionalProperties"] = True
    inner = partial(enforceable, knows=knows, large_bounds=large_bounds, multiples=multiples)
    for key in _ONE:
        if key in out:
            out[key] = inner(out[key], close=close)
    for key in _MANY:
        if isinstance(out.get(key), list):
            out[key] = [inner(part, close=close and key != "allOf") for part in out[key]]
    for key in _NAMED:
        if isinstance(out.get(key), Mapping):
            out[key] = {name: inner(part, close=close) for name, part in out[key].items()}
    if close and "properties" in out and not any(key in out for key in _COMPOSED):
        out.setdefault("additionalProperties", False)
    return out


def without_own_name(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without its `$id`, if all references in it are local: names need not be addresses then."""

    local = refers_to_itself(schema)
    return {key: value for key, value in schema.items() if not (key == "$id" and local)}


def refers_to_itself(schema: Any) -> bool:
    """Whether all references in the schema are to other parts of it."""

    def references(part: Any) -> Iterator[Any]:
        if isinstance(part, Mapping):
            for key, value in part.items():
                if key in ("$ref", "$dynamicRef"):
                    yield value
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    return all(isinstance(reference, str) and reference.startswith("#") for reference in references(schema))


def digits_of_multiples(schema: Any) -> int:
    """The sum of all `multipleOf` without their zeros and points: about what compiling them costs."""
    if isinstance(schema, list):
        return sum(map(digits_of_multiples, schema))
    if not isinstance(schema, Mapping):
        return 0
    of: Any = schema.get("multipleOf")
    inner = sum(map(digits_of_multiples, schema.values()))
    if type(of) not in (int, float) or not abs(of) <= sys.float_info.max:
        return inner
    return inner + int("".join(map(str, Decimal(repr(of)).normalize().as_tuple().digits)))


def counts_free_names(schema: Any) -> bool:
    """Whether an object needs more properties than it names: the grammar may count a name that it writes twice."""
    if isinstance(schema, list):
        return any(map(counts_free_names, schema))
    if not isinstance(schema, Mapping):
        return False
    least, required = schema.get("minProperties"), schema.get("required")
    if type(least) is int and least > (len(required) if isinstance(required, list) else 0):
        closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
        if not closed:
            return True
    inner = [schema.get(key) for key in (*_ONE, *_MANY)]
    for key in _NAMED:
        if isinstance(schema.get(key), Mapping):
            inner += schema[key].values()
    return any(map(counts_free_names, inner))


def _next_double(value: int, side: int) -> int:
    """The nearest integer not below (side 1) or not above (-1) `value` that a double holds; beyond all, `value`."""
    try:
        near = float(value)
        return int(math.nextafter(near, side * math.inf) if side * near < side * value else near)
    except OverflowError:
        return value


def _is_exact(value: Any) -> bool:
    """Whether all integers of a JSON value are those that the grammar writes."""
    if isinstance(value, Mapping):
        return all(map(_is_exact, value.values()))
    if isinstance(value, list):
        return all(map(_is_exact, value))
    if not isinstance(value, int):
        return True
    try:
        # The grammar writes the shortest digits of the double, which of large ones are another integer's.
        return int(Decimal(repr(float(value)))) == value
    except OverflowError:
        return False


def too_much(error: str, schema: Any) -> str | None:
    """A remark on a schema that is right and too much for the grammar; None for another error."""
    (first, *_) = error.strip().splitlines()
    if "regex is empty" in first:
        return f"Patterns and lengths of one text, which are too much together: {first.partition(':')[2].strip()}"
    if "not disjoint" in first:
        return f"patternProperties that may have names in common: {first}"
    if "fuel" in first or "too many" in first or "too big" in first:
        costly = [key for key in _COSTLY if _has_key(schema, key)]
        return f"Too complex, in {' and '.join(costly) or 'all'}: {first}"
    return None


def _has_key(schema: Any, key: str) -> bool:
    if isinstance(schema, Mapping):
        return key in schema or any(_has_key(part, key) for part in schema.values())
    return isinstance(schema, list) and any(_has_key(part, key) for part in schema)


def misfit(value: Any, place: str) -> str | None:
    """What no JSON can hold, and where it is."""
    if isinstance(value, str):
        return None if is_unicode(value) else f"half a surrogate pair in {place}"
    if isinstance(value, int | float):
        return None if abs(value) <= sys.float_info.max else f"number out of range in {place}"
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        found = misfit(key, f"a name in {place}") or misfit(part, f"{place}.{key}")
        if found is not None:
            return found
    return None
