"""The stored comparison with other implementations: benchmarks/accuracy/crosscheck_attacks.py makes it."""

import json
from pathlib import Path

import pytest

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "crosscheck_attacks.json"
NAMES = ["PGD", "MI-FGSM", "APGD", "Square", "C&W"]


@pytest.fixture
def rows() -> dict:
    return json.loads(RESULT.read_text())["rows"]


def test_every_attack_was_compared(rows):
    assert list(rows) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_robust_accuracy_is_within_a_point_and_a_half_of_the_other_implementation(rows, name):
    row = rows[name]
    ours, theirs = (row[who]["right"] / row["images"] for who in ("ours", "theirs"))
    assert abs(ours - theirs) <= 0.015
    assert row["difference"] == pytest.approx(ours - theirs)


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_can_tell_attacks_apart(rows, name):
    """Where all or no images were fooled, any two attacks would agree; C&W fools all, and is judged by its lengths."""
    row = rows[name]
    assert row["images"] >= 100
    if name == "C&W":
        assert row["ours"]["mean_l2_of_fooled"] == pytest.approx(row["theirs"]["mean_l2_of_fooled"], rel=0.05)
    else:
        assert 0.05 < row["ours"]["robust_accuracy"] < row["standard_accuracy"] - 0.05


def test_both_kept_to_the_ball(rows):
    for name, row in rows.items():
        if name != "C&W":
            assert max(row[who]["largest_linf"] for who in ("ours", "theirs")) <= row["settings"]["eps"] + 1e-6
