"""What a server writes that holds nothing to a grammar, tool calls and answers in JSON: checked against the schemas,
repaired where only one thing can be meant, and else named for what is wrong with it.

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
import tokenize
import warnings
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import regex
from jsonschema.exceptions import ValidationError
from referencing.exceptions import Unresolvable

from openk2.chat import tool_name
from openk2.core.messages import compact_json, is_unicode
from openk2.serve.names import ToolNames
from openk2.worlds.schema import Schema

_SHOWN = 200
_ROUNDS = 3
"""How often values are converted: a value inside of another one may come to light with it."""
_MOST_LETTERS = 1 << 20
_FENCE = re.compile(r"```(?:json|python)?\s*(.*?)\s*```", re.S)
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class WrongJson(Exception):
    """What is wrong with a text that should be JSON of a kind, for its author to act on."""


class WrongCall(Exception):
    """What is wrong with a call, in one sentence that its author can act on. `shown` is the same with the names of
    tools that the client knows."""

    def __init__(self, problem: str, shown: str) -> None:
        super().__init__(problem)
        self.shown = shown


class Expected:
    """What a text has to be: JSON that satisfies a schema, and an object if it is the arguments of a call.

    Raises ValueError as Schema.
    """

    def __init__(self, schema: Mapping[str, Any], *, arguments: bool = False) -> None:
        self._schema = Schema(schema)
        self._arguments = arguments

    def read(self, said: str) -> str:
        """The JSON. Raises WrongJson."""
        if len(said) > _MOST_LETTERS:
            raise WrongJson(f"it has {len(said)} letters, and at most {_MOST_LETTERS} are taken")
        try:
            return self._read(said)
        except TimeoutError:
            raise WrongJson("it takes too long to check") from None
        except (
            Unresolvable, RecursionError, ArithmeticError, ValueError, TypeError, AttributeError, LookupError, re.error,
            regex.error,
        ) as e:  # fmt: skip
            raise WrongJson("it cannot be checked") from e

    def _read(self, said: str) -> str:
        value, as_written = _value(said, self._arguments)
        errors: list[ValidationError] = []
        for attempt in range(_ROUNDS):
            errors = self._schema.errors(value)
            if not errors:
                return compact_json(value, finite=True) if as_written is None or attempt else as_written
            # What is written anew must keep its numbers.
            keeps = as_written is None or _keeps_numbers(as_written)
            if not keeps or not all(_converted(value, error) for error in errors):
                break
        error = min(errors, key=lambda e: len(e.absolute_path))
        raise WrongJson(f"at {error.json_path[:_SHOWN]}: {error.message[:_SHOWN]}")


class Tools:
    """The declared tools by the names that the model knows.

    Args:
        parameters: the JSON Schema of each tool's arguments, by the client's names.
        may_call: the client's names of those that may be called.
        names: from the one to the other.

    Raises ValueError for a schema that cannot be checked against.
    """

    def __init__(self, parameters: Mapping[str, Mapping[str, Any]], may_call: Iterable[str], names: ToolNames) -> None:
        self._names = names
        self._expected: dict[str, Expected] = {}
        for name, schema in parameters.items():
            try:
                self._expected[names.to_model(name)] = Expected(schema, arguments=True)
            except ValueError as e:
                raise ValueError(f"the parameters of {name} cannot be used: {e}") from e
        self.may_call = [names.to_model(name) for name in may_call]

    def name(self, said: str) -> str:
        """The declared name that is meant. Raises WrongCall."""
        alike = [name for name in self._expected if _bare(name) == _bare(said)]
        meant = [said, tool_name(said), tool_name(f"functions.{said}"), *(alike if len(alike) == 1 else [])]
        found = next((name for name in meant if name in self._expected), None)
        if found in self.may_call:
            return str(found)
        known = "is not there" if found is None else "may not be called"
        shown = said if found is None else self._names.to_client(found)
        theirs = map(self._names.to_client, self.may_call)
        raise WrongCall(
            f"the tool {said[:_SHOWN]!r} {known}: the tools are {_listed(self.may_call)}",
            f"the tool {shown[:_SHOWN]!r} {known}: the tools are {_listed(theirs)}",
        )

    def arguments(self, name: str, said: str) -> str:
        """The arguments of a call of the tool `name` as JSON that satisfies its schema. Raises WrongCall."""
        try:
            return self._expected[name].read(said)
        except WrongJson as e:
            problem, shown = (f"the arguments of {one}: {e}" for one in (name, self._names.to_client(name)))
            raise WrongCall(problem, shown) from e


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)[:1000] or "none"


def _value(said: str, arguments: bool) -> tuple[Any, str | None]:
    """What a text says, and the JSON in which it was written if it was JSON. Raises WrongJson.

    Arguments are an object: they may be left empty, be null, or be encoded twice.
    """
    text = said.strip()
    if (fenced := _FENCE.fullmatch(text)) is not None:
        text = fenced[1]
    if arguments:
        text = text or "{}"
    as_written: str | None = text
    try:
        value = _json(text)
        if arguments and isinstance(value, str):
            as_written = value.strip()
            value = _json(as_written)
        elif arguments and value is None:
            value, as_written = {}, "{}"
    except json.JSONDecodeError:
        value, as_written = _python(text), None
    if arguments and not isinstance(value, dict):
        raise WrongJson(f"a JSON {type(value).__name__}, not an object")
    if not is_unicode(compact_json(value, finite=True)):
        raise WrongJson("it has half a character (a lone surrogate)")
    return value, as_written


def _json(text: str) -> Any:
    """Strict JSON. Raises JSONDecodeError, and WrongJson for what has not one meaning."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise WrongJson("it has a key twice")
        return found

    def no_number(word: str) -> Any:
        raise WrongJson(f"it has {word}, which is no number of JSON's")

    return json.loads(text, object_pairs_hook=unique, parse_constant=no_number)


def _python(text: str) -> Any:
    """A literal of Python's: other quotes, a last comma, True and None. Raises WrongJson for anything else."""
    problem = WrongJson(f"it is no JSON: {text[:_SHOWN]!r}")
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


def _plain(node: ast.expr, problem: WrongJson) -> Any:
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
