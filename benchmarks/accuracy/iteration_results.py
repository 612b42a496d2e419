"""The tables of iteration_gain.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.accuracy.frequency import BANDS
from benchmarks.markdown import table, yes

Result = Mapping[str, Any]


def _two(value: float) -> str:
    """Returns a number with two decimals; adding 0.0 turns -0.0 into 0.0."""
    return f"{round(value, 2) + 0.0:.2f}"


def _gain(result: Result) -> str:
    """Returns the gain of one application: the mean of the images, and the largest in brackets."""
    rows = result["gain"]
    lines = []
    for row in rows:
        kind = f"{row['direction']}, {row['colour']}"
        cells = [f"{_two(one['mean'])} ({_two(one['max'])})" for one in row["gain"].values()]
        lines.append([row["purifier"], str(row["images"]), kind, *cells])
    return table(["purifier", "images", "sinusoid", *rows[0]["gain"]], lines)


def _repeated(result: Result) -> str:
    """Returns the gain of several applications: of the sinusoid itself, and in brackets of all that came of it."""
    rows = result["repeated"]
    lines = []
    for row in rows:
        for count in next(iter(row["gain"].values())):
            cells = [f"{_two(one[count]['mean'])} ({_two(one[count]['total'])})" for one in row["gain"].values()]
            lines.append([row["purifier"], yes(row["clamp"]), count, *cells])
    return table(["purifier", "clamp", "i", *rows[0]["gain"]], lines)


def _drift(result: Result) -> str:
    lines = []
    for row in result["drift"]:
        for i, one in enumerate(row["by i"], 1):
            cells = [f"{one[key]:.1f}" for key in ("change", "last", *BANDS)]
            lines.append([row["purifier"], yes(row["clamp"]), str(i), *cells])
    return table(["purifier", "clamp", "i", "change", "last application", *BANDS], lines)


def _growth(result: Result) -> str:
    shares = {"grey": "grey, %", "above 1/4": "above 1/4, %", "border": f"outer {result['settings']['border']} px, %"}
    lines = []
    for row in result["growth"]:
        cells = [f"{row['mean']:.2f}", f"{row['max']:.2f}", f"{row['cosine']:.2f}", f"{row['fx']:.2f}, {row['fy']:.2f}"]
        cells += [f"{100 * row[key]:.0f}" for key in shares]
        lines.append([row["purifier"], yes(row["clamp"]), *cells])
    heads = ["purifier", "clamp", "growth, mean", "largest", "cosine", "frequency (x, y)", *shares.values()]
    return table(heads, lines)


def _fine(result: Result) -> str:
    """Returns the gain at high frequencies: the mean of the images, and the least and the largest in brackets."""
    rows = result["fine"]
    lines = []
    for row in rows:
        cells = [f"{_two(one['mean'])} ({_two(one['min'])} to {_two(one['max'])})" for one in row["gain"].values()]
        lines.append([row["purifier"], *cells])
    return table(["purifier", *rows[0]["gain"]], lines)


def _windows(result: Result) -> str:
    kinds = {"middle": "middle", "alone": "all", "part": "purified, then cut"}
    rows, lines = result["windows"], []
    for row in rows:
        cells = [f"{value:.1f}" for kind in kinds for value in row[kind].values()]
        lines.append([row["purifier"], str(row["side"]), *cells])
    heads = [f"{text}, i={i}" for kind, text in kinds.items() for i in rows[0][kind]]
    return table(["purifier", "side in px", *heads], lines)


def _photographs(result: Result) -> str:
    rows = result["photographs"]
    heads = [f"{name} i={i}" for name, change in rows[0]["change"].items() for i in change]
    lines = []
    for row in rows:
        content = [f"{value:.1f}" for value in row["content"].values()]
        change = [f"{value:.1f}" for found in row["change"].values() for value in found.values()]
        lines.append([row["source"], f"{row['slope']:.2f}", *content, *change])
    return table(["crops of", "slope", *BANDS, *heads], lines)


TABLES: dict[str, Callable[[Result], str]] = {
    "gain": _gain,
    "fine": _fine,
    "repeated": _repeated,
    "drift": _drift,
    "growth": _growth,
    "windows": _windows,
    "photographs": _photographs,
}
