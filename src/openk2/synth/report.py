"""The report on a run: one page that asks nobody for anything, its pictures as PNG, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openk2.data.lake import lake_folder
from openk2.data.report import need_matplotlib, percent, write_report_files
from openk2.synth.compare import compare, specs_file
from openk2.synth.figures import figures_of
from openk2.synth.pictures import pictures_of

FOLDER = "report"


def write_report(run: Path, out: Path | None = None, specs: Path | None = None) -> tuple[dict[str, Any], list[Path]]:
    """Write the page and the pictures; the figures, and the paths that were written.

    Tools are compared with those of `specs`, or of OPENK2_DATA's servers if there are any. Raises UserError for a
    folder that is not a run, and where something cannot be read, drawn or written.
    """
    need_matplotlib()
    folder = out or lake_folder(run) / FOLDER
    figures = figures_of(run)
    if (path := specs_file(specs)) is not None:
        figures["comparison"] = compare(run, path)
    unfinished = "" if figures["counts"]["finished"] else " The run is not finished."
    intro = f"Seed {figures['seed']}, acted by {figures['policy']}.{unfinished}"
    title = f"Data factory: {figures['name']}"
    return figures, write_report_files(folder, title, intro, summary(figures), pictures_of(figures))


def summary(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures that say most, in words."""
    counts, distinct, structures = figures["counts"], figures["distinct"], figures["structures"]
    lengths, difficulty = figures["lengths"], figures["difficulty"]
    rows = [
        ("domains", f"{counts['domains']:,}"),
        ("categories", f"{len(figures['coverage']['categories']):,}"),
        ("tools", f"{counts['tools']:,}"),
        ("structures of tools", f"{structures['distinct']:,}"),
        ("tools with one of 10 structures", percent(structures["share_of_largest_10"])),
        ("names with schemas / tools", f"{distinct['name_schema_ratio']:.3f}"),
        ("agents", f"{counts['agents']:,}"),
        ("tasks", f"{counts['tasks']:,}"),
        ("attempts", f"{counts['attempts']:,}"),
        ("kept trajectories", f"{counts['kept']:,}"),
        ("mean difficulty", f"{difficulty['mean']:.3f}"),
        ("distinct call sequences", f"{distinct['call_sequences']:,}"),
        ("sharing tools and calls", percent(distinct["sharing_tools_and_calls_share"])),
        *((f"{name} (median)", f"{one['p50']:,}") for name, one in lengths.items()),
    ]
    if figures.get("comparison"):
        own, other = figures["comparison"]
        for axis in own["axes"]:
            means = [one["axes"][axis]["mean"] for one in (own, other)]
            rows.append((f"{axis}: here / MCP", f"{means[0]:,.1f} / {means[1]:,.1f}"))
        rows.append(
            ("names with schemas / tools: MCP", f"{other['name_schema_ratio']:.3f}"),
        )
    return rows
