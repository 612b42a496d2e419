"""The part of detection that all detectors share: reading images with boxes, and scoring the boxes found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from purifier._errors import InputError, OptionError
from purifier.data.crops import resized
from purifier.data.finding import boxed_images
from purifier.data.images import read_pixels, to_tensor
from purifier.training.gad.tasks.base import Task, folder_of

# A box's features are averaged over this many places per side.
_PLACES = 3
# Least score of a prediction that counts, and least overlap (IoU) with which it finds a box.
_SCORE, _OVERLAP = 0.5, 0.5


class BoxTask(Task):
    """Images and boxes in a COCO file, resized to squares.

    A subclass adds `attack` and `observe`. The model takes a list of images (3, H, W) in [0, 1] and returns a list of
    {"boxes", "scores", "labels"}, where labels are the file's categories.
    """

    downsamples, size = 4, 256
    eps, alpha, attack_steps = 8 / 255, 2 / 255, 4
    scores = "F1 of boxes (score and overlap at least 0.5)"

    def items(self) -> list[tuple[Path, list[list[float]]]]:
        """Returns each image that has boxes, with rows x1 y1 x2 y2 category, in pixels. Crowds are left out."""
        if not self.config.annotations:
            raise OptionError("expected annotations, a COCO JSON file, for this task, got none")
        found = boxed_images(folder_of(self.config.data, "data"), annotations=self.config.annotations)
        items = [
            (path, [list(box[:5]) for box in boxes if not box[5]])
            for path, boxes in zip(found.files, found.boxes, strict=True)
        ]
        items = [(path, rows) for path, rows in items if rows]
        if not items:
            raise InputError(f"expected images with boxes in {self.config.annotations}, got none")
        return items

    def load(
        self, item: tuple[Path, list[list[float]]], random: np.random.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Reads an image and its boxes, both resized to a square and flipped at random."""
        pixels = read_pixels(item[0], turn=False)
        height, width = pixels.shape[:2]
        rows = torch.tensor(item[1], dtype=torch.float64)
        boxes = rows[:, :4] * torch.tensor([self.size / width, self.size / height] * 2, dtype=torch.float64)
        pixels = resized(pixels, self.size, self.size)
        if random is not None and random.random() < 0.5:
            pixels = pixels[:, ::-1]
            boxes = torch.stack((self.size - boxes[:, 2], boxes[:, 1], self.size - boxes[:, 0], boxes[:, 3]), 1)
        return to_tensor(pixels), {"boxes": boxes.float(), "labels": rows[:, 4].long()}

    def collate(self, targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        return targets

    def score(self, images: Tensor, targets: list[dict[str, Tensor]]) -> float:
        found, predictions, truths = 0, 0, 0
        for predicted, target in zip(self.model(list(images)), targets, strict=True):
            sure = predicted["scores"] >= _SCORE
            boxes, labels = predicted["boxes"][sure], predicted["labels"][sure]
            found += _matches(boxes, labels, target["boxes"], target["labels"])
            predictions, truths = predictions + len(boxes), truths + len(target["boxes"])
        return 2 * found / max(1, predictions + truths)


def box_vectors(features: Tensor, boxes: list[Tensor], scale: float) -> Tensor:
    """Averages features over boxes: a vector (C,) for each box.

    Args:
        features: Maps (N, C, h, w).
        boxes: For each image, x1 y1 x2 y2 (M, 4).
        scale: Factor from coordinates of boxes to places of the maps.

    Returns:
        Vectors (V, C) of all V boxes in their order; gradients flow to the features.
    """
    from torchvision.ops import roi_align

    return roi_align(features, boxes, _PLACES, scale, 2, aligned=True).mean((2, 3))


def _matches(boxes: Tensor, labels: Tensor, truth: Tensor, classes: Tensor) -> int:
    """Counts the true boxes that predictions find. Each prediction finds at most one box."""
    from torchvision.ops import box_iou

    overlaps = box_iou(boxes, truth).masked_fill(labels[:, None] != classes[None], 0.0)
    found = 0
    for number in range(len(boxes)):
        best = int(overlaps[number].argmax())
        if overlaps[number, best] >= _OVERLAP:
            overlaps[:, best] = 0
            found += 1
    return found
