"""Segmentation: one feature vector per place of the last convolution's input, labelled by the resized mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier.attacks import BIM, SegmentationLoss, logits_of
from purifier.data.crops import resized
from purifier.data.finding import masked_images
from purifier.data.images import check_mask, read_mask, read_pixels, to_tensor
from purifier.models.layers import call_and_catch, last_layer
from purifier.training.gad.config import GADTraining
from purifier.training.gad.tasks.base import Observed, Task, folder_of

# The label that this package's losses ignore, beside `ignore_index`.
_IGNORED = -100


class Segmentation(Task):
    """Images and masks of class numbers, and a model that gives logits (N, K, H, W), also as "out" or `.logits`.

    The last convolution is that of the model's `classifier`, if it has one, and not of an auxiliary head.

    Raises:
        OptionError: If the model has no convolution and no layer is named.
    """

    downsamples, size = 4, 512
    eps, alpha, attack_steps = 0.03, 0.01, 3
    scores = "pixel accuracy"

    def __init__(self, model: nn.Module, config: GADTraining) -> None:
        super().__init__(model, config)
        head = getattr(model, "classifier", None)
        within = model if config.layer or not isinstance(head, nn.Module) else head
        self._layer = last_layer(within, nn.Conv2d, config.layer)
        self._loss = SegmentationLoss(ignore_index=config.ignore_index)
        self._attack = BIM(eps=self.eps, alpha=self.alpha, steps=self.attack_steps, loss=self._loss)

    def items(self) -> list[tuple[Path, Path]]:
        found = masked_images(folder_of(self.config.data, "data"), masks=folder_of(self.config.masks, "masks"))
        return list(zip(found.files, found.masks, strict=True))

    def load(self, item: tuple[Path, Path], random: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Reads a crop at the image's own scale, flipped at random, or the central crop. Small images are enlarged."""
        pixels, mask = read_pixels(item[0], turn=False), read_mask(item[1])
        check_mask(pixels.shape[:2], mask.shape, item[1])
        factor = max(1.0, self.size / min(mask.shape))
        height, width = (max(self.size, round(side * factor)) for side in mask.shape)
        pixels, mask = resized(pixels, height, width), resized(mask, height, width, nearest=True)
        spare = height - self.size, width - self.size
        top, left = (room // 2 if random is None else int(random.integers(room + 1)) for room in spare)
        window = slice(top, top + self.size), slice(left, left + self.size)
        pixels, mask = pixels[window], mask[window]
        if random is not None and random.random() < 0.5:
            pixels, mask = pixels[:, ::-1], mask[:, ::-1]
        return to_tensor(pixels), torch.from_numpy(mask.astype(np.int64))

    def attack(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        """BIM on the cross entropy of every pixel."""
        return self._attack(self.model, images, targets)

    def observe(self, images: Tensor, targets: Tensor) -> Observed:
        outputs, features = call_and_catch(self.model, self._layer, images)
        loss = self._loss(outputs, targets).mean()
        labels = F.interpolate(targets[:, None].float(), features.shape[-2:], mode="nearest-exact")[:, 0].long()
        counts = (labels != self.config.ignore_index) & (labels != _IGNORED)
        return Observed(loss, features.float().permute(0, 2, 3, 1)[counts], labels[counts])

    def score(self, images: Tensor, targets: Tensor) -> float:
        right = logits_of(self.model, size=(targets.shape[1], targets.shape[2]))(images).argmax(1) == targets
        counts = (targets != self.config.ignore_index) & (targets != _IGNORED)
        return ((right & counts).sum() / counts.sum().clamp_min(1)).item()
