"""ncis_ablation.py, on a few synthetic pictures and for a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.accuracy.attacked_images import Pictures
from benchmarks.recipes import ncis_ablation
from purifier import Purifier, reference_model
from tests.builders import pictures

TINY = {
    "crop_size": 24, "batch_size": 2, "filters": 4, "layers": 2, "validate_every": 2, "validation_images": 1,
    "precision": "no", "device": "cpu",
}  # fmt: skip


@pytest.mark.slow
def test_every_variant_is_trained_and_judged_after_each_number_of_applications(
    small_kit: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = reference_model("demo").requires_grad_(False)
    images = (pictures(2, 3, 48, 48) * 255).round() / 255
    labels = network(images).argmax(1)
    monkeypatch.setattr(ncis_ablation, "BASE", TINY)
    # The kit has four photographs.
    monkeypatch.setitem(ncis_ablation.VARIANTS, "the first, on a quarter of the photographs", {"share": 2})
    monkeypatch.setattr(ncis_ablation, "lite0", lambda: network)
    monkeypatch.setattr(ncis_ablation, "nips", lambda: Pictures(images, labels, labels))
    few = ["--images", "2", "--steps", "2", "--cache", str(tmp_path / "cache"), "--work", str(tmp_path / "work")]
    ncis_ablation.main(few)
    found = json.loads((results / "ncis_ablation.json").read_text())
    assert len(found["rows"]) == len(ncis_ablation.VARIANTS) + 2
    assert all(list(row["clean"]) == ["1", "3", "5", "7"] for row in found["rows"].values())
    assert ncis_ablation.markdown(found).count("\n") == 3 + len(found["rows"])
    # Each variant has the network that its name says.
    made = {name: ncis_ablation.trained(name, 2, tmp_path / "work").method.options for name in ncis_ablation.VARIANTS}
    sizes = {name: (options["patch"], options["kernel_size"]) for name, options in made.items()}
    assert sizes["FBI"] == (1, 0) and sizes["FBI-E (m = 2)"] == (2, 0) and sizes["FBI + G (K = 11)"] == (1, 11)
    few_links = list((tmp_path / "work").rglob("photographs/*"))
    assert few_links and all(link.is_symlink() for link in few_links)


def test_shares_count_each_application(tmp_path: Path) -> None:
    network = reference_model("demo").requires_grad_(False)
    images = (pictures(2, 3, 48, 48) * 255).round() / 255
    labels = network(images).argmax(1)
    attacked = ncis_ablation.AttackedImages(tmp_path, None, None, Pictures(images, labels, labels), "demo")
    same = Purifier.from_pretrained("gs", kernel_size=1)
    found = ncis_ablation.shares(same, network, {"clean": attacked}, 2)
    assert found == {"clean": {"1": 1.0, "3": 1.0, "5": 1.0, "7": 1.0}}
