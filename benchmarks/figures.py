"""The common style of the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from purifier._files import replacing

INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
_DPI = 128


def blank(width: float, height: float, **options: Any) -> Figure:
    """Returns a white figure of this size in inches."""
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def tidy(panel: Any, axis: str) -> None:
    """Reduces a panel to its bottom line, faint labels, and grid lines across one axis."""
    panel.grid(axis=axis, color=GRID, linewidth=0.8)
    panel.tick_params(colors=FAINT, labelsize=8.5, length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(GRID)


def write(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
