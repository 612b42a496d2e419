"""The histogram of `purifier detect`: how many pictures have which attack score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from purifier.evaluation.drawing import FAINT, INK, blank, tidy, write
from purifier.evaluation.thresholds import Threshold

_CLEAN, _ATTACKED = "#1d4ed8", "#c2410c"
# Scores crowd near 0 and 1, so the axis is that of their logits, from _LOW to 1 - _LOW.
_LOW, _BINS = 1e-4, 48
_TICKS = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)


def draw_scores(
    scores: Sequence[float], path: Path, *, title: str, subtitle: str, threshold: Threshold | None = None
) -> None:
    """Writes a PNG.

    Args:
        scores: The scores, in [0, 1].
        path: The file; its folder exists.
        title: The heading.
        subtitle: What was scored.
        threshold: A line is drawn at it, and bars beyond it have another colour.
    """
    figure = blank(7.6, 4.4)
    panel = figure.subplots()
    edge = _place(_LOW)
    edges = [edge + (-2 * edge) * number / _BINS for number in range(_BINS + 1)]
    limit = math.inf if threshold is None else threshold.value
    kept, above = ([_place(s) for s in scores if (s > limit) is flag] for flag in (False, True))
    panel.hist([kept, above], bins=edges, stacked=True, color=[_CLEAN, _ATTACKED], rwidth=0.92)
    if threshold is not None:
        place = _place(threshold.value)
        panel.axvline(place, color=INK, linewidth=1)
        text = f"threshold {threshold.value:.3g}: {len(above)} of {len(scores)} above"
        right = place > 0
        panel.annotate(
            text, (place, 1), (-5 if right else 5, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right" if right else "left", va="top", color=INK, fontsize=8.5,
        )  # fmt: skip
    _style(panel)
    figure.subplots_adjust(left=0.09, right=0.95, top=0.82, bottom=0.13)
    figure.text(0.03, 0.95, title, fontsize=12, color=INK, weight="bold", va="center", parse_math=False)
    figure.text(0.03, 0.885, subtitle, fontsize=8.5, color=FAINT, va="center", parse_math=False)
    write(figure, path)


def _style(panel: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.set_xlim(_place(_LOW), _place(1 - _LOW))
    panel.set_xticks(
        [_place(tick) for tick in _TICKS], ["≤ 0.0001", *(f"{tick:g}" for tick in _TICKS[1:-1]), "≥ 0.9999"]
    )
    panel.set_xlabel("attack score", color=INK)
    panel.set_ylabel("pictures", color=INK)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(panel)


def _place(score: float) -> float:
    kept = min(max(score, _LOW), 1 - _LOW)
    return math.log(kept / (1 - kept))
