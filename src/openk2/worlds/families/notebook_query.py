"""What can be asked about a table: the query, what is right (in plain Python), how the expert computes and says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from openk2.worlds.families.tables import STATISTICS, Table, correlation, numbers


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on rows. `named` says whether the request names the column, `text` whether the value is text."""

    column: str
    relation: str
    value: str
    named: bool
    text: bool


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked, exactly. `op` with one or two `columns`, per group of `by`, on the rows that pass all `filters`.

    `label` is the column that is answered with in `top` and `bottom` queries of `k` rows or groups.
    """

    op: str
    columns: tuple[str, ...] = ()
    by: str | None = None
    filters: tuple[Filter, ...] = ()
    label: str | None = None
    k: int = 0
    descending: bool = True


class Unfit(Exception):
    """The drawn table or query does not give a clear question; draw again."""


# ---------------------------------------------------------------------------------------------------------------------
# What is right, in plain Python.


def passing(table: Table, filters: Sequence[Filter]) -> Table:
    """The rows that pass. A missing cell passes nothing."""

    def holds(row: tuple[str, ...], f: Filter) -> bool:
        cell = row[table.index(f.column)]
        if cell == "":
            return False
        if f.relation == "==":
            return cell == f.value if f.text else float(cell) == float(f.value)
        left, right = (cell, f.value) if f.text else (float(cell), float(f.value))
        if f.relation == ">":
            return left > right  # type: ignore[operator]  # both text or both numbers
        if f.relation == "<":
            return left < right  # type: ignore[operator]
        return left >= right if f.relation == ">=" else left <= right  # type: ignore[operator]

    return Table(table.file, table.columns, tuple(r for r in table.rows if all(holds(r, f) for f in filters)))


def statistic(op: str, table: Table, name: str) -> float:
    """One number over a column; whole columns of integers without gaps give integers, except for means."""
    cells = [c for c in table.cells(name) if c != ""]
    if not cells:
        raise Unfit
    value = STATISTICS[op](numbers(cells))
    return round(value) if op in ("sum", "max", "min") and table.column(name).kind == "int" else value


def expectation(table: Table, query: Query) -> dict[str, Any]:
    """What an answer must say, in the form that `notebook_check` reads. Raises Unfit when it is not clear-cut."""
    rows = passing(table, query.filters)
    if query.filters and (len(rows.rows) < 2 or len(rows.rows) == len(table.rows)):
        raise Unfit
    expect: dict[str, Any] = {"facts": [], "names": [table.file, *(c.name for c in table.columns)], "allowed": []}
    expect["names"] += [f.value for f in query.filters if f.text]
    expect["allowed"] += [float(f.value) for f in query.filters if not f.text]
    match query.op:
        case "rows" if query.by is None:
            numbers_said: list[float] = [len(rows.rows)]
        case "columns":
            numbers_said = [len(table.columns)]
        case "distinct":
            numbers_said = [len({c for c in rows.cells(query.columns[0]) if c != ""})]
        case "correlation":
            numbers_said = [_correlation(rows, *query.columns)]
        case "missing":
            numbers_said = [rows.cells(query.columns[0]).count("")]
        case "missing_all":
            numbers_said = [sum(row.count("") for row in rows.rows)]
        case "missing_rows":
            numbers_said = [sum("" in row for row in rows.rows)]
        case "missing_most":
            return expect | _best(expect, {c.name: rows.cells(c.name).count("") for c in table.columns}, query)
        case "first_date" | "last_date":
            dates = [c for c in rows.cells(query.columns[0]) if c != ""]
            return expect | {"texts": [min(dates) if query.op == "first_date" else max(dates)]}
        case "range":
            numbers_said = [statistic(op, rows, query.columns[0]) for op in ("min", "max")]
        case "top_rows":
            return expect | _best(expect, _labelled(rows, str(query.label), query.columns[0]), query)
        case _ if query.by is not None:
            groups = _grouped(rows, query)
            if query.k:
                return expect | _best(expect, {label: values[0] for label, values in groups.items()}, query)
            facts = [{"label": label, "numbers": values} for label, values in groups.items()]
            return expect | {"facts": facts}
        case _:
            numbers_said = [statistic(query.op, rows, name) for name in query.columns]
    return expect | {"facts": [{"numbers": numbers_said}]}


def _correlation(rows: Table, x: str, y: str) -> float:
    pairs = [(float(a), float(b)) for a, b in zip(rows.cells(x), rows.cells(y), strict=True) if a and b]
    if len(pairs) < 5 or len({a for a, _ in pairs}) < 3 or len({b for _, b in pairs}) < 3:
        raise Unfit
    return correlation(pairs)


def _labelled(rows: Table, label: str, column: str) -> dict[str, float]:
    whole = rows.column(column).kind == "int"
    pairs = [(a, b) for a, b in zip(rows.cells(label), rows.cells(column), strict=True) if a and b]
    if len({a for a, _ in pairs}) < len(pairs):
        raise Unfit
    return {a: int(b) if whole else float(b) for a, b in pairs}


def _grouped(rows: Table, query: Query) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for label in sorted({c for c in rows.cells(str(query.by)) if c != ""}):
        part = passing(rows, (Filter(str(query.by), "==", label, True, True),))
        groups[label] = (
            [len(part.rows)] if query.op == "rows" else [statistic(query.op, part, name) for name in query.columns]
        )
    if len(groups) < 2:
        raise Unfit
    return groups


def _best(expect: dict[str, Any], values: dict[str, float], query: Query) -> dict[str, Any]:
    """The k first of a ranking. Unfit when rounding to two decimals could change it."""
    ranked = sorted(values.items(), key=lambda item: -item[1] if query.descending else item[1])
    if len(ranked) <= query.k:
        raise Unfit
    for (_, a), (_, b) in pairwise(ranked[: query.k + 1]):
        if abs(a - b) < 0.011:
            raise Unfit
    chosen, others = ranked[: query.k], [label for label, _ in ranked[query.k : query.k + 8]]
    if query.op == "missing_most" and chosen[0][1] == 0:
        raise Unfit
    said = {str(name).lower() for name in expect["names"]} | {label.lower() for label, _ in chosen}
    others = [label for label in others if label.lower() not in said]
    return {
        "facts": [{"label": label, "numbers": [value]} for label, value in chosen],
        "ordered": query.k > 1,
        "others": others,
        "allowed": [*expect["allowed"], query.k],
    }


# ---------------------------------------------------------------------------------------------------------------------
# How the expert computes it and says it.


def rows_code(query: Query) -> str:
    """The data frame of the rows that are asked about."""
    conditions = []
    for f in query.filters:
        value = f"'{f.value}'" if f.text and f.value not in ("True", "False") else f.value
        conditions.append(f"df['{f.column}'] {f.relation} {value}")
    if not conditions:
        return "df"
    return f"df[{conditions[0]}]" if len(conditions) == 1 else "df[" + " & ".join(f"({c})" for c in conditions) + "]"


def code(query: Query) -> str:
    """One line of pandas that prints the result."""
    df = rows_code(query)
    x = f"['{query.columns[0]}']" if query.columns else ""
    if len(query.columns) == 2:
        x = f"[['{query.columns[0]}', '{query.columns[1]}']]"
    match query.op:
        case "rows" if query.by is None:
            return f"print(len({df}))"
        case "columns":
            return "print(len(df.columns))"
        case "distinct":
            return f"print({df}{x}.nunique())"
        case "correlation":
            return f"print(round({df}['{query.columns[0]}'].corr({df}['{query.columns[1]}']), 2))"
        case "missing":
            return f"print({df}{x}.isna().sum())"
        case "missing_all":
            return f"print({df}.isna().sum().sum())"
        case "missing_rows":
            return f"print({df}.isna().any(axis=1).sum())"
        case "missing_most":
            return f"print({df}.isna().sum().nlargest(1).to_csv(header=False))"
        case "first_date":
            return f"print({df}{x}.min())"
        case "last_date":
            return f"print({df}{x}.max())"
        case "range":
            return f"print({df}{x}.min(), {df}{x}.max())"
        case "top_rows":
            best = "nlargest" if query.descending else "nsmallest"
            columns = f"[['{query.label}', '{query.columns[0]}']]"
            return f"print({df}.{best}({query.k}, '{query.columns[0]}'){columns}.to_csv(index=False))"
        case _ if query.by is not None:
            per_group = "size()" if query.op == "rows" else f"{query.op}().round(2)"
            x = "" if query.op == "rows" else x
            if query.k:
                best = "nlargest" if query.descending else "nsmallest"
                return f"print({df}.groupby('{query.by}'){x}.{per_group}.{best}({query.k}).to_csv(header=False))"
            return f"print({df}.groupby('{query.by}'){x}.{per_group}.to_csv())"
        case _ if len(query.columns) == 2:
            return f"print({df}{x}.{query.op}().round(2).to_csv(header=False))"
        case _:
            return f"print(round({df}{x}.{query.op}(), 2))"


def where_text(query: Query) -> str:
    """The conditions in words, for the answer."""
    parts = [f"{f.column} {'is' if f.relation == '==' else f.relation} {f.value}" for f in query.filters]
    return f" where {' and '.join(parts)}" if parts else ""


def sentence(query: Query, printed: str) -> str:
    """The answer in words, from what the code printed."""
    lines = printed.strip().split("\n")
    where = where_text(query)
    x = query.columns[0] if query.columns else ""
    both = " and ".join(query.columns)
    match query.op:
        case "rows" if query.by is None:
            return f"There are {lines[0]} rows{where}."
        case "columns":
            return f"There are {lines[0]} columns."
        case "distinct":
            return f"There are {lines[0]} different values of {x}{where}."
        case "correlation":
            return f"The correlation of {both}{where} is {lines[0]}."
        case "missing":
            return f"There are {lines[0]} missing values in {x}{where}."
        case "missing_all":
            return f"There are {lines[0]} missing values in total."
        case "missing_rows":
            return f"There are {lines[0]} rows with missing values."
        case "missing_most":
            name, count = lines[0].rsplit(",", 1)
            return f"The column with the most missing values is {name} with {count}."
        case "first_date" | "last_date":
            return f"The {'first' if query.op == 'first_date' else 'last'} {x}{where} is {lines[0]}."
        case "range":
            low, high = lines[0].split(" ")
            return f"The min of {x}{where} is {low} and the max is {high}."
        case "top_rows":
            items = [line.rsplit(",", 1) for line in lines[1:]]
            if query.k == 1:
                extreme = "highest" if query.descending else "lowest"
                return f"The {query.label} with the {extreme} {x}{where} is {items[0][0]} with {items[0][1]}."
            extreme = "top" if query.descending else "bottom"
            listed = ", ".join(f"{name} {value}" for name, value in items)
            return f"The {extreme} {query.k} by {x}{where}: {listed}."
        case _ if query.by is not None:
            what = "number of rows" if query.op == "rows" else f"{query.op} of {both}"
            if query.k:
                name, value = lines[0].rsplit(",", 1)
                extreme = "highest" if query.descending else "lowest"
                return f"The {query.by} with the {extreme} {what}{where} is {name} with {value}."
            cells = [line.split(",") for line in lines[1:]]
            listed = ", ".join(f"{c[0]} {' and '.join(c[1:])}" for c in cells)
            return f"The {what} by {query.by}{where}: {listed}."
        case _ if len(query.columns) == 2:
            first, second = (line.rsplit(",", 1)[1] for line in lines)
            return f"The {query.op} of {query.columns[0]}{where} is {first} and of {query.columns[1]} is {second}."
        case _:
            return f"The {query.op} of {x}{where} is {lines[0]}."


def query_of(data: dict[str, Any]) -> Query:
    """The query from its JSON form in a task."""
    filters = tuple(Filter(**f) for f in data["filters"])
    return Query(**{**data, "columns": tuple(data["columns"]), "filters": filters})
