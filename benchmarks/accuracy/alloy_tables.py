"""The tables of benchmarks/recipes/alloy_ablation.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.markdown import percent

RESULTS = Path(__file__).parents[1] / "results"
# Headings, and the figures below them.
_RATES = {"mean": ("mean",)} | {
    f"{text}, standard / robust": (f"standard {name}", f"robust {name}")
    for name, text in (("mobilenet", "MobileNetV2"), ("demo", "demo classifier"))
}
_LEFT = {"vgg": "VGG-19", "mobilenet": "MobileNetV2", "demo": "demo classifier", "deeplab": "DeepLabV3"}
# Trainings as short as these are at their best when applied twice.
_K = "k=2"
_SEEDS = ("base", "seed-1", "seed-2")
# Extractors by the ablation that leaves them out.
_LEFT_OUT = {"without-vgg": "vgg", "without-mobilenet": "mobilenet", "without-demo": "demo"}


def _result() -> dict[str, Any] | None:
    path = RESULTS / "alloy_ablation.json"
    return json.loads(path.read_text()) if path.exists() else None


def alloy_ablation() -> str:
    """Every ablation, applied twice, beside other purifiers."""
    r = _result()
    if r is None:
        return "Not measured yet."
    heads = ["purifier, or what was changed", "mean, k = 1", *_RATES]
    heads += [f"left of {text}'s features" for text in _LEFT.values()] + ["PSNR, dB"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += [_line(name, "-", row) for name, row in r["others"].items()]
    lines += [
        _line(name, f"{100 * run['rows']['k=1']['mean']:.1f}", run["rows"][_K]) for name, run in r["runs"].items()
    ]
    return "\n".join(lines)


def _line(name: str, once: str, row: dict[str, float]) -> str:
    rates = [" / ".join(f"{100 * row[figure]:.1f}" for figure in figures) for figures in _RATES.values()]
    left = [f"{row[f'left {network}']:.2f}" for network in _LEFT]
    quality = f"{row['psnr']:.1f}" if "psnr" in row else "-"
    return "| " + " | ".join([name, once, *rates, *left, quality]) + " |"


def alloy_generality() -> str:
    """What the judgement of each extractor is when it took no part in the training, beside its own and others'."""
    r = _result()
    if r is None:
        return "Not measured yet."
    runs = {name: run["rows"][_K] for name, run in r["runs"].items()}
    heads = ["judge", "figure", *r["others"], "with it (three seeds)", "without it"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for ablation, network in _LEFT_OUT.items():
        for figure in ("standard", "robust", "left"):
            key = f"{figure} {network}"
            if key in runs["base"]:
                seen = sorted(runs[name][key] for name in _SEEDS)
                cells = [_figure(figure, row[key]) for row in r["others"].values()]
                cells += [
                    f"{_figure(figure, seen[0])} to {_figure(figure, seen[-1])}",
                    _figure(figure, runs[ablation][key]),
                ]
                lines.append(f"| {_LEFT[network]} | {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figure(name: str, value: float) -> str:
    return f"{value:.2f}" if name == "left" else f"{100 * value:.1f}"


def gate_accuracy(r: dict[str, Any]) -> str:
    """Purifiers with and without the gate, of benchmarks/accuracy/alloy_gate.py."""
    heads = ["classifier", "purifier", "gate", "standard", "purifier-blind PGD", "mean of the two"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in r["accuracy"]:
        figures = [percent(row[key], row[f"{key}_interval"]) for key in ("standard", "robust")]
        cells = [
            row["classifier"],
            row["purifier"],
            "yes" if row["gate"] else "no",
            *figures,
            f"{100 * row['mean']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gate_biases(r: dict[str, Any]) -> str:
    """Shares of photographs by gate_bias and attack, of benchmarks/accuracy/alloy_gate.py."""
    shares = r["cautions"]["shares"]
    heads = [f"gate_bias, {r['cautions']['images']} photographs", *next(iter(shares.values()))]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for gate_bias, row in shares.items():
        lines.append("| " + " | ".join([gate_bias, *(f"{100 * share:.1f}" for share in row.values())]) + " |")
    return "\n".join(lines)


def gate_weights(r: dict[str, Any]) -> str:
    """The gate's weights for changed and attacked images, of benchmarks/accuracy/alloy_gate.py."""
    lines = [
        f"| {r['settings']['few']} images | attacked | weight, mean | of the images, least to most |",
        "|---|---|---|---|",
    ]
    for name, row in r["gate"].items():
        attack = "yes" if row["attack"] else "no"
        lines.append(f"| {name} | {attack} | {row['mean']:.2f} | {row['least']:.2f} to {row['most']:.2f} |")
    return "\n".join(lines)
