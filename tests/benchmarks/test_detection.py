"""benchmarks/accuracy/detection.py and benchmarks/speed/gate_cost.py, on a few synthetic pictures."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.accuracy import detection, headline
from benchmarks.accuracy.attacked_images import Pictures
from benchmarks.accuracy.detection_results import attacks_table, markdown_of, rates_at, row_of
from benchmarks.speed import gate_cost
from purifier import Purifier, reference_model
from purifier.attacks import PGD
from purifier.methods.gated import gate_of
from tests.builders import pictures


def demo() -> nn.Module:
    return reference_model("demo").requires_grad_(False)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """Four smooth pictures, labelled as the demo classifier sees them."""
    smooth = nn.functional.interpolate(pictures(4, 3, 5, 5), (48, 48), mode="bicubic").clamp(0, 1)
    images = (smooth * 255).round() / 255
    made = Pictures(images, demo()(images).argmax(1), torch.zeros(4, dtype=torch.int64))
    monkeypatch.setattr(headline, "nips", lambda: made)
    monkeypatch.setattr(headline, "CLASSIFIERS", {"one": demo})
    return made


@pytest.fixture
def found(clean: Pictures, results: Path) -> dict[str, Any]:
    """The result file of two attacks."""
    few = ["--images", "3", "--clean", "4", "--aware-images", "2", "--steps", "3"]
    where = ["--cache", str(results / "cache"), "--threads", str(torch.get_num_threads())]
    detection.main(["run", "--classifier", "one", *few, *where, "--attacks", "PGD 4/255", "PGD 16/255"])
    made: dict[str, Any] = json.loads((results / "detection.json").read_text())
    return made


@pytest.mark.slow
def test_scores_figures_and_tables_are_those_of_the_images(found: dict[str, Any], clean: Pictures) -> None:
    purifier = Purifier.from_pretrained("alloy-s")
    expected = [purifier.attack_score(image).item() for image in clean.images]
    assert found["clean"] == pytest.approx(expected, abs=1e-5)
    names = ["PGD 4/255", "PGD 4/255, then JPEG 90", "PGD 16/255", "PGD 16/255, then JPEG 90"]
    assert list(found["attacks"]) == names
    assert [row["n"] for row in found["attacks"].values()] == [3] * 4
    assert found["attacks"]["PGD 16/255"]["auc"] == 1
    assert {"JPEG, quality 50", "half the size", "sharpened"} < set(found["changes"])
    # Compressed pictures are held against the clean ones after the same compression.
    stored, name = found["changes"]["JPEG, quality 90"]["scores"], "PGD 16/255, then JPEG 90"
    beside = row_of(found["attacks"][name]["scores"], stored, rates_at(stored))
    assert set(found["compressed"]) == {"PGD 4/255, then JPEG 90", name}
    assert found["compressed"][name] == beside
    assert set(found["aware"]["rows"]) == {"0", "0.3", "1"}
    tables = markdown_of(found)
    assert all(name in tables["attacks"] for name in names) and "sharpened" in tables["changes"]


@pytest.mark.slow
def test_the_curves_are_drawn(found: dict[str, Any], results: Path) -> None:
    detection.main(["plot", "--plot", str(results / "roc.png")])
    with Image.open(results / "roc.png") as image:
        assert image.format == "PNG" and min(image.size) > 300


def test_an_attacker_who_knows_the_gate_lowers_its_logits(clean: Pictures) -> None:
    gate = gate_of(Purifier.from_pretrained("alloy-s").method)
    assert gate is not None
    watched = detection.Watched(demo(), gate)
    outputs = watched(clean.images)
    assert torch.equal(outputs[:, :-1], demo()(clean.images))
    excess = [
        PGD(eps=0.03, steps=4, random_start=False, loss=partial(detection.hidden_loss, weight=weight))(
            watched, clean.images, clean.labels
        )
        for weight in (0.0, 3.0)
    ]
    blind, aware = (watched(images)[:, -1].mean() for images in excess)
    assert aware < blind


def test_thresholds_are_exceeded_by_their_share_of_clean_images() -> None:
    clean = [number / 200 for number in range(200)]
    one, five = rates_at(clean)
    assert sum(score > one for score in clean) == 2 and sum(score > five for score in clean) == 10
    row = row_of([0.5, 0.97, 1.0], clean, [one, five])
    assert [part["share"] for part in row["above"]] == pytest.approx([1 / 3, 2 / 3])


def test_tables_say_what_is_not_measured_yet() -> None:
    assert attacks_table({}, "compressed") == "Not measured yet."


@pytest.mark.slow
def test_the_cost_is_stated_for_each_form(small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_cost, "FORMS", ((2.0, 0.0, 0.0), (-20.0, 0.99, 0.0), (2.0, 0.0, 0.99)))
    gate_cost.main(["--images", "2", "--rounds", "1", "--batch", "2"])
    result = json.loads((results / "gate_cost_cpu.json").read_text())
    assert [(row["gate_floor"], row["gate_threshold"]) for row in result["rows"]] == [(0, 0), (0.99, 0), (0, 0.99)]
    assert result["rows"][0]["clean_skipped"] == result["rows"][0]["attacked_skipped"] == 0
    assert result["rows"][1]["clean_skipped"] == result["rows"][1]["attacked_skipped"] == 1
    assert all(row[f"{name}_resnet50s"] > 0 for row in result["rows"] for name in ("clean", "attacked"))
    assert gate_cost.markdown(result).count("\n") == 4


def test_images_whose_gate_is_closed_everywhere_count_as_skipped() -> None:
    options = {"gate_floor": 0.5, "gate_threshold": 0.0}
    closed, open_ = (Purifier.from_pretrained("alloy-s", gate_bias=bias, **options) for bias in (-20, 20))
    images = torch.full((2, 3, 32, 32), 0.5)
    assert gate_cost.skipped(closed, images) == 1 and gate_cost.skipped(open_, images) == 0
