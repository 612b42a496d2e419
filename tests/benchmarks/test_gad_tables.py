"""The tables of the GAD measurements, from made-up results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import gad_tables as _gad_tables

OWN = "gad-cifar10-resnet20"


def row(purifier: str, attack: str | None, share: float, threat: str = "blind") -> dict[str, Any]:
    settings = {} if attack is None else {"attack_key": attack}
    accuracy = {"share": share, "interval": [share - 0.01, share + 0.01], "of": 100}
    return {"purifier": purifier, "threat": threat, "images": 100, "settings": settings, "robust_accuracy": accuracy}


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_gad_tables, "RESULTS", tmp_path)
    rows = []
    for name, shares in (
        ("none", (0.86, 0.0, 0.1, 0.05)),
        (OWN, (0.82, 0.65, 0.70, 0.78)),
        ("gad resnet20-full-900", (0.8, 0.4, 0.5, 0.5)),
        ("gad resnet20-li", (0.84, 0.3, 0.5, 0.5)),
        ("gad resnet20-lt", (0.84, 0.45, 0.5, 0.5)),
    ):
        rows += [row(name, attack, share) for attack, share in zip((None, *_gad_tables.BLIND), shares, strict=True)]
    aware = [row(OWN, None, 0.82), row(OWN, "PGD 8/255", 0.02, "aware")]
    for part, found in (("blind", rows), ("aware", aware)):
        (tmp_path / f"gad_cifar10_resnet20_{part}.json").write_text(json.dumps({"rows": found}))
    return tmp_path


def test_blind_and_aware_figures_stand_in_one_line() -> None:
    lines = _gad_tables.gad_accuracy("resnet20").splitlines()
    assert lines[2].endswith("| PGD 8/255, purifier-aware (n=100) |")
    assert lines[4] == "| none | 86.0 (85-87) | 0.0 (0-1) | 10.0 (9-11) | 5.0 (4-6) | as blind |"
    assert lines[5] == f"| {OWN} | 82.0 (81-83) | 65.0 (64-66) | 70.0 (69-71) | 78.0 (77-79) | 2.0 (1-3) |"
    assert lines[6].endswith("| not measured |")


def test_targets_hold_or_not() -> None:
    lines = _gad_tables.gad_targets("resnet20").splitlines()[2:]
    holds = {line.split("|")[1].strip(): line.split("|")[4].strip() for line in lines}
    assert holds == {
        "standard accuracy lost, at most": "yes",
        "PGD 8/255, blind, at least": "yes",
        "DeepFool, blind, below standard accuracy behind it, at most": "no",
        "C&W L2, blind, below standard accuracy behind it, at most": "yes",
        "full, PGD 8/255, blind, above li, 900 steps each": "yes",
        "full, PGD 8/255, blind, above lt, 900 steps each": "no",
    }


def test_nothing_is_said_before_it_is_measured() -> None:
    assert _gad_tables.gad_accuracy("vgg8") == "Not measured yet."
    assert _gad_tables.gad_targets("vgg8") == "Not measured yet."
    assert _gad_tables.gad_task("camvid") == "Not measured yet."
    assert _gad_tables.gad_task_targets("camvid") == "Not measured yet."


def task_row(
    purifier: str, attack: str | None, value: float, threat: str = "blind", images: int = 100
) -> dict[str, Any]:
    settings = {} if attack is None else {"attack_key": attack, "threat_key": threat}
    figures = {"robust": {"pixel_accuracy": value, "mean_iou": 0.3}, "robust_intervals": {}}
    return {"purifier": purifier, "threat": threat, "images": images, "settings": settings, **figures}


def test_a_segmenter_has_one_table_of_all_parts(results: Path) -> None:
    figures = {"none": (0.81, 0.31), "gad": (0.77, 0.6), "gad, jpeg": (0.73, 0.58)}
    blind = [
        row
        for name, (clean, bim) in figures.items()
        for row in (task_row(name, None, clean), task_row(name, "BIM", bim))
    ]
    aware = [task_row("gad", None, 0.7, images=20), task_row("gad", "BIM", 0.1, "aware", 20)]
    parts = {"blind": {"rows": blind}, "aware": {"rows": aware}}
    (results / "gad_camvid.json").write_text(json.dumps({"parts": parts}))

    lines = _gad_tables.gad_task("camvid").splitlines()
    assert lines[0] == "n = 100 images."
    assert lines[2] == "| purifier | no attack | BIM, blind | BIM, aware (n=20) |"
    assert lines[4:6] == ["| none | 81.0 | 31.0 | as blind |", "| gad | 77.0 | 60.0 | 10.0 |"]

    targets = [line.split("|")[1:5] for line in _gad_tables.gad_task_targets("camvid").splitlines()[2:]]
    assert [[cell.strip() for cell in line[1:]] for line in targets] == [
        ["6.0", "4.0", "yes"],
        ["50.0", "58.0", "yes"],
        ["3.0", "4.0", "no"],
    ]
