"""Random CSV tables with unseen schemas, and plain-Python statistics over them.

A table is made from the words of one split, so that no column name, file stem or cell of the test split occurs in
training. The statistics here know nothing of pandas: they are what the expert's pandas code is checked against.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

from openk2.core import Split
from openk2.worlds.families import lexicon

Kind = Literal["int", "float", "category", "flag", "date", "label"]

# What a number can measure, with the units that may follow it and the range and decimals of its values.
_MEASURES: dict[str, tuple[tuple[str, ...], float, float, int]] = {
    "length": (("mm", "cm", "m"), 5, 300, 1),
    "width": (("mm", "cm", "m"), 2, 200, 1),
    "height": (("mm", "cm", "m"), 10, 250, 1),
    "depth": (("mm", "cm", "m"), 1, 90, 1),
    "weight": (("g", "kg", "lb"), 1, 900, 1),
    "mass": (("g", "kg"), 20, 6000, 0),
    "price": (("usd", "eur"), 1, 500, 2),
    "cost": (("usd", "eur"), 1, 900, 2),
    "salary": (("usd", "eur"), 18000, 160000, 0),
    "revenue": (("usd", "eur", "k"), 100, 90000, 0),
    "profit": (("usd", "eur"), -500, 9000, 2),
    "sales": ((), 0, 2000, 0),
    "quantity": ((), 1, 120, 0),
    "age": (("years", "days"), 1, 95, 0),
    "score": ((), 0, 100, 1),
    "rating": ((), 1, 5, 1),
    "points": ((), 0, 150, 0),
    "speed": (("kmh", "mph", "ms"), 3, 260, 1),
    "distance": (("km", "m", "mi"), 1, 800, 1),
    "duration": (("min", "s", "h"), 1, 400, 0),
    "delay": (("min", "s", "ms"), 0, 180, 0),
    "temperature": (("c", "f", "k"), -20, 45, 1),
    "humidity": (("pct",), 5, 100, 0),
    "pressure": (("hpa", "bar", "kpa"), 900, 1060, 1),
    "rainfall": (("mm",), 0, 220, 1),
    "wind": (("kmh", "ms"), 0, 90, 1),
    "area": (("m2", "ha", "km2"), 2, 5000, 1),
    "volume": (("l", "ml", "m3"), 1, 900, 1),
    "capacity": (("l", "kwh", "mb"), 10, 4000, 0),
    "population": (("k",), 200, 900000, 0),
    "density": (("kgm3",), 1, 950, 1),
    "voltage": (("v", "mv"), 1, 400, 1),
    "power": (("w", "kw", "hp"), 1, 700, 1),
    "energy": (("kwh", "kcal", "j"), 1, 2500, 1),
    "fuel": (("l",), 1, 90, 1),
    "mileage": (("km", "mi"), 100, 250000, 0),
    "calories": (("kcal",), 10, 1200, 0),
    "protein": (("g",), 0, 60, 1),
    "sugar": (("g",), 0, 80, 1),
    "fat": (("g",), 0, 60, 1),
    "fiber": (("g",), 0, 20, 1),
    "visits": ((), 0, 900, 0),
    "clicks": ((), 0, 5000, 0),
    "views": ((), 0, 90000, 0),
    "downloads": ((), 0, 40000, 0),
    "orders": ((), 0, 300, 0),
    "returns": ((), 0, 60, 0),
    "stock": ((), 0, 700, 0),
    "discount": (("pct",), 0, 60, 0),
    "tax": (("pct", "usd"), 0, 35, 1),
    "budget": (("usd", "eur", "k"), 500, 90000, 0),
    "grade": ((), 1, 10, 1),
    "attendance": (("pct",), 10, 100, 0),
    "goals": ((), 0, 45, 0),
    "assists": ((), 0, 30, 0),
    "wins": ((), 0, 60, 0),
    "losses": ((), 0, 60, 0),
    "minutes": ((), 1, 3000, 0),
    "hours": ((), 1, 80, 1),
    "seats": ((), 10, 900, 0),
    "rooms": ((), 1, 300, 0),
    "floors": ((), 1, 60, 0),
    "pages": ((), 8, 1200, 0),
    "copies": ((), 1, 9000, 0),
    "children": ((), 0, 8, 0),
    "staff": ((), 1, 400, 0),
    "members": ((), 2, 900, 0),
    "beds": ((), 1, 700, 0),
    "dose": (("mg", "ml"), 1, 500, 1),
    "pulse": (("bpm",), 45, 180, 0),
    "glucose": (("mgdl",), 60, 220, 0),
    "yield": (("t", "kg"), 1, 90, 1),
    "acidity": (("ph",), 1, 14, 1),
    "magnitude": ((), 1, 9, 1),
    "altitude": (("m", "ft"), 0, 4800, 0),
    "noise": (("db",), 20, 120, 1),
    "latency": (("ms",), 1, 900, 1),
    "errors": ((), 0, 90, 0),
    "memory": (("mb", "gb"), 1, 900, 0),
    "load": (("pct", "kg"), 0, 100, 1),
    "fee": (("usd", "eur"), 1, 300, 2),
    "rent": (("usd", "eur"), 200, 4000, 0),
    "income": (("usd", "eur"), 9000, 150000, 0),
    "debt": (("usd", "eur"), 0, 60000, 0),
    "balance": (("usd", "eur"), -900, 30000, 2),
    "interest": (("pct",), 0, 15, 2),
    "premium": (("usd", "eur"), 20, 2500, 2),
    "votes": ((), 0, 60000, 0),
    "turnout": (("pct",), 10, 95, 1),
    "steps": (("k",), 100, 30000, 0),
    "laps": ((), 1, 90, 0),
    "rank": ((), 1, 200, 0),
    "shots": ((), 0, 300, 0),
    "size": (("mb", "cm", "m2"), 1, 900, 1),
    "thickness": (("mm", "um"), 1, 80, 1),
    "diameter": (("mm", "cm"), 1, 300, 1),
    "radius": (("mm", "cm"), 1, 150, 1),
    "angle": (("deg",), 0, 180, 1),
    "frequency": (("hz", "khz"), 1, 900, 1),
    "brightness": (("lm", "cd"), 10, 4000, 0),
    "hardness": ((), 1, 10, 1),
    "purity": (("pct",), 50, 100, 1),
    "moisture": (("pct",), 0, 90, 1),
    "growth": (("pct", "cm"), -10, 60, 1),
    "weeks": ((), 1, 80, 0),
    "tickets": ((), 0, 900, 0),
    "calls": ((), 0, 400, 0),
    "messages": ((), 0, 800, 0),
    "likes": ((), 0, 9000, 0),
    "shares": ((), 0, 3000, 0),
    "followers": (("k",), 1, 90000, 0),
}

# What rows can be sorted into.
_GROUPS = """
    species region team color category department status type genre brand country city gender class level season
    shift sector district material shape style method channel segment language currency platform supplier vendor
    model origin habitat island breed variety cuisine flavor texture zone station route line branch campus
    faculty major position role tier plan grade_band league division conference surface weather source medium
    device browser payment carrier warehouse shelf region_code industry market family order_kind phase stage
    priority severity outcome diagnosis treatment ward clinic blood soil crop fuel_kind engine gearbox body
    label format publisher studio network topic subject campaign sponsor county province canton village quarter
    theme pattern
"""

# What a row can be the name of.
_LABELS = """
    name player city product title employee student customer book movie song artist author restaurant hotel
    school hospital museum park river mountain lake bridge tower ship aircraft vehicle animal plant tree recipe
    dish wine beer cheese company startup farm factory shop store theater library airport harbor castle garden
    trail peak valley machine sensor server project task event game toy instrument painting sculpture mineral
    planet star comet drug vaccine patient doctor driver rider runner swimmer boxer chef pilot teacher coach
"""

_FLAGS = """
    active member paid verified smoker organic insured retired licensed urgent approved shipped returned vegan
    indoor electric imported certified married employed available damaged online premium_user open sold
    discounted vaccinated renewed private
"""

_DATES = """
    date day signup joined ordered shipped_on opened_on released founded built visited checked updated created
    start end birthday hired expires delivered measured recorded planted harvested published
"""

_FILE_SUFFIXES = ("", "", "", "_data", "_list", "_table", "_2021", "_2023", "_2024", "_log", "_report", "_export")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name in the header, its kind, and its words without the unit (`bill`, `length`)."""

    name: str
    kind: Kind
    words: tuple[str, ...]
    unit: str = ""

    @property
    def numeric(self) -> bool:
        return self.kind in ("int", "float")


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file as text cells; an empty cell is a missing value."""

    file: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> Column:
        return self.columns[self.index(name)]

    def index(self, name: str) -> int:
        return [c.name for c in self.columns].index(name)

    def cells(self, name: str) -> list[str]:
        i = self.index(name)
        return [row[i] for row in self.rows]

    def kinds(self, *kinds: Kind) -> list[Column]:
        return [c for c in self.columns if c.kind in kinds]

    @property
    def numeric(self) -> list[Column]:
        return self.kinds("int", "float")

    def text(self) -> str:
        """The file's content."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([c.name for c in self.columns])
        writer.writerows(self.rows)
        return out.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# statistics, without pandas


def numbers(cells: Sequence[str]) -> list[float]:
    """The cells that are not missing, as numbers."""
    return [float(c) for c in cells if c != ""]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": mean,
    "median": median,
    "sum": math.fsum,
    "max": max,
    "min": min,
}


def correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Pearson's correlation of pairs without missing values."""
    mean_x, mean_y = mean([x for x, _ in pairs]), mean([y for _, y in pairs])
    covariance = math.fsum((x - mean_x) * (y - mean_y) for x, y in pairs)
    variance_x = math.fsum((x - mean_x) ** 2 for x, _ in pairs)
    variance_y = math.fsum((y - mean_y) ** 2 for _, y in pairs)
    return covariance / math.sqrt(variance_x * variance_y)


# ---------------------------------------------------------------------------------------------------------------------
# generation


def by_split(split: Split, test: float, train: float) -> float:
    """A chance that differs by split: what is hard to learn comes more often in training than in the test mix."""
    return train if split == "train" else test


def of_split(words: Iterable[str], split: Split) -> list[str]:
    """The words of a list whose every part belongs to the split."""
    return [w for w in words if all(lexicon.split_of(part) == split for part in w.split("_"))]


_POOLS: dict[tuple[str, Split], list[str]] = {}


def _pool(kind: str, words: Iterable[str], split: Split) -> list[str]:
    key = (kind, split)
    if key not in _POOLS:
        _POOLS[key] = of_split(words, split)
    return _POOLS[key]


def content_word(rng: Random, split: Split) -> str:
    """A word that files, columns and values are named with: a common noun, or one that nobody has seen before."""
    return lexicon.noun(rng, split) if rng.random() < 0.55 else lexicon.pseudoword(rng, split)


def _pick(rng: Random, kind: str, words: str, split: Split, strange: float) -> str:
    pool = _pool(kind, words.split(), split)
    if not pool or rng.random() < strange or lexicon.coins(rng, split, 0.3):
        return content_word(rng, split)
    return rng.choice(pool)


Style = Literal["snake", "title", "words", "camel"]


# How often each style is drawn. Capitals and spaces ask for matching instead of copying: more of them in training.
_STYLES: dict[Split, tuple[float, ...]] = {"test": (0.8, 0.1, 0.07, 0.03), "train": (0.65, 0.17, 0.12, 0.06)}


def styled(words: Sequence[str], style: Style) -> str:
    """A column name in one of the ways in which people write headers."""
    parts = [p for w in words for p in w.split("_")]
    if style == "snake":
        return "_".join(parts)
    if style == "title":
        return "_".join(p.capitalize() for p in parts)
    if style == "words":
        return " ".join(parts).capitalize()
    return parts[0] + "".join(p.capitalize() for p in parts[1:])


def _numeric_column(rng: Random, split: Split, prefix: str | None) -> tuple[tuple[str, ...], str, float, float, int]:
    measures = _pool("measure", _MEASURES, split)
    if rng.random() < 0.75 and not lexicon.coins(rng, split, 0.3):
        measure = rng.choice(measures)
        units, low, high, decimals = _MEASURES[measure]
    else:
        measure, units = content_word(rng, split), ()
        low, high, decimals = 0, rng.choice((10, 50, 100, 1000, 5000)), rng.choice((0, 0, 1, 2))
    unit = rng.choice(units) if units and rng.random() < 0.45 else ""
    words: tuple[str, ...] = (measure,)
    if prefix is not None:
        words = (prefix, measure)
    elif rng.random() < 0.3:
        words = (content_word(rng, split), measure)
    return words, unit, low, high, decimals


def cell_word(rng: Random, split: Split, capital: bool) -> str:
    """One value of a category or of a name."""
    roll = rng.random()
    if roll < 0.35:
        word = lexicon.noun(rng, split)
    elif roll < 0.5:
        word = lexicon.adjective(rng, split)
    elif roll < 0.65:
        word = lexicon.place(rng, split)
    else:
        word = lexicon.pseudoword(rng, split)
    return word.capitalize() if capital else word.lower()


def distinct(rng: Random, count: int, make: Callable[[], str]) -> list[str]:
    """`count` different values, none of which pandas reads as missing or as a number or contains another."""
    found: list[str] = []
    for _ in range(count * 20):
        word = make()
        low = word.lower()
        if low in ("nan", "na", "none", "null", "true", "false", "inf", "infinity") or len(word) < 3:
            continue
        if any(low in other.lower() or other.lower() in low for other in found):
            continue
        found.append(word)
        if len(found) == count:
            break
    return found


def _text(value: float, decimals: int) -> str:
    return str(round(value)) if decimals == 0 else str(round(value, decimals))


def make_table(rng: Random, split: Split) -> Table:
    """A random table: 1-2 categories, 2-4 numbers, often a name column, a flag or a date; 20-200 rows."""
    style: Style = rng.choices(("snake", "title", "words", "camel"), _STYLES[split])[0]
    n_rows = rng.choice((rng.randint(20, 60), rng.randint(20, 200)))
    taken: set[str] = set()
    columns: list[Column] = []
    cells: list[list[str]] = []

    def add(words: tuple[str, ...], unit: str, kind: Kind, values: list[str]) -> None:
        name = styled((*words, unit) if unit else words, style)
        columns.append(Column(name, kind, tuple(p for w in words for p in w.split("_")), unit))
        cells.append(values)
        taken.update(p for w in words for p in w.split("_"))

    def fresh(make: Callable[[], tuple[str, ...]], allow: str | None = None) -> tuple[str, ...] | None:
        for _ in range(20):
            words = make()
            parts = {p for w in words for p in w.split("_")} - {allow}
            if not parts & taken:
                return words
        return None

    # A name for each row.
    if rng.random() < 0.65:
        words = fresh(lambda: (_pick(rng, "label", _LABELS, split, 0.15),))
        if words:
            values = _labels(rng, split, n_rows)
            add(words, "", "label", values)

    # Categories.
    for _ in range(rng.choice((1, 1, 1, 2))):
        words = fresh(lambda: (_pick(rng, "group", _GROUPS, split, 0.2),))
        if words:
            capital = rng.random() < 0.5
            levels = distinct(rng, rng.choice((2, 3, 3, 4, 4, 5, 6)), partial(cell_word, rng, split, capital))
            weights = [rng.uniform(0.5, 1.5) for _ in levels]
            values = list(levels) + rng.choices(levels, weights, k=n_rows - len(levels))
            rng.shuffle(values)
            add(words, "", "category", values)

    # Numbers; sometimes two that share their first word, as in bill_length and bill_depth.
    prefix = content_word(rng, split) if rng.random() < by_split(split, 0.3, 0.45) else None
    if prefix in taken:
        prefix = None
    wanted = rng.choice((2, 2, 3, 3, 4))
    hidden = [rng.gauss(0, 1) for _ in range(n_rows)]
    for position in range(wanted):
        shared = prefix if position < 2 else None
        drawn: list[tuple[tuple[str, ...], str, float, float, int]] = []

        def draw(
            shared: str | None = shared, drawn: list[tuple[tuple[str, ...], str, float, float, int]] = drawn
        ) -> tuple[str, ...]:
            drawn.append(_numeric_column(rng, split, shared))
            return drawn[-1][0]

        words = fresh(draw, allow=shared)
        if words is None:
            continue
        _, unit, low, high, decimals = drawn[-1]
        tie = rng.choice((0.0, 0.3, 0.8, -0.6, 0.95))
        middle, spread = (low + high) / 2, (high - low) / 5
        values = []
        for h in hidden:
            z = tie * h + math.sqrt(1 - tie * tie) * rng.gauss(0, 1)
            values.append(_text(min(high, max(low, middle + spread * z)), decimals))
        add(words, unit, "float" if decimals else "int", values)
        if prefix is not None:
            taken.add(prefix)

    if rng.random() < 0.2:
        words = fresh(lambda: (_pick(rng, "flag", _FLAGS, split, 0.0),))
        if words:
            yes, no = rng.choice((("yes", "no"), ("yes", "no"), ("True", "False"), ("Y", "N")))
            chance = rng.uniform(0.2, 0.8)
            add(words, "", "flag", [yes if rng.random() < chance else no for _ in range(n_rows)])
    if rng.random() < by_split(split, 0.25, 0.4):
        words = fresh(lambda: (_pick(rng, "date", _DATES, split, 0.0),))
        if words:
            year = rng.randint(2005, 2024)
            add(words, "", "date", [_date(rng, year) for _ in range(n_rows)])

    # Missing values.
    if rng.random() < 0.45:
        for i in rng.sample(range(len(columns)), k=min(len(columns), rng.choice((1, 1, 2, 3)))):
            if columns[i].kind in ("float", "int", "category"):
                for j in rng.sample(range(n_rows), k=rng.randint(1, max(1, n_rows // 8))):
                    cells[i][j] = ""

    order = list(range(len(columns)))
    if rng.random() < 0.5:
        rng.shuffle(order)
    rows = tuple(tuple(cells[i][j] for i in order) for j in range(n_rows))
    return Table(file_name(rng, split), tuple(columns[i] for i in order), rows)


def file_name(rng: Random, split: Split) -> str:
    """A CSV file's name."""
    stem = content_word(rng, split)
    if stem in lexicon.nouns(split) and rng.random() < 0.5:
        stem = lexicon.plural(stem)
    return f"{stem}{rng.choice(_FILE_SUFFIXES)}.csv"


def _labels(rng: Random, split: Split, count: int) -> list[str]:
    style = rng.choice(("person", "word", "word", "two", "code"))

    def make() -> str:
        if style == "person":
            return lexicon.person(rng, split).capitalize()
        if style == "code":
            return f"{lexicon.pseudoword(rng, split)[:3].upper()}{rng.randint(10, 999)}"
        if style == "two":
            return f"{cell_word(rng, split, True)} {cell_word(rng, split, True)}"
        return cell_word(rng, split, True)

    seen: dict[str, None] = {}
    for _ in range(count * 6):
        word = make()
        if len(seen) > 0.7 * count and style in ("person", "word"):
            word = f"{word} {cell_word(rng, split, True)}"
        seen.setdefault(word)
        if len(seen) == count:
            break
    values = list(seen)
    while len(values) < count:
        values.append(f"{cell_word(rng, split, True)} {len(values)}")
    return values


def _date(rng: Random, year: int) -> str:
    return f"{year + rng.randint(0, 2)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
