"""Draws how many times as fast as the plain form each of ours is, from result files of compare.py.

python -m benchmarks.speed.plot benchmarks/results/speed_cpu_*.json docs/speed_cpu.png

Several files must be from one machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures import FAINT, INK, blank, tidy, write

_COLOURS = {"float32": "#1d4ed8", "bfloat16": "#c2410c", "float16": "#15803d"}
_OTHER = "#9ca3af"
# In inches: a bar with its label above it, the title of a group, and the space between groups.
_BAR, _HEAD, _GAP = 0.42, 0.3, 0.14


def draw(result: dict[str, Any], path: Path) -> None:
    """Writes a PNG: a panel of bars with the middle half of the rounds' ratios, grouped by purifier and size."""
    groups = _groups(result["rows"])
    count = sum(len(rows) for rows in groups.values())
    head, foot = 1.15, 0.6
    height = head + foot + count * _BAR + len(groups) * (_HEAD + _GAP)
    figure = blank(5, height)
    panel = figure.add_axes((0.03, foot / height, 0.94, 1 - (head + foot) / height))
    at = 0.0
    high = max(row["ratio_quartiles"][1] for rows in groups.values() for row in rows)
    for title, rows in groups.items():
        panel.text(0.005, at, title, transform=panel.get_yaxis_transform(), **_TEXT, weight="bold")
        at += _HEAD + _BAR / 2
        for row in rows:
            _bar(panel, at, row, high)
            at += _BAR
        at += _GAP - _BAR / 2
    panel.set_ylim(at - _GAP, -_HEAD / 2)
    panel.set_xlim(0, 1.2 * high)
    panel.axvline(1, color=INK, linewidth=1, linestyle=(0, (3, 2)))
    panel.set_yticks([])
    panel.set_axisbelow(True)
    tidy(panel, "x")
    panel.set_xlabel("times as fast as the plain form (dashed), higher is better", color=FAINT, fontsize=8.5)
    _words(figure, result, height)
    write(figure, path)


def joined(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Puts the rows of several result files under the heading of the first."""
    machines = sorted({result["environment"]["device_name"] for result in results})
    if len(machines) > 1:
        raise SystemExit(f"expected result files of one machine, got {', '.join(machines)}; draw them one by one")
    return {**results[0], "rows": [row for result in results for row in result["rows"]]}


# White behind, where the dashed line would cross the text.
_BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
_TEXT: dict[str, Any] = {"ha": "left", "va": "center", "fontsize": 9, "color": INK, "bbox": _BEHIND}


def _groups(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] != "context":
            title = f"{row['method']}, {row['batch']} x {row['height']} x {row['width']}"
            groups.setdefault(title, []).append(row)
    # The first is what the ratios are of: the dashed line.
    return {title: group[1:] for title, group in groups.items()}


def _bar(panel: Any, at: float, row: dict[str, Any], high: float) -> None:
    ours = row["kind"] == "ours"
    low, top = row["ratio_quartiles"]
    colour = _COLOURS.get(row["dtype"], _OTHER) if ours else _OTHER
    panel.barh(at, row["ratio"], height=_BAR * 0.45, color=colour, alpha=1 if row["compile"] == "none" else 0.62)
    panel.plot([low, top], [at, at], color=INK, linewidth=1.2)
    end = max(top, row["ratio"]) + 0.012 * high
    panel.text(end, at, f"{row['ratio']:.2f}x", fontsize=8.5, va="center", color=INK, bbox=_BEHIND)
    iterations = f" i={row['iterations']}" if row["iterations"] else ""
    compiled = "" if row["compile"] == "none" else f", compile {row['compile']}"
    label = f"{row['name']}{iterations}, {row['dtype']}{compiled}"
    faint = {**_TEXT, "fontsize": 8.5, "color": FAINT}
    panel.text(0.005, at - 0.44 * _BAR, label, transform=panel.get_yaxis_transform(), **faint)


def _words(figure: Figure, result: dict[str, Any], height: float) -> None:
    where, settings = result["environment"], result["settings"]
    threads = f", {settings['threads']} threads" if settings["device"] == "cpu" else ""
    first = f"{where['device_name']}{threads}"
    second = f"torch {where['torch']}, commit {where['commit'][:10]}"
    third = "bars: medians; lines: middle half of the rounds"
    figure.text(0.02, 1 - 0.27 / height, "Purifiers beside their papers' plain forms", fontsize=12, color=INK,
                weight="bold", va="center")  # fmt: skip
    for line, text in enumerate((first, second, third)):
        figure.text(0.02, 1 - (0.53 + 0.2 * line) / height, text, fontsize=8.5, color=FAINT, va="center")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    draw(joined([json.loads(path.read_text()) for path in args.results]), args.picture)


if __name__ == "__main__":
    main()
