"""C&W L2: the smallest perturbation, by gradient descent on its length plus a hinge on the margin.

Carlini & Wagner, "Towards Evaluating the Robustness of Neural Networks", IEEE S&P 2017, section V.A with the
objective f6, and the binary search over c of section VI, https://arxiv.org/abs/1608.04644.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._options import check_bool, check_integer
from purifier.attacks._progress import progress_bar
from purifier.attacks._smallest import Smallest
from purifier.attacks.base import COMPUTED, Attack, Model, input_gradient, pick
from purifier.attacks.losses import margin as logit_margin

# Keeps arctanh finite on black and white.
_INSIDE = 1 - 1e-6
_BETAS, _TINY = (0.9, 0.999), 1e-8
# An image ends its round when its objective has not fallen for a tenth of `steps`.
_PATIENCE = 10


@dataclass(kw_only=True, eq=False, repr=False)
class CW(Attack):
    """Searches for the smallest L2 perturbation that fools the model, with Adam in tanh space.

    Images that fool the model in no round are returned unchanged. For a dense output (that of a segmenter), the hinge
    is averaged over the pixels, and an image counts as fooled if `share` of its valid pixels are. Black and white
    pixels move slowly in tanh space: use a larger `alpha` or more steps for images with many of them.

    Args:
        steps: Largest number of gradient steps in each round. An image whose objective stops falling ends earlier.
        alpha: Step size of Adam, in tanh space.
        c: Weight of the hinge in the first round.
        search: Rounds of the binary search over c, for each image. With 1, `c` is used as it is.
        kappa: Margin in logits by which an image must be fooled.
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
        >>> adversarial = attacks.CW(steps=100, search=4, c=1.0)(model, images, labels)
        >>> bool((model(adversarial).argmax(1) != labels).all())
        True
    """

    bounded: ClassVar[bool] = False

    steps: int = 1000
    alpha: float = 0.01
    c: float = 1e-3
    search: int = 9
    kappa: float = 0.0
    targeted: bool = False
    share: float = 0.9
    margin: Callable[[Any, Any], Tensor] = COMPUTED

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.alpha > 0 and self.c > 0 and self.kappa >= 0 and 0 < self.share <= 1):
            raise OptionError(
                "expected alpha > 0, c > 0, kappa >= 0 and share in (0, 1], got "
                f"alpha={self.alpha}, c={self.c}, kappa={self.kappa}, share={self.share}"
            )
        check_integer("steps", self.steps, low=1)
        check_integer("search", self.search, low=1)
        check_bool("targeted", self.targeted)
        self.margin = logit_margin if self.margin is None else self.margin

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        smallest = Smallest(images, "L2")
        c = torch.full((len(images),), self.c, dtype=images.dtype, device=images.device)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        with progress_bar(self.name, self.search * self.steps) as bar:
            for _ in range(self.search):
                found = self._descend(model, images, targets, c, smallest, bar)
                low, high = torch.where(found, low, torch.maximum(low, c)), torch.where(found, c.minimum(high), high)
                c = torch.where(high.isinf(), 10 * c, (low + high) / 2)
        return smallest.images

    def _descend(self, model: Model, images: Tensor, targets: Any, c: Tensor, smallest: Smallest, bar: Any) -> Tensor:
        """Runs one round, updates `smallest`, and returns which images (N,) fooled the model."""
        adam = _Adam(torch.atanh((2 * images - 1) * _INSIDE), self.alpha)
        found = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        # Images that end early leave the batch; the others are not affected.
        left = torch.arange(len(images), device=images.device)
        before = torch.full_like(c, torch.inf)
        for step in range(1, self.steps + 1):
            task = pick(targets, left, len(images))
            points, objective, gradient, won = self._look(model, images[left], task, adam.places[left], c[left])
            smallest.update(left[won], points[won], images)
            found[left[won]] = True
            adam.step(left, gradient, step)
            bar.update()
            if step % max(1, self.steps // _PATIENCE) == 0:
                falls = objective < 0.9999 * before[left]
                before[left] = objective
                left = left[falls]
                if not len(left):
                    bar.update(self.steps - step)
                    break
        return found

    def _look(
        self, model: Model, images: Tensor, targets: Any, places: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the points, the objective, its gradient with respect to `places`, and which points fool the model."""
        with torch.enable_grad():
            places = places.detach().requires_grad_(True)
            points = (places.tanh() + 1) / 2
            margins = self.margin(model(points), targets)
            margins = (-margins if self.targeted else margins).reshape(len(images), -1)
            counted = ~margins.isnan()
            hinge = torch.where(counted, (self.kappa - margins).clamp_min(0), 0).sum(1) / counted.sum(1).clamp_min(1)
            weighted = c * hinge
        gradient = input_gradient(weighted, places)
        points = points.detach()
        # The gradient of the squared length: d points / d places is (1 - tanh^2) / 2.
        gradient += (points - images) * (1 - places.detach().tanh().square())
        objective = (points - images).square().flatten(1).sum(1) + weighted.detach()
        return points, objective, gradient, self._won(margins.detach(), counted)

    def _won(self, margins: Tensor, counted: Tensor) -> Tensor:
        won = ((margins > 0) & (margins >= self.kappa)).sum(1)
        return (won > 0) & (won >= self.share * counted.sum(1))


@dataclass
class _Adam:
    """Adam (Kingma & Ba, ICLR 2015, Algorithm 1, https://arxiv.org/abs/1412.6980) on part of a batch at a time."""

    places: Tensor
    alpha: float

    def __post_init__(self) -> None:
        self._mean, self._square = torch.zeros_like(self.places), torch.zeros_like(self.places)

    def step(self, index: Tensor, gradient: Tensor, count: int) -> None:
        first, second = _BETAS
        self._mean[index] = first * self._mean[index] + (1 - first) * gradient
        self._square[index] = second * self._square[index] + (1 - second) * gradient.square()
        mean = self._mean[index] / (1 - first**count)
        square = self._square[index] / (1 - second**count)
        self.places[index] -= self.alpha * mean / (square.sqrt() + _TINY)
