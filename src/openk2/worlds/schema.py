"""JSON Schemas as clients write them, checked in a bounded time and without the network.

A schema is read by the rules of the draft that it names in `$schema`; one that names none, by the newest of 2020-12,
draft-07 and draft-04 of which it is a schema, so that a tuple written as a list of `items` and a boolean
`exclusiveMinimum` mean what they meant. `nullable: true`, which is OpenAPI 3.0's, allows null. `multipleOf` counts in
the decimal digits that are written: 0.3 is a multiple of 0.1. `format` is an annotation, as JSON Schema has it by
default: it is not checked, for what counts as a date or an address differs from checker to checker.

Patterns are the client's, so they are searched with `regex`, which can be stopped.
"""

from __future__ import annotations

import copy
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import regex
from jsonschema import Draft4Validator, Draft7Validator, Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend, validator_for
from jsonschema_specifications import REGISTRY
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

_SHOWN = 200
_SECONDS = 2.0
"""So long a check may take."""
_MOST_ITEMS = 100_000
"""So many items a pattern may have with its repeats written out, for `regex` does write them out."""
_UNNAMED = (Draft202012Validator, Draft7Validator, Draft4Validator)
_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d+)(?:,\d*)?\}|.", re.S)


class Schema:
    """One schema.

    Raises ValueError if it is none, if nothing can be checked against it, and if it refers to something outside of
    itself: what is behind an address is never fetched.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        own = copy.deepcopy(dict(schema))
        clock = _Clock()
        try:
            draft = _draft(own)
            _Reading(draft, own).check()
            # Without a registry of its own it would look references up in the network.
            self._validator: Any = extend(draft, _keywords(draft, clock))(own, registry=Registry())
            clock.start()
            for _ in self._validator.iter_errors({}):
                pass
        except Unresolvable as e:
            reference = str(getattr(e, "ref", e))[:_SHOWN]
            raise ValueError(f"{reference!r} is not in it: put what it refers to under $defs") from e
        except (re.error, regex.error) as e:
            raise ValueError(f"nothing can be checked against it (a pattern: {str(e)[:_SHOWN]})") from e
        except (RecursionError, TimeoutError, LookupError, TypeError, AttributeError) as e:
            raise ValueError("nothing can be checked against it") from e
        self._clock = clock

    def errors(self, value: Any) -> list[ValidationError]:
        """What is wrong with a value. Raises TimeoutError, and what `jsonschema` and `regex` raise."""
        self._clock.start()
        return list(self._validator.iter_errors(value))


class _Clock(threading.local):
    """Bounds the time of a check. Each thread has its own, as one schema may be used in several."""

    def __init__(self) -> None:
        self._deadline = 0.0

    def start(self) -> None:
        self._deadline = time.monotonic() + _SECONDS

    def left(self) -> float:
        """The seconds that are left. Raises TimeoutError if there are none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it takes too long")
        return left

    def has(self, pattern: str, text: str) -> bool:
        """Whether the pattern is in the text. Raises TimeoutError."""
        return regex.search(pattern, text, timeout=self.left()) is not None

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


def _multiple(validator: Any, step: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """The keyword `multipleOf`, in exact numbers."""
    if validator.is_type(value, "number") and (Fraction(repr(value)) / Fraction(repr(step))).denominator != 1:
        yield ValidationError(f"{value!r} is not a multiple of {step!r}")


def _unique(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """The keyword `uniqueItems`, in linear time."""
    if wanted and isinstance(value, list) and len(set(map(_key, value))) < len(value):
        yield ValidationError("there is an item twice in it")


def _key(value: Any) -> Any:
    """The same for values that JSON Schema takes for equal, and for no others."""
    if isinstance(value, dict):
        return dict, frozenset((name, _key(part)) for name, part in value.items())
    if isinstance(value, list):
        return list, tuple(map(_key, value))
    return bool if isinstance(value, bool) else None, value


def _keywords(draft: Any, clock: _Clock) -> dict[str, Any]:
    """The keywords of a draft, some of them ours. Each looks at the clock, and says nothing of a null that may be."""
    ours = {
        "pattern": clock.pattern,
        "patternProperties": clock.pattern_properties,
        "additionalProperties": clock.additional,
        "multipleOf": _multiple,
        "divisibleBy": _multiple,
        "uniqueItems": _unique,
    }

    def timed(keyword: Callable[..., Any]) -> Callable[..., Any]:
        def check(validator: Any, wanted: Any, value: Any, schema: Any) -> Any:
            clock.left()
            null = value is None and schema.get("nullable") is True
            return () if null else keyword(validator, wanted, value, schema)

        return check

    return {name: timed(ours.get(name, keyword)) for name, keyword in draft.VALIDATORS.items()}


def _draft(schema: dict[str, Any]) -> Any:
    """The validator of the draft by whose rules the schema is read. Raises ValueError."""
    named = _named(schema)
    problems = []
    for draft in _UNNAMED if named is None else (named,):
        problem = _problem(draft, schema)
        if problem is None:
            return draft
        problems.append(problem)
    by = "" if named is None else f" by the draft that it names, {schema['$schema'][:_SHOWN]}"
    raise ValueError(f"it is no JSON Schema{by}: {problems[0]}")


def _problem(draft: Any, schema: Any) -> str | None:
    """Why something is no schema of a draft; None if it is one."""
    # Without its `$schema` the library goes on with the validator that has our keyword.
    meta = {key: value for key, value in draft.META_SCHEMA.items() if key != "$schema"}
    meta_validator: Any = extend(draft, {"uniqueItems": _unique})(meta, registry=Registry())
    error = next(meta_validator.iter_errors(schema), None)
    return None if error is None else str(error.message[:_SHOWN])


def _named(schema: Mapping[str, Any]) -> Any:
    name = schema.get("$schema")
    if not isinstance(name, str):
        return None
    # Up to draft-07 the name is no https address, but is often written as one.
    name = re.sub(r"^https(?=://json-schema\.org/draft-0)", "http", name)
    return validator_for({"$schema": name}, default=None)


class _Reading:
    """Goes through all parts of a schema before anything is checked against it.

    Takes `$schema` out of the parts, at which the library would go on with validators that are not ours.
    """

    def __init__(self, draft: Any, own: dict[str, Any]) -> None:
        self._draft = draft
        self._specification = specification_with(draft.ID_OF(draft.META_SCHEMA))
        self._own = own
        self._ids = set(_mappings(own))
        self._seen: set[int] = set()
        self._keywords: set[str] = set()

    def check(self) -> None:
        """Raises ValueError, Unresolvable, and regex.error for a pattern that is none."""
        root = self._specification.create_resource(self._own)
        self._own.pop("$schema", None)
        self._part(self._own, REGISTRY.combine(Registry()).resolver_with_root(root))
        if {"unevaluatedProperties", "patternProperties"} <= self._keywords:
            # The library would search these patterns without an end.
            raise ValueError("it has unevaluatedProperties and patternProperties: both together are not checked here")

    def _part(self, part: Any, resolver: Any) -> None:
        # What the drafts themselves are made of is known to be right, and not ours to change.
        if not isinstance(part, dict) or id(part) in self._seen or id(part) not in self._ids:
            return
        self._seen.add(id(part))
        if _named(part) not in (None, self._draft):
            raise ValueError("a part of it names another draft in its $schema: use one for all")
        part.pop("$schema", None)
        self._keywords |= part.keys()
        for pattern in (part.get("pattern"), *(part.get("patternProperties") or ())):
            if isinstance(pattern, str):
                _check_pattern(pattern)
        for keyword in ("$ref", "$dynamicRef"):
            if isinstance(part.get(keyword), str):
                self._target(resolver.lookup(part[keyword]))
        for inner in self._specification.subresources_of(part):
            self._part(inner, resolver.in_subresource(self._specification.create_resource(inner)))

    def _target(self, found: Any) -> None:
        # It may stand where the draft has no schemas, and nobody has looked at it yet.
        new = id(found.contents) in self._ids and id(found.contents) not in self._seen
        if new and (why := _problem(self._draft, found.contents)) is not None:
            raise ValueError(f"a part of it is no JSON Schema: {why}")
        self._part(found.contents, found.resolver)


def _mappings(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        yield id(value)
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _mappings(part)


def _check_pattern(pattern: str) -> None:
    """Raises ValueError and regex.error."""
    if _items(pattern) > _MOST_ITEMS:
        raise ValueError(f"a pattern in it repeats too much to be checked: {pattern[:_SHOWN]!r}")
    regex.compile(pattern)


def _items(pattern: str) -> int:
    """How many items a pattern has with its repeats written out; more, for numbers in braces that are no repeats."""
    groups, last = [0], 0
    for piece in _PIECE.finditer(pattern):
        if piece[0] == "(":
            groups.append(0)
            last = 0
        elif piece[0] == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif piece[1] is not None:
            times = int(piece[1][:10])
            groups[-1] += last * (times - 1) if times else 0
            last *= max(times, 1)
        else:
            last = 1
            groups[-1] += 1
    return sum(groups)
