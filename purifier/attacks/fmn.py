"""FMN: the smallest perturbation, by gradient steps inside a ball whose radius follows the boundary.

Pintor et al., "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints", NeurIPS 2021, Algorithm 1,
https://arxiv.org/abs/2102.12827. Our deviation: before an image fools the model, its radius grows by `gamma` at least.
The paper's radius is that of a linear model's boundary, and can stand still where [0, 1] clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from purifier._options import check_bool, check_integer, check_number
from purifier.attacks._balls import Norm, ascend, check_norm, project, sizes
from purifier.attacks._progress import progress_bar
from purifier.attacks._smallest import Smallest
from purifier.attacks.base import COMPUTED, Attack, Model, input_gradient
from purifier.attacks.losses import fooled
from purifier.attacks.losses import margin as logit_margin

# Where the share by which the radius changes ends.
_LAST_GAMMA = 1e-4
# Share of the first step size that the last step has.
_LAST_STEP = 0.01


@dataclass(kw_only=True, eq=False, repr=False)
class FMN(Attack):
    """Searches for the smallest perturbation in L2 or Linf, with one gradient for each step.

    The radius shrinks while the model is fooled and grows while it is not. Images that fool the model at no step are
    returned unchanged, and so are images that are misclassified from the start.

    Args:
        steps: Number of gradient steps.
        alpha: First step size: the L2 norm of the step, in units of the [0, 1] image range. It falls to a hundredth by
            a cosine.
        gamma: First share by which the radius changes, in (0, 1). It falls to 0.0001 by a cosine.
        norm: "L2" or "Linf", the norm of the perturbation that is kept small.
        targeted: Whether the model should predict `targets`, instead of anything else.
        share: Share of pixels to fool in a dense output, in (0, 1].
        margin: Maps (model output, targets) to the largest other logit minus the label's, (N,) or (N, P) for P
            places, NaN at places to ignore. None means `losses.margin` of logits (N, K) or (N, K, H, W) and labels.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images = torch.rand(4, 3, 8, 8)
        >>> labels = model(images).argmax(1)
        >>> adversarial = attacks.FMN(steps=50)(model, images, labels)
        >>> bool((model(adversarial).argmax(1) != labels).all())
        True
    """

    bounded: ClassVar[bool] = False

    steps: int = 100
    alpha: float = 1.0
    gamma: float = 0.05
    norm: Norm = "L2"
    targeted: bool = False
    share: float = 0.9
    margin: Callable[[Any, Any], Tensor] = COMPUTED

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        check_integer("steps", self.steps, low=1)
        check_number("alpha", self.alpha, low=1e-9, high=1e9)
        check_number("gamma", self.gamma, low=_LAST_GAMMA, high=0.99)
        check_number("share", self.share, low=1e-6, high=1)
        check_bool("targeted", self.targeted)
        self.margin = logit_margin if self.margin is None else self.margin

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        smallest, delta = Smallest(images, self.norm), torch.zeros_like(images)
        radius = torch.full_like(smallest.lengths, torch.inf)
        with progress_bar(self.name, self.steps) as bar:
            for step in range(self.steps + 1):
                gap, slope, won = self._look(model, images + delta, targets)
                index = won.nonzero().squeeze(1)
                smallest.update(index, (images + delta)[index], images)
                if step == self.steps:
                    break
                fallen = (1 + math.cos(math.pi * step / self.steps)) / 2
                gamma = _LAST_GAMMA + (self.gamma - _LAST_GAMMA) * fallen
                alpha = self.alpha * (_LAST_STEP + (1 - _LAST_STEP) * fallen)
                radius = self._radius(radius, gamma, smallest.lengths, won, self._reach(delta, gap, slope))
                delta = project(delta + ascend(slope, alpha, "L2"), radius.view(-1, 1, 1, 1), self.norm)
                delta = (images + delta).clamp(0, 1) - images
                bar.update()
        return smallest.images

    def _look(self, model: Model, points: Tensor, targets: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gap (N,), positive beyond the boundary, its gradient, and which points fool the model."""
        with torch.enable_grad():
            points = points.detach().requires_grad_(True)
            margins = self.margin(model(points), targets)
            margins = (-margins if self.targeted else margins).reshape(len(points), -1)
            # In a dense output, only the pixels that are still correct count.
            gap = (margins if margins.shape[1] == 1 else margins.clamp_max(0)).nanmean(1)
        return gap.detach(), input_gradient(gap, points), fooled(margins.detach(), self.share)

    def _reach(self, delta: Tensor, gap: Tensor, slope: Tensor) -> Tensor:
        """Returns the radius at which a linear model would have its boundary."""
        dual = slope.flatten(1).norm(p=2 if self.norm == "L2" else 1, dim=1)
        return sizes(delta, self.norm) + gap.abs() / dual.clamp_min(1e-12)

    def _radius(self, radius: Tensor, gamma: float, shortest: Tensor, won: Tensor, reach: Tensor) -> Tensor:
        """Returns the next radius (N,): smaller after success, larger after failure (lines 6 to 14)."""
        smaller = torch.minimum(radius * (1 - gamma), shortest)
        grown = torch.where(radius.isfinite(), radius * (1 + gamma), 0)
        larger = torch.where(shortest.isfinite(), grown, torch.maximum(grown, reach))
        return torch.where(won, smaller, larger)
