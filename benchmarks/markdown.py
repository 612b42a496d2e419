"""Tables of evaluations: purifiers down and attacks with what the attacker knows across; and what was wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def percent(value: float, spread: Sequence[float] | None = None) -> str:
    """A share in %, with its interval in brackets."""
    return f"{100 * value:.1f}" + (f" ({100 * max(0, spread[0]):.0f}-{100 * spread[1]:.0f})" if spread else "")


def measure_of(row: dict[str, Any]) -> tuple[float, Sequence[float] | None]:
    """Accuracy of a classifier, pixel accuracy of a segmenter or mAP@0.5 of a detector, with its interval if any."""
    if "robust_accuracy" in row:
        return row["robust_accuracy"]["share"], row["robust_accuracy"]["interval"]
    name = next(name for name in ("pixel_accuracy", "map_50") if name in row["robust"])
    return row["robust"][name], row["robust_intervals"].get(name)


def column(row: dict[str, Any]) -> str:
    """Head of the column that a row belongs to."""
    settings = row["settings"]
    if row["threat"] == "worst-case":
        return f"worst case of the aware attacks, eps {row['eps'] * 255:.0f}/255"
    return f"{settings['attack_key']}, {settings['threat_key']}" if "attack_key" in settings else "no attack"


def grid(rows: Sequence[dict[str, Any]]) -> str:
    """The table; columns of fewer images than the first row say of how many."""
    count = rows[0]["images"]
    columns: dict[str, dict[str, str]] = {}
    for row in rows:
        title = column(row) + (f" (n={row['images']})" if row["images"] != count else "")
        columns.setdefault(title, {})[row["purifier"]] = percent(*measure_of(row))
    lines = [f"n = {count} images.", "", "| purifier | " + " | ".join(columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for purifier in dict.fromkeys(row["purifier"] for row in rows):
        missing = "as blind" if purifier == "none" else "not measured"
        lines.append(f"| {purifier} | " + " | ".join(found.get(purifier, missing) for found in columns.values()) + " |")
    return "\n".join(lines)


def task_checks(rows: Sequence[dict[str, Any]], purifier: str) -> list[tuple[str, float, float, bool]]:
    """Targets in front of a segmenter or detector: the clean cost, and what is won back of what each attack took."""
    cells = {(row["purifier"], column(row)): 100 * measure_of(row)[0] for row in rows}
    clean = "no attack"
    lost = cells["none", clean] - cells[purifier, clean]
    checks = [("clean figure lost, at most", 6.0, lost, lost <= 6)]
    for attack in dict.fromkeys(title for _, title in cells if title.endswith(", blind")):
        taken = cells["none", clean] - cells["none", attack]
        back = 100 * (cells[purifier, attack] - cells["none", attack]) / taken
        checks.append((f"{attack}: % won back of what it took, at least", 50.0, back, back >= 50))
    return checks


def holds(head: str, targets: Sequence[tuple[str, float, float, bool]]) -> str:
    """A table of targets, each with what is wanted, what was measured, and whether it holds."""
    lines = [f"| {head} | wanted | measured | holds |", "|---|---|---|---|"]
    # What rounds to nothing has no sign.
    figures = [(text, w, round(m, 1) + 0.0, "yes" if held else "no") for text, w, m, held in targets]
    lines += [f"| {text} | {w:.1f} | {m:.1f} | {held} |" for text, w, m, held in figures]
    return "\n".join(lines)
