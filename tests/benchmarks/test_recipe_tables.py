"""The tables of the recipes, from made-up results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.recipes import tables as recipes

OWN = "gad-cifar10-resnet20"


def row(purifier: str, attack: str | None, share: float, threat: str = "blind") -> dict[str, Any]:
    settings = {} if attack is None else {"attack_key": attack}
    accuracy = {"share": share, "interval": [share - 0.01, share + 0.01], "of": 100}
    return {"purifier": purifier, "threat": threat, "images": 100, "settings": settings, "robust_accuracy": accuracy}


def cells(table: str) -> list[list[str]]:
    """The lines of a table below its head."""
    lines = table[table.index("| ") :].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def blind() -> dict[str, Any]:
    rows = []
    for name, shares in (
        ("none", (0.86, 0.0, 0.1, 0.05)),
        (OWN, (0.82, 0.65, 0.70, 0.78)),
        ("gad resnet20-full-900", (0.8, 0.4, 0.5, 0.5)),
        ("gad resnet20-li", (0.84, 0.3, 0.5, 0.5)),
        ("gad resnet20-lt", (0.84, 0.45, 0.5, 0.5)),
    ):
        attacks = (None, "PGD 8/255", "DeepFool", "C&W L2")
        rows += [row(name, attack, share) for attack, share in zip(attacks, shares, strict=True)]
    return {"rows": rows}


def test_blind_and_aware_figures_stand_in_one_line(results: Path) -> None:
    aware = {"rows": [row(OWN, None, 0.82), row(OWN, "PGD 8/255", 0.02, "aware")]}
    for part, found in (("blind", blind()), ("aware", aware), ("bpda", {"rows": []})):
        (results / f"gad_cifar10_resnet20_{part}.json").write_text(json.dumps(found))
    table = recipes.gad_accuracy("resnet20")
    assert "| PGD 8/255, purifier-aware (n=100) |" in table
    assert cells(table)[:2] == [
        ["none", "86.0 (85-87)", "0.0 (0-1)", "10.0 (9-11)", "5.0 (4-6)", "as blind"],
        [OWN, "82.0 (81-83)", "65.0 (64-66)", "70.0 (69-71)", "78.0 (77-79)", "2.0 (1-3)"],
    ]
    assert cells(table)[2][-1] == "not measured"


def test_targets_hold_or_not() -> None:
    assert {line[0]: line[3] for line in cells(recipes.gad_targets(blind(), "resnet20"))} == {
        "standard accuracy lost, at most": "yes",
        "PGD 8/255, blind, at least": "yes",
        "DeepFool, blind, below standard accuracy behind it, at most": "no",
        "C&W L2, blind, below standard accuracy behind it, at most": "yes",
        "full, PGD 8/255, blind, above li, 900 steps each": "yes",
        "full, PGD 8/255, blind, above lt, 900 steps each": "no",
    }


def task_row(
    purifier: str, attack: str | None, value: float, threat: str = "blind", images: int = 100
) -> dict[str, Any]:
    settings = {} if attack is None else {"attack_key": attack, "threat_key": threat}
    figures = {"robust": {"pixel_accuracy": value, "mean_iou": 0.3}, "robust_intervals": {}}
    return {"purifier": purifier, "threat": threat, "images": images, "settings": settings, **figures}


def test_a_segmenter_has_one_table_of_all_parts() -> None:
    figures = {"none": (0.81, 0.31), "gad": (0.77, 0.6), "gad, jpeg": (0.73, 0.58)}
    rows = [
        row
        for name, (clean, bim) in figures.items()
        for row in (task_row(name, None, clean), task_row(name, "BIM", bim))
    ]
    aware = [task_row("gad", None, 0.7, images=20), task_row("gad", "BIM", 0.1, "aware", 20)]
    result = {"parts": {"blind": {"rows": rows}, "aware": {"rows": aware}}}
    lines = recipes.gad_task(result).splitlines()
    assert lines[0] == "n = 100 images."
    assert lines[2] == "| purifier | no attack | BIM, blind | BIM, aware (n=20) |"
    assert lines[4:6] == [
        "| none | 81.0; 30.0 | 31.0; 30.0 | as blind |",
        "| gad | 77.0; 30.0 | 60.0; 30.0 | 10.0; 30.0 |",
    ]
    assert [line[1:] for line in cells(recipes.gad_task_targets(result))] == [
        ["6.0", "4.0", "yes"],
        ["50.0", "58.0", "yes"],
        ["3.0", "4.0", "no"],
    ]


RATES = {f"{kind} {name}": 0.5 for kind in ("standard", "robust") for name in ("mobilenet", "demo")}
LEFT = {f"left {name}": 0.25 for name in ("vgg", "mobilenet", "demo", "deeplab")}


def ablation(once: float, twice: float, **figures: float) -> dict[str, Any]:
    """A run with these means, and these figures of two applications."""
    rows = {"k=1": {**RATES, **LEFT, "mean": once}, "k=2": {**RATES, **LEFT, **figures, "mean": twice, "psnr": 28.0}}
    return {"seconds": 60, "changes": {}, "rows": rows}


ABLATIONS = {
    "others": {"no purifier": {**RATES, **LEFT, "mean": 0.125}, "gs": {**RATES, **LEFT, "mean": 0.375, "psnr": 30.0}},
    "runs": {
        "base": ablation(0.5, 0.25, **{"robust mobilenet": 0.75}),
        "seed-1": ablation(0.5, 0.25, **{"robust mobilenet": 0.625}),
        "seed-2": ablation(0.25, 0.625, **{"robust mobilenet": 0.875}),
        "without-vgg": ablation(0.5, 0.5, **{"left vgg": 0.75}),
        "without-mobilenet": ablation(0.5, 0.5, **{"robust mobilenet": 0.125}),
        "without-demo": ablation(0.5, 0.5),
    },
}


def test_ablations_stand_as_applied_twice_below_other_purifiers() -> None:
    rows = cells(recipes.alloy_ablation(ABLATIONS))
    assert [row[:4] for row in rows[:4]] == [
        ["no purifier", "-", "12.5", "50.0 / 50.0"],
        ["gs", "-", "37.5", "50.0 / 50.0"],
        ["base", "50.0", "25.0", "50.0 / 75.0"],
        ["seed-1", "50.0", "25.0", "50.0 / 62.5"],
    ]
    assert [row[-1] for row in rows[:3]] == ["-", "30.0", "28.0"]


def test_extractors_that_are_left_out_stand_beside_three_seeds_with_them() -> None:
    found = {(row[0], row[1]): row[2:] for row in cells(recipes.alloy_generality(ABLATIONS))}
    assert found["MobileNetV2", "robust"] == ["50.0", "50.0", "62.5 to 87.5", "12.5"]
    assert found["VGG-19", "left"] == ["0.25", "0.25", "0.25 to 0.25", "0.75"]
    assert ("VGG-19", "robust") not in found
