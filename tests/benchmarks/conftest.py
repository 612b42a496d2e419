"""A kit with small pictures and networks in place of the real ones, and a folder for the results."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import kit

LOADERS = """
import torch
from torch import nn

def vgg19_features(layers):
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Module()
        self.net.features = nn.Sequential(nn.Conv2d(3, 4, 3, 2), *(nn.Conv2d(4, 4, 1) for _ in range(18)))
        self.net.classifier = nn.Sequential(nn.Identity(), nn.Linear(4, 6))

    def forward(self, images):
        return self.net.classifier(self.net.features(images).relu().mean((2, 3)))

class Brightest(nn.Module):
    '''Logits are the brightness of places: class 0 of a picture that is brightest at the top left, and so on.'''
    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images.mean(1), 2).flatten(1)

class Segmenter(nn.Conv2d):
    def forward(self, images):
        return {"out": super().forward(images)}

def mobilenet_v2():
    return Small().eval()

def resnet50():
    return Brightest().eval()

def deeplabv3_voc():
    return Segmenter(3, 5, 3)
"""
# The class of each evaluation picture, by the network `Brightest`.
LABELS = (0, 3, 1, 2)


def _picture(random: np.random.Generator, side: int, brightest: int | None = None) -> Image.Image:
    pixels = random.integers(0, 256, (side, side, 3)).astype(np.float64)
    if brightest is not None:
        half, (row, column) = side // 2, divmod(brightest, 2)
        pixels *= 0.8
        pixels[row * half : (row + 1) * half, column * half : (column + 1) * half] += 8
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def small_kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kit that PURIFIER_KIT names."""
    folder, random = tmp_path / "kit", np.random.default_rng(0)
    for number, place in enumerate(["photos", "photos", "objects/train/cat", "objects/train/dog"]):
        (folder / place).mkdir(parents=True, exist_ok=True)
        _picture(random, 168).save(folder / place / f"{number}.png")
    images = folder / "imagenet_nips400" / "images"
    images.mkdir(parents=True)
    for number, label in enumerate(LABELS):
        _picture(random, 32, label).save(images / f"{number}.png")
    with (images.parent / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((f"{n}.png", label) for n, label in enumerate(LABELS))])
    (folder / "kit_models.py").write_text(LOADERS)
    monkeypatch.setenv("PURIFIER_KIT", str(folder))
    return folder


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that scripts write their results to."""
    monkeypatch.setattr(kit, "RESULTS", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    return tmp_path / "results"
