"""The tables of the recipes: alloy's ablations, GAD, the choice of ncis and the reference classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.accuracy.tables import CLASSIFIERS, column, grid, measure_of, task_checks
from benchmarks.kit import read_result
from benchmarks.markdown import percent, table, targets_table

# Headings, and the figures below each.
_RATES = {"mean": ("mean",)} | {
    f"{text}, standard / robust": (f"standard {name}", f"robust {name}")
    for name, text in (("mobilenet", "MobileNetV2"), ("demo", "demo classifier"))
}
_LEFT = {"vgg": "VGG-19", "mobilenet": "MobileNetV2", "demo": "demo classifier", "deeplab": "DeepLabV3"}
# The ablations' short trainings do best when the purifier is applied twice.
_K = "k=2"
_SEEDS = ("base", "seed-1", "seed-2")
# Extractors by the ablation that leaves them out.
_LEFT_OUT = {"without-vgg": "vgg", "without-mobilenet": "mobilenet", "without-demo": "demo"}
_BLIND = ("PGD 8/255", "DeepFool", "C&W L2")


def alloy_ablation(r: Mapping[str, Any]) -> str:
    """Returns the figures of every ablation, applied twice, below those of other purifiers."""
    heads = ["purifier, or what was changed", "mean, k = 1", *_RATES]
    heads += [f"left of {text}'s features" for text in _LEFT.values()] + ["PSNR, dB"]
    lines = [_line(name, "-", row) for name, row in r["others"].items()]
    return table(
        heads,
        lines + [_line(name, percent(run["rows"]["k=1"]["mean"]), run["rows"][_K]) for name, run in r["runs"].items()],
    )


def _line(name: str, once: str, row: Mapping[str, float]) -> list[str]:
    rates = [" / ".join(percent(row[figure]) for figure in figures) for figures in _RATES.values()]
    left = [f"{row[f'left {network}']:.2f}" for network in _LEFT]
    return [name, once, *rates, *left, f"{row['psnr']:.1f}" if "psnr" in row else "-"]


def alloy_generality(r: Mapping[str, Any]) -> str:
    """Returns each extractor's figures of trainings without it, beside trainings with it and other purifiers."""
    runs = {name: run["rows"][_K] for name, run in r["runs"].items()}
    lines = []
    for ablation, network in _LEFT_OUT.items():
        for figure in ("standard", "robust", "left"):
            key = f"{figure} {network}"
            if key in runs["base"]:
                shown = "{:.2f}".format if figure == "left" else percent
                seen = sorted(runs[name][key] for name in _SEEDS)
                cells = [shown(row[key]) for row in r["others"].values()]
                cells += [f"{shown(seen[0])} to {shown(seen[-1])}", shown(runs[ablation][key])]
                lines.append([_LEFT[network], figure, *cells])
    return table(["judge", "figure", *r["others"], "with it (three seeds)", "without it"], lines)


def gad_accuracy(target: str) -> str:
    """Returns the accuracy of a CIFAR-10 target behind each purifier, under blind and aware attacks."""
    result = read_result(f"gad_cifar10_{target}_blind")
    blind, aware = _shares(result), {}
    for part in ("aware", "bpda"):
        aware |= _shares(read_result(f"gad_cifar10_{target}_{part}"))
    known = next((found["of"] for (_, attack), found in aware.items() if attack != "standard"), 0)
    heads = ["purifier", "standard", *(f"{name}, blind" for name in _BLIND), f"PGD 8/255, purifier-aware (n={known})"]
    lines = []
    for purifier in dict.fromkeys(row["purifier"] for row in result["rows"]):
        cells = [_cell(blind[purifier, name]) for name in ("standard", *_BLIND)]
        last = aware.get((purifier, _BLIND[0]))
        cells.append("as blind" if purifier == "none" else "not measured" if last is None else _cell(last))
        lines.append([purifier, *cells])
    return f"{target}, n = {result['rows'][0]['images']}.\n\n" + table(heads, lines)


def _shares(result: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Returns accuracies by purifier and attack ("standard" for none)."""
    return {
        (row["purifier"], row["settings"].get("attack_key", "standard")): row["robust_accuracy"]
        for row in result["rows"]
        if row["threat"] != "worst-case"
    }


def _cell(found: Mapping[str, Any]) -> str:
    return percent(found["share"], found["interval"])


def gad_targets(r: Mapping[str, Any], target: str, own: str = "gad-cifar10-resnet20") -> str:
    """Returns the targets of GAD in front of its CIFAR-10 target, of the blind part's result."""
    cells = {key: 100 * found["share"] for key, found in _shares(r).items()}
    lost, purified = cells["none", "standard"] - cells[own, "standard"], cells[own, "standard"]
    checks = [
        ("standard accuracy lost, at most", 6.0, lost, lost <= 6),
        ("PGD 8/255, blind, at least", 60.0, cells[own, "PGD 8/255"], cells[own, "PGD 8/255"] >= 60),
    ]
    for name in _BLIND[1:]:
        below = purified - cells[own, name]
        checks.append((f"{name}, blind, below standard accuracy behind it, at most", 8.0, below, below <= 8))
    full = cells.get((f"gad {target}-full-900", "PGD 8/255"))
    for variant in ("li", "lt"):
        other = cells.get((f"gad {target}-{variant}", "PGD 8/255"))
        if full is not None and other is not None:
            checks.append((f"full, PGD 8/255, blind, above {variant}, 900 steps each", other, full, full > other))
    return targets_table("target, in points", checks)


def gad_task(r: Mapping[str, Any]) -> str:
    """Returns the table of a segmenter or detector, of gad_measure.py."""
    return grid(_task_rows(r))


def gad_task_targets(r: Mapping[str, Any]) -> str:
    """Returns the targets of GAD in front of a segmenter or detector."""
    rows = _task_rows(r)
    clean = {row["purifier"]: 100 * measure_of(row)[0] for row in rows if column(row) == "no attack"}
    more = clean["gad"] - clean["gad, jpeg"]
    last = ("clean figure lost by jpeg after it (the paper: under 3), at most", 3.0, more, more <= 3)
    return targets_table("target, in points", [*task_checks(rows, "gad"), last])


def _task_rows(r: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of all parts; clean ones of the first part only, as later parts have fewer images."""
    first, *_ = parts = [part["rows"] for part in r["parts"].values()]
    return [row for row in first if "attack_key" not in row["settings"]] + [
        row for rows in parts for row in rows if "attack_key" in row["settings"]
    ]


def ncis_selection(r: Mapping[str, Any]) -> str:
    """Returns the candidates of select_ncis.py: standard / robust rates at each number of iterations."""
    count = min(len(entry["rows"]) for entry in r["candidates"].values()) // 2
    numbers = range(1, count + 1)
    lines = []
    for name, entry in sorted(r["candidates"].items(), key=lambda item: -item[1]["score"]):
        for model in CLASSIFIERS:
            rows = [entry["rows"][f"{model} i={i}"] for i in numbers]
            lines.append([name, model, *(f"{percent(row['standard'])} / {percent(row['robust'])}" for row in rows)])
    return table(["weights", "classifier", *(f"i={i}" for i in numbers)], lines)


def cifar10_targets(r: Mapping[str, Any]) -> str:
    """Returns the accuracy of the CIFAR-10 classifiers."""
    lines = [[name, f"{r['parameters'][name]:,}", percent(value)] for name, value in r["accuracy"].items()]
    return f"n = {r['images']} test images.\n\n" + table(["classifier", "parameters", "top-1"], lines)


def demo_classifier(r: Mapping[str, Any]) -> str:
    """Returns the accuracy of the demo classifier, as a sentence."""
    return (
        f"Top-1 on the {r['images']} test pictures: {percent(r['clean_accuracy'])} % clean, "
        f"{percent(r['robust_accuracy'])} % under PGD (Linf, eps 8/255, alpha 2/255, 10 steps, random start)."
    )
