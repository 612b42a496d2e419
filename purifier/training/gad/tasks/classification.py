"""Classification: one feature vector per image, the input of the last linear layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import InputError
from purifier.attacks import PGD
from purifier.data.class_folders import few_folders, images_by_class
from purifier.data.crops import bicubic_square, padded_crop, resized_crop
from purifier.data.images import read_pixels, to_tensor
from purifier.models.layers import call_and_catch, last_layer
from purifier.training.gad.config import GADTraining
from purifier.training.gad.tasks.base import Observed, Task, folder_of
from purifier.training.label_free import divergence

# Up to this size, images are shifted by a few pixels; larger ones are cropped and resized.
_SMALL = 64


class Classification(Task):
    """Images in a folder for each class, and a model that gives logits (N, K).

    A folder named after one of the model's `classes` gets that class's number; one named by a number gets that number.
    Other folders are numbered in sorted order, if the model has no `classes` or there are as many folders.

    Raises:
        OptionError: If the model has no linear layer and no layer is named.
    """

    eps, alpha, attack_steps = 0.031, 0.0175, 4
    scores = "accuracy"

    def __init__(self, model: nn.Module, config: GADTraining) -> None:
        super().__init__(model, config)
        self._layer = last_layer(model, nn.Linear, config.layer)
        classes = getattr(model, "classes", None)
        self._folders: int | None = None
        self._classes = [str(name) for name in classes] if isinstance(classes, list | tuple) else None
        self._attack = PGD(eps=self.eps, alpha=self.alpha, steps=self.attack_steps, loss=divergence)

    def items(self) -> list[tuple[Path, int]]:
        pairs, self._folders = images_by_class(folder_of(self.config.data, "data"), self._classes)
        return pairs

    def load(self, item: tuple[Path, int], random: np.random.Generator | None) -> tuple[Tensor, int]:
        path, label = item
        pixels = read_pixels(path)
        if random is None:
            return to_tensor(bicubic_square(pixels, self.size)), label
        crop = padded_crop if self.size <= _SMALL else resized_crop
        return to_tensor(crop(pixels, self.size, random)), label

    def attack(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        """PGD with the KL criterion: away from the model's predictions for the clean images; labels are not used."""
        with torch.no_grad():
            predictions = self._logits(self.model(images)).float().softmax(1)
        return self._attack(self.model, images, predictions)

    def observe(self, images: Tensor, targets: Tensor) -> Observed:
        logits, vectors = call_and_catch(self.model, self._layer, images)
        loss = F.cross_entropy(_checked(self._logits(logits), targets).float(), targets)
        return Observed(loss, vectors.float().flatten(1), targets)

    def _logits(self, outputs: Any) -> Tensor:
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise InputError(f"expected logits (N, classes) from the model, got {got}; wrap it so that it returns them")
        if self._folders is not None and self._folders != outputs.shape[1]:
            raise InputError(few_folders(self._folders, outputs.shape[1]))
        return outputs

    @property
    def classes(self) -> int:
        """The number of the model's classes."""
        example = next(self.model.parameters()).new_zeros(2, 3, self.size, self.size)
        with torch.no_grad():
            return self._logits(self.model(example)).shape[1]

    def score(self, images: Tensor, targets: Tensor) -> float:
        return (self.model(images).argmax(1) == targets).float().mean().item()


def _checked(logits: Tensor, labels: Tensor) -> Tensor:
    # On a GPU a wrong label would give an error that does not name its place.
    if labels.device.type == "cpu" and int(labels.max()) >= logits.shape[1]:
        raise InputError(
            f"expected class numbers below {logits.shape[1]}, the number of the model's classes, got "
            f"{int(labels.max())}; check that the folders and the model belong together"
        )
    return logits
