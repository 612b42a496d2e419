"""Boundary attack: the smallest L2 perturbation from predicted classes alone, by a random walk along the boundary.

Brendel, Rauber & Bethge, "Decision-Based Adversarial Attacks: Reliable Attacks Against Black-Box Machine Learning
Models", ICLR 2018, section 2 and Algorithm 1, https://arxiv.org/abs/1712.04248. Every image has its own step sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from purifier._options import check_integer, check_number
from purifier.attacks._balls import ascend, sizes
from purifier.attacks._decision import DecisionAttack
from purifier.attacks._progress import progress_bar
from purifier.attacks._random import normal
from purifier.attacks.base import Model, pick

# The walk of an image ends when its steps towards the image are so small a share of the distance.
_CONVERGED = 1e-7
# Every so many steps the step sizes are adapted to the shares of steps that stayed adversarial.
_PERIOD = 10
_FACTOR = 1.5


@dataclass(kw_only=True, eq=False, repr=False)
class Boundary(DecisionAttack):
    """Walks at random at a constant distance from the image, and a little closer where the model stays fooled.

    It needs predicted classes alone, so masked gradients do not stop it. It is untargeted, and takes many more queries
    than `HopSkipJump`: up to two for each step. Images that are misclassified from the start are returned unchanged,
    and so are images for which no starting noise fools the model.

    Args:
        steps: Largest number of steps.
        sideways: First size of the steps at constant distance, as a share of the distance, in (0, 1].
        closer: First size of the steps towards the image, as a share of the distance, in (0, 1].
        tries: Largest number of noise images that are tried as a start.
        share: Share of pixels to fool in a dense output, in (0, 1].
        generator: Source of randomness. None means torch's global generator.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images = torch.rand(4, 3, 8, 8)
        >>> labels = model(images).argmax(1)
        >>> adversarial = attacks.Boundary(steps=20)(model, images, labels)
        >>> adversarial.shape
        torch.Size([4, 3, 8, 8])
    """

    steps: int = 25_000
    sideways: float = 0.01
    closer: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("steps", self.steps, low=1)
        for name in ("sideways", "closer"):
            check_number(name, getattr(self, name), low=1e-6, high=1)

    def _approach(self, model: Model, images: Tensor, targets: Any, starts: Tensor) -> Tensor:
        points, left = starts.clone(), torch.arange(len(images), device=images.device)
        sizes_of_steps = _StepSizes(images, self.sideways, self.closer)
        with progress_bar(self.name, self.steps) as bar:
            for step in range(1, self.steps + 1):
                sideways, closer = (size[left].view(-1, 1, 1, 1) for size in sizes_of_steps.both)
                task = pick(targets, left, len(images))
                aside = self._aside(images[left], points[left], sideways)
                held = self._fooled(model, aside, task)
                won = held.clone()
                nearer = aside + closer * (images[left] - aside)
                tried = held.nonzero().squeeze(1)
                if len(tried):
                    won[tried] = self._fooled(model, nearer[tried], pick(task, tried, len(left)))
                points[left[won]] = nearer[won]
                sizes_of_steps.count(left, held, won)
                bar.update()
                if step % _PERIOD == 0:
                    left = left[sizes_of_steps.adapt(left)]
                    if not len(left):
                        break
        return points

    def _aside(self, images: Tensor, points: Tensor, size: Tensor) -> Tensor:
        """Returns random points at the same distance from the images, a step to the side."""
        radial = points - images
        distance = sizes(radial, "L2").view(-1, 1, 1, 1)
        unit = ascend(radial, 1.0, "L2")
        side = normal(images.shape, images, self.generator)
        side = ascend(side - (side * unit).sum((1, 2, 3), keepdim=True) * unit, 1.0, "L2")
        moved = ascend(unit + size * side, 1.0, "L2") * distance
        return (images + moved).clamp(0, 1)


class _StepSizes:
    """Step sizes of each image, and the shares of steps that stayed adversarial since they were last adapted."""

    def __init__(self, images: Tensor, sideways: float, closer: float) -> None:
        like = {"dtype": images.dtype, "device": images.device}
        self.both = [torch.full((len(images),), size, **like) for size in (sideways, closer)]  # type: ignore[call-overload]
        self._steps, self._held, self._won = torch.zeros(3, len(images), **like)  # type: ignore[call-overload]

    def count(self, index: Tensor, held: Tensor, won: Tensor) -> None:
        self._steps[index] += 1
        self._held[index] += held
        self._won[index] += won

    def adapt(self, index: Tensor) -> Tensor:
        """Changes both sizes as in section 2.4, and returns which images (M,) of the numbers `index` go on."""
        held = self._held / self._steps.clamp_min(1)
        won = self._won / self._held.clamp_min(1)
        wider = _factor(held, low=0.2, high=0.5)
        sideways, closer = self.both
        sideways[index] = (sideways * wider)[index].clamp_max(1)
        tried = torch.where(self._held > 0, _factor(won, low=0.1, high=0.25), 1)
        closer[index] = (closer * wider * tried)[index].clamp_max(0.5)
        for counter in (self._steps, self._held, self._won):
            counter.zero_()
        return closer[index] > _CONVERGED


def _factor(share: Tensor, *, low: float, high: float) -> Tensor:
    return torch.where(share > high, _FACTOR, torch.where(share < low, 1 / _FACTOR, 1.0)).to(share.dtype)
