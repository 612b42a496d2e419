"""The figure of `purifier tune`: standard and blind robust accuracy against the number of iterations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from purifier.evaluation.drawing import FAINT, INK, blank, tidy, write
from purifier.evaluation.tuning import Trial, Tuning

_STANDARD, _BLIND, _MEAN = "#1d4ed8", "#c2410c", "#15803d"
_PANEL, _HEIGHT = 5.2, 4.4
# Height of a line of text, in units of the axis.
_LINE = 0.045
_CURVES = (("standard", _STANDARD, "standard"), ("blind", _BLIND, "robust,\npurifier-blind"))


def draw_tuning(tuning: Tuning, path: Path, *, title: str, subtitle: str, note: str) -> None:
    """Writes a PNG with a panel for each kernel size.

    Args:
        tuning: What `tune` returned.
        path: The file; its folder exists.
        title: The heading.
        subtitle: Model, images and attack.
        note: The line below the panels.
    """
    from matplotlib.text import Text

    kernels = list(dict.fromkeys(trial.options.get("kernel_size") for trial in tuning.trials))
    figure = blank(max(7.2, _PANEL * len(kernels) + 0.6), _HEIGHT + 1.4)
    panels = figure.subplots(1, len(kernels), sharey=True, squeeze=False)[0]
    for panel, kernel in zip(panels, kernels, strict=True):
        trials = [trial for trial in tuning.trials if trial.options.get("kernel_size") == kernel]
        _draw_panel(panel, trials, tuning, "" if kernel is None else f"K = {kernel}")
    panels[0].set_ylabel("accuracy", color=INK)
    inch = 1 / figure.get_figheight()
    figure.subplots_adjust(left=0.7 / figure.get_figwidth(), right=1 - 0.2 / figure.get_figwidth(), wspace=0.06)
    figure.subplots_adjust(top=1 - 0.95 * inch, bottom=0.95 * inch)
    left = 0.25 / figure.get_figwidth()
    figure.text(left, 1 - 0.28 * inch, title, fontsize=12, color=INK, weight="bold", va="center")
    figure.text(left, 1 - 0.56 * inch, subtitle, fontsize=8.5, color=FAINT, va="center")
    figure.text(left, 0.24 * inch, note, fontsize=8.5, color=FAINT, va="center")
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    write(figure, path)


def _draw_panel(panel: Any, trials: Sequence[Trial], tuning: Tuning, heading: str) -> None:
    at = [trial.options["iterations"] for trial in trials]
    figures = [trial.to_dict() for trial in trials]
    undefended = tuning.undefended.to_dict()
    ends = [(trials[-1].mean, "mean", _MEAN)]
    for key, colour, label in _CURVES:
        low, high = zip(*(figure[f"{key}_interval"] for figure in figures), strict=True)
        shares = [figure[f"{key}_accuracy"] for figure in figures]
        panel.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.plot(at, shares, color=colour, marker="o", markersize=4, linewidth=1.8)
        ends.append((shares[-1], label, colour))
        panel.axhline(undefended[f"{key}_accuracy"], color=colour, linewidth=0.9, linestyle=(0, (1, 3)))
    means = [trial.mean for trial in trials]
    panel.plot(at, means, color=_MEAN, marker="o", markersize=3, linewidth=1.2, linestyle="--")
    _label(panel, at[-1], ends)
    if tuning.chosen in trials:
        place = tuning.chosen.options["iterations"]
        panel.axvline(place, color=FAINT, linewidth=0.8)
        panel.plot([place], [tuning.chosen.mean], marker="o", markersize=9, color=_MEAN)
        panel.annotate("chosen", (place, 1.0), (4, -3), textcoords="offset points", va="top", color=FAINT, fontsize=8.5)
    panel.set_ylim(0, 1)
    panel.set_xlim(at[0] - 0.3, at[-1] + 0.26 * max(2, at[-1] - at[0] + 1))
    panel.set_xticks(at)
    panel.set_xlabel("iterations", color=INK)
    panel.set_title(heading, fontsize=10, color=INK)
    tidy(panel)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}".replace("%", " %"))


def _label(panel: Any, x: float, ends: Sequence[tuple[float, str, str]]) -> None:
    """Labels the curves at their ends; labels that would overlap are moved apart."""
    lowest = 0.0
    for y, text, colour in sorted(ends):
        height = _LINE * (1 + text.count("\n"))
        place = max(y, lowest + height / 2)
        lowest = place + height / 2
        panel.annotate(text, (x, place), (7, 0), textcoords="offset points", va="center", color=colour, fontsize=9)
