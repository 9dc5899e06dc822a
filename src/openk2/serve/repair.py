"""Tool calls of a server that holds nothing to a grammar: checked against their tools' schemas, repaired where what was
meant is plain, and else named for what is wrong with them.

Repairs never guess content. A call that breaks off in the middle is not closed for the model: half a path is a path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from json_repair import repair_json
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from openk2.chat import tool_name
from openk2.core.messages import compact_json, is_unicode
from openk2.engine.schema import refers_to_itself

_SHOWN = 200
_MOST_CHANGES = 64
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


class WrongCall(Exception):
    """What is wrong with a call, in one sentence that its author can act on."""


class Tools:
    """The declared tools by the names that the model knows.

    Args:
        parameters: the JSON Schema of each tool's arguments.

    Raises ValueError for a schema that is none, or that refers to something outside of itself.
    """

    def __init__(self, parameters: Mapping[str, Mapping[str, Any]]) -> None:
        self._validators = {name: _validator(name, schema) for name, schema in parameters.items()}

    def name(self, said: str) -> str:
        """The declared name that is meant. Raises WrongCall."""
        for candidate in (said, tool_name(said), tool_name(f"functions.{said}")):
            if candidate in self._validators:
                return candidate
        alike = [name for name in self._validators if _bare(name) == _bare(said)]
        if len(alike) == 1:
            return alike[0]
        raise WrongCall(f"there is no tool {said[:_SHOWN]!r}: the tools are {_listed(self._validators)}")

    def arguments(self, name: str, said: str) -> str:
        """The arguments of a call of the tool `name` as compact JSON that satisfies its schema. Raises WrongCall."""
        value = _object(name, said)
        validator = self._validators[name]
        try:
            for _ in range(_MOST_CHANGES):
                error = next(iter(sorted(validator.iter_errors(value), key=lambda e: len(e.absolute_path))), None)
                if error is None:
                    return compact_json(value, finite=True)
                if not _converted(value, error):
                    raise WrongCall(
                        f"the arguments of {name} are wrong at {error.json_path[:_SHOWN]}: {error.message[:_SHOWN]}"
                    )
        except (Unresolvable, RecursionError, ValueError, re.error) as e:
            raise WrongCall(f"the arguments of {name} cannot be checked ({type(e).__name__})") from e
        raise WrongCall(f"the arguments of {name} have too many values of wrong types")


def _validator(name: str, schema: Mapping[str, Any]) -> Draft202012Validator:
    try:
        if not refers_to_itself(schema):
            raise ValueError(f"the parameters of {name} refer to something outside of them: put it under $defs")
        Draft202012Validator.check_schema(schema)
        # Without a registry of its own it would look references up in the network.
        validator = Draft202012Validator(dict(schema), registry=Registry())
        for _ in validator.iter_errors({}):
            pass
    except SchemaError as e:
        raise ValueError(f"the parameters of {name} are no JSON Schema: {e.message[:_SHOWN]}") from e
    except (Unresolvable, RecursionError, re.error) as e:
        raise ValueError(f"the parameters of {name} cannot be checked against: {str(e)[:_SHOWN]}") from e
    return validator


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)[:1000] or "none"


def _object(name: str, said: str) -> dict[str, Any]:
    """The arguments as an object; quotes, commas, fences and words of Python are repaired. Raises WrongCall."""
    try:
        value = json.loads(said.strip() or "{}")
    except ValueError:
        if _breaks_off(said):
            raise WrongCall(f"the arguments of {name} break off: {said[-_SHOWN:]!r}") from None
        value = repair_json(said, return_objects=True)
        if value == "":
            raise WrongCall(f"the arguments of {name} are no JSON: {said[:_SHOWN]!r}") from None
    except RecursionError:
        raise WrongCall(f"the arguments of {name} are nested too deep") from None
    if isinstance(value, str):
        # Encoded twice.
        try:
            value = json.loads(value)
        except ValueError:
            raise WrongCall(f"the arguments of {name} are a text, not an object") from None
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise WrongCall(f"the arguments of {name} are a JSON {type(value).__name__}, not an object")
    if not is_unicode(compact_json(value)):
        raise WrongCall(f"the arguments of {name} have half a character (a lone surrogate)")
    return value


def _breaks_off(text: str) -> bool:
    """Whether brackets or a string are still open at the end."""
    depth, quoted, escaped = 0, False, False
    for char in text:
        if quoted:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
    return depth > 0 or quoted


def _converted(root: Any, error: ValidationError) -> bool:
    """Write the value that has the wrong type as one of the right type, if it means the same. Whether it was done."""
    if error.validator != "type" or not error.absolute_path:
        return False
    wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
    holder = root
    *way, last = error.absolute_path
    for step in way:
        holder = holder[step]
    value = holder[last]
    if isinstance(value, str):
        try:
            meant = json.loads(value)
        except ValueError:
            lowered = value.strip().lower()
            meant = {"true": True, "false": False, "none": None}.get(lowered, value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and "string" in wanted:
        meant = compact_json(value)
    else:
        return False
    if isinstance(meant, float) and meant.is_integer():
        meant = int(meant) if "number" not in wanted else meant
    fits = any(
        isinstance(meant, _JSON_TYPES.get(kind, ())) and (kind == "boolean" or not isinstance(meant, bool))
        for kind in wanted
    )
    if not fits:
        return False
    holder[last] = meant
    return True
