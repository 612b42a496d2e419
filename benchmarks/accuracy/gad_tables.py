"""The tables of benchmarks/recipes/gad_cifar10.py, gad_camvid.py and gad_yolox.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.markdown import column, grid, holds, measure_of, percent, task_checks

RESULTS = Path(__file__).parents[1] / "results"
BLIND = ("PGD 8/255", "DeepFool", "C&W L2")


def _rows(target: str, part: str) -> list[dict[str, Any]]:
    path = RESULTS / f"gad_cifar10_{target}_{part}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def _cell(found: dict[str, Any]) -> str:
    return percent(found["share"], found["interval"])


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
    full = cells.get((f"gad {target}-full-900", "PGD 8/255"))
    for variant in ("li", "lt"):
        other = cells.get((f"gad {target}-{variant}", "PGD 8/255"))
        if full is not None and other is not None:
            checks.append((f"full, PGD 8/255, blind, above {variant}, 900 steps each", other, full, full > other))
    return holds("target, in points", checks)


def gad_task(name: str) -> str:
    """A model's table behind GAD and other purifiers: segmentation ("camvid") or detection ("yolox")."""
    rows = _task_rows(name)
    return grid(rows) if rows else "Not measured yet."


def gad_task_targets(name: str) -> str:
    """What GAD is held to in front of a segmenter or detector."""
    rows = _task_rows(name)
    if not rows:
        return "Not measured yet."
    clean = {row["purifier"]: 100 * measure_of(row)[0] for row in rows if column(row) == "no attack"}
    checks = task_checks(rows, "gad")
    more = clean["gad"] - clean["gad, jpeg"]
    checks.append(("clean figure lost by jpeg after it (the paper: under 3), at most", 3.0, more, more <= 3))
    return holds("target, in points", checks)


def _task_rows(name: str) -> list[dict[str, Any]]:
    """Rows of every part of a result; clean ones of the first part only, as later ones take fewer images."""
    path = RESULTS / f"gad_{name}.json"
    parts = list(json.loads(path.read_text())["parts"].values()) if path.exists() else []
    attacked = [row for part in parts for row in part["rows"] if "attack_key" in row["settings"]]
    return [row for part in parts[:1] for row in part["rows"] if "attack_key" not in row["settings"]] + attacked


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
