"""feature_distortion.py: iterates of a single run, and a run on a few small pictures that resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.accuracy import feature_distortion
from benchmarks.accuracy.attacked_images import Pictures
from purifier import reference_model
from purifier.attacks import BIM, MIFGSM, SSP
from tests.builders import pictures


@pytest.mark.parametrize("attack", [BIM, MIFGSM, SSP])
def test_iterates_equal_attacks_with_fewer_steps(
    attack: feature_distortion.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_distortion, "STEPS", (1, 3))
    network = reference_model("demo").requires_grad_(False)
    image, label = pictures(1, 3, 32, 32), torch.tensor([3])
    found = feature_distortion.iterates(attack, network, image, label, 5)
    for steps, moved in found.items():
        options: dict[str, Any] = {"eps": feature_distortion.E16, "steps": steps}
        if attack is SSP:
            options |= {"features": network, "alpha": feature_distortion.SSP_ALPHA, "distance": "squared"}
        else:
            options["alpha"] = feature_distortion.ALPHA
        assert torch.equal(moved, attack(**options).seeded(5)(network, image, label))
    assert not torch.equal(found[1], found[3])


@pytest.fixture
def small(small_kit: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A judge, with few steps and layers."""
    judge = reference_model("demo").requires_grad_(False)
    images = (pictures(2, 3, 48, 48) * 255).round() / 255
    monkeypatch.setattr(feature_distortion, "STEPS", (1, 2))
    monkeypatch.setattr(feature_distortion, "RESNET", ())
    monkeypatch.setattr(feature_distortion, "VGG", {"relu1_2": 4})
    monkeypatch.setattr(feature_distortion, "JUDGES", {"judge": lambda: judge})
    monkeypatch.setattr(
        feature_distortion, "nips", lambda: Pictures(images, torch.tensor([0, 1]), torch.tensor([1, 0]))
    )
    return judge


@pytest.mark.slow
def test_a_run_resumes_and_its_tables_have_every_row(
    small: nn.Module, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--work", str(tmp_path / "work"), "--images"]
    feature_distortion.main([*few, "1"])
    kept = json.loads((tmp_path / "work" / "steps.json").read_text())
    feature_distortion.main([*few, "2"])
    again = json.loads((tmp_path / "work" / "steps.json").read_text())
    assert again[:1] == kept and len(again) == 2
    found = json.loads((results / "feature_distortion.json").read_text())
    assert list(found["rows"]["steps"]) == [f"{name}, {n}" for name in ("BIM", "MI-FGSM", "SSP") for n in (1, 2)]
    assert list(found["rows"]["layers"]) == [
        "VGG-19, relu1_2", *(f"MobileNetV2, {name}" for name in feature_distortion.MOBILENET)
    ]  # fmt: skip
    for part, rows in found["rows"].items():
        assert feature_distortion.markdown(found, part).count("\n") == 3 + len(rows)
    # Everything is there already, so nothing is attacked.
    monkeypatch.setattr(feature_distortion, "PARTS", dict.fromkeys(feature_distortion.PARTS, None))
    feature_distortion.main([*few, "2"])


def test_the_summary_counts_changes_and_averages_distortion() -> None:
    images = [{"BIM, 1": {"distortion": d, "changed": {"judge": c}}} for d, c in ((0.5, True), (1.5, False))]
    row = feature_distortion.summary(images)["BIM, 1"]
    assert row["distortion"] == 1.0
    assert row["fooled"]["judge"]["share"] == 0.5
