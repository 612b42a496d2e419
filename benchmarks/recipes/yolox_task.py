"""The task of GAD's training in front of the kit's YOLOX-Nano, a detector with losses of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from benchmarks.accuracy.yolox import KINDS, Detector, index_of, loss_of
from purifier.attacks import PGD, DetectionAttack
from purifier.training.gad import GADTraining
from purifier.training.gad.tasks import BoxTask, Observed
from purifier.training.gad.tasks.boxes import box_vectors


class YoloxTask(BoxTask):
    """Square crops with boxes. Attacks increase the losses of yolox.py; features are the backbone's at the boxes."""

    def __init__(self, model: nn.Module, config: GADTraining) -> None:
        super().__init__(model, config)
        assert isinstance(model, Detector)
        self._levels = [model.net.d3, model.net.d4, model.net.d5]
        self._loss = detection_loss(model)
        inner = PGD(eps=self.eps, alpha=self.alpha, steps=self.attack_steps)
        self._attacks = [DetectionAttack(inner, loss=loss_of(model, kind)) for kind in KINDS]

    def __getstate__(self) -> dict[str, Any]:
        without = {"_levels", "_loss", "_attacks"}
        return {name: value for name, value in super().__getstate__().items() if name not in without}

    def attack(self, images: Tensor, targets: list[dict[str, Tensor]], step: int) -> Tensor:
        """Attacks by PGD on the scores, the overlaps and both, in turn."""
        return self._attacks[step % len(self._attacks)](self.model, images, targets)

    def observe(self, images: Tensor, targets: list[dict[str, Tensor]]) -> Observed:
        caught: list[Tensor] = []
        hooks = [level.register_forward_hook(lambda _, __, output: caught.append(output)) for level in self._levels]
        try:
            outputs = self.model(images)
        finally:
            for hook in hooks:
                hook.remove()
        boxes = [target["boxes"] for target in targets]
        vectors = [box_vectors(maps, boxes, maps.shape[-1] / images.shape[-1]) for maps in caught]
        labels = torch.cat([target["labels"] for target in targets])
        return Observed(self._loss(outputs, targets), torch.cat(vectors, 1), labels)


def detection_loss(detector: Detector) -> Callable[[list[dict[str, Tensor]], list[dict[str, Tensor]]], Tensor]:
    """Returns a loss that is low if each object is found and nothing else is.

    Each object adds -log(score) + 1 - overlap of the box with the largest product of score and overlap. The boxes with
    a
    score above 0.5 that overlap no object by half add the mean of -log(1 - score). The loss is the mean over images.
    """
    index = index_of(detector)

    def loss(outputs: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]) -> Tensor:
        terms = []
        for found, target in zip(outputs, targets, strict=True):
            raw = found["raw"]
            scores = (raw[:, 4:5] * raw[:, 5:]).clamp(1e-8, 1 - 1e-6)
            overlap, score = box_iou(raw[:, :4], target["boxes"]), scores[:, index(target["labels"])]
            best = (overlap * score).detach().argmax(0, keepdim=True)
            missed = 1 - score.gather(0, best).log() - overlap.gather(0, best)
            stray = scores.amax(1)[(scores.detach().amax(1) > 0.5) & (overlap.detach() < 0.5).all(1)]
            terms.append(missed.mean() - (1 - stray).log().sum() / max(1, len(stray)))
        return torch.stack(terms).mean()

    return loss
