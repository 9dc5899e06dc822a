"""The expressions of a declared tool: what must hold, what is written, what is told.

They are written in a small part of Python's syntax and never run as Python: the syntax tree is checked against the
declared fields, with a sentence for every mistake, and turned into functions that know nothing but rows and values.

    order.status == "open" and order.total <= customers[order.customer].credit
    not any(b.room == room.id and b.start < end and start < b.end for b in bookings)
    sum(line.price * line.quantity for line in lines if line.order == order.id)

A name is a row, a value, or, in `for` and `[...]`, an entity. Functions are those in `FUNCTIONS`. Nothing here fails
when it is computed: arithmetic with null is null, a comparison of size with null is false, a missing row has no values.
What goes through too many rows alone is given up, with `TooManyRows`.
"""

from __future__ import annotations

import ast
import operator
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal, Protocol

Row = dict[str, Any]
Scope = dict[str, Any]
Kind = Literal["text", "integer", "number", "boolean", "date", "time", "null"]
"""Types of values. Dates are ISO 8601 texts, times HH:MM: both compare as texts do."""


class Tables(Protocol):
    """Where rows are read from while an expression is computed."""

    def rows(self, entity: str) -> list[Row]: ...

    def row(self, entity: str, key: Any) -> Row | None: ...


@dataclass(frozen=True, slots=True)
class RowOf:
    """The type of a row."""

    entity: str


Type = Kind | RowOf
Types = Mapping[str, Type]
Fields = Mapping[str, Mapping[str, Type]]
"""Entity -> field -> type; a field that refers to a row of another entity is a text."""
Compute = Callable[[Scope, Tables], Any]

_NUMBERS = ("integer", "number")
_MOST_NODES = 400
_DEEPEST = 4
"""So many loops over rows may stand in each other."""
_MOST_ROWS = 1_000_000
"""So many rows a computation goes through."""
STEPS = "#"
"""Where a scope holds how many rows were gone through, in a list of one. No declared name is like it."""
_MOST_DIGITS = 18
_LONGEST_TEXT = 10_000
_LARGEST = 1e15
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip


class ExpressionError(ValueError):
    """What is wrong with an expression, in words that name the part."""


class TooManyRows(Exception):
    """What is computed goes through more rows than a computation may."""

    def __init__(self) -> None:
        super().__init__(f"it goes through more than {_MOST_ROWS} rows")


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression: its type, and how it is computed."""

    text: str
    type: Type
    compute: Compute


def parse(text: str, types: Types, fields: Fields) -> Expression:
    """Check and prepare an expression over the names in `types`. Raises ExpressionError."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise ExpressionError(f"{text!r} cannot be read as an expression ({e})") from None
    if sum(1 for _ in ast.walk(tree)) > _MOST_NODES:
        raise ExpressionError(f"{text[:60]!r}... is too long: at most {_MOST_NODES} parts")
    try:
        kind, compute = _Reader(fields).read(tree.body, types)
    except ExpressionError as e:
        raise ExpressionError(f"{text!r}: {e}") from None
    return Expression(text, kind, compute)


def parse_condition(text: str, types: Types, fields: Fields) -> Expression:
    """An expression that is true or false. Raises ExpressionError."""
    expression = parse(text, types, fields)
    if expression.type != "boolean":
        raise ExpressionError(f"{text!r} is {_called(expression.type)}, and a condition is true or false")
    return expression


def parse_template(text: str, types: Types, fields: Fields) -> Callable[[Scope, Tables], str]:
    """A text with expressions in braces. Raises ExpressionError."""
    parts: list[str | Compute] = []
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as e:
        raise ExpressionError(f"the text {text!r} has a brace too many or too few ({e})") from None
    for literal, expression, spec, conversion in pieces:
        parts.append(literal)
        if expression is not None:
            if spec or conversion:
                raise ExpressionError(f"the text {text!r}: braces hold an expression alone, without : or !")
            parts.append(parse(expression, types, fields).compute)

    def fill(scope: Scope, tables: Tables) -> str:
        return "".join(part if isinstance(part, str) else shown(part(scope, tables)) for part in parts)

    return fill


def shown(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return str(value.get("id"))
    return str(value)


def fits(kind: Type, wanted: Type) -> bool:
    """Whether a value of one type may stand where another is wanted."""
    return kind in (wanted, "null") or (kind == "integer" and wanted == "number")


def _called(kind: Type) -> str:
    return f"a row of {kind.entity}" if isinstance(kind, RowOf) else "null" if kind == "null" else f"a {kind}"


def _days(first: str | None, last: str | None) -> int | None:
    """From one date to another."""
    try:
        return (date.fromisoformat(str(last)) - date.fromisoformat(str(first))).days
    except ValueError:
        return None


def _plus_days(day: str | None, count: int | None) -> str | None:
    try:
        return None if count is None else (date.fromisoformat(str(day)) + timedelta(days=count)).isoformat()
    except (ValueError, OverflowError):
        return None


def _rounded(value: float, digits: int) -> float:
    """To so many digits, of which a number has no more than `_MOST_DIGITS` on either side of the point."""
    return round(value, max(-_MOST_DIGITS, min(digits, _MOST_DIGITS)))


def _null_if_none(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: None if any(value is None for value in values) else function(*values)


FUNCTIONS: dict[str, tuple[tuple[Kind, ...], Kind, Callable[..., Any]]] = {
    "days": (("date", "date"), "integer", _days),
    "plus_days": (("date", "integer"), "date", _plus_days),
    "lower": (("text",), "text", _null_if_none(str.lower)),
    "length": (("text",), "integer", _null_if_none(len)),
    "round": (("number", "integer"), "number", _null_if_none(_rounded)),
    "least": (("number", "number"), "number", _null_if_none(min)),
    "most": (("number", "number"), "number", _null_if_none(max)),
}
"""Name -> types of the arguments, type of the result, what it does."""
OVER_ROWS = ("any", "all", "count", "sum", "min", "max")


class _Reader:
    """Turns syntax into a type and a function."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.depth = 0

    def read(self, node: ast.expr, types: Types) -> tuple[Type, Compute]:
        match node:
            case ast.Constant(value):
                return self._constant(value)
            case ast.Name(name):
                if name not in types:
                    entity = " (an entity: give it a row's id in [...], or go through it with for)"
                    raise ExpressionError(f"the name {name!r} is unknown{entity if name in self.fields else ''}")
                return types[name], lambda scope, _: scope.get(name)
            case ast.Attribute(value, name):
                return self._field(value, name, types)
            case ast.Subscript(ast.Name(entity), key):
                return self._lookup(entity, key, types)
            case ast.BoolOp(op, values):
                return self._all_or_any(isinstance(op, ast.And), values, types)
            case ast.UnaryOp(ast.Not(), operand):
                inner = self._wanted(operand, "boolean", types)
                return "boolean", lambda scope, tables: not inner(scope, tables)
            case ast.UnaryOp(ast.USub(), operand):
                kind, negated = self._number(operand, types)
                return kind, lambda scope, tables: None if (v := negated(scope, tables)) is None else -v
            case ast.BinOp(left, op, right):
                return self._arithmetic(left, op, right, types)
            case ast.Compare(left, [op], [right]):
                return self._comparison(left, op, right, types)
            case ast.IfExp(test, body, orelse):
                return self._choice(test, body, orelse, types)
            case ast.Call(ast.Name(name), arguments, []):
                return self._call(name, arguments, types)
        raise ExpressionError(f"{ast.unparse(node)!r} is no part of these expressions")

    def _constant(self, value: Any) -> tuple[Type, Compute]:
        if value is None:
            kind: Kind = "null"
        elif isinstance(value, bool):
            kind = "boolean"
        elif isinstance(value, int | float) and abs(value) <= _LARGEST:
            kind = "integer" if isinstance(value, int) else "number"
        elif isinstance(value, str):
            kind = "text"
        else:
            raise ExpressionError(f"{value!r} is no value: use a text, a number, True, False or None")
        return kind, lambda scope, tables: value

    def _field(self, node: ast.expr, name: str, types: Types) -> tuple[Type, Compute]:
        kind, row = self.read(node, types)
        if not isinstance(kind, RowOf):
            raise ExpressionError(f"{ast.unparse(node)!r} is {_called(kind)} and has no fields")
        known = self.fields[kind.entity]
        if name not in known:
            raise ExpressionError(f"{kind.entity} have no field {name!r}: they have {', '.join(known)}")
        return known[name], lambda scope, tables: (row(scope, tables) or {}).get(name)

    def _lookup(self, entity: str, node: ast.expr, types: Types) -> tuple[Type, Compute]:
        if entity not in self.fields:
            raise ExpressionError(f"there is no entity {entity!r}: there are {', '.join(self.fields)}")
        key = self._wanted(node, "text", types)
        return RowOf(entity), lambda scope, tables: tables.row(entity, key(scope, tables))

    def _all_or_any(self, every: bool, nodes: list[ast.expr], types: Types) -> tuple[Type, Compute]:
        parts = [self._wanted(node, "boolean", types) for node in nodes]
        together = all if every else any
        return "boolean", lambda scope, tables: together(part(scope, tables) for part in parts)

    def _arithmetic(self, left: ast.expr, op: ast.operator, right: ast.expr, types: Types) -> tuple[Type, Compute]:
        if type(op) not in _ARITHMETIC:
            raise ExpressionError(f"{ast.unparse(left)} and {ast.unparse(right)} can be joined by + - * / // % alone")
        first_kind, first = self.read(left, types)
        second_kind, second = self.read(right, types)
        operate = _ARITHMETIC[type(op)]
        if isinstance(op, ast.Add) and first_kind == second_kind == "text":
            kind: Kind = "text"
        elif first_kind in _NUMBERS and second_kind in _NUMBERS:
            whole = first_kind == second_kind == "integer" and not isinstance(op, ast.Div)
            kind = "integer" if whole else "number"
        else:
            raise ExpressionError(
                f"{ast.unparse(left)} is {_called(first_kind)} and {ast.unparse(right)} is {_called(second_kind)}: "
                "only numbers can be calculated with"
            )

        def compute(scope: Scope, tables: Tables) -> Any:
            a, b = first(scope, tables), second(scope, tables)
            if a is None or b is None:
                return None
            try:
                value = operate(a, b)
            except ArithmeticError:
                return None
            if isinstance(value, str):
                return value[:_LONGEST_TEXT]
            # Sums of prices in binary are off by nothing that anybody means.
            value = round(value, 6) if isinstance(value, float) else value
            return value if abs(value) <= _LARGEST else None

        return kind, compute

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr, types: Types) -> tuple[Type, Compute]:
        if isinstance(op, ast.In | ast.NotIn):
            member = self._membership(left, right, types)
            if isinstance(op, ast.In):
                return "boolean", member
            return "boolean", lambda scope, tables: not member(scope, tables)
        first_kind, first = self.read(left, types)
        second_kind, second = self.read(right, types)
        if isinstance(op, ast.Is | ast.IsNot):
            if second_kind != "null":
                raise ExpressionError(f"{ast.unparse(right)!r} behind `is`: only None can stand there")
            op = ast.Eq() if isinstance(op, ast.Is) else ast.NotEq()
        comparable = fits(first_kind, second_kind) or fits(second_kind, first_kind)
        # A text that is written down may be a date.
        written = ("text" in (first_kind, second_kind)) and {first_kind, second_kind} & {"date", "time"}
        if isinstance(first_kind, RowOf) or isinstance(second_kind, RowOf):
            if "null" not in (first_kind, second_kind):
                raise ExpressionError(
                    f"{ast.unparse(left)} == {ast.unparse(right)} compares a row: compare its id instead"
                )
        elif not (comparable or written):
            raise ExpressionError(
                f"{ast.unparse(left)} is {_called(first_kind)} and {ast.unparse(right)} is {_called(second_kind)}: "
                "they cannot be compared"
            )
        compare = _COMPARE[type(op)]
        if isinstance(op, ast.Eq | ast.NotEq):
            return "boolean", lambda scope, tables: compare(first(scope, tables), second(scope, tables))

        def ordered(scope: Scope, tables: Tables) -> bool:
            a, b = first(scope, tables), second(scope, tables)
            return a is not None and b is not None and bool(compare(a, b))

        return "boolean", ordered

    def _membership(self, left: ast.expr, right: ast.expr, types: Types) -> Compute:
        kind, value = self.read(left, types)
        if isinstance(right, ast.Tuple | ast.List):
            members = [self._constant(node.value) for node in right.elts if isinstance(node, ast.Constant)]
            if len(members) != len(right.elts) or not all(fits(member, kind) for member, _ in members):
                raise ExpressionError(f"{ast.unparse(right)} must be values of the type of {ast.unparse(left)}")
            values = [node.value for node in right.elts if isinstance(node, ast.Constant)]
            return lambda scope, tables: value(scope, tables) in values
        text = self._wanted(right, "text", types)
        if kind != "text":
            raise ExpressionError(f"{ast.unparse(left)} is {_called(kind)}: only a text can be in a text")

        def within(scope: Scope, tables: Tables) -> bool:
            part, whole = value(scope, tables), text(scope, tables)
            return part is not None and whole is not None and part in whole

        return within

    def _choice(self, test: ast.expr, body: ast.expr, orelse: ast.expr, types: Types) -> tuple[Type, Compute]:
        condition = self._wanted(test, "boolean", types)
        first_kind, first = self.read(body, types)
        second_kind, second = self.read(orelse, types)
        if not (fits(first_kind, second_kind) or fits(second_kind, first_kind)):
            raise ExpressionError(f"{ast.unparse(body)} and {ast.unparse(orelse)} are not of one type")
        kind = second_kind if fits(first_kind, second_kind) else first_kind
        return kind, lambda scope, tables: (first if condition(scope, tables) else second)(scope, tables)

    def _call(self, name: str, arguments: list[ast.expr], types: Types) -> tuple[Type, Compute]:
        if len(arguments) == 1 and isinstance(arguments[0], ast.GeneratorExp) and name in OVER_ROWS:
            return self._over_rows(name, arguments[0], types)
        if name not in FUNCTIONS:
            over = f"; over rows: {', '.join(OVER_ROWS)}"
            raise ExpressionError(f"there is no function {name!r}: there are {', '.join(FUNCTIONS)}{over}")
        wanted, kind, function = FUNCTIONS[name]
        if len(arguments) != len(wanted):
            raise ExpressionError(f"{name} takes {len(wanted)} values and is given {len(arguments)}")
        parts = [self._wanted(node, one, types) for node, one in zip(arguments, wanted, strict=True)]
        return kind, lambda scope, tables: function(*(part(scope, tables) for part in parts))

    def _over_rows(self, name: str, node: ast.GeneratorExp, types: Types) -> tuple[Type, Compute]:
        match node.generators:
            case [ast.comprehension(ast.Name(each), ast.Name(entity), conditions, 0)] if entity in self.fields:
                pass
            case _:
                raise ExpressionError(f"{ast.unparse(node)!r}: write NAME(... for row in ENTITY if ...)")
        if each in types:
            raise ExpressionError(f"the name {each!r} is taken: call the rows of {entity} something else")
        if self.depth == _DEEPEST:
            raise ExpressionError(f"more than {_DEEPEST} loops over rows stand in each other")
        self.depth += 1
        inner = {**types, each: RowOf(entity)}
        tests = [self._wanted(condition, "boolean", inner) for condition in conditions]
        kind, value = self.read(node.elt, inner)
        self.depth -= 1
        if name in ("any", "all") and kind != "boolean":
            raise ExpressionError(f"{ast.unparse(node.elt)} is {_called(kind)}, and {name} needs true or false")
        if name == "sum" and kind not in _NUMBERS:
            raise ExpressionError(f"{ast.unparse(node.elt)} is {_called(kind)}, and only numbers have a sum")
        if name in ("min", "max") and (isinstance(kind, RowOf) or kind == "boolean"):
            raise ExpressionError(f"{ast.unparse(node.elt)} is {_called(kind)}: {name} needs values that have an order")

        def values(scope: Scope, tables: Tables) -> Iterable[Any]:
            own = dict(scope)
            rows = tables.rows(entity)
            steps = own.setdefault(STEPS, [0])
            steps[0] += len(rows)
            if steps[0] > _MOST_ROWS:
                raise TooManyRows
            for row in rows:
                own[each] = row
                if all(test(own, tables) for test in tests):
                    yield value(own, tables)

        results: dict[str, Type] = {"any": "boolean", "all": "boolean", "count": "integer"}
        return results.get(name, kind), _folded(name, values)

    def _wanted(self, node: ast.expr, wanted: Kind, types: Types) -> Compute:
        kind, compute = self.read(node, types)
        # A text that is written down may be a date.
        written = isinstance(node, ast.Constant) and kind == "text" and wanted in ("date", "time")
        if not (fits(kind, wanted) or written):
            raise ExpressionError(f"{ast.unparse(node)} is {_called(kind)}, and a {wanted} is needed there")
        return compute

    def _number(self, node: ast.expr, types: Types) -> tuple[Type, Compute]:
        kind, compute = self.read(node, types)
        if kind not in _NUMBERS:
            raise ExpressionError(f"{ast.unparse(node)} is {_called(kind)}, and a number is needed there")
        return kind, compute


def _folded(name: str, values: Callable[[Scope, Tables], Iterable[Any]]) -> Compute:
    """What becomes of the values of many rows; null ones do not count in a sum, a minimum or a maximum."""
    if name in ("any", "all"):
        together = any if name == "any" else all
        return lambda scope, tables: together(values(scope, tables))
    if name == "count":
        return lambda scope, tables: sum(1 for _ in values(scope, tables))

    def fold(scope: Scope, tables: Tables) -> Any:
        present = [value for value in values(scope, tables) if value is not None]
        if name == "sum":
            total = sum(present)
            total = round(total, 6) if isinstance(total, float) else total
            return total if abs(total) <= _LARGEST else None
        return (min if name == "min" else max)(present, default=None)

    return fold
