"""LearningAttack: attacks that learn one perturbation or patch for several images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from purifier._errors import InputError
from purifier.attacks._gradient import GradientAttack
from purifier.attacks.base import Model


@dataclass(kw_only=True, eq=False, repr=False)
class LearningAttack(GradientAttack):
    """Learns something from all images of a call, and returns it by `learn`. The call itself also uses it on them."""

    # What is learned, for errors.
    _learned: ClassVar[str]

    def learn(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        """Returns what is learned from the images, detached; the class states its shape.

        Args:
            model: Map from images to outputs, differentiable.
            images: (N, C, H, W), N > 0, float32 or float64, in [0, 1].
            targets: What the loss takes besides the outputs, such as labels (N,).

        Raises:
            InputError: If images, targets or model do not suit the attack, or there is no image.
        """
        self._check(model, images)
        if not len(images):
            raise InputError(f"expected at least one image to learn a {self._learned} from, got none")
        with torch.inference_mode(False), torch.no_grad():
            return self._learn(model, images.detach().clone().clamp(0, 1), targets, None)

    @abstractmethod
    def _learn(self, model: Model, images: Tensor, targets: Any, bar: Any) -> Tensor:
        """Returns what is learned, and moves the progress bar, if there is one, at each step."""
