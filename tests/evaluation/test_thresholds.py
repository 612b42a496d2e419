"""Thresholds of attack scores: their quantile, interval, file, and what they refuse."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from purifier import InputError, OptionError, OutputError, Purifier
from purifier.evaluation.thresholds import Threshold, check_count, detector_identity
from tests.builders import edit_config, small_method, small_purifier


def alloy(**options: object) -> Purifier:
    return Purifier(small_method("alloy", iterations=1, gate=3, **options), name="small")


def scores(count: int, seed: int = 0) -> list[float]:
    drawn = random.Random(seed)
    return [drawn.random() for _ in range(count)]


def test_the_threshold_is_the_score_that_the_rate_allows_to_exceed() -> None:
    values = [number / 1000 for number in range(1, 100)]
    random.Random(0).shuffle(values)
    found = Threshold.of(values, 0.1, alloy())
    assert found.value == 0.09 and found.pictures == 99
    assert sum(value > found.value for value in values) <= 0.1 * len(values)


def test_the_interval_is_that_of_order_statistics() -> None:
    # The tabled 95 % interval of the median of 100 values: the 40th to the 61st.
    found = Threshold.of([number / 100 for number in range(1, 101)], 0.5, alloy())
    assert found.interval == (0.40, 0.61)


def test_the_interval_covers_the_quantile_and_the_rate_holds_on_average() -> None:
    made = [Threshold.of(scores(200, seed), 0.1, alloy()) for seed in range(120)]
    covered = sum(found.interval[0] <= 0.9 <= found.interval[1] for found in made)
    assert covered >= 0.9 * len(made)
    assert abs(sum(1 - found.value for found in made) / len(made) - 0.1) < 0.01


def test_equal_scores_are_not_above_their_threshold() -> None:
    assert Threshold.of([0.25] * 50, 0.1, alloy()).value == 0.25


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 368), (0.05, 72), (0.001, 3688)])
def test_too_few_pictures_for_a_rate_are_refused(rate: float, needed: int) -> None:
    check_count(needed, rate)
    with pytest.raises(InputError, match=f"expected at least {needed} clean pictures .* got {needed - 1}; add"):
        check_count(needed - 1, rate)


def test_the_rate_in_the_advice_is_enough() -> None:
    with pytest.raises(InputError, match=r"allow a rate of 0\.072"):
        check_count(50, 0.01)
    check_count(50, 0.072)


@pytest.mark.parametrize("rate", [0, -0.1, 0.6, "few", True])
def test_a_wrong_rate_is_refused(rate: object) -> None:
    with pytest.raises(OptionError, match="expected false_positive_rate to be a number"):
        Threshold.of([0.5] * 100, rate, alloy())  # type: ignore[arg-type]


def test_values_that_are_no_scores_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected scores in \[0, 1\]"):
        Threshold.of([2.0] * 100, 0.1, alloy())


def test_a_file_brings_the_same_threshold_back(tmp_path: Path) -> None:
    made = Threshold.of(scores(100), 0.1, alloy())
    made.save(tmp_path / "t.json")
    assert Threshold.load(tmp_path / "t.json", alloy()) == made


def test_a_threshold_holds_for_every_purifier_with_the_same_gate_in_the_same_place(tmp_path: Path) -> None:
    Threshold.of(scores(100), 0.1, alloy()).save(tmp_path / "t.json")
    same = [alloy(gate_bias=3.0, gate_floor=0.1), alloy().tiled(32), small_purifier("ncis").gated(alloy())]
    for purifier in same:
        Threshold.load(tmp_path / "t.json", purifier)
    others = [
        Purifier.chain("gs", alloy()), alloy().bfloat16(), Purifier(small_method("alloy", iterations=1, gate=4)),
        small_purifier("ncis").gated("alloy-s"),
    ]  # fmt: skip
    for purifier in others:
        with pytest.raises(InputError, match=r"expected a threshold for the gate of .* got one for another .* again"):
            Threshold.load(tmp_path / "t.json", purifier)


def test_a_purifier_without_a_gate_has_no_detector() -> None:
    with pytest.raises(OptionError, match="expected a purifier with one gate"):
        detector_identity(small_purifier("gs"))


@pytest.mark.parametrize(
    "change", [{"kind": "purifier"}, {"value": 2}, {"value": "x"}, {"interval": 3}, {"detector": 5}, {"format": 2}]
)
def test_another_file_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    Threshold.of(scores(100), 0.1, alloy()).save(tmp_path / "config.json")
    edit_config(tmp_path, **change)
    with pytest.raises(InputError, match="expected a threshold from purifier detect --calibrate"):
        Threshold.load(tmp_path / "config.json", alloy())


@pytest.mark.parametrize("text", ["", "[]", "{}", "\xff", "[" * 100_000, json.dumps({"kind": "purifier-threshold"})])
def test_a_file_without_a_threshold_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="expected a threshold from purifier detect --calibrate"):
        Threshold.load(tmp_path / "t.json")
    with pytest.raises(InputError, match="expected a threshold from purifier detect --calibrate"):
        Threshold.load(tmp_path / "missing.json")


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="expected a place that can be written"):
        Threshold.of(scores(100), 0.1, alloy()).save(tmp_path / "missing" / "t.json")
