"""Executes the declared tools of a domain over its state: one interpreter for all domains.

A call's arguments are checked against the declared parameters, rows are bound, guards are checked in their order, then
all effects happen or none. Results are compact JSON, errors `{"error": SENTENCE}`; neither raises. Nothing of a
declaration is run as Python.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openk2.core import ToolCall, ToolResult
from openk2.core.messages import compact_json, is_unicode
from openk2.worlds.apps.declaration import (
    Domain,
    Effect,
    EntityField,
    Parameter,
    Returns,
    Tool,
    check_effect,
    row_name,
    tool_types,
)
from openk2.worlds.apps.expression import (
    STEPS,
    Compute,
    Expression,
    Row,
    RowOf,
    Scope,
    Tables,
    TooManyRows,
    Type,
    parse,
    parse_condition,
    parse_template,
)
from openk2.worlds.apps.state import State

_DATE, _TIME = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"), re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_LONGEST_TEXT, _LARGEST = 10_000, 1e15
_MOST_ROWS = 20
"""So many rows a call returns unless its declaration says otherwise."""


class Refused(Exception):
    """A call that changes nothing: the sentence that it is answered with."""


@dataclass(frozen=True, slots=True)
class _Guard:
    that: Compute
    error: Callable[[Scope, Tables], str]


@dataclass(frozen=True, slots=True)
class _Change:
    """A prepared effect."""

    what: str
    entity: str
    target: str
    each: bool
    where: Compute | None
    values: dict[str, Compute]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tool whose expressions have been read."""

    tool: Tool
    guards: tuple[_Guard, ...]
    changes: tuple[_Change, ...]
    give: Callable[[Scope, Tables], Any]


class Interpreter:
    """The tools of one domain. It has no state of its own, and may be shared."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._prepared: dict[str, Prepared] = {}

    def execute(self, state: State, call: ToolCall, given: Mapping[str, Any]) -> ToolResult:
        """What a call returns, after it has changed the state. `given` has `today` and `user`."""
        try:
            tool = self.domain.by_name.get(call.name)
            if tool is None:
                raise Refused(f"there is no tool {call.name!r}")
            try:
                arguments = call.parsed()
            except (ValueError, RecursionError) as e:
                raise Refused(f"the arguments are no JSON object ({e})") from None
            return ToolResult(compact_json(self.run(state, tool, arguments, given)))
        except Refused as e:
            return ToolResult.failure(str(e))

    def run(self, state: State, tool: Tool, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        """The value that a call gives. Raises Refused if it may not be, and then nothing has changed."""
        prepared = self._prepared.get(tool.name) or self._prepare(tool)
        # All that a call computes counts together.
        scope = self._bind(state, tool, arguments) | dict(given) | {STEPS: [0]}
        try:
            return self._given(state, tool, prepared, scope)
        except TooManyRows as e:
            raise Refused(f"{tool.name} cannot be computed: {e}") from None

    def _given(self, state: State, tool: Tool, prepared: Prepared, scope: Scope) -> Any:
        for guard in prepared.guards:
            if not guard.that(scope, state):
                raise Refused(guard.error(scope, state))
        if prepared.changes:
            with state.transaction():
                for change in prepared.changes:
                    self._apply(state, change, scope)
                self._renew(state, tool, scope)
                return prepared.give(scope, state)
        return prepared.give(scope, state)

    def _bind(self, state: State, tool: Tool, arguments: Mapping[str, Any]) -> Scope:
        unknown = [name for name in arguments if name not in tool.parameters]
        if unknown:
            raise Refused(f"{tool.name} has no parameter {unknown[0]!r}: it has {', '.join(tool.parameters) or 'none'}")
        scope: Scope = {}
        for name, parameter in tool.parameters.items():
            value = arguments.get(name)
            if value is None:
                if not parameter.optional:
                    raise Refused(f"{tool.name} needs {name!r}")
                scope[name] = None
                if parameter.ref is not None:
                    scope[row_name(name)] = None
                continue
            scope[name] = _checked(name, value, parameter)
            if parameter.ref is not None:
                row = state.row(parameter.ref, value)
                if row is None:
                    singular = self.domain.entities[parameter.ref].singular.replace("_", " ")
                    raise Refused(f"no {singular} has the id {value!r}")
                scope[row_name(name)] = row
        return scope

    def _renew(self, state: State, tool: Tool, scope: Scope) -> None:
        """Rows that have a name are as they are now."""
        for name, parameter in tool.parameters.items():
            if parameter.ref is not None and scope[name] is not None:
                scope[row_name(name)] = state.row(parameter.ref, scope[name])

    def _apply(self, state: State, change: _Change, scope: Scope) -> None:
        if change.what == "create":
            row = state.create(change.entity, self._values(state, change, scope))
            if change.target:
                scope[change.target] = row
            return
        own = dict(scope)
        if change.each:
            chosen: list[Row] = []
            for row in state.rows(change.entity):
                own[change.target] = row
                if change.where is None or change.where(own, state):
                    chosen.append(row)
        else:
            chosen = [] if scope[change.target] is None else [scope[change.target]]
        # What all of them become is computed before any of them changes.
        written = [self._values(state, change, own | {change.target: row}) for row in chosen]
        for row, values in zip(chosen, written, strict=True):
            if change.what == "delete":
                state.delete(change.entity, row["id"])
            else:
                state.update(change.entity, row["id"], values)
                if not change.each:
                    scope[change.target] = row | values

    def _values(self, state: State, change: _Change, scope: Scope) -> dict[str, Any]:
        declared = self.domain.entities[change.entity].fields
        values = {field: compute(scope, state) for field, compute in change.values.items()}
        for field, value in values.items():
            problem = _misfit(value, declared[field])
            if problem is not None:
                raise Refused(f"{field.replace('_', ' ')} {problem}")
            if declared[field].type == "number" and value is not None:
                values[field] = float(value)
        return values

    def _prepare(self, tool: Tool) -> Prepared:
        domain, fields = self.domain, self.domain.field_types
        types = tool_types(domain, tool)
        guards = tuple(
            _Guard(parse_condition(guard.that, types, fields).compute, parse_template(guard.error, types, fields))
            for guard in tool.requires
        )
        changes = []
        for effect in tool.effects:
            added = check_effect(domain, effect, types)
            changes.append(self._prepare_change(effect, types))
            types |= added
        prepared = Prepared(tool, guards, tuple(changes), self._prepare_returns(tool.returns, types))
        self._prepared[tool.name] = prepared
        return prepared

    def _prepare_change(self, effect: Effect, types: Mapping[str, Type]) -> _Change:
        fields = self.domain.field_types
        what = "create" if effect.create else "update" if effect.update else "delete"
        inner = dict(types)
        if effect.create is not None:
            entity, target = effect.create, effect.name or ""
        else:
            target = str(effect.update or effect.delete)
            if effect.each is not None:
                inner[target] = RowOf(effect.each)
            kind = inner[target]
            assert isinstance(kind, RowOf)
            entity = kind.entity
        where = None if effect.where is None else parse_condition(effect.where, inner, fields).compute
        values = {field: parse(text, inner, fields).compute for field, text in effect.values.items()}
        return _Change(what, entity, target, effect.each is not None, where, values)

    def _prepare_returns(self, returns: Returns, types: Mapping[str, Type]) -> Callable[[Scope, Tables], Any]:
        fields = self.domain.field_types
        if returns.values:
            values: dict[str, Expression] = {name: parse(text, types, fields) for name, text in returns.values.items()}
            return lambda scope, tables: {name: one.compute(scope, tables) for name, one in values.items()}
        if returns.row is not None:
            name = returns.row
            return lambda scope, tables: None if scope[name] is None else _only(scope[name], returns.fields)
        entity = str(returns.rows)
        each = returns.name or self.domain.entities[entity].singular
        where = (
            None if returns.where is None else parse_condition(returns.where, {**types, each: RowOf(entity)}, fields)
        )

        def listed(scope: Scope, tables: Tables) -> list[Row]:
            own = dict(scope)
            found: list[Row] = []
            for row in tables.rows(entity):
                own[each] = row
                if where is None or where.compute(own, tables):
                    found.append(row)
            if returns.sort is not None:
                sort = returns.sort
                found.sort(key=lambda row: (row[sort] is None, row[sort]), reverse=returns.descending)
            return [_only(row, returns.fields) for row in found[: returns.limit or _MOST_ROWS]]

        return listed


def _only(row: Row, fields: tuple[str, ...] | None) -> Row:
    return dict(row) if fields is None else {field: row[field] for field in fields}


def _checked(name: str, value: Any, parameter: Parameter) -> Any:
    """An argument that its declaration allows. Raises Refused."""
    kind = parameter.type
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    right = {
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
    }.get(kind, isinstance(value, str))
    if not right:
        raise Refused(f"{name} must be a {kind}, not {json.dumps(value)[:80]}")
    if isinstance(value, str) and not (is_unicode(value) and len(value) <= _LONGEST_TEXT):
        raise Refused(f"{name} must be a text of at most {_LONGEST_TEXT} letters")
    if kind in ("integer", "number") and not abs(value) <= _LARGEST:
        raise Refused(f"{name} must be a number of at most {_LARGEST:.0e}")
    if kind == "date" and not _DATE.fullmatch(value):
        raise Refused(f"{name} must be a date such as 2026-03-31, not {value!r}")
    if kind == "time" and not _TIME.fullmatch(value):
        raise Refused(f"{name} must be a time such as 09:30, not {value!r}")
    if parameter.values is not None and value not in parameter.values:
        raise Refused(f"{name} must be one of {', '.join(parameter.values)}, not {value!r}")
    if parameter.minimum is not None and value < parameter.minimum:
        raise Refused(f"{name} must be at least {parameter.minimum:g}, not {value}")
    if parameter.maximum is not None and value > parameter.maximum:
        raise Refused(f"{name} must be at most {parameter.maximum:g}, not {value}")
    return value


def _misfit(value: Any, field: EntityField) -> str | None:
    """What is wrong with a value for a field."""
    if value is None:
        return None if field.optional else "would have no value"
    if field.values is not None and value not in field.values:
        return f"cannot be {value!r}: it is one of {', '.join(field.values)}"
    if field.minimum is not None and value < field.minimum:
        return f"would be {value:g}, and at least {field.minimum:g} is allowed"
    if field.maximum is not None and value > field.maximum:
        return f"would be {value:g}, and at most {field.maximum:g} is allowed"
    return None
