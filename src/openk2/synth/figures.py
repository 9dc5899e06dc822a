"""The figures of a run: what it covers, how varied it is, how hard, how long, and why the rest was dropped.

All is counted by DuckDB over the lake, so a run of any size needs little memory.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from openk2.core import UserError
from openk2.core.rates import Tally
from openk2.data.lake import ATTEMPTS, Lake, recipe_of

_EDGES = 10
_POINTS = 60
LENGTHS = {
    "calls": "n_calls",
    "user turns": "user_turns",
    # The system's message, what the user says, each turn of the agent's, and a result for each call.
    "messages": "1 + user_turns + steps + n_calls",
}


def figures_of(run: Path) -> dict[str, Any]:
    """All figures of a run, as JSON. Raises UserError if the folder is not a run, or one without attempts yet."""
    lake = begun(run)
    recipe = recipe_of(lake.folder)
    domains = _coverage(lake)
    return {
        "name": recipe["name"],
        "seed": recipe["seed"],
        "policy": recipe["attempts"]["model"],
        "counts": lake.status(),
        "coverage": {"domains": domains, "categories": _categories(domains)},
        "structures": _structures(lake),
        "distinct": _distinct(lake),
        "difficulty": _difficulty(lake),
        "pass_rates": {"kind": _pass_rates(lake, "unnest(string_split(kinds, ' '))"), "category": _pass_rates(lake)},
        "lengths": {name: _length(lake, column) for name, column in LENGTHS.items()},
        "dropped": {
            "tools": _dropped_tools(lake),
            "attempts": _dropped_attempts(lake),
            "proposals": lake.status()["refused"],
        },
        "grades": _grades(lake),
    }


def begun(run: Path) -> Lake:
    """The lake of a run in which something was tried. Raises UserError if there is none."""
    lake = Lake(run)
    if not any((lake.folder / ATTEMPTS).glob("*.parquet")):
        raise UserError(f"{run} has no attempts yet: the same synth run command goes on")
    return lake


def _rows(lake: Lake, sql: str) -> list[dict[str, Any]]:
    names, rows = lake.query(sql)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _coverage(lake: Lake) -> list[dict[str, Any]]:
    domains = _rows(lake, "SELECT name AS domain, category, tools FROM domains ORDER BY category, name")
    kept = {
        row["domain"]: row["kept"]
        for row in _rows(lake, "SELECT domain, count(*) AS kept FROM trajectories GROUP BY 1")
    }
    return [row | {"kept": kept.get(row["domain"], 0)} for row in domains]


def _categories(domains: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The largest first."""
    found: dict[str, dict[str, Any]] = {}
    for row in domains:
        one = found.setdefault(row["category"], {"category": row["category"], "domains": 0, "tools": 0, "kept": 0})
        one["domains"] += 1
        one["tools"] += row["tools"]
        one["kept"] += row["kept"]
    return sorted(found.values(), key=lambda one: (-one["domains"], -one["tools"], one["category"]))


def _structures(lake: Lake) -> dict[str, Any]:
    """How many preconditions and effects there are up to renaming, and how the tools are spread over them."""
    rows = _rows(
        lake,
        "SELECT count(*) AS tools, count(DISTINCT domain) AS domains, min(name) AS example, "
        "arg_min(description, name) AS does FROM tools WHERE dropped = '' GROUP BY structure "
        "ORDER BY tools DESC, example, does",
    )
    counts = [row["tools"] for row in rows]
    total = sum(counts)
    entropy = -sum(count / total * math.log(count / total) for count in counts)
    return {
        "tools": total,
        "distinct": len(counts),
        # So many structures that all had the same number of tools would be as varied as these.
        "effective": round(math.exp(entropy), 1) if counts else 0,
        "share_of_largest_10": _share(sum(counts[:10]), total),
        "share_of_largest_100": _share(sum(counts[:100]), total),
        "with_one_tool": sum(count == 1 for count in counts),
        "concentration": _concentration(counts),
        "largest": [row | {"share": _share(row["tools"], total)} for row in rows[:15]],
    }


def _concentration(counts: Sequence[int]) -> list[dict[str, Any]]:
    """The share of all tools that the first structures have, at some places of a logarithmic scale."""
    if not counts:
        return []
    total, sums = sum(counts), list(accumulate(counts))
    places = sorted({max(1, round(len(counts) ** (at / _POINTS))) for at in range(_POINTS + 1)})
    return [{"structures": place, "share": _share(sums[place - 1], total)} for place in places]


def _distinct(lake: Lake) -> dict[str, Any]:
    tools = _one(
        lake,
        "SELECT count(*) AS tools, count(DISTINCT name) AS names, count(DISTINCT shape) AS schemas, "
        "count(DISTINCT name || shape) AS pairs FROM tools WHERE dropped = ''",
    )
    runs = _one(
        lake,
        "SELECT count(*) AS trajectories, count(DISTINCT calls) AS sequences, count(DISTINCT tools) AS toolsets, "
        "count(DISTINCT tools || '|' || calls) AS both FROM trajectories",
    )
    # Those of which there is another with the same tools on offer and the same calls.
    shared = _one(
        lake,
        "SELECT coalesce(sum(n), 0) AS n FROM (SELECT count(*) AS n FROM trajectories GROUP BY tools, calls) "
        "WHERE n > 1",
    )
    total, kept = tools["tools"], runs["trajectories"]
    return {
        "tools": total,
        "tool_names": tools["names"],
        "tool_schemas": tools["schemas"],
        "tool_names_with_schemas": tools["pairs"],
        "name_schema_ratio": _share(tools["pairs"], total),
        "trajectories": kept,
        "call_sequences": runs["sequences"],
        "call_sequence_ratio": _share(runs["sequences"], kept),
        "tool_sets": runs["toolsets"],
        "tool_sets_with_call_sequences": runs["both"],
        "sharing_tools_and_calls": shared["n"],
        "sharing_tools_and_calls_share": _share(shared["n"], kept),
    }


def _one(lake: Lake, sql: str) -> dict[str, int]:
    """A row of counts; SQL's sums are wider than what JSON can write."""
    return {name: int(value) for name, value in _rows(lake, sql)[0].items()}


def _difficulty(lake: Lake) -> dict[str, Any]:
    """1 - pass rate of each task that was tried."""
    tried = _rows(
        lake,
        f"SELECT least(floor(d * {_EDGES}), {_EDGES - 1})::INT AS at, count(*) AS tasks, sum(d) AS total, "
        "count(*) FILTER (d = 0) AS easy, count(*) FILTER (d = 1) AS hard, sum(n) AS attempts FROM "
        "(SELECT difficulty AS d, attempts AS n FROM tasks WHERE attempts > 0) GROUP BY 1 ORDER BY 1",
    )
    tasks = sum(row["tasks"] for row in tried)
    by_place = {row["at"]: row["tasks"] for row in tried}
    return {
        "tasks": tasks,
        "attempts_per_task": round(sum(row["attempts"] for row in tried) / tasks, 2) if tasks else 0,
        "mean": round(float(sum(row["total"] for row in tried)) / tasks, 4) if tasks else 0,
        "always_passed": sum(row["easy"] for row in tried),
        "never_passed": sum(row["hard"] for row in tried),
        "histogram": [
            {"from": at / _EDGES, "to": (at + 1) / _EDGES, "tasks": by_place.get(at, 0)} for at in range(_EDGES)
        ],
    }


def _pass_rates(lake: Lake, by: str = "category") -> list[dict[str, Any]]:
    """Of all attempts. A task with turns of several kinds counts for each."""
    rows = _rows(lake, f"SELECT {by} AS name, passed, count(*) AS n FROM attempts GROUP BY 1, 2")
    tallies: dict[str, Tally] = {}
    for row in rows:
        tally = tallies.setdefault(row["name"], Tally())
        tally.n += row["n"]
        tally.passed += row["n"] if row["passed"] else 0
    ordered = sorted(tallies.items(), key=lambda item: (-item[1].n, item[0]))
    return [{"name": name} | tally.to_json() for name, tally in ordered if name]


def _length(lake: Lake, column: str) -> dict[str, Any]:
    rows = _rows(lake, f"SELECT {column} AS length, count(*) AS n FROM trajectories GROUP BY 1 ORDER BY 1")
    return distribution({int(row["length"]): row["n"] for row in rows})


def _grades(lake: Lake) -> dict[str, Any]:
    """What a judge has given, rounded to whole grades, and how many attempts it could not grade."""
    _, rows = lake.query_if_there("SELECT round(grade), count(*) FROM judged GROUP BY 1 ORDER BY 1")
    given = {str(int(grade)): int(count) for grade, count in rows if grade is not None}
    return {"judged": sum(int(count) for _, count in rows), "given": given} if rows else {}


def _dropped_tools(lake: Lake) -> dict[str, int]:
    rows = _rows(lake, "SELECT dropped, count(*) AS n FROM tools WHERE dropped <> '' GROUP BY 1 ORDER BY 2 DESC, 1")
    return {_REASONS.get(row["dropped"], row["dropped"]): row["n"] for row in rows}


def _dropped_attempts(lake: Lake) -> dict[str, int]:
    """Those at which nothing could be tried too."""
    none = _one(lake, "SELECT count(*) AS n FROM tasks WHERE data IS NULL")["n"]
    dropped: dict[str, int] = lake.status()["dropped"]
    return dropped | ({"no task was found": none} if none else {})


_REASONS = {
    "name": "the same name and structure",
    "meaning": "the same words, schema and structure",
    "description": "nearly the same description, and the same structure",
}


def distribution(counts: Mapping[int, int]) -> dict[str, Any]:
    """Mean, percentiles and counts of whole numbers."""
    total = sum(counts.values())
    if not total:
        return {"n": 0, "mean": 0, "p10": 0, "p50": 0, "p90": 0, "max": 0, "counts": {}}
    ordered = sorted(counts.items())
    return {
        "n": total,
        "mean": round(sum(value * count for value, count in ordered) / total, 2),
        **{f"p{percent}": _percentile(ordered, total * percent / 100) for percent in (10, 50, 90)},
        "max": ordered[-1][0],
        "counts": {str(value): count for value, count in ordered},
    }


def _percentile(ordered: Sequence[tuple[int, int]], wanted: float) -> int:
    """The least value that at least `wanted` of the values do not exceed."""
    sums = list(accumulate(count for _, count in ordered))
    return ordered[bisect_left(sums, wanted)][0]


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
