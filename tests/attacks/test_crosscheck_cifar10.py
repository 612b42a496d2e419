"""The stored comparison with other implementations, made by benchmarks/accuracy/crosscheck_cifar10.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "crosscheck_cifar10.json"
FOUND: dict[str, Any] = json.loads(RESULT.read_text())
NAMES = list(FOUND["rows"])
# These draw random numbers in their own way; with few images their medians differ by chance.
RANDOM = ("HopSkipJump, L2", "HopSkipJump, Linf", "Boundary")


def test_the_figures_are_there() -> None:
    assert {"NI-FGSM", "VMI-FGSM", "FMN, Linf"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_figure_is_within_its_bound_of_the_other_implementations(name: str) -> None:
    row = FOUND["rows"][name]
    if row["compared"] == "robust accuracy":
        assert abs(row["difference"]) <= FOUND["bounds"]["accuracy"]
        assert 0.05 < row["ours"]["robust_accuracy"] < row["standard_accuracy"] - 0.05
        return
    assert row["ours"]["robust_accuracy"] <= row["theirs"]["robust_accuracy"] + FOUND["bounds"]["accuracy"]
    # A smaller norm is a stronger attack.
    assert row["norm_ratio"] <= 1 + FOUND["bounds"]["norm"]
    if name not in RANDOM:
        assert row["norm_ratio"] >= 1 - FOUND["bounds"]["norm"]
