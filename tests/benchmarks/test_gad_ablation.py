"""gad_ablation.py: its trainings differ in their losses only, and the perceptual maps are those of three blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.recipes import extractors, gad_ablation
from purifier.training.gad import train
from tests.training.gad.builders import class_folders, classifier


def chain(_: int) -> nn.Module:
    """Stands for VGG-19 up to relu3_3: convolutions with a rectifier each."""
    layers: list[nn.Module] = []
    for width in range(1, 8):
        layers += [nn.Conv2d(layers[-2].out_channels if layers else 3, width, 1), nn.ReLU()]  # type: ignore[arg-type]
    return nn.Sequential(*layers)


def test_the_perceptual_maps_are_the_last_of_each_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "kit_module", lambda: SimpleNamespace(vgg19_features=chain))
    maps = extractors.perceptual_maps()(torch.rand(2, 3, 16, 16))
    assert [one.shape[1] for one in maps] == [2, 4, 7] and all(one.min() >= 0 for one in maps)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:without a purifier the model scores")
@pytest.mark.parametrize("name", list(gad_ablation.VARIANTS))
def test_every_variant_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "kit_module", lambda: SimpleNamespace(vgg19_features=chain))
    monkeypatch.setattr(gad_ablation, "extract_part", lambda *_: class_folders(tmp_path / "data"))
    config = gad_ablation.settings_of(name, 2)
    small = {"filters": 12, "blocks": 1, "batch_size": 2, "validation_images": 2, "size": 16}
    folder = train(replace(config, **small), tmp_path / "run", model=classifier())
    assert (folder / "model.safetensors").exists()
    assert config.detach_clean and config.steps == 2
    assert bool(config.perceptual_weight) == name.endswith("L_p")


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"expected names out of L_I; .*, got L_X"):
        gad_ablation.main(["L_X"])
