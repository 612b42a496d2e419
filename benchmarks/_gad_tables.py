"""The tables of benchmarks/gad_cifar10.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
BLIND = ("PGD 8/255", "DeepFool", "C&W L2")


def _rows(target: str, part: str) -> list[dict[str, Any]]:
    path = RESULTS / f"gad_cifar10_{target}_{part}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def _cell(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{100 * found['share']:.1f} ({100 * low:.0f}-{100 * high:.0f})"


def _cells(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Accuracy by purifier and attack ("standard" for none)."""
    return {
        (row["purifier"], row["settings"].get("attack_key", "standard")): row["robust_accuracy"]
        for row in rows
        if row["threat"] != "worst-case"
    }


def gad_accuracy(target: str) -> str:
    """Accuracy of a target behind each purifier: bare attacks, and the attack that knows the purifier."""
    rows = _rows(target, "blind")
    if not rows:
        return "Not measured yet."
    blind, aware = _cells(rows), _cells(_rows(target, "aware")) | _cells(_rows(target, "bpda"))
    known = next((found["of"] for (_, attack), found in aware.items() if attack != "standard"), 0)
    heads = ["standard", *(f"{name}, blind" for name in BLIND), f"PGD 8/255, purifier-aware (n={known})"]
    lines = [f"{target}, n = {rows[0]['images']}.", "", f"| purifier | {' | '.join(heads)} |", "|" + "---|" * 6]
    for purifier in dict.fromkeys(row["purifier"] for row in rows):
        cells = [_cell(blind[purifier, name]) for name in ("standard", *BLIND)]
        last = aware.get((purifier, BLIND[0]))
        cells.append("as blind" if purifier == "none" else "not measured" if last is None else _cell(last))
        lines.append(f"| {purifier} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gad_targets(target: str, own: str = "gad-cifar10-resnet20") -> str:
    """What GAD is held to in front of its target."""
    cells = {key: 100 * found["share"] for key, found in _cells(_rows(target, "blind")).items()}
    if (own, "standard") not in cells:
        return "Not measured yet."
    lost, purified = cells["none", "standard"] - cells[own, "standard"], cells[own, "standard"]
    checks = [
        ("standard accuracy lost, at most", 6.0, lost, lost <= 6),
        ("PGD 8/255, blind, at least", 60.0, cells[own, "PGD 8/255"], cells[own, "PGD 8/255"] >= 60),
    ]
    for name in BLIND[1:]:
        below = purified - cells[own, name]
        checks.append((f"{name}, blind, below standard accuracy behind it, at most", 8.0, below, below <= 8))
    for variant in ("li", "lt"):
        other = cells.get((f"gad {target}-{variant}", "PGD 8/255"))
        if other is not None:
            checks.append(
                (f"PGD 8/255, blind, above {variant}", other, cells[own, "PGD 8/255"], cells[own, "PGD 8/255"] > other)
            )
    lines = ["| target, in points | wanted | measured | holds |", "|---|---|---|---|"]
    lines += [f"| {name} | {w:.1f} | {m:.1f} | {'yes' if holds else 'no'} |" for name, w, m, holds in checks]
    return "\n".join(lines)


def cifar10_targets() -> str:
    """Accuracy of the CIFAR-10 classifiers."""
    path = RESULTS / "cifar10_targets.json"
    if not path.exists():
        return "Not measured yet."
    found = json.loads(path.read_text())
    lines = [f"n = {found['images']} test images.", "", "| classifier | parameters | top-1 |", "|---|---|---|"]
    lines += [
        f"| {name} | {found['parameters'][name]:,} | {100 * value:.1f} |" for name, value in found["accuracy"].items()
    ]
    return "\n".join(lines)
