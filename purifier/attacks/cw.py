"""C&W L2: the smallest perturbation, by gradient descent on its length plus a hinge on the margin.

Carlini & Wagner, "Towards Evaluating the Robustness of Neural Networks", IEEE S&P 2017, section V.A with the
objective f6 and the binary search over c of section VI.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._options import check_bool, check_integer
from purifier.attacks._active import pick
from purifier.attacks._progress import progress_bar
from purifier.attacks.base import Attack, Model, input_gradient
from purifier.attacks.losses import margin as logit_margin

# Keeps arctanh finite on black and white.
_INSIDE = 1 - 1e-6
_BETAS, _TINY = (0.9, 0.999), 1e-8
# Share of `steps` after which an objective that has not fallen is given up.
_PATIENCE = 10


class CW(Attack):
    """Looks for the smallest L2 perturbation that fools the model, with Adam in tanh space.

    Images that are not fooled in any round come back as they were. A dense output is attacked through the mean over its
    pixels of the hinge, and counts as fooled when `share` of the pixels that count are. Pixels that are black or white
    move slowly in tanh space: give an image of many of those a larger `alpha` or more steps.

    Args:
        steps: Gradient steps in each round of the search, at most; an image whose objective stops falling leaves early.
        alpha: Step size of Adam, in tanh space.
        c: Weight of the hinge in the first round.
        search: Rounds of the binary search over c, per image; 1 takes `c` as it is.
        kappa: Margin in logits by which an image must be fooled.
        targeted: Whether `targets` is where to go instead of what to leave.
        share: Share of pixels to fool where outputs are dense, in (0, 1].
        margin: Maps (model output, targets) to the largest other logit minus the label's, (N,) or (N, P) for P
            places, NaN where one does not count; for logits (N, K) or (N, K, H, W) and labels where None.

    Raises:
        OptionError: Where an option is out of its range.

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

    def __init__(
        self,
        *,
        steps: int = 1000,
        alpha: float = 0.01,
        c: float = 1e-3,
        search: int = 9,
        kappa: float = 0.0,
        targeted: bool = False,
        share: float = 0.9,
        margin: Callable[[Any, Any], Tensor] | None = None,
    ) -> None:
        if not (alpha > 0 and c > 0 and kappa >= 0 and 0 < share <= 1):
            raise OptionError(
                "expected alpha > 0, c > 0, kappa >= 0 and share in (0, 1], got "
                f"alpha={alpha}, c={c}, kappa={kappa}, share={share}"
            )
        self.steps = check_integer("steps", steps, low=1)
        self.alpha = alpha
        self.c = c
        self.search = check_integer("search", search, low=1)
        self.kappa = kappa
        self.targeted = check_bool("targeted", targeted)
        self.share = share
        self.margin: Callable[[Any, Any], Tensor] = logit_margin if margin is None else margin

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        smallest = _Smallest(images)
        c = torch.full((len(images),), self.c, dtype=images.dtype, device=images.device)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        with progress_bar(self.name, self.search * self.steps) as bar:
            for _ in range(self.search):
                found = self._descend(model, images, targets, c, smallest, bar)
                low, high = torch.where(found, low, torch.maximum(low, c)), torch.where(found, c.minimum(high), high)
                c = torch.where(high.isinf(), 10 * c, (low + high) / 2)
        return smallest.images

    def _descend(self, model: Model, images: Tensor, targets: Any, c: Tensor, smallest: _Smallest, bar: Any) -> Tensor:
        """One round: returns which images (N,) were fooled, and keeps the smallest perturbations."""
        adam = _Adam(torch.atanh((2 * images - 1) * _INSIDE), self.alpha)
        found = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        # An image whose objective has not fallen for a while is left out, alone: others go on as if it were not there.
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
        """Returns the points, the objective, its gradient with respect to `places`, and who is fooled."""
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


class _Smallest:
    """The smallest perturbation that fooled the model, for each image; none at first."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self._length = torch.full((len(images),), torch.inf, dtype=images.dtype, device=images.device)

    def update(self, index: Tensor, points: Tensor, images: Tensor) -> None:
        length = (points - images[index]).flatten(1).norm(dim=1)
        smaller = length < self._length[index]
        self._length[index[smaller]] = length[smaller]
        self.images[index[smaller]] = points[smaller]


@dataclass
class _Adam:
    """Adam (Kingma & Ba, 2015, Algorithm 1) on some images of a batch at a time."""

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
