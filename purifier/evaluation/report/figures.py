"""The figures of a report as SVG text: accuracy against eps, steps and cost."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Okabe & Ito, "Color Universal Design", https://jfly.uni-koeln.de/color/: distinct for all kinds of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#444444")
UNDEFENDED_COLOUR = "#8a8f98"
_MARKERS = "osD^vP"
Axis = Literal["Linf", "L2", "steps", "queries"]
_AXES = {
    "Linf": "eps, in 1/255 (L∞)",
    "L2": "eps (L2)",
    "steps": "steps, times restarts (logarithmic)",
    "queries": "queries (logarithmic)",
}
_INK, _FAINT, _GRID = "#1f2430", "#667085", "#e6e8ec"


@dataclass(frozen=True)
class Curve:
    """Accuracy of one purifier against eps or steps.

    Attributes:
        label: The purifier.
        colour: Colour of its line.
        places: Radii from 0 up, or numbers of steps.
        share: Accuracy at each place, in [0, 1].
        low: Lower end of each interval.
        high: Upper end of each interval.
    """

    label: str
    colour: str
    places: Sequence[float]
    share: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Costs:
    """Time and accuracy of one purifier.

    Attributes:
        label: The purifier.
        colour: Colour of its marks.
        milliseconds: Time for an image.
        standard: Accuracy without attack.
        blind: Accuracy under an attacker who does not know the purifier, or None.
        aware: Accuracy under an attacker who knows it, or None.
    """

    label: str
    colour: str
    milliseconds: float
    standard: float
    blind: float | None
    aware: float | None


def curve_panel(curves: Sequence[Curve], *, axis: Axis, title: str) -> str:
    """Draws accuracy against eps, or against steps on a logarithmic axis, as SVG text; bands are 95 % intervals.

    Each line is thinner than those below it and has another marker, so that lines that coincide can be told apart.
    """
    figure, axes = _blank(3.6, 2.7)
    unit = 255 if axis == "Linf" else 1
    for place, curve in enumerate(sorted(curves, key=lambda c: c.colour != UNDEFENDED_COLOUR)):
        x = [unit * place for place in curve.places]
        axes.fill_between(x, curve.low, curve.high, color=curve.colour, alpha=0.1, linewidth=0)
        dashed = "--" if curve.colour == UNDEFENDED_COLOUR else "-"
        left, marker = len(curves) - 1 - place, _MARKERS[place % len(_MARKERS)]
        width, size = 1.4 + min(1.6, 6 / len(curves)) * left, 3.6 + min(2.2, 8 / len(curves)) * left
        axes.plot(
            x, curve.share, dashed, color=curve.colour, marker=marker, markersize=size, linewidth=width,
            markeredgecolor="white", markeredgewidth=0.5, clip_on=False, zorder=3,
        )  # fmt: skip
    _per_cent(axes)
    axes.set_xlabel(_AXES[axis])
    ticks = sorted({unit * place for curve in curves for place in curve.places})
    if axis in ("steps", "queries"):
        axes.set_xscale("log")
        labels = [f"{tick:.0f}" for tick in ticks]
        axes.set_xticks(*((ticks, labels) if len(ticks) <= 6 else _round_ticks(ticks[0], ticks[-1])))
        axes.set_xticks([], minor=True)
    else:
        axes.set_xlim(left=0)
        if len(ticks) <= 6:
            axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.set_title(title, loc="left", fontsize=10.5, color=_INK, fontweight="bold")
    return _svg(figure, title)


def cost_figure(costs: Sequence[Costs], *, undefended: Costs | None) -> str:
    """Draws accuracy against time as SVG text; a vertical line joins the marks of a purifier."""
    figure, axes = _blank(5.4, 3.4)
    if undefended is not None:
        # Below its line, so that two lines close to each other can be read.
        lines = ((undefended.standard, "no attack", (-2, 3)), (undefended.blind, "attacked", (-2, -9)))
        for value, text, offset in lines:
            if value is not None:
                axes.axhline(value, color=UNDEFENDED_COLOUR, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
                axes.annotate(
                    f"no purifier, {text}", (1, value), offset, xycoords=("axes fraction", "data"),
                    textcoords="offset points", fontsize=7.5, color=_FAINT, ha="right",
                )  # fmt: skip
    for one in costs:
        # Blind on top, so that both marks are visible if they are equal.
        marks = [(one.standard, "o", "white"), (one.aware, "s", one.colour), (one.blind, "^", one.colour)]
        there = [value for value, _, _ in marks if value is not None]
        axes.plot(
            [one.milliseconds] * 2, [min(there), max(there)], color=one.colour, linewidth=1.2, alpha=0.5, zorder=2
        )
        for value, shape, fill in marks:
            if value is not None:
                edge = one.colour if fill == "white" else "white"
                width, size = 1.4 if fill == "white" else 0.8, 9 if shape == "s" else 8
                axes.plot(
                    one.milliseconds, value, shape, markersize=size, zorder=3,
                    markerfacecolor=fill, markeredgecolor=edge, markeredgewidth=width,
                )  # fmt: skip
    _per_cent(axes)
    axes.set_xscale("log")
    times = [one.milliseconds for one in costs]
    if times:
        axes.set_xlim(min(times) / 2, max(times) * 2)
        axes.set_xticks(*_round_ticks(min(times) / 2, max(times) * 2))
        axes.set_xticks([], minor=True)
    axes.set_xlabel("time of the purifier in ms for an image (logarithmic)")
    return _svg(figure, "accuracy against cost")


def _round_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """A few round numbers between two positive ones for a logarithmic axis, and their labels."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high / low < 500 else (1,)
    ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
    return ticks, [f"{tick:g}" for tick in ticks]


def colours(purifiers: Sequence[str], undefended: str) -> dict[str, str]:
    """Returns a colour for each purifier; the bare model is grey."""
    defended = [name for name in purifiers if name != undefended]
    found = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(defended)}
    return {undefended: UNDEFENDED_COLOUR, **found}


def _blank(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GRID)
    axes.tick_params(colors=_FAINT, labelsize=8.5, length=0)
    axes.xaxis.label.set_color(_FAINT)
    axes.xaxis.label.set_fontsize(9)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _per_cent(axes: Any) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def _svg(figure: Any, title: str) -> str:
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.StringIO()
    # Equal input gives equal text, and ids differ between the figures of a page.
    with matplotlib.rc_context({"svg.hashsalt": title, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
