"""The report on a run of reinforcement learning: figures for machines, and a page with its pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from openk2.core import UserError
from openk2.data.report import (
    ACCENT,
    GRID,
    INK,
    MUTED,
    SECOND,
    Passage,
    Picture,
    need_matplotlib,
    new_figure,
    percent,
    write_report_files,
)
from openk2.rl.run import STAGE, is_finished, record_of
from openk2.train.folder import EXAMPLES, METRICS, has_checkpoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[tuple[int, float, float, float]]
"""(iteration, value, and the two ends of its interval; NaN without one)."""
_NARROW = 20
"""Labels of so many letters stand beside each other."""
_MARKERS, _STYLES = ("o", "s", "^", "D", "v"), ("-", "--", "-.")
_COLOURS = (ACCENT, SECOND, INK, MUTED, "#3b8f5a", "#8a5fc2", "#b08a1e", "#c24a73")


class _Rate(BaseModel):
    n: int
    passed: int
    rate: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat]


def _drawable(value: float | None) -> float | None:
    """None for what overflowed, as the divergence of a policy that has gone far."""
    return value if value is None or math.isfinite(value) else None


_Measured = Annotated[float | None, AfterValidator(_drawable)]
_ByFamily = dict[str, _Measured]


class _Line(BaseModel):
    """A line of the log: an iteration, or the measures before the first one."""

    model_config = ConfigDict(strict=True)

    iteration: int = Field(ge=0)
    reward: _ByFamily = {}
    passed: _ByFamily = {}
    passed_new: _ByFamily = {}
    mean_tokens: _ByFamily = {}
    over_budget: _ByFamily = {}
    success: dict[str, _Rate] = {}
    critic_accuracy: _Rate | None = None
    critic_reports: _Rate | None = None
    critic_accuracy_by_length: _Rate | None = None
    critic_reports_by_length: _Rate | None = None
    temperature: _Measured = None
    kl: _Measured = None
    loss: _Measured = None
    ptx_loss: _Measured = None
    critic_loss: _Measured = None
    ptx_valid: _Measured = None
    logprob_mismatch_max: _Measured = None
    logprob_mismatch: _Measured = None
    grad_norm: _Measured = None
    max_logit: _Measured = None
    banked: int | None = None
    continued: int | None = None
    excluded: int | None = None
    circles: int | None = None
    groups: int | None = None
    groups_with_spread: int | None = None
    penalties: dict[str, int] | None = None
    stops: dict[str, int] | None = None


_FAMILY_LISTS = ("reward", "passed", "passed_new", "mean_tokens", "over_budget")


def figures_of(run: Path) -> dict[str, Any]:
    """Lists with one entry for each iteration, from the log; 0 is before the first one, where only success is known.

    By family: `reward`, `passed`, `passed_new` (at tasks that were never tried before, so that the curriculum's choice
    is not in it), `mean_tokens`, `over_budget`. `temperature`, `kl`, losses and `logprob_mismatch_max`; `success` (by
    family, with n and interval), `critic_accuracy`, `critic_reports`, both `_by_length` alone, and `ptx_valid`
    are None where nothing was measured. Raises UserError for a folder that is not such a run.
    """
    path = run / STAGE / METRICS
    lines: list[dict[str, Any]] = []
    try:
        for line in path.read_bytes().splitlines() if path.exists() else ():
            lines.append(_Line.model_validate_json(line).model_dump())
    except ValueError as e:
        way_out = (
            "give the same rl run command again, which cuts it back"
            if has_checkpoint(run / STAGE)
            else f"correct or delete line {len(lines) + 1}, and the report is made of the others"
        )
        raise UserError(f"{path} is damaged: {way_out}") from e
    if not lines:
        record_of(run)
        if is_finished(run):
            raise UserError(f"{path} is lost, and the run is finished: without it there is nothing to report")
        raise UserError(f"{run} has no iteration yet: wait, or give the rl run command again if it was stopped")
    families = sorted({name for line in lines for name in line["reward"]})
    measured = sorted({name for line in lines for name in line["success"]})
    figures: dict[str, Any] = {"iteration": [line["iteration"] for line in lines], "families": families}
    for key in _FAMILY_LISTS:
        figures[key] = {name: [line[key].get(name) for line in lines] for name in families}
    figures["success"] = {name: [line["success"].get(name) for line in lines] for name in measured}
    figures |= {key: [line[key] for line in lines] for key in _Line.model_fields if key not in figures}
    return figures


def write_report(run: Path, out: Path | None = None) -> tuple[dict[str, Any], list[Path]]:
    """Write the page and the pictures; the figures, and the paths. Raises UserError as `figures_of`, and where
    something cannot be drawn or written."""
    need_matplotlib()
    figures = figures_of(run)
    recipe: dict[str, Any] = {}
    # A log whose record is lost is worth reading all the same.
    with suppress(UserError):
        recipe = record_of(run)[1]
    folder = out or run / STAGE / "report"
    intro = f"From {recipe.get('start', 'a model')}, seed {recipe.get('seed', '?')}."
    title = f"Reinforcement learning: {recipe.get('name', run.resolve().name)}"
    paths = write_report_files(folder, title, intro, summary(figures), pictures_of(figures), _examples(run))
    return figures, paths


def _examples(run: Path) -> list[Passage]:
    path = run / STAGE / EXAMPLES
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [
            Passage(
                f"Before and after: {task}",
                f"{one['request']}\n\nBefore ({_mark(one['before'])}):\n{one['before']['said']}\n\n"
                f"After ({_mark(one['after'])}):\n{one['after']['said']}",
            )
            for task, one in found.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise UserError(f"{path} is damaged: delete it, and the report is made without examples") from e


def _mark(one: Mapping[str, Any]) -> str:
    return "passed" if one["passed"] else "not passed"


def summary(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures that say most, in words."""
    rows = [("iterations", f"{figures['iteration'][-1]:,}")]
    for name, rates in figures["success"].items():
        known = [rate for rate in rates if rate is not None]
        first, last = known[0], known[-1]
        low, high = last["ci95"]
        rows.append((f"{name}, held out", f"{percent(first['rate'])} to {percent(last['rate'])}"))
        rows.append((f"{name}, 95 % (n = {last['n']})", f"{percent(low)} to {percent(high)}"))
    for key, label in (("critic_accuracy", "critic, held out"), ("critic_reports", "critic, reports")):
        known = [rate for rate in figures[key] if rate is not None]
        if known:
            rows.append((label, f"{percent(known[0]['rate'])} to {percent(known[-1]['rate'])}"))
        by_length = [rate for rate in figures[f"{key}_by_length"] if rate is not None]
        if by_length:
            rows.append((f"{label}, by length alone", percent(by_length[0]["rate"])))
    losses = [loss for loss in figures["ptx_valid"] if loss is not None]
    if losses:
        rows.append(("loss on demonstrations", f"{losses[0]:.4f} to {losses[-1]:.4f}"))
    mismatches = [value for value in figures["logprob_mismatch_max"] if value is not None]
    if mismatches:
        rows.append(("largest log-prob mismatch", f"{max(mismatches):.2g}"))
    rows.append(("episodes left out", f"{sum(value or 0 for value in figures['excluded']):,}"))
    return rows


def pictures_of(figures: Mapping[str, Any]) -> list[Picture]:
    """All pictures that the figures have something for."""
    success = {_with_n(name, rates): _rates(figures, rates) for name, rates in figures["success"].items()}
    critic = {
        _with_n(label, figures[key]): _rates(figures, figures[key])
        for key, label in (("critic_accuracy", "held-out pairs"), ("critic_reports", "reports, never taught"))
    }
    made = [
        _lines(figures, "success", "Success on held-out tasks", "Greedy, with 95 % intervals.", "share passed",
               success),
        _lines(figures, "new", "Success on new tasks", "Sampled, at training tasks that were never tried before.",
               "share passed", {name: _points(figures, values) for name, values in figures["passed_new"].items()}),
        _lines(figures, "reward", "Reward", "The mean over the samples of an iteration.", "mean reward",
               {name: _points(figures, values) for name, values in figures["reward"].items()}),
        _lines(figures, "critic", "The critic", "How often it prefers the better one of a pair.", "share right", critic,
               even=0.5),
        _lines(figures, "tokens", "Length", "Tokens that the policy said in an episode, on average.",
               "tokens of an episode",
               {name: _points(figures, values) for name, values in figures["mean_tokens"].items()}),
        _lines(figures, "over-budget", "Over budget", "The share of episodes that their budget cut.",
               "share of episodes",
               {name: _points(figures, values) for name, values in figures["over_budget"].items()}),
        _lines(figures, "temperature", "Temperature", "At which was sampled.", "temperature",
               {"temperature": _points(figures, figures["temperature"])}),
        _lines(figures, "kl", "Divergence from the start", "KL(policy, start), for each token.", "KL, nats per token",
               {"KL": _points(figures, figures["kl"])}),
        _lines(figures, "losses", "Losses", "Of the policy's objective, demonstrations and the critic's lessons.",
               "training loss", {label: _points(figures, figures[key]) for key, label in
                        (("loss", "objective"), ("ptx_loss", "demonstrations"), ("critic_loss", "critic"))}),
        _lines(figures, "held-out-loss", "Loss on demonstrations", "On demonstrations that are never trained on.",
               "loss, nats per token", {"loss": _points(figures, figures["ptx_valid"])}),
        _lines(figures, "mismatch", "Sampler and trainer",
               "The largest difference between the log-probs that both have of one token.", "difference, nats",
               {"largest": _points(figures, figures["logprob_mismatch_max"]),
                "mean": _points(figures, figures["logprob_mismatch"])}),
    ]  # fmt: skip
    return [picture for picture in made if picture is not None]


def _points(figures: Mapping[str, Any], values: Sequence[float | None]) -> Points:
    pairs = zip(figures["iteration"], values, strict=True)
    return [(at, value, math.nan, math.nan) for at, value in pairs if value is not None]


def _with_n(label: str, rates: Sequence[Any]) -> str:
    n = next((rate["n"] for rate in rates if rate is not None), 0)
    return f"{label} (n = {n})"


def _rates(figures: Mapping[str, Any], rates: Sequence[Any]) -> Points:
    pairs = zip(figures["iteration"], rates, strict=True)
    return [(at, rate["rate"], *rate["ci95"]) for at, rate in pairs if rate is not None]


def _lines(
    figures: Mapping[str, Any], name: str, title: str, says: str, unit: str,
    lines: Mapping[str, Points], even: float | None = None,
) -> Picture | None:  # fmt: skip
    """A picture of lines over the iterations; None if there is nothing to draw. `even` is marked: what chance gives."""
    shown = {label: points for label, points in lines.items() if points}
    if not shown:
        return None
    return Picture(
        name,
        title,
        says,
        _drawing(title, shown, unit, even, figures["iteration"][-1]),
        ("iteration", *shown),
        _table(figures["iteration"], shown),
    )


def _drawing(title: str, lines: Mapping[str, Points], unit: str, even: float | None, last: int) -> Callable[[], Figure]:
    def draw() -> Figure:
        from matplotlib.ticker import MaxNLocator

        columns = 2 if max(map(len, lines)) <= _NARROW else 1
        figure = new_figure(2.6 + 0.16 * math.ceil(len(lines) / columns))
        axes = figure.subplots()
        if even is not None:
            axes.axhline(even, color=GRID, linewidth=1.5)
        for number, (label, points) in enumerate(lines.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            x, y, low, high = zip(*points, strict=True)
            # Lines that lie on each other are still told apart.
            marker = _MARKERS[number % len(_MARKERS)] if len(points) < 12 else None
            style = _STYLES[number % len(_STYLES)]
            axes.plot(x, y, style, color=colour, linewidth=1.5, marker=marker, markersize=4, label=label)
            if not math.isnan(low[0]):
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        if min(value for points in lines.values() for _, value, _, _ in points) >= 0:
            axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
        axes.set_title(title, loc="left")
        axes.set_xlabel("iteration")
        axes.set_ylabel(unit)
        # The same for all, so that what happened at one time is at one place.
        axes.set_xlim(-0.03 * last - 0.1, 1.03 * last + 0.1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(lines) > 1:
            figure.legend(loc="outside lower left", ncols=columns)
        return figure

    return draw


def _table(iterations: Sequence[int], lines: Mapping[str, Points]) -> list[tuple[Any, ...]]:
    known = {label: {at: value for at, value, _, _ in points} for label, points in lines.items()}
    rows = [(at, [known[label].get(at) for label in lines]) for at in iterations]
    return [
        (at, *("" if value is None else _rounded(value) for value in row))
        for at, row in rows
        if any(value is not None for value in row)
    ]


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.4g}")
