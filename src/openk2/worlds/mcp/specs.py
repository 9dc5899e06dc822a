"""Tools of MCP servers as the model is told of them: names that K2 can write, schemas that can be checked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openk2.core import ToolCall, ToolSpec, UserError
from openk2.core.messages import as_unicode, compact_json

if TYPE_CHECKING:
    from openk2.worlds.schema import Schema

_USABLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_LONGEST_NAME = 64
_DEEPEST = 60
_LARGEST_SCHEMA = 100_000

MISSING = "the packages mcp and jsonschema are needed for this: install them with pip install 'openk2[agent]'"
NO_NAME = "the name has no letter or digit"
NO_OBJECT = "the schema is not of an object"
NO_SCHEMA = "the schema is not valid JSON Schema"
NO_REFERENCE = "the schema refers to something that it does not have"
TOO_LARGE = "the schema is too large or too deep"
NO_CHECK = "nothing can be checked against the schema"


@dataclass(frozen=True, slots=True)
class Spec:
    """A usable tool. `original` is what its server calls it."""

    name: str
    original: str
    description: str
    schema: Mapping[str, Any]

    def tool(self) -> ToolSpec:
        return ToolSpec(self.name, self.description, self.schema)


class Names:
    """Gives the tools of one server names that K2 can write: letters, digits, _ and -, a letter first, at most 64."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def usable(self, name: str) -> str | None:
        """The name itself, or the nearest that is free; None if nothing of it remains."""
        mapped = name
        if not _USABLE.fullmatch(name):
            mapped = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")
            if not re.search(r"[A-Za-z0-9]", mapped):
                return None
            mapped = (mapped if mapped[0].isalpha() else f"t_{mapped}")[:_LONGEST_NAME]
        free, number = mapped, 2
        while free in self._taken:
            ending = f"_{number}"
            free, number = mapped[: _LONGEST_NAME - len(ending)] + ending, number + 1
        self._taken.add(free)
        return free


def checked(name: object, description: object, schema: object, names: Names) -> Spec | str:
    """A usable tool, or why it cannot be used."""
    problem = schema_problem(schema)
    if problem is not None:
        return problem
    assert isinstance(schema, Mapping)
    usable = names.usable(name) if isinstance(name, str) else None
    if usable is None:
        return NO_NAME
    return Spec(usable, str(name), as_unicode(description) if isinstance(description, str) else "", schema)


def schema_problem(schema: object) -> str | None:
    """Why a schema of arguments cannot be used."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        return NO_OBJECT
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for

        from openk2.worlds.schema import Schema
    except ImportError:
        raise UserError(MISSING) from None
    try:
        if _depth(schema) > _DEEPEST or len(compact_json(schema, finite=True)) > _LARGEST_SCHEMA:
            return TOO_LARGE
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except (SchemaError, ValueError, TypeError):
        return NO_SCHEMA
    except RecursionError:
        return TOO_LARGE
    if any(not _leads_somewhere(schema, reference) for reference in _references(schema)):
        return NO_REFERENCE
    try:
        Schema(schema)
    except ValueError:
        return NO_CHECK
    return None


def validator_of(spec: Spec) -> Schema:
    """What checks arguments by a tool's schema, in the dialect that the schema names. Raises UserError."""
    from openk2.worlds.schema import Schema

    try:
        return Schema(spec.schema)
    except ValueError as e:
        raise UserError(f"the schema of {spec.name}: {e}; import the server anew") from None


def arguments_of(call: ToolCall, validator: Schema) -> dict[str, Any]:
    """The arguments of a call. Raises UserError with what is wrong if they do not fit the tool's schema, or if that
    takes too long, as some patterns do."""
    from referencing.exceptions import Unresolvable

    try:
        arguments = call.parsed()
    except (ValueError, RecursionError) as e:
        raise UserError(f"the arguments are no JSON object ({e})") from None
    try:
        problem = next(iter(validator.errors(arguments)), None)
    except TimeoutError:
        raise UserError(f"{call.name}: to check the arguments against its schema takes too long") from None
    except (RecursionError, Unresolvable):
        raise UserError(
            f"{call.name}: its schema cannot be applied, since it refers to itself without end or to what it does not "
            "have"
        ) from None
    if problem is not None:
        raise UserError(f"{'.'.join(map(str, problem.path)) or call.name}: {problem.message[:300]}")
    return arguments


def _depth(value: Any) -> int:
    """Of nesting. Level by level, since Python's own stack is not deep."""
    depth, level = 0, [value]
    while level and depth <= _DEEPEST:
        depth += 1
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, Mapping) else one if isinstance(one, list) else ())
        ]
    return depth


def _references(value: Any) -> Iterator[object]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            # A property may be called $ref; its value is a schema then.
            if key == "$ref" and not isinstance(inner, Mapping):
                yield inner
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _leads_somewhere(schema: Mapping[str, Any], reference: object) -> bool:
    """Only references within the schema do: nothing is fetched."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return False
    value: Any = schema
    for part in reference[1:].split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return False
    return isinstance(value, Mapping | bool)
