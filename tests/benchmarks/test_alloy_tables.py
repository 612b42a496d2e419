"""Tables of the ablations: each applied twice, and extractors left out beside the range of three seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import alloy_tables as _alloy_tables

RATES = {f"{kind} {name}": 0.5 for kind in ("standard", "robust") for name in ("mobilenet", "demo")}
LEFT = {f"left {name}": 0.25 for name in ("vgg", "mobilenet", "demo", "deeplab")}


def run(once: float, twice: float, **figures: float) -> dict[str, Any]:
    """A run of these means, whose other figures are those of two iterations."""
    rows = {"k=1": {**RATES, **LEFT, "mean": once}, "k=2": {**RATES, **LEFT, **figures, "mean": twice, "psnr": 28.0}}
    return {"seconds": 60, "changes": {}, "rows": rows}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_alloy_tables, "RESULTS", tmp_path)
    others = {"no purifier": {**RATES, **LEFT, "mean": 0.125}, "gs": {**RATES, **LEFT, "mean": 0.375, "psnr": 30.0}}
    runs = {
        "base": run(0.5, 0.25, **{"robust mobilenet": 0.75}),
        "seed-1": run(0.5, 0.25, **{"robust mobilenet": 0.625}),
        "seed-2": run(0.25, 0.625, **{"robust mobilenet": 0.875}),
        "without-vgg": run(0.5, 0.5, **{"left vgg": 0.75}),
        "without-mobilenet": run(0.5, 0.5, **{"robust mobilenet": 0.125}),
        "without-demo": run(0.5, 0.5),
    }
    (tmp_path / "alloy_ablation.json").write_text(json.dumps({"others": others, "runs": runs}))
    return tmp_path


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_ablations_stand_as_applied_twice_beside_others(results: Path) -> None:
    rows = cells(_alloy_tables.alloy_ablation())
    assert all(len(row) == len(rows[0]) for row in rows)
    assert [row[:4] for row in rows[2:6]] == [
        ["no purifier", "-", "12.5", "50.0 / 50.0"],
        ["gs", "-", "37.5", "50.0 / 50.0"],
        ["base", "50.0", "25.0", "50.0 / 75.0"],
        ["seed-1", "50.0", "25.0", "50.0 / 62.5"],
    ]
    assert [row[-1] for row in rows[2:5]] == ["-", "30.0", "28.0"]


def test_what_is_left_out_stands_beside_three_seeds_with_it(results: Path) -> None:
    rows = cells(_alloy_tables.alloy_generality())
    assert rows[0] == ["judge", "figure", "no purifier", "gs", "with it (three seeds)", "without it"]
    found = {(row[0], row[1]): row[2:] for row in rows[2:]}
    assert found["MobileNetV2", "robust"] == ["50.0", "50.0", "62.5 to 87.5", "12.5"]
    assert found["VGG-19", "left"] == ["0.25", "0.25", "0.25 to 0.25", "0.75"]
    assert ("VGG-19", "robust") not in found


def test_nothing_is_said_where_nothing_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_alloy_tables, "RESULTS", tmp_path)
    assert _alloy_tables.alloy_ablation() == _alloy_tables.alloy_generality() == "Not measured yet."
