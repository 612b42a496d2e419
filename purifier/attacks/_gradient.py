"""GradientAttack: attacks that climb a loss by steps along its gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from purifier._options import check_bool, check_integer
from purifier.attacks._balls import Norm, ascend, check_norm, project
from purifier.attacks._progress import progress_bar
from purifier.attacks.base import COMPUTED, Attack, Loss, Model, check_eps, input_gradient, per_image
from purifier.attacks.losses import cross_entropy


@dataclass(kw_only=True, eq=False, repr=False)
class GradientAttack(Attack):
    """Climbs a model's loss inside a norm ball around each image; `PGD` documents the options.

    Subclasses override `_default_alpha` (the step size), `_start` (the first perturbation), `_ahead` (the points at
    which gradients are taken), `_view` (what the model sees of them), `_direct` (the direction of a step) or `_step`
    (the step itself). They turn the options of this class that they offer into arguments by declaring the field again.
    """

    eps: float = 8 / 255
    alpha: float = field(default=COMPUTED, init=False)
    steps: int = field(default=1, init=False)
    norm: Norm = "Linf"
    targeted: bool = False
    restarts: int = field(default=1, init=False)
    loss: Loss | None = None
    generator: torch.Generator | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        check_eps(self.eps, self.norm)
        check_integer("steps", self.steps, low=0)
        if self.alpha is None:
            self.alpha = self._default_alpha()
        check_eps(self.alpha, self.norm, "alpha")
        check_bool("targeted", self.targeted)
        check_integer("restarts", self.restarts, low=1)
        self.loss = cross_entropy if self.loss is None else self.loss

    def _default_alpha(self) -> float:
        return self.eps / 4

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
            gradient = self._gradient(model, self._ahead(images + delta, direction), targets)
            direction = self._direct(gradient, direction)
            delta = self._moved(images, delta, direction)
            bar.update()
        return images + delta

    def _moved(self, images: Tensor, delta: Tensor, direction: Tensor) -> Tensor:
        delta = project(delta + self._step(direction), self.eps, self.norm)
        return (images + delta).clamp(0, 1) - images

    def _gradient(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        with torch.enable_grad():
            images = images.detach().requires_grad_(True)
            loss = self._signed(model(self._view(images)), targets)
        return input_gradient(loss, images)

    def _signed(self, outputs: Any, targets: Any) -> Tensor:
        assert self.loss is not None  # __post_init__ has replaced it
        loss = self.loss(outputs, targets)
        return -loss if self.targeted else loss

    def _start(self, images: Tensor) -> Tensor:
        """Returns the first perturbation, within the ball."""
        return torch.zeros_like(images)

    def _ahead(self, points: Tensor, direction: Tensor) -> Tensor:
        """Returns the points at which the gradient is taken, given the previous direction (zero at first)."""
        return points

    def _view(self, images: Tensor) -> Tensor:
        """Returns what the model sees of images; gradients flow through it."""
        return images

    def _direct(self, gradient: Tensor, previous: Tensor) -> Tensor:
        """Returns the direction of a step, given the gradient and the previous direction (zero at first)."""
        return gradient

    def _step(self, direction: Tensor) -> Tensor:
        """Returns the step in a direction, of size `alpha`."""
        return ascend(direction, self.alpha, self.norm)
