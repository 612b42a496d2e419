"""The stored comparison with other implementations, made by benchmarks/accuracy/crosscheck_attacks.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "crosscheck_attacks.json"
NAMES = ["PGD", "MI-FGSM", "APGD", "Square", "C&W"]


@pytest.fixture
def rows() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text())["rows"]
    return found


def test_every_attack_was_compared(rows: dict[str, Any]) -> None:
    assert list(rows) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_robust_accuracy_is_within_a_point_and_a_half_of_the_other_implementation(
    rows: dict[str, Any], name: str
) -> None:
    row = rows[name]
    ours, theirs = (row[who]["right"] / row["images"] for who in ("ours", "theirs"))
    assert abs(ours - theirs) <= 0.015
    assert row["difference"] == pytest.approx(ours - theirs)


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_can_tell_attacks_apart(rows: dict[str, Any], name: str) -> None:
    """If all or no images are fooled, any two attacks agree. C&W fools all, so its lengths are compared."""
    row = rows[name]
    assert row["images"] >= 100
    if name == "C&W":
        assert row["ours"]["mean_l2_of_fooled"] == pytest.approx(row["theirs"]["mean_l2_of_fooled"], rel=0.05)
    else:
        assert 0.05 < row["ours"]["robust_accuracy"] < row["standard_accuracy"] - 0.05


def test_both_kept_to_the_ball(rows: dict[str, Any]) -> None:
    for name, row in rows.items():
        if name != "C&W":
            assert max(row[who]["largest_linf"] for who in ("ours", "theirs")) <= row["settings"]["eps"] + 1e-6
