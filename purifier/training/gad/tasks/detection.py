"""Detection: a feature vector a box, cut out of the backbone's features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import InputError
from purifier.attacks import PGD, DetectionAttack, DetectionLoss
from purifier.attacks.detection import detector_parts
from purifier.models.layers import last_layer
from purifier.training.gad._config import GADTraining
from purifier.training.gad.tasks._base import Observed
from purifier.training.gad.tasks.boxes import BoxTask, box_vectors


class Detection(BoxTask):
    """Images and boxes in a COCO file; a torchvision detector, whose loss mode gives the losses.

    Of a backbone with several maps, the first and finest is used. The detector runs in single precision.

    Raises:
        InputError: Where the model is no torchvision detector.
        OptionError: Where the layer that is named is not there.
    """

    def __init__(self, model: nn.Module, config: GADTraining) -> None:
        super().__init__(model, config)
        self._parts = detector_parts(model)
        detector: Any = self._parts[0]
        self._transform: nn.Module = detector.transform
        self._backbone = last_layer(model, nn.Module, config.layer) if config.layer else detector.backbone
        self._loss = DetectionLoss("cls+loc")
        inner = PGD(eps=self.eps, alpha=self.alpha, steps=self.attack_steps)
        self._attacks = DetectionAttack(inner, loss="cls"), DetectionAttack(inner, loss="loc")

    def __getstate__(self) -> dict[str, Any]:
        without = {"_parts", "_transform", "_backbone"}
        return {name: value for name, value in super().__getstate__().items() if name not in without}

    def attack(self, images: Tensor, targets: list[dict[str, Tensor]], step: int) -> Tensor:
        """PGD on the classification loss at even steps and on the localisation loss at odd ones."""
        with _single_precision(images):
            return self._attacks[step % 2](self.model, images, targets)

    def observe(self, images: Tensor, targets: list[dict[str, Tensor]]) -> Observed:
        caught: dict[str, Any] = {}
        hooks = [
            self._transform.register_forward_hook(lambda _, __, outputs: caught.update(transformed=outputs)),
            self._backbone.register_forward_hook(lambda _, __, outputs: caught.update(features=outputs)),
        ]
        try:
            with _single_precision(images), self._loss_mode():
                loss = self._loss(self.model(list(images.float()), targets), None)
                features = _first(caught["features"])
                transformed, moved = caught["transformed"]
                scale = features.shape[-1] / transformed.tensors.shape[-1]
                vectors = box_vectors(features, [target["boxes"] for target in moved], scale)
        finally:
            for hook in hooks:
                hook.remove()
        return Observed(loss, vectors, torch.cat([target["labels"] for target in targets]))

    @contextmanager
    def _loss_mode(self) -> Iterator[None]:
        """The detector's own flags alone, so that batch norm and dropout stay in eval mode."""
        for part in self._parts:
            part.training = True
        try:
            yield
        finally:
            for part in self._parts:
                part.training = False


def _single_precision(images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, enabled=False)


def _first(features: Any) -> Tensor:
    """The first map of a backbone that gives several."""
    if isinstance(features, Mapping):
        features = list(features.values())
    first = features[0] if isinstance(features, list | tuple) else features
    if not isinstance(first, Tensor) or first.ndim != 4:
        raise InputError(
            f"expected feature maps (N, C, h, w) from the backbone, got {type(first).__name__}; name another module "
            "with layer=..."
        )
    return first
