"""Detection: one feature vector per box, the mean of the backbone's features over the box."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import InputError
from purifier.attacks import PGD, DetectionAttack, DetectionLoss
from purifier.attacks.detection import detector_parts
from purifier.models.layers import catching, last_layer
from purifier.training.gad.config import GADTraining
from purifier.training.gad.tasks.base import Observed
from purifier.training.gad.tasks.boxes import BoxTask, box_vectors


class Detection(BoxTask):
    """Images and boxes in a COCO file, and a torchvision detector, whose loss mode gives the losses.

    If the backbone gives several maps, the first and finest is used. The detector runs in single precision.

    Raises:
        InputError: If the model is not a torchvision detector.
        OptionError: If there is no layer of the given name.
    """

    def __init__(self, model: nn.Module, config: GADTraining) -> None:
        super().__init__(model, config)
        detector: Any = detector_parts(model)[0]
        self._transform: nn.Module = detector.transform
        self._backbone = last_layer(model, nn.Module, config.layer) if config.layer else detector.backbone
        self._loss = DetectionLoss("cls+loc")
        inner = PGD(eps=self.eps, alpha=self.alpha, steps=self.attack_steps)
        self._attacks = DetectionAttack(inner, loss="cls"), DetectionAttack(inner, loss="loc")

    def attack(self, images: Tensor, targets: list[dict[str, Tensor]], step: int) -> Tensor:
        """PGD on the classification loss at even steps and on the localisation loss at odd ones."""
        with _single_precision(images):
            return self._attacks[step % 2](self.model, images, targets)

    def observe(self, images: Tensor, targets: list[dict[str, Tensor]]) -> Observed:
        layers = {"transform": self._transform, "backbone": self._backbone}
        with _single_precision(images), self._loss_mode(), catching(layers) as caught:
            loss = self._loss(self.model(list(images.float()), targets), None)
            features = _first(caught["backbone"])
            transformed, moved = caught["transform"]
            scale = features.shape[-1] / transformed.tensors.shape[-1]
            vectors = box_vectors(features, [target["boxes"] for target in moved], scale)
        return Observed(loss, vectors, torch.cat([target["labels"] for target in targets]))

    @contextmanager
    def _loss_mode(self) -> Iterator[None]:
        """Sets only the detector's own flags, so that batch norm and dropout stay in eval mode."""
        parts = detector_parts(self.model)
        for part in parts:
            part.training = True
        try:
            yield
        finally:
            for part in parts:
                part.training = False


def _single_precision(images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, enabled=False)


def _first(features: Any) -> Tensor:
    """Returns the first map if a backbone gives several."""
    if isinstance(features, Mapping):
        features = list(features.values())
    first = features[0] if isinstance(features, list | tuple) else features
    if not isinstance(first, Tensor) or first.ndim != 4:
        raise InputError(
            f"expected feature maps (N, C, h, w) from the backbone, got {type(first).__name__}; name another module "
            "with layer=..."
        )
    return first
