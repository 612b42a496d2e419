"""Mean and skewness of perturbations in patches, and the check that warns of those that smoothing keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from purifier.attacks import PGD, Blind, LowFrequencyPGD
from purifier.evaluation import EvaluationSettings, Row, evaluate, labelled_images
from purifier.evaluation.checks import inspect
from purifier.evaluation.metrics.perturbation import patch_statistics
from tests.scenes import COLOURS, Colours, class_folders

EPS = 8 / 255


def test_independent_signs_have_nearly_a_mean_of_zero_and_constant_patches_do_not() -> None:
    signs = EPS * (torch.randint(2, (3, 70, 70)) * 2.0 - 1)
    # The mean of 49 signs has a standard deviation of 1 / 7, and a mean size of 0.8 / 7.
    assert patch_statistics(signs)["patch_mean"] == pytest.approx(0.114, abs=0.015)
    assert patch_statistics(torch.full((3, 20, 20), EPS)) == pytest.approx({"patch_mean": 1, "patch_skewness": 0})


def test_skewness_is_that_of_groeneveld_and_meeden() -> None:
    patch = torch.zeros(1, 7, 7)
    patch.view(-1)[:8] = torch.tensor([1.0, 1, 1, 1, 2, 2, 2, 8])
    # The median is 0, so the mean of |x - median| is the mean itself.
    assert patch_statistics(patch)["patch_skewness"] == pytest.approx(1)
    even = torch.linspace(-1, 1, 49).view(1, 7, 7)
    assert patch_statistics(even) == pytest.approx({"patch_mean": 0, "patch_skewness": 0}, abs=1e-6)
    assert patch_statistics(even + 0.3)["patch_skewness"] == pytest.approx(0, abs=1e-6)


def test_patches_without_a_change_do_not_count_and_small_images_are_one_patch() -> None:
    change = torch.zeros(3, 21, 21)
    change[:, :7, :7] = EPS
    assert patch_statistics(change)["patch_mean"] == pytest.approx(1)
    assert patch_statistics(torch.zeros(3, 9, 9)) == {"patch_mean": 0, "patch_skewness": 0}
    assert patch_statistics(torch.full((3, 4, 5), EPS))["patch_mean"] == pytest.approx(1)


def test_an_attack_of_low_frequencies_is_named_and_pgd_is_not(tmp_path: Path) -> None:
    data = labelled_images(class_folders(tmp_path / "data", size=28), 28, classes=COLOURS)
    attacks = {"fine": PGD(eps=EPS, steps=1), "coarse": LowFrequencyPGD(eps=EPS, steps=2)}
    settings = EvaluationSettings(probe_images=0, pictures=0)
    result = evaluate(
        Colours(), data, purifiers={}, attacks=attacks, threats={"blind": Blind()}, out=tmp_path / "out",
        settings=settings,
    )  # fmt: skip
    rows = [row for row in result.rows if isinstance(row, Row) and row.settings.get("attack_key") == "coarse"]
    assert rows and all(row.settings["patch_mean"] > 0.3 for row in rows)
    fine = [replace(row, settings={**row.settings, "patch_mean": 0.2}) for row in rows]
    names = [finding.check for finding in inspect(fine)]
    assert "perturbation that smoothing keeps" not in names
    (finding,) = [one for one in inspect(rows) if one.check == "perturbation that smoothing keeps"]
    assert "LowFrequencyPGD (blind)" in finding.measured
