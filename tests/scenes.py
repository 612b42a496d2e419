"""Folders of small pictures and models that tell their colours apart."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

COLOURS = ("blue", "green", "red")


class Colours(nn.Module):
    """Says which of blue, green and red is the strongest; fooled by moderate attacks."""

    classes = COLOURS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.tensor(30.0))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        # Slow where a test means to kill the run.
        if "SLOW_MODEL" in os.environ:
            time.sleep(float(os.environ["SLOW_MODEL"]))
        texture = self.features(images - images.mean((2, 3), keepdim=True)).tanh().mean((2, 3))
        return self.scale * (images.mean((2, 3)).flip(1) + 0.4 * texture[:, :3])


class Pixels(nn.Module):
    """Segments by colour: class 0 where a pixel is bluest, then green, then red."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": 20 * images.flip(1)}


def colours() -> nn.Module:
    return Colours()


def training() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(768, 3))


def no_model() -> str:
    return "not a model"


class Detached(Colours):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach()


def detached() -> nn.Module:
    return Detached()


def picture(colour: int, seed: int, size: int = 16) -> np.ndarray:
    """Grey noise in which one channel is a little stronger."""
    noise = np.random.default_rng(seed).integers(80, 170, (size, size, 3))
    noise[..., 2 - colour] += 12
    return noise.astype(np.uint8)


def class_folders(root: Path, each: int = 4, size: int = 16) -> Path:
    for number, name in enumerate(COLOURS):
        (root / name).mkdir(parents=True, exist_ok=True)
        for place in range(each):
            Image.fromarray(picture(number, 100 * number + place, size)).save(root / name / f"{place}.png")
    return root


def mask_folders(root: Path, count: int = 3, size: int = 16) -> tuple[Path, Path]:
    """Pictures whose left half is blue and right half red, and their masks, with a border to ignore."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for place in range(count):
        left, right = picture(0, place, size), picture(2, 50 + place, size)
        rgb = np.concatenate([left[:, : size // 2], right[:, size // 2 :]], 1)
        mask = np.zeros((size, size), np.uint8)
        mask[:, size // 2 :] = 2
        mask[0] = 255
        Image.fromarray(rgb).save(root / "images" / f"{place}.png")
        Image.fromarray(mask).save(root / "masks" / f"{place}.png")
    return root / "images", root / "masks"


def coco_folder(root: Path, count: int = 2, size: int = 64) -> tuple[Path, Path]:
    """Pictures with one box each, and their COCO JSON; of different sizes."""
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for place in range(count):
        height, width = size, size + 16 * place
        rgb = np.random.default_rng(place).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(root / "images" / f"{place}.png")
        images.append({"id": place + 7, "file_name": f"{place}.png", "width": width, "height": height})
        box = {"id": place, "image_id": place + 7, "category_id": 1, "bbox": [8, 8, 24, 30], "area": 720, "iscrowd": 0}
        annotations.append(box)
        # A mark without an area, which detectors refuse, and a crowd.
        annotations.append({**box, "id": 100 + place, "bbox": [3, 3, 0, 5]})
        annotations.append({**box, "id": 200 + place, "bbox": [30, 30, 20, 20], "iscrowd": 1})
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "instances.json").write_text(json.dumps(truth))
    return root / "images", root / "instances.json"
