"""Figures of detection: rows of its result file, tables and ROC curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import FAINT, INK, blank, tidy, write
from benchmarks.kit import share
from benchmarks.markdown import MISSING, percent, table
from purifier.evaluation.detected import area_under_roc, limit_at
from purifier.evaluation.metrics.classification import interval

# False-positive rates at which detection is stated.
RATES = (0.01, 0.05)
_COLOURS = ("#1d4ed8", "#c2410c", "#15803d", "#7c3aed", "#0891b2", "#b91c1c", "#a16207", "#db2777")
# The curves of the figure, if they were measured.
_DRAWN = (
    "PGD 1/255", "PGD 4/255", "PGD 16/255", "C&W L2", "Square 8/255, 300 queries", "SSP 16/255", "MI-FGSM 16/255",
    "PGD 4/255, then JPEG 90",
)  # fmt: skip


def rates_at(clean: Sequence[float]) -> list[float]:
    """Returns the thresholds that shares of `RATES` of the clean scores exceed."""
    return [limit_at(clean, rate) for rate in RATES]


def row_of(scores: Sequence[float], clean: Sequence[float], limits: Sequence[float]) -> dict[str, Any]:
    """Returns the figures of one set of scores: the area, and the share above each threshold with its interval."""
    above = [sum(score > limit for score in scores) for limit in limits]
    shares = [share(n, len(scores)) for n in above]
    return {"n": len(scores), "auc": area_under_roc(scores, clean), "above": shares, "scores": list(scores)}


def markdown_of(result: dict[str, Any]) -> dict[str, str]:
    """Returns every table of a result, by the end of its block's name."""
    return {name: make(result) for name, make in TABLES.items()}


def attacks_table(result: dict[str, Any], key: str = "attacks") -> str:
    """Attacks that do not know the gate."""
    if not result.get(key):
        return MISSING
    heads = ["attack", "n", "area under the ROC curve", *(f"detected at {rate:.0%} false positives" for rate in RATES)]
    rows = [[name, str(row["n"]), f"{row['auc']:.3f}", *_shares(row)] for name, row in result[key].items()]
    return table(heads, rows)


def changes_table(result: dict[str, Any]) -> str:
    """Changes of clean images that are no attacks."""
    heads = ["clean images", "n", *(f"above the threshold of {rate:.0%}" for rate in RATES)]
    return table(heads, [[name, str(row["n"]), *_shares(row)] for name, row in result["changes"].items()])


def aware_table(result: dict[str, Any]) -> str:
    """Attacks that know the gate."""
    found, limits = result["aware"], result["settings"]["thresholds"]
    heads = ["weight of the gate in the loss", "classifier wrong", "purifier and classifier wrong"]
    heads += [f"wrong and undetected at {rate:.0%}" for rate in RATES]
    rows = []
    for weight, row in found["rows"].items():
        n = len(row["scores"])
        counts = [sum(row["bare_wrong"]), sum(row["defended_wrong"])]
        pairs = list(zip(row["defended_wrong"], row["scores"], strict=True))
        counts += [sum(wrong and score <= limit for wrong, score in pairs) for limit in limits]
        rows.append([weight, *(percent(count / n, interval(count, n)) for count in counts)])
    rows.append(["any of them above 0", "", "", *(percent(one["share"], one["interval"]) for one in found["any"])])
    return table(heads, rows)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "attacks": attacks_table,
    "compressed": partial(attacks_table, key="compressed"),
    "changes": changes_table,
    "aware": aware_table,
}


def _shares(row: dict[str, Any]) -> list[str]:
    return [percent(one["share"], one["interval"]) for one in row["above"]]


def draw(result: dict[str, Any], path: Path) -> None:
    """Writes a PNG of ROC curves, with the false positives on a logarithmic axis."""
    clean = sorted(result["clean"], reverse=True)
    rows = {name: row for name, row in result["attacks"].items() if name in _DRAWN}
    figure = blank(5, 6.8)
    panel = figure.add_axes((0.14, 0.43, 0.82, 0.46))
    # Above the k-th highest clean score are k - 1 clean ones.
    at, limits = [k / len(clean) for k in range(1, len(clean) + 1)], [*clean[1:], -1.0]
    for colour, (name, row) in zip(_COLOURS, rows.items(), strict=False):
        found = [sum(score > limit for score in row["scores"]) / row["n"] for limit in limits]
        panel.step(at, found, where="post", color=colour, linewidth=1.6, label=f"{name} ({row['auc']:.3f})")
    panel.plot(at, at, color=FAINT, linewidth=0.9, linestyle=(0, (1, 3)), label="chance (0.5)")
    for rate in RATES:
        panel.axvline(rate, color=FAINT, linewidth=0.7)
    panel.set_xscale("log")
    ticks = [tick for tick in (0.003, 0.01, 0.05, 0.2, 1) if tick >= 1 / len(clean)]
    panel.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlim(1 / len(clean), 1)
    panel.set_ylim(0, 1.01)
    panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    panel.set_xlabel("false positives: clean images above the threshold", color=FAINT, fontsize=8.5)
    panel.set_ylabel("attacked images above it", color=FAINT, fontsize=8.5)
    tidy(panel, "y")
    panel.legend(
        loc="upper left", bbox_to_anchor=(0, -0.18), frameon=False, fontsize=8.5, title="attack (area)",
        labelcolor=INK, alignment="left",
    )  # fmt: skip
    settings = result["settings"]
    figure.text(0.03, 0.968, "Detection by the attack score", fontsize=12, color=INK, weight="bold", va="center")
    subtitle = f"gate of {settings['purifier']}; attacks on {settings['classifier']} that do not know it"
    figure.text(0.03, 0.927, subtitle, fontsize=8.5, color=FAINT, va="center")
    write(figure, path)
