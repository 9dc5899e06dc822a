"""The pictures of a run of the data factory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openk2.data.report import ACCENT, FONT, INK, SECOND, Picture, need_matplotlib, new_figure, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LARGE_CATEGORY = 8
_ROWS = 18


def pictures_of(figures: Mapping[str, Any]) -> list[Picture]:
    """All pictures of a run's figures."""
    need_matplotlib()
    made = [_coverage(figures), _structures(figures), _difficulty(figures)]
    made += [_rates(figures, "kind", "kind of turn"), _rates(figures, "category", "category")]
    made += [_lengths(figures), _dropped(figures)]
    if figures["grades"]:
        made.append(_grades(figures["grades"]))
    if figures.get("comparison"):
        made.append(_comparison(figures["comparison"]))
    return made


def _coverage(figures: Mapping[str, Any]) -> Picture:
    domains, categories = figures["coverage"]["domains"], figures["coverage"]["categories"]
    kept = sum(1 for row in domains if row["kept"])

    def draw() -> Figure:
        names, rows = _layout(domains, categories)
        # A row takes 0.16 inches, and a title with its legend half an inch.
        figure = new_figure(2 * (0.16 * len(rows) + 0.5))
        for axes, key, what in zip(
            figure.subplots(2, 1), ("tools", "kept"), ("tools", "kept trajectories"), strict=True
        ):
            _cells(axes, names, rows, key, what)
        return figure

    return Picture(
        "coverage", "What is covered",
        f"{len(domains):,} domains in {len(categories):,} categories, of which {kept:,} have kept trajectories. "
        "A square is a domain.",
        draw, ("category", "domain", "tools", "kept trajectories"),
        [(row["category"], row["domain"], row["tools"], row["kept"]) for row in domains],
    )  # fmt: skip


def _layout(
    domains: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[Mapping[str, Any]]]]:
    """Rows of domains: one for each large category, the small ones in as many as are needed."""
    large = [row["category"] for row in categories if row["domains"] >= _LARGE_CATEGORY][:_ROWS]
    named = [(name, [row for row in domains if row["category"] == name]) for name in large]
    width = max([len(row) for _, row in named] or [24])
    small = [row for row in domains if row["category"] not in set(large)]
    if small:
        named.append((f"{len(categories) - len(large)} smaller ones" if large else "all categories", small))
    names, rows = [], []
    for name, members in named:
        for at in range(0, len(members), width):
            names.append(name if at == 0 else "")
            rows.append(members[at : at + width])
    return names, rows


def _cells(axes: Axes, names: Sequence[str], rows: Sequence[Sequence[Mapping[str, Any]]], key: str, what: str) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    values = [row[key] for line in rows for row in line]
    least, most = min(values, default=0), max(values, default=0)
    squares, colours = [], []
    for y, line in enumerate(rows):
        for x, row in enumerate(line):
            squares.append(Rectangle((x + 0.06, y + 0.06), 0.88, 0.88))
            part = (row[key] - least) / (most - least) if most > least else 1.0
            colours.append(to_rgba(ACCENT, 0.12 + 0.88 * part))
    axes.add_collection(PatchCollection(squares, facecolors=colours, edgecolors="none"))
    axes.set_xlim(0, max(map(len, rows), default=1))
    axes.set_ylim(len(rows), 0)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], names)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    # To the right, where it may reach back over the names of the rows.
    axes.set_title(f"{what}: pale {least:,}, full {most:,}", loc="right")


def _structures(figures: Mapping[str, Any]) -> Picture:
    found = figures["structures"]

    def draw() -> Figure:
        figure = new_figure(2.9)
        axes = figure.subplots()
        points = found["concentration"]
        axes.plot([p["structures"] for p in points], [100 * p["share"] for p in points], color=ACCENT, linewidth=2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_thousands())
        axes.set_ylim(0, 100)
        axes.set_xlabel("so many structures, the most frequent first")
        axes.set_title("% of all tools that have one of them")
        for place in (10, 100, 1000):
            share = max([p["share"] for p in points if p["structures"] <= place], default=0)
            if place < found["distinct"]:
                axes.annotate(
                    f"{100 * share:.0f} %", (place, 100 * share), (0, -15), textcoords="offset points", color=INK
                )
        return figure

    return Picture(
        "structures", "What tools do",
        f"{found['tools']:,} tools have {found['distinct']:,} structures of preconditions and effects, up to renaming; "
        f"{100 * found['share_of_largest_10']:.0f} % have one of the ten most frequent. They are as varied as "
        f"{found['effective']:,.0f} equally frequent structures.",
        draw, ("an example", "what it does", "tools", "domains", "share"),
        [(row["example"], row["does"], row["tools"], row["domains"], percent(row["share"]))
         for row in found["largest"]],
    )  # fmt: skip


def _difficulty(figures: Mapping[str, Any]) -> Picture:
    found = figures["difficulty"]
    bins = found["histogram"]
    each = f"{found['attempts_per_task']:g} attempt{'' if found['attempts_per_task'] == 1 else 's'} each"

    def draw() -> Figure:
        figure = new_figure(2.4)
        axes = figure.subplots()
        places = [(one["from"] + one["to"]) / 2 for one in bins]
        bars = axes.bar(places, [one["tasks"] for one in bins], width=0.092, color=ACCENT)
        labels = [f"{one['tasks']:,}" if one["tasks"] else "" for one in bins]
        axes.bar_label(bars, labels, padding=2, color=INK, fontsize=FONT - 1)
        axes.margins(y=0.15)
        axes.set_xlim(0, 1)
        axes.yaxis.set_major_formatter(_thousands())
        axes.set_xlabel("difficulty: 1 - pass rate")
        axes.set_title("tasks")
        return figure

    return Picture(
        "difficulty", "How hard tasks are",
        f"Of {found['tasks']:,} tasks with {each}, {found['always_passed']:,} were "
        f"always passed and {found['never_passed']:,} never; the mean difficulty is {found['mean']:.2f}.",
        draw, ("difficulty", "tasks"),
        [(f"{one['from']:.1f} to {one['to']:.1f}", one["tasks"]) for one in bins],
    )  # fmt: skip


def _rates(figures: Mapping[str, Any], key: str, what: str) -> Picture:
    rows = figures["pass_rates"][key]
    shown = rows[:_ROWS]

    def draw() -> Figure:
        figure = new_figure(0.2 * len(shown) + 0.75)
        axes = figure.subplots()
        for y, row in enumerate(shown):
            low, high = row["ci95"]
            axes.plot([100 * low, 100 * high], [y, y], color=ACCENT, linewidth=2, alpha=0.45, solid_capstyle="round")
            axes.plot([100 * row["rate"]], [y], "o", color=ACCENT, markersize=5)
        axes.set_yticks(range(len(shown)), [row["name"] for row in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(min([90.0, *(100 * row["ci95"][0] - 1 for row in shown)]), 100.5)
        axes.grid(axis="x")
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("% passed, with 95 % intervals")
        return figure

    left = f" The picture has the {_ROWS} with most attempts." if len(rows) > _ROWS else ""
    return Picture(
        f"pass-rates-by-{key}", f"Pass rates by {what}",
        ("A task with turns of several kinds counts for each." if key == "kind" else "By the category of the domain.")
        + left,
        draw, (what, "attempts", "passed", "rate", "95 % interval"),
        [(row["name"], row["n"], row["passed"], percent(row["rate"]),
          f"{percent(row['ci95'][0])} to {percent(row['ci95'][1])}") for row in rows],
    )  # fmt: skip


def _lengths(figures: Mapping[str, Any]) -> Picture:
    found = figures["lengths"]

    def draw() -> Figure:
        figure = new_figure(4.8)
        for axes, (name, one) in zip(figure.subplots(len(found), 1), found.items(), strict=True):
            values = {int(value): count for value, count in one["counts"].items()}
            axes.bar(list(values), list(values.values()), width=0.85, color=ACCENT)
            axes.set_title(f"{name} of a trajectory, median {one['p50']}")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.yaxis.set_major_formatter(_thousands())
        return figure

    ordered = sorted({int(value) for one in found.values() for value in one["counts"]})
    return Picture(
        "lengths", "How long trajectories are",
        "; ".join(
            f"{name}: {one['mean']:.1f} on average, 80 % have {one['p10']} to {one['p90']}, at most {one['max']}"
            for name, one in found.items()
        ) + ".",
        draw, ("length", *(f"trajectories with so many {name}" for name in found)),
        [(value, *(one["counts"].get(str(value), 0) for one in found.values())) for value in ordered],
    )  # fmt: skip


def _dropped(figures: Mapping[str, Any]) -> Picture:
    found = figures["dropped"]
    # A model proposes domains, a program none that are refused.
    kinds = [what for what in ("proposals", "tools", "attempts") if what != "proposals" or found[what]]
    rows = [(what, reason, count) for what in kinds for reason, count in found[what].items()]

    def draw() -> Figure:
        figure = new_figure(0.42 * max(len(rows), 1) + 0.9)
        heights = [max(len(found[what]), 1) for what in kinds]
        for axes, what in zip(figure.subplots(len(kinds), 1, height_ratios=heights), kinds, strict=True):
            counts = list(found[what].values())
            axes.barh(range(len(counts)), counts, height=0.32, color=ACCENT)
            # The reason stands above its bar: beside it there is no room on a phone.
            for y, (reason, count) in enumerate(found[what].items()):
                axes.text(0, y - 0.24, f"{reason}: {count:,}", fontsize=FONT - 1, va="bottom", color=INK)
            axes.set_ylim(max(len(counts), 1) - 0.6, -0.75)
            axes.set_yticks([])
            axes.xaxis.set_major_formatter(_thousands())
            axes.grid(axis="x")
            axes.grid(axis="y", visible=False)
            word = "refused" if what == "proposals" else "dropped"
            axes.set_title(f"{what} {word}: {sum(counts):,}")
        return figure

    return Picture(
        "dropped", "What was dropped, and why",
        "Tools that are nearly others', and attempts that failed or show nothing new.",
        draw, ("what", "why", "how many"), rows,
    )  # fmt: skip


def _grades(found: Mapping[str, Any]) -> Picture:
    given = [(grade, found["given"].get(str(grade), 0)) for grade in range(1, 6)]
    none = found["judged"] - sum(count for _, count in given)

    def draw() -> Figure:
        figure = new_figure(2.2)
        axes = figure.subplots()
        axes.bar([grade for grade, _ in given], [count for _, count in given], width=0.6, color=ACCENT)
        axes.set_xlabel("grade of the judge, rounded")
        axes.yaxis.set_major_formatter(_thousands())
        axes.set_title("attempts")
        return figure

    return Picture(
        "grades", "What the judge said of the manner",
        f"{found['judged']:,} attempts that passed were judged; {none:,} are excluded, as the judge failed at them or "
        "did not agree with itself.",
        draw, ("grade", "attempts"), given,
    )  # fmt: skip


def _comparison(both: Sequence[Mapping[str, Any]]) -> Picture:
    axes_names = list(both[0]["axes"])

    def draw() -> Figure:
        figure = new_figure(1.45 * len(axes_names) + 0.3)
        for place, (axes, axis) in enumerate(zip(figure.subplots(len(axes_names), 1), axes_names, strict=True)):
            last = max(one["axes"][axis]["p90"] for one in both)
            # The long tail would hide the rest.
            last = max(4, round(last * 1.4))
            step = max(1, round(last / 30))
            for one, colour, shift in zip(both, (ACCENT, SECOND), (-0.21, 0.21), strict=True):
                shares = _binned(one["axes"][axis], step, last)
                # Above the middle of the whole numbers that a bar counts.
                places = [at * step + (step - 1) / 2 + shift * step for at in range(len(shares))]
                axes.bar(places, shares, width=0.4 * step, color=colour, label=one["name"])
            axes.set_title(f"{axis}, % ({step} a bar)" if step > 1 else f"{axis}, %")
            axes.xaxis.get_major_locator().set_params(integer=True)
            if place == 0:
                axes.legend(loc="upper right")
        return figure

    rows: list[tuple[Any, ...]] = [
        (label, *(f"{one[key]:,}" if isinstance(one[key], int) else f"{one[key]:.2f}" for one in both))
        for label, key in RATIOS
    ]
    for axis in axes_names:
        for label, key in (
            ("mean", "mean"),
            ("10th percentile", "p10"),
            ("median", "p50"),
            ("90th", "p90"),
            ("most", "max"),
        ):
            rows.append((f"{axis}, {label}", *(f"{one['axes'][axis][key]:,}" for one in both)))
    return Picture(
        "comparison", "Beside real MCP servers",
        f"{both[0]['tools']:,} tools of this run and {both[1]['tools']:,} of {both[1]['servers']:,} MCP servers, "
        "counted by the same code. What is rare and large is left out of the picture, not of the table.",
        draw, ("", both[0]["name"], both[1]["name"]), rows,
    )  # fmt: skip


RATIOS = (
    ("domains or servers", "servers"),
    ("tools", "tools"),
    ("distinct names", "distinct_names"),
    ("distinct schemas", "distinct_schemas"),
    ("distinct names with schemas / tools", "name_schema_ratio"),
    ("distinct schemas / tools", "schema_ratio"),
    ("parameters with a description", "described_parameters"),
)


def _binned(one: Mapping[str, Any], step: int, last: int) -> list[float]:
    """% of all in each bin up to `last`."""
    shares = [0.0] * (last // step + 1)
    for value, count in one["counts"].items():
        if int(value) // step < len(shares):
            shares[int(value) // step] += 100 * count / one["n"]
    return shares


def _thousands() -> Any:
    from matplotlib.ticker import StrMethodFormatter

    return StrMethodFormatter("{x:,.0f}")
