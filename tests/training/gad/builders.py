"""Tiny targets, folders of samples and settings for the tests of the GAD training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

TINY = {
    "steps": 12,
    "batch_size": 4,
    "size": 16,
    "filters": 4,
    "blocks": 1,
    "critic_filters": 4,
    "critic_layers": 1,
    "perceptual_weight": 0.0,
    "precision": "no",
    "checkpoint_every": 3,
    "validate_every": 6,
    "validation_every": 4,
    "validation_images": 3,
    "warmup_steps": 2,
    "device": "cpu",
}


def classifier() -> nn.Module:
    """A seeded classifier of three classes, by the mean of each colour: right for `class_folders`."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    with torch.no_grad():
        net[0].weight.mul_(0.1)
        for colour in range(3):
            net[0].weight[colour] = torch.eye(3)[colour].view(3, 1, 1) / 9
            net[4].weight[colour, :3] = 12 * torch.eye(3)[colour]
    return net.eval()


def features() -> nn.Module:
    """Stands in for VGG16."""

    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [images[..., ::2, ::2], self.conv(images)]

    torch.manual_seed(4)
    return Maps()


def function() -> object:
    """Gives what is called as a model is, and is no module."""
    return lambda images: images


def no_maps() -> nn.Module:
    """Gives a tensor, where a list of maps is expected."""
    return nn.Conv2d(3, 4, 3)


def picture(random: np.random.Generator, height: int, width: int, colour: int = 0) -> np.ndarray:
    small = random.normal(100, 25, (4, 5, 3)) + 90 * (np.arange(3) == colour)
    image = Image.fromarray(small.clip(0, 255).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def class_folders(root: Path, count: int = 8) -> Path:
    """Writes `count` reddish, greenish and bluish pictures each, in a folder for each colour."""
    random = np.random.default_rng(0)
    for number, name in enumerate(("a-red", "b-green", "c-blue")):
        (root / name).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(picture(random, 16, 18, number)).save(root / name / f"{k}.png")
    return root


def masked_pictures(root: Path, count: int = 4) -> tuple[Path, Path]:
    """Writes pictures (70 x 80) and masks of classes 0 to 4 in blocks, with a void border."""
    random = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for k in range(count):
        Image.fromarray(picture(random, 70, 80, k % 3)).save(root / "images" / f"{k}.png")
        mask = np.kron(random.integers(0, 5, (7, 8)), np.ones((10, 10))).astype(np.uint8)
        mask[:3] = 255
        Image.fromarray(mask).save(root / "masks" / f"{k}.png")
    return root / "images", root / "masks"


def boxed_pictures(root: Path, count: int = 4) -> tuple[Path, Path]:
    """Writes pictures (64 x 96) and a COCO file with two boxes each, of categories 1 and 2; the last has none."""
    random = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for k in range(count):
        Image.fromarray(picture(random, 64, 96, k % 3)).save(root / "images" / f"{k}.png")
        images.append({"id": k, "file_name": f"{k}.png"})
        boxes = [] if k == count - 1 else [[8, 8, 40, 30], [50, 20, 36, 40]]
        annotations += [{"image_id": k, "bbox": box, "category_id": i + 1} for i, box in enumerate(boxes)]
    path = root / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    return root / "images", path
