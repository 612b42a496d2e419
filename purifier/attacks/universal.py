"""Universal perturbation: one perturbation that fools a model on many images.

Moosavi-Dezfooli et al., "Universal Adversarial Perturbations", CVPR 2017, https://arxiv.org/abs/1610.08401, introduced
it. The steps are those of Shafahi et al., "Universal Adversarial Training", AAAI 2020, Algorithm 2,
https://arxiv.org/abs/1811.11304: along the gradient's sign on batches of images, with a clipped loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._options import check_integer
from purifier.attacks._balls import ascend, project
from purifier.attacks._learning import LearningAttack
from purifier.attacks._random import uniform
from purifier.attacks.base import COMPUTED, Model, input_gradient, per_image, pick


@dataclass(kw_only=True, eq=False, repr=False)
class Universal(LearningAttack):
    """Learns one perturbation from all images of the call, and adds it to each of them.

    `learn` returns the perturbation itself, (1, C, H, W), within the ball. To attack images that it has not seen, add
    it to them and clamp to [0, 1].

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, in the same units. None means eps / 4.
        steps: Number of passes over the images.
        batch: Number of images in each step.
        clip: Largest loss of an image that counts, so that no single image dominates. It is the beta of the paper.
        norm, targeted, loss, generator: See `PGD`.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> delta = attacks.Universal(eps=8 / 255, steps=5).learn(model, images, labels)
        >>> delta.shape
        torch.Size([1, 3, 8, 8])
    """

    _learned: ClassVar[str] = "perturbation"
    _whole_ball: ClassVar[bool] = False

    alpha: float = COMPUTED
    steps: int = 10
    batch: int = 32
    clip: float = 9.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("batch", self.batch, low=1)
        if not 0 < self.clip <= math.inf:
            raise OptionError(f"expected clip > 0, got {self.clip}")

    def _climb(self, model: Model, images: Tensor, targets: Any, bar: Any) -> Tensor:
        return (images + self._learn(model, images, targets, bar)).clamp(0, 1)

    def _learn(self, model: Model, images: Tensor, targets: Any, bar: Any) -> Tensor:
        delta = torch.zeros_like(images[:1])
        for _ in range(self.steps):
            order = uniform((len(images),), images, self.generator).argsort()
            for index in order.split(self.batch):
                slope = self._shared_gradient(model, images[index], pick(targets, index, len(images)), delta)
                delta = project(delta + ascend(slope, self.alpha, self.norm), self.eps, self.norm)
            if bar is not None:
                bar.update()
        return delta

    def _shared_gradient(self, model: Model, images: Tensor, targets: Any, delta: Tensor) -> Tensor:
        with torch.enable_grad():
            delta = delta.detach().requires_grad_(True)
            losses = self._signed(model(self._view((images + delta).clamp(0, 1))), targets)
            if not self.targeted:
                losses = per_image(losses, images).clamp_max(self.clip)
        return input_gradient(losses, delta)
