"""nrp_ablation.py, on a few synthetic pictures and for a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.accuracy.attacked_images import Pictures
from benchmarks.recipes import nrp_ablation
from purifier import reference_model
from tests.builders import pictures

TINY = {
    "network": "nrp-resg", "blocks": 1, "filters": 4, "start": "identity", "crop_size": 32, "batch_size": 2, "steps": 2,
    "features": "benchmarks.recipes.extractors:feature_extractor", "attack_steps": 1, "precision": "no",
    "device": "cpu", "validation_images": 1, "validate_every": 2,
}  # fmt: skip


@pytest.mark.slow
def test_every_variant_is_trained_once_and_judged(
    small_kit: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(TINY))
    network = reference_model("demo").requires_grad_(False)
    images = (pictures(2, 3, 48, 48) * 255).round() / 255
    labels = network(images).argmax(1)
    monkeypatch.setattr(nrp_ablation, "BASE", tmp_path / "base.yaml")
    monkeypatch.setattr(nrp_ablation, "lite0", lambda: network)
    monkeypatch.setattr(nrp_ablation, "nips", lambda: Pictures(images, labels, labels))
    monkeypatch.setattr(nrp_ablation, "JUDGED", ("clean", "PGD 16/255"))
    few = ["--images", "2", "--cache", str(tmp_path / "cache"), "--work", str(tmp_path / "work")]
    nrp_ablation.main(few)
    found = json.loads((results / "nrp_ablation.json").read_text())
    assert list(found["rows"]) == ["no purifier", *nrp_ablation.VARIANTS]
    assert found["rows"]["no purifier"]["clean"]["share"] == 1
    assert nrp_ablation.markdown(found).count("\n") == 3 + len(found["rows"])
    assert len(list(tmp_path.rglob("model.safetensors"))) == len(nrp_ablation.VARIANTS)


def test_each_variant_changes_one_thing(small_kit: Path) -> None:
    assert all(len(changes) == 1 for name, changes in nrp_ablation.VARIANTS.items() if name != "NRP")
    assert nrp_ablation.base_settings().relativistic
