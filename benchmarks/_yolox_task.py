"""GAD's training in front of the kit's YOLOX-Nano: a detector with losses of its own."""

from __future__ import annotations

from typing import Any

import torch
from _yolox import Detector, loss_of
from torch import Tensor, nn

from purifier.attacks import PGD, DetectionAttack
from purifier.training.gad import GADTraining
from purifier.training.gad.tasks import BoxTask, Observed
from purifier.training.gad.tasks.boxes import box_vectors


class YoloxTask(BoxTask):
    """Squares with boxes; the losses of benchmarks/_yolox.py, and features of the backbone cut out at the boxes."""

    def __init__(self, model: nn.Module, config: GADTraining) -> None:
        super().__init__(model, config)
        assert isinstance(model, Detector)
        self._features = model.net.d3
        self._loss = loss_of(model)
        inner = PGD(eps=self.eps, alpha=self.alpha, steps=self.attack_steps)
        self._attacks = [DetectionAttack(inner, loss=loss_of(model, kind)) for kind in ("cls", "loc")]

    def __getstate__(self) -> dict[str, Any]:
        without = {"_features", "_loss", "_attacks"}
        return {name: value for name, value in super().__getstate__().items() if name not in without}

    def attack(self, images: Tensor, targets: list[dict[str, Tensor]], step: int) -> Tensor:
        """PGD on the lost scores at even steps and on the lost overlaps at odd ones."""
        return self._attacks[step % 2](self.model, images, targets)

    def observe(self, images: Tensor, targets: list[dict[str, Tensor]]) -> Observed:
        caught: list[Tensor] = []
        hook = self._features.register_forward_hook(lambda _, __, output: caught.append(output))
        try:
            outputs = self.model(images)
        finally:
            hook.remove()
        # The detector takes its images one by one, all of one size here.
        features, boxes = torch.cat(caught), [target["boxes"] for target in targets]
        scale = features.shape[-1] / images.shape[-1]
        labels = torch.cat([target["labels"] for target in targets])
        return Observed(self._loss(outputs, targets) / len(images), box_vectors(features, boxes, scale), labels)
