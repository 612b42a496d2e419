"""The kit's real models behind real purifiers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import purifier
from purifier.attacks import PGD
from purifier.data.images import read_rgb


@pytest.fixture
def models(kit: Path) -> Any:
    spec = importlib.util.spec_from_file_location("kit_models", kit / "kit_models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photographs(kit: Path) -> Tensor:
    files = sorted((kit / "imagenet_nips400" / "images").iterdir())[:6]
    images = torch.stack([read_rgb(file) for file in files])
    return torch.nn.functional.interpolate(images, (224, 224), mode="bilinear", antialias=True)


@pytest.mark.slow
def test_a_fooled_classifier_is_right_again_behind_gs_and_ncis(models: Any, photographs: Tensor) -> None:
    network = models.mobilenet_v2().requires_grad_(False)
    truth = network(photographs).argmax(1)
    attack = PGD(eps=8 / 255, steps=10, generator=torch.Generator().manual_seed(0))
    hostile = attack(network, photographs, truth)
    fooled = (network(hostile).argmax(1) == truth).sum()
    for name in ("gs", "ncis"):
        defended = purifier.wrap(network, name, iterations=3)
        assert (defended(hostile).argmax(1) == truth).sum() > fooled


@pytest.mark.slow
def test_normalising_outside_or_inside_gives_the_same_output(models: Any, photographs: Tensor) -> None:
    whole = models.resnet50()
    mean, std = whole.mean.flatten().tolist(), whole.std.flatten().tolist()
    outside = purifier.wrap(whole.net, "gs", mean=mean, std=std)((photographs - whole.mean) / whole.std)
    inside = purifier.wrap(whole, "gs")(photographs)
    assert torch.allclose(outside, inside, atol=1e-3)


@pytest.mark.slow
def test_a_wrapped_detector_or_segmenter_equals_the_bare_one_on_purified_images(
    models: Any, photographs: Tensor
) -> None:
    images = torch.nn.functional.interpolate(photographs[:1], (416, 416), mode="bilinear").clamp(0, 1)
    purify = purifier.Purifier.from_pretrained("gs")
    detector, segmenter = models.yolox_nano(), models.lraspp_camvid()
    with torch.inference_mode():
        assert torch.equal(purifier.wrap(detector, purify)(images), detector(purify(images)))
        assert torch.equal(purifier.wrap(segmenter, purify)(images)["out"], segmenter(purify(images))["out"])
