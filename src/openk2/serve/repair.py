"""Tool calls of a server that holds nothing to a grammar: checked against their tools' schemas, repaired where only one
thing can be meant, and else named for what is wrong with them.

Repairs never guess. Fences are taken away, Python's way to write an object is read as Python reads it, and a value of a
wrong type becomes the right one where both are written with the same letters. What is valid passes as it was written:
numbers keep their digits.
"""

from __future__ import annotations

import ast
import io
import itertools
import json
import re
import time
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from openk2.chat import tool_name
from openk2.core.messages import compact_json, is_unicode
from openk2.engine.schema import refers_to_itself

_SHOWN = 200
_ROUNDS = 3
"""How often values are converted: a value inside of another one may come to light with it."""
_SECONDS = 2.0
"""So long a check may take: patterns are the client's."""
_MOST_LETTERS = 1 << 20
_FENCE = re.compile(r"```(?:json|python)?\s*(.*?)\s*```", re.S)
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class WrongCall(Exception):
    """What is wrong with a call, in one sentence that its author can act on."""


class Tools:
    """The declared tools by the names that the model knows.

    Args:
        parameters: the JSON Schema of each tool's arguments.
        may_call: the names of those that may be called.

    Raises ValueError for a schema that is none, or that refers to something outside of itself.
    """

    def __init__(self, parameters: Mapping[str, Mapping[str, Any]], may_call: Iterable[str]) -> None:
        self._clock = _Clock()
        self._validators = {name: _validator(name, schema, self._clock) for name, schema in parameters.items()}
        self.may_call = list(may_call)

    def name(self, said: str) -> str:
        """The declared name that is meant. Raises WrongCall."""
        alike = [name for name in self._validators if _bare(name) == _bare(said)]
        meant = [said, tool_name(said), tool_name(f"functions.{said}"), *(alike if len(alike) == 1 else [])]
        found = next((name for name in meant if name in self._validators), None)
        if found in self.may_call:
            return str(found)
        known = "is not there" if found is None else "may not be called"
        raise WrongCall(f"the tool {said[:_SHOWN]!r} {known}: the tools are {_listed(self.may_call)}")

    def arguments(self, name: str, said: str) -> str:
        """The arguments of a call of the tool `name` as JSON that satisfies its schema. Raises WrongCall."""
        if len(said) > _MOST_LETTERS:
            raise WrongCall(f"the arguments of {name} have {len(said)} letters, and at most {_MOST_LETTERS} are taken")
        try:
            return self._arguments(name, said)
        except (Unresolvable, RecursionError, ArithmeticError, ValueError, TypeError, re.error, regex.error) as e:
            raise WrongCall(f"the arguments of {name} cannot be checked ({type(e).__name__})") from e

    def _arguments(self, name: str, said: str) -> str:
        value, as_written = _object(name, said)
        errors: list[ValidationError] = []
        self._clock.start()
        for attempt in range(_ROUNDS):
            try:
                errors = list(self._validators[name].iter_errors(value))
            except TimeoutError:
                raise WrongCall(f"the arguments of {name} take too long to check") from None
            if not errors:
                return compact_json(value, finite=True) if as_written is None or attempt else as_written
            # What is written anew must keep its numbers.
            keeps = as_written is None or _keeps_numbers(as_written)
            if not keeps or not all(_converted(value, error) for error in errors):
                break
        error = min(errors, key=lambda e: len(e.absolute_path))
        raise WrongCall(f"the arguments of {name} are wrong at {error.json_path[:_SHOWN]}: {error.message[:_SHOWN]}")


class _Clock:
    """Bounds the time of a check. Patterns are searched with `regex`, which can be stopped."""

    def __init__(self) -> None:
        self._deadline = float("inf")

    def start(self) -> None:
        self._deadline = time.monotonic() + _SECONDS

    def has(self, pattern: str, text: str) -> bool:
        """Whether the pattern is in the text. Raises TimeoutError."""
        left = min(self._deadline - time.monotonic(), _SECONDS)
        if left <= 0:
            raise TimeoutError
        return regex.search(pattern, text, timeout=left) is not None

    def pattern(self, validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
        """The keyword `pattern`."""
        if isinstance(value, str) and not self.has(pattern, value):
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    def pattern_properties(self, validator: Any, patterns: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        """The keyword `patternProperties`."""
        if isinstance(value, dict):
            for pattern, part in patterns.items():
                for name in [name for name in value if self.has(pattern, name)]:
                    yield from validator.descend(value[name], part, path=name, schema_path=pattern)

    def additional(self, validator: Any, part: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        """The keyword `additionalProperties`."""
        if not isinstance(value, dict):
            return
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name in value:
            if name in known or any(self.has(pattern, name) for pattern in patterns):
                continue
            if part is False:
                yield ValidationError(f"{name!r} is not declared")
            else:
                yield from validator.descend(value[name], part, path=name)


def _validator(name: str, schema: Mapping[str, Any], clock: _Clock) -> Any:
    keywords = {
        "pattern": clock.pattern,
        "patternProperties": clock.pattern_properties,
        "additionalProperties": clock.additional,
    }
    try:
        if not refers_to_itself(schema):
            raise ValueError(f"the parameters of {name} refer to something outside of them: put it under $defs")
        Draft202012Validator.check_schema(schema)
        # Without a registry of its own it would look references up in the network.
        validator = extend(Draft202012Validator, keywords)(dict(schema), registry=Registry())
        for _ in validator.iter_errors({}):
            pass
    except SchemaError as e:
        raise ValueError(f"the parameters of {name} are no JSON Schema: {e.message[:_SHOWN]}") from e
    except (Unresolvable, RecursionError, re.error, regex.error) as e:
        raise ValueError(f"the parameters of {name} cannot be checked against: {str(e)[:_SHOWN]}") from e
    return validator


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)[:1000] or "none"


def _object(name: str, said: str) -> tuple[dict[str, Any], str | None]:
    """The arguments as an object, and the JSON in which it was written if it was JSON. Raises WrongCall."""
    text = said.strip()
    if (fenced := _FENCE.fullmatch(text)) is not None:
        text = fenced[1]
    as_written: str | None = text or "{}"
    try:
        value = _json(name, text or "{}")
        if isinstance(value, str):
            # Encoded twice.
            as_written = value.strip()
            value = _json(name, as_written)
        elif value is None:
            value, as_written = {}, "{}"
    except json.JSONDecodeError:
        value, as_written = _python(name, text), None
    if not isinstance(value, dict):
        raise WrongCall(f"the arguments of {name} are a JSON {type(value).__name__}, not an object")
    if not is_unicode(compact_json(value, finite=True)):
        raise WrongCall(f"the arguments of {name} have half a character (a lone surrogate)")
    return value, as_written


def _json(name: str, text: str) -> Any:
    """Strict JSON. Raises JSONDecodeError, and WrongCall for what has not one meaning."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise WrongCall(f"the arguments of {name} have a key twice")
        return found

    def no_number(word: str) -> Any:
        raise WrongCall(f"the arguments of {name} have {word}, which is no number of JSON's")

    return json.loads(text, object_pairs_hook=unique, parse_constant=no_number)


def _python(name: str, text: str) -> Any:
    """A literal of Python's: other quotes, a last comma, True and None. Raises WrongCall for anything else."""
    problem = WrongCall(f"the arguments of {name} are no JSON: {text[:_SHOWN]!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(text, mode="eval")
            kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
        # Two strings side by side would be one.
        if any(one == two == tokenize.STRING for one, two in itertools.pairwise(kinds)):
            raise problem
        return _plain(tree.body, problem)
    except (SyntaxError, Warning, ValueError, MemoryError, RecursionError, tokenize.TokenError):
        raise problem from None


def _plain(node: ast.expr, problem: WrongCall) -> Any:
    """The value, if JSON has such a one."""
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str | bool)):
        return node.value
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List):
        return [_plain(part, problem) for part in node.elts]
    if isinstance(node, ast.Dict):
        pairs = [
            (None if key is None else _plain(key, problem), _plain(part, problem))
            for key, part in zip(node.keys, node.values, strict=True)
        ]
        if all(isinstance(key, str) for key, _ in pairs) and len(dict(pairs)) == len(pairs):
            return dict(pairs)
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    number = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    if isinstance(number, ast.Constant) and type(number.value) is int:
        return -number.value if negative else number.value
    raise problem


def _keeps_numbers(text: str) -> bool:
    """Whether all numbers of a JSON text are the same when they are written anew."""
    same = True

    def note(number: str) -> float:
        nonlocal same
        value = float(number)
        same = same and Decimal(number) == Decimal(repr(value))
        return value

    json.loads(text, parse_float=note)
    return same


def _converted(root: Any, error: ValidationError) -> bool:
    """Write the value that has the wrong type as one of the right type, if it has the same letters. Whether it was."""
    wanted = _wanted(error)
    if not wanted or not error.absolute_path:
        return False
    holder = root
    *way, last = error.absolute_path
    for step in way:
        holder = holder[step]
    value = holder[last]
    meant: Any = None
    if isinstance(value, str):
        meant = _from_text(value, wanted)
    elif type(value) is int and "string" in wanted:
        meant = str(value)
    if meant is None:
        return False
    holder[last] = meant
    return True


def _wanted(error: ValidationError) -> set[str]:
    """The types that would be right; those of all alternatives, if nothing but the type is wrong with each."""
    if error.validator == "type":
        kinds = error.validator_value
        return {kinds} if isinstance(kinds, str) else set(kinds)
    parts = error.context or []
    if error.validator in ("anyOf", "oneOf") and all(part.validator == "type" for part in parts):
        return set().union(*map(_wanted, parts))
    return set()


def _from_text(text: str, wanted: set[str]) -> Any:
    """What a text says in JSON, if that has one of the types; None if not."""
    said = text.strip()
    if "boolean" in wanted and isinstance(_WORDS.get(said), bool):
        return _WORDS[said]
    if _INTEGER.fullmatch(said) and wanted & {"integer", "number"}:
        return int(said)
    try:
        value = json.loads(said)
    except ValueError:
        return None
    if isinstance(value, float) and "number" in wanted and Decimal(said) == Decimal(repr(value)):
        return value
    right = (isinstance(value, dict) and "object" in wanted) or (isinstance(value, list) and "array" in wanted)
    return value if right and _keeps_numbers(said) else None
