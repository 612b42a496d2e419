"""What figures of commands and benchmarks share: colours, an empty figure, a plain panel, and the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from purifier._files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
_LINE, _DPI = "#9ca3af", 128


def blank(width: float, height: float, **options: Any) -> Figure:
    """Returns a white figure of this size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def tidy(panel: Any) -> None:
    """Reduces a panel to its bottom line, faint labels, and grid lines across the y axis."""
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=FAINT, length=0, labelsize=9)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(_LINE)


def write(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
