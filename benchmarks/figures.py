"""The common style of the figures."""

from __future__ import annotations

from typing import Any

from purifier.evaluation.drawing import FAINT, GRID, INK, blank, write

__all__ = ["FAINT", "GRID", "INK", "blank", "tidy", "write"]


def tidy(panel: Any, axis: str) -> None:
    """Reduces a panel to its bottom line, faint labels, and grid lines across one axis."""
    panel.grid(axis=axis, color=GRID, linewidth=0.8)
    panel.tick_params(colors=FAINT, labelsize=8.5, length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(GRID)
