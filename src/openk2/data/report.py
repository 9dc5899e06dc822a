"""Reports: one page that asks nobody for anything, and its pictures as PNG.

A picture is one drawing with the table behind it, as PNG and as SVG. The SVG's colours are variables of the page that
it stands in, so that one drawing serves dark and light.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openk2.core.errors import UserError
from openk2.core.runs import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
INK, MUTED, GRID, ACCENT, SECOND = "#17191c", "#5a5f66", "#dcdfe3", "#2a78d6", "#d9622b"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", ACCENT: "--accent", SECOND: "--second"}
WIDTH, FONT = 4.0, 9.5
_SETTINGS: Any = {
    "font.size": FONT, "axes.titlesize": FONT, "axes.labelsize": FONT, "axes.titlelocation": "left",
    "axes.edgecolor": MUTED, "axes.labelcolor": MUTED, "axes.titlecolor": INK, "text.color": INK,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelsize": FONT - 1, "ytick.labelsize": FONT - 1,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y",
    "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.7, "axes.linewidth": 0.7,
    "legend.frameon": False, "svg.fonttype": "none", "text.parse_math": False,
}  # fmt: skip


def percent(share: float) -> str:
    """A share as a report says it."""
    return f"{100 * share:.1f} %"


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing, what it shows in a sentence, and its table."""

    name: str
    title: str
    says: str
    draw: Callable[[], Figure]
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]

    def png(self) -> bytes:
        """On white, for documents."""
        return self._saved("png", dpi=200, facecolor="white")

    def svg(self) -> str:
        """For a page that has the colours as variables."""
        text = self._saved("svg", transparent=True, metadata={"Date": None, "Creator": None}).decode()
        text = text[text.index("<svg") :]
        for colour, variable in VARIABLES.items():
            text = re.sub(colour, f"var({variable})", text, flags=re.IGNORECASE)
        # Names that nothing refers to would be there once for each picture of a page.
        text = re.sub(r'<g id="[^"]*"', "<g", text)
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        return re.sub(r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg viewBox="\1" aria-hidden="true">', text, count=1)

    def _saved(self, form: str, **options: Any) -> bytes:
        import matplotlib

        with matplotlib.rc_context(_SETTINGS | {"svg.hashsalt": f"openk2 {self.name}"}):
            buffer = io.BytesIO()
            self.draw().savefig(buffer, format=form, **options)
        return buffer.getvalue()


def need_matplotlib() -> None:
    """Raises UserError if it is not installed."""
    try:
        # Imported to see whether it can be: an installation may be there and broken.
        import_module("matplotlib.figure")
    except ImportError as e:
        raise UserError("the report's pictures need matplotlib: pip install 'openk2[eval]'") from e


def new_figure(height: float) -> Figure:
    """An empty figure of a picture's width; `height` in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


@dataclass(frozen=True, slots=True)
class Passage:
    """Text that is shown as it is, under a heading."""

    title: str
    text: str


def write_report_files(
    folder: Path, title: str, intro: str, summary: Sequence[tuple[str, str]], pictures: Sequence[Picture],
    passages: Sequence[Passage] = (),
) -> list[Path]:  # fmt: skip
    """Write the page and the pictures into `folder`; the paths. Raises UserError if one cannot be drawn or written."""
    paths = [folder / PAGE]
    write_text(paths[0], page(title, intro, summary, pictures, passages))
    for picture in pictures:
        paths.append(folder / f"{picture.name}.png")
        with atomic_path(paths[-1]) as temporary:
            temporary.write_bytes(picture.png())
    return paths


def page(
    title: str, intro: str, summary: Sequence[tuple[str, str]], pictures: Sequence[Picture],
    passages: Sequence[Passage] = (),
) -> str:  # fmt: skip
    """The page as HTML."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    environment.filters["numeric"] = _numeric
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    return template.render(title=title, intro=intro, summary=summary, pictures=pictures, passages=passages) + "\n"


def _numeric(picture: Picture) -> list[int]:
    """The columns of numbers."""
    return [at for at, value in enumerate(picture.rows[0]) if isinstance(value, int | float)] if picture.rows else []
