"""What the tests of the scripts share: a kit with nothing of weight in it, and the scripts to import."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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

class Segmenter(nn.Conv2d):
    def forward(self, images):
        return {"out": super().forward(images)}

def mobilenet_v2():
    return Small()

def deeplabv3_voc():
    return Segmenter(3, 5, 3)
"""


@pytest.fixture
def small_kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the places that the scripts read, which PURIFIER_KIT names."""
    folder = tmp_path / "kit"
    random = np.random.default_rng(0)
    for number, place in enumerate(["photos", "photos", "objects/train/cat", "objects/train/dog"]):
        (folder / place).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / place / f"{number}.png")
    (folder / "kit_models.py").write_text(LOADERS)
    monkeypatch.setenv("PURIFIER_KIT", str(folder))
    return folder
