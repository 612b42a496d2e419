"""GradientAttack: the family that climbs a loss by steps along the sign or direction of its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from purifier._options import check_bool, check_integer
from purifier.attacks._balls import Norm, ascend, check_norm, project, random_start
from purifier.attacks._progress import progress_bar
from purifier.attacks.base import Attack, Loss, Model, check_eps, input_gradient, per_image
from purifier.attacks.losses import cross_entropy


class GradientAttack(Attack):
    """Climbs a model's loss inside a norm ball round each image; subclasses change one of its four parts.

    `_start` gives the first perturbation, `_view` what the model sees of the images, `_direct` turns a gradient into
    the direction of the step.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, same units.
        steps: Number of gradient steps.
        norm: "Linf" or "L2".
        targeted: Whether `targets` is where to go (the loss falls) instead of what to leave (the loss rises).
        restarts: Number of starts; per image, the highest loss wins.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar; cross entropy where None.
        generator: Source of randomness; torch's global one where None.

    Raises:
        OptionError: Where an option is out of its range.
    """

    def __init__(
        self,
        *,
        eps: float,
        alpha: float,
        steps: int,
        norm: Norm,
        targeted: bool,
        loss: Loss | None,
        restarts: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        check_norm(norm)
        check_eps(eps, norm)
        check_eps(alpha, norm, "alpha")
        self.eps = eps
        self.alpha = alpha
        self.steps = check_integer("steps", steps, low=0)
        self.norm: Norm = norm
        self.targeted = check_bool("targeted", targeted)
        self.restarts = check_integer("restarts", restarts, low=1)
        self.loss: Loss = cross_entropy if loss is None else loss
        self.generator = generator

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        best, best_loss = images, torch.full((len(images),), -torch.inf, device=images.device)
        with progress_bar(self.name, self.restarts * self.steps) as bar:
            for _ in range(self.restarts):
                candidate = self._climb(model, images, targets, bar)
                if self.restarts == 1:
                    return candidate
                loss = per_image(self._signed(model(candidate), targets), images).float()
                better = loss > best_loss
                best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
                best_loss = torch.where(better, loss, best_loss)
        return best

    def _climb(self, model: Model, images: Tensor, targets: Any, bar: Any) -> Tensor:
        delta = self._start(images)
        delta = (images + delta).clamp(0, 1) - images
        direction = torch.zeros_like(images)
        for _ in range(self.steps):
            direction = self._direct(self._gradient(model, images + delta, targets), direction)
            delta = project(delta + ascend(direction, self.alpha, self.norm), self.eps, self.norm)
            delta = (images + delta).clamp(0, 1) - images
            bar.update()
        return images + delta

    def _gradient(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        with torch.enable_grad():
            images = images.detach().requires_grad_(True)
            loss = self._signed(model(self._view(images)), targets)
        return input_gradient(loss, images)

    def _signed(self, outputs: Any, targets: Any) -> Tensor:
        loss = self.loss(outputs, targets)
        return -loss if self.targeted else loss

    def _start(self, images: Tensor) -> Tensor:
        """Returns the first perturbation, within the ball."""
        return torch.zeros_like(images)

    def _view(self, images: Tensor) -> Tensor:
        """Returns what the model sees of images; gradients flow through it."""
        return images

    def _direct(self, gradient: Tensor, previous: Tensor) -> Tensor:
        """Returns the direction of a step from the gradient and the direction before (zero at first)."""
        return gradient

    def _random_point(self, images: Tensor) -> Tensor:
        return random_start(images, self.eps, self.norm, self.generator)
