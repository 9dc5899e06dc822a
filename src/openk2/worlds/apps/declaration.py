"""A simulated app as data: entities, the policy that its agents keep, and tools whose semantics are declared.

A declaration is JSON (or TOML) and is checked here, with one sentence for each mistake that names the tool and the
field. What it means is in `interpreter`: a call binds its arguments, checks `requires` in their order, applies
`effects`, and returns `returns`.

    [entities.orders]                                  # a table; its rows have ids such as ORD-1001
    prefix = "ORD"
    fields.customer = { ref = "customers" }
    fields.status = { type = "text", values = ["open", "sent", "cancelled"] }

    [[tools]]
    name = "cancel_order"
    description = "Cancel an order that was not sent yet."
    parameters.order_id = { ref = "orders" }           # binds the row `order`; an id that no row has is an error
    requires = [{ that = 'order.status == "open"', error = "Order {order.id} is {order.status}." }]
    effects = [{ update = "order", values = { status = '"cancelled"' } }]
    returns = { row = "order" }

Expressions (see `expression`) know the arguments by their names, the rows that arguments of a `ref` name, what an
effect has created by its `name`, `today`, and `user`, the id of the person that the session belongs to. What that
person's row says is asked of all rows, `any(guest.id == user and guest.credit > 5 for guest in guests)`; a row that is
to be updated is a parameter with a `ref`, and `requires` that it is the user's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from keyword import iskeyword
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from openk2.core import ToolSpec, UserError
from openk2.worlds.apps.expression import (
    ExpressionError,
    Fields,
    RowOf,
    Type,
    fits,
    parse,
    parse_condition,
    parse_template,
)


def _no_keyword(name: str) -> str:
    if iskeyword(name):
        raise ValueError(f"{name!r} is a word of expressions: choose another name")
    return name


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$"), AfterValidator(_no_keyword)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
ValueType = Literal["text", "integer", "number", "boolean", "date", "time"]
_JSON_TYPES = {"integer": "integer", "number": "number", "boolean": "boolean"}
GIVEN: dict[str, Type] = {"today": "date", "user": "text"}
"""Names that every expression knows."""
_MOST = 1e12
"""How large bounds may be."""
KINDS = (
    "name", "title", "person", "email", "city", "note", "past", "money", "value", "duration", "capacity", "stock",
    "few", "hours", "count", "json",
)  # fmt: skip
"""What a field can be like (see `filling`)."""
_MOST_FIELDS = 500
"""So many fields an entity may have. A table of SQLite has no more than 2,000."""
_RESERVED = frozenset({*GIVEN, "and", "or", "not", "in", "is", "if", "else", "for", "lambda", "true", "false", "none"})


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EntityField(_Declared):
    """A column. `ref` names the entity whose ids it holds, `values` are all it can be, `examples` some of what it can
    be, `kind`, one of `KINDS`, is how others look."""

    type: ValueType = "text"
    ref: Name | None = None
    values: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    optional: bool = False
    unique: bool = False
    kind: str = ""
    examples: tuple[str, ...] = ()
    description: str = ""


class Entity(_Declared):
    """A table. `label` is the field that people call a row by, `singular` what they call it."""

    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,6}$")]
    singular: Name
    fields: dict[Name, EntityField]
    label: Name | None = None
    description: str = ""


class Parameter(_Declared):
    """An argument. One with `ref` is an id and binds the row; one that is `optional` is null when it is left out."""

    type: ValueType = "text"
    ref: Name | None = None
    values: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    optional: bool = False
    description: str = ""


class Guard(_Declared):
    """A precondition and what a call is told that does not meet it."""

    that: Text
    error: Text


class Effect(_Declared):
    """A change of the state: rows are created, updated or deleted, one that has a name or, with `each`, all of an
    entity for which `where` holds."""

    create: Name | None = None
    update: Name | None = None
    delete: Name | None = None
    each: Name | None = None
    where: Text | None = None
    name: Name | None = None
    values: dict[Name, Text] = Field(default_factory=dict)


class Returns(_Declared):
    """What a call gives: a row, rows of an entity for which `where` holds, or values that are computed."""

    row: Name | None = None
    rows: Name | None = None
    name: Name | None = None
    where: Text | None = None
    sort: Name | None = None
    descending: bool = False
    limit: Annotated[int, Field(ge=1, le=100)] | None = None
    fields: tuple[Name, ...] | None = None
    values: dict[Name, Text] = Field(default_factory=dict)


class Tool(_Declared):
    """A tool and what it does. `ask` is how a person asks for it, with the parameters in braces. What is in brackets is
    said only if the parameters in it are told, or else what stands behind `|`: `move {lamp_id} to[ {day}| a new day]`.
    """

    name: Name
    description: Text
    ask: str = ""
    parameters: dict[Name, Parameter] = Field(default_factory=dict)
    requires: tuple[Guard, ...] = ()
    effects: tuple[Effect, ...] = ()
    returns: Returns

    @property
    def writes(self) -> bool:
        return bool(self.effects)

    def spec(self) -> ToolSpec:
        """As a model is told of it."""
        required = [name for name, parameter in self.parameters.items() if not parameter.optional]
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: _schema(parameter) for name, parameter in self.parameters.items()},
        }
        if required:
            schema["required"] = required
        schema["additionalProperties"] = False
        return ToolSpec(self.name, self.description, schema)


class Domain(_Declared):
    """An app with its tools."""

    name: Name
    category: Text
    title: Text
    description: str = ""
    policy: tuple[Text, ...] = ()
    users: Name | None = None
    """The entity whose rows are the people that sessions belong to."""
    entities: dict[Name, Entity]
    tools: tuple[Tool, ...]

    @cached_property
    def field_types(self) -> Fields:
        """Entity -> field -> type, the id included."""
        return {
            name: {"id": "text", **{field: declared.type for field, declared in entity.fields.items()}}
            for name, entity in self.entities.items()
        }

    @cached_property
    def by_name(self) -> dict[str, Tool]:
        return {tool.name: tool for tool in self.tools}


def row_name(parameter: str) -> str:
    """What the row is called whose id is an argument: `order` for `order_id`."""
    return parameter.removesuffix("_id") if parameter.endswith("_id") else f"{parameter}_row"


def read_domain(raw: Mapping[str, Any] | str, where: str = "the domain") -> Domain:
    """A checked domain. Raises UserError with one sentence for the first mistake, naming the tool and field."""
    try:
        domain = Domain.model_validate_json(raw) if isinstance(raw, str) else Domain.model_validate(dict(raw))
    except ValidationError as e:
        raise UserError(f"{where}: {_first_mistake(e, raw)}") from None
    try:
        check_domain(domain)
    except ExpressionError as e:
        raise UserError(f"{where}: {e}") from None
    return domain


def check_domain(domain: Domain) -> None:
    """Raises ExpressionError for the first thing that the parts of a domain say of each other and that is not so."""
    if not domain.tools:
        raise ExpressionError("it has no tools: declare one")
    if domain.users is not None and domain.users not in domain.entities:
        raise ExpressionError(f"users is {domain.users!r}, and there is no such entity")
    for name, entity in domain.entities.items():
        _check_entity(domain, name, entity)
    prefixes = [entity.prefix for entity in domain.entities.values()]
    if len(set(prefixes)) < len(prefixes):
        raise ExpressionError("two entities have the same prefix of ids: give each its own")
    if len(domain.by_name) < len(domain.tools):
        raise ExpressionError("two tools have the same name: give each its own")
    for tool in domain.tools:
        try:
            _check_tool(domain, tool)
        except ExpressionError as e:
            raise ExpressionError(f"tool {tool.name}: {e}") from None


def _check_entity(domain: Domain, name: str, entity: Entity) -> None:
    if name.startswith("sqlite_"):
        raise ExpressionError(f"entity {name}: names with sqlite_ in front are the database's, choose another one")
    if len(entity.fields) > _MOST_FIELDS:
        raise ExpressionError(f"entity {name}: it has {len(entity.fields)} fields, and at most {_MOST_FIELDS} may be")
    if "id" in entity.fields:
        raise ExpressionError(f"entity {name}: every row has an id of its own, leave the field out")
    if entity.label is not None and entity.label not in entity.fields:
        raise ExpressionError(f"entity {name}: label is {entity.label!r}, and it has no such field")
    for field, declared in entity.fields.items():
        if declared.ref is not None and declared.ref not in domain.entities:
            raise ExpressionError(
                f"entity {name}: field {field} refers to {declared.ref!r}, and there is no such entity"
            )
        if declared.ref is not None and (declared.type != "text" or declared.values):
            raise ExpressionError(f"entity {name}: field {field} refers to a row, so it has neither type nor values")
        if declared.kind and declared.kind not in KINDS:
            raise ExpressionError(
                f"entity {name}: field {field}: there is no kind {declared.kind!r}: there are {', '.join(KINDS)}"
            )
        with _within(f"entity {name}: field {field}"):
            _check_range(declared)


def _check_range(declared: EntityField | Parameter) -> None:
    """Raises ExpressionError if there is nothing that a field or an argument can be."""
    if declared.values is not None and declared.type != "text":
        raise ExpressionError("it has values, so it is a text")
    if declared.values is not None and not declared.values:
        raise ExpressionError("values is empty: name some, or leave it out")
    bounds = [bound for bound in (declared.minimum, declared.maximum) if bound is not None]
    if bounds and declared.type not in ("integer", "number"):
        raise ExpressionError(f"it is a {declared.type}: leave out minimum and maximum")
    if any(abs(bound) > _MOST for bound in bounds):
        raise ExpressionError(f"minimum and maximum lie between {-_MOST:.0e} and {_MOST:.0e}")
    low, high = (declared.minimum, declared.maximum) if len(bounds) == 2 else (0, 0)
    if declared.type == "integer":
        low, high = math.ceil(low or 0), math.floor(high or 0)
    if (low or 0) > (high or 0):
        raise ExpressionError("nothing lies between its minimum and its maximum")


def tool_types(domain: Domain, tool: Tool) -> dict[str, Type]:
    """The names that a tool's expressions know before its effects, and their types. Raises ExpressionError."""
    types = dict(GIVEN)
    for name, parameter in tool.parameters.items():
        with _within(f"parameter {name}"):
            _check_range(parameter)
        names: dict[str, Type] = {name: parameter.type}
        if parameter.ref is not None:
            if parameter.ref not in domain.entities:
                raise ExpressionError(f"parameter {name} refers to {parameter.ref!r}, and there is no such entity")
            names[row_name(name)] = RowOf(parameter.ref)
        for one in names:
            if one in types or one in _RESERVED:
                raise ExpressionError(f"parameter {name}: the name {one!r} is taken, choose another one")
        types |= names
    return types


def _check_tool(domain: Domain, tool: Tool) -> None:
    types = tool_types(domain, tool)
    fields = domain.field_types
    for number, guard in enumerate(tool.requires):
        with _within(f"requires.{number}"):
            parse_condition(guard.that, types, fields)
            parse_template(guard.error, types, fields)
    for number, effect in enumerate(tool.effects):
        with _within(f"effects.{number}"):
            types |= check_effect(domain, effect, types)
    with _within("returns"):
        _check_returns(domain, tool.returns, types)


class _within:
    """Names the part in the ExpressionErrors of the block."""

    def __init__(self, part: str) -> None:
        self._part = part

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ExpressionError):
            raise ExpressionError(f"{self._part}: {error}") from None


def check_effect(domain: Domain, effect: Effect, types: Mapping[str, Type]) -> dict[str, Type]:
    """The names that an effect adds. Raises ExpressionError."""
    what = [effect.create, effect.update, effect.delete]
    if sum(one is not None for one in what) != 1:
        raise ExpressionError("an effect has one of create, update and delete")
    if effect.create is not None:
        entity = effect.create
        if entity not in domain.entities:
            raise ExpressionError(f"create is {entity!r}, and there is no such entity")
        if effect.each or effect.where:
            raise ExpressionError("each and where are for update and delete")
        missing = [
            field
            for field, declared in domain.entities[entity].fields.items()
            if not declared.optional and field not in effect.values
        ]
        if missing:
            raise ExpressionError(f"a row of {entity} needs {', '.join(missing)}")
        _check_values(domain, entity, effect.values, types)
        return {} if effect.name is None else {_free(effect.name, types): RowOf(entity)}
    target = effect.update or effect.delete
    assert target is not None
    inner = dict(types)
    if effect.each is not None:
        if effect.each not in domain.entities:
            raise ExpressionError(f"each is {effect.each!r}, and there is no such entity")
        inner[_free(target, types)] = RowOf(effect.each)
        if effect.where is not None:
            parse_condition(effect.where, inner, domain.field_types)
    elif effect.where is not None:
        raise ExpressionError("where needs each")
    kind = inner.get(target)
    if not isinstance(kind, RowOf):
        raise ExpressionError(f"{target!r} is no row: name a row that a parameter's ref or a create's name gives")
    if effect.delete is not None and effect.values:
        raise ExpressionError("delete has no values")
    if effect.update is not None:
        if not effect.values:
            raise ExpressionError("update needs values")
        _check_values(domain, kind.entity, effect.values, inner)
    return {}


def _check_values(domain: Domain, entity: str, values: Mapping[str, str], types: Mapping[str, Type]) -> None:
    declared = domain.entities[entity].fields
    for field, text in values.items():
        if field not in declared:
            raise ExpressionError(f"{entity} have no field {field!r}: they have {', '.join(declared)}")
        found, wanted = parse(text, types, domain.field_types).type, declared[field].type
        if not (fits(found, wanted) or (found == "text" and wanted in ("date", "time"))):
            raise ExpressionError(f"{entity}.{field} is a {wanted}, and {text!r} is not")


def _check_returns(domain: Domain, returns: Returns, types: dict[str, Type]) -> None:
    if sum(map(bool, (returns.row, returns.rows, returns.values))) != 1:
        raise ExpressionError("a call returns one of row, rows and values")
    if returns.values:
        for text in returns.values.values():
            if isinstance(parse(text, types, domain.field_types).type, RowOf):
                raise ExpressionError(f"{text!r} is a row: return it as row, or its id")
        return
    if returns.row is not None:
        kind = types.get(returns.row)
        if not isinstance(kind, RowOf):
            raise ExpressionError(f"row is {returns.row!r}, and no row has that name")
        entity = kind.entity
    else:
        entity = str(returns.rows)
        if entity not in domain.entities:
            raise ExpressionError(f"rows is {entity!r}, and there is no such entity")
        if returns.where is not None:
            each = returns.name or domain.entities[entity].singular
            parse_condition(returns.where, {**types, _free(each, types): RowOf(entity)}, domain.field_types)
    known = domain.field_types[entity]
    for field in (*(returns.fields or ()), *([returns.sort] if returns.sort else [])):
        if field not in known:
            raise ExpressionError(f"{entity} have no field {field!r}: they have {', '.join(known)}")


def _free(name: str, types: Mapping[str, Type]) -> str:
    if name in types or name in _RESERVED:
        raise ExpressionError(f"the name {name!r} is taken: choose another one")
    return name


def _schema(parameter: Parameter) -> dict[str, Any]:
    out: dict[str, Any] = {"type": _JSON_TYPES.get(parameter.type, "string")}
    if parameter.description:
        out["description"] = parameter.description
    if parameter.values is not None:
        out["enum"] = list(parameter.values)
    if parameter.type in ("date", "time"):
        out["pattern"] = r"^\d{4}-\d{2}-\d{2}$" if parameter.type == "date" else r"^\d{2}:\d{2}$"
    for key, bound in (("minimum", parameter.minimum), ("maximum", parameter.maximum)):
        if bound is not None:
            out[key] = int(bound) if bound == int(bound) else bound
    return out


def _first_mistake(error: ValidationError, raw: Any) -> str:
    """The first mistake, with tools by their names."""
    first = error.errors()[0]
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            return f"it is not JSON ({first['msg']})"
    place: list[str] = []
    value = raw
    for part in first["loc"]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
        named = isinstance(value, Mapping) and isinstance(value.get("name"), str) and isinstance(part, int)
        place.append(value["name"] if named else str(part))
    words = {
        "missing": "it is missing",
        "extra_forbidden": "there is no such field: is it misspelled?",
    }.get(first["type"], first["msg"])
    return f"{'.'.join(place) or 'it'}: {words}"
