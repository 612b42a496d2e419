"""HopSkipJump: the smallest perturbation from predicted classes alone, with gradients estimated at the boundary.

Chen, Jordan & Wainwright, "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack", IEEE S&P 2020, Algorithm 2,
https://arxiv.org/abs/1904.02144. Our deviation: the radius of the probes and the precision of the binary search are
shares of the distance (`gamma`). The paper's shares fall with the number of pixels, for photographs below the rounding
of single precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from purifier._options import check_integer, check_number
from purifier.attacks._balls import Norm, ascend, check_norm, sizes
from purifier.attacks._decision import DecisionAttack
from purifier.attacks._progress import progress_bar
from purifier.attacks._random import normal, uniform
from purifier.attacks._smallest import Smallest
from purifier.attacks.base import Model, pick

# Images in one call of the model.
_CALL = 64
# A jump is halved at most so often, and so often the interval of a binary search.
_HALVINGS = 25


@dataclass(kw_only=True, eq=False, repr=False)
class HopSkipJump(DecisionAttack):
    """Goes to the decision boundary, estimates its normal from random probes, jumps along it, and goes back.

    It needs predicted classes alone, so masked gradients do not stop it. It is untargeted. Images that are
    misclassified from the start are returned unchanged, and so are images for which no starting noise fools the model.

    Args:
        steps: Number of jumps.
        samples: Number of probes of the first estimate. Estimate t takes `samples` * sqrt(t).
        max_samples: Largest number of probes of an estimate.
        norm: "L2" or "Linf", the norm of the perturbation that is kept small.
        gamma: Radius of the probes as a share of the distance to the image, in (0, 1].
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
        >>> adversarial = attacks.HopSkipJump(steps=2, samples=20)(model, images, labels)
        >>> adversarial.shape
        torch.Size([4, 3, 8, 8])
    """

    steps: int = 64
    samples: int = 100
    max_samples: int = 10_000
    norm: Norm = "L2"
    gamma: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        for name in ("steps", "samples", "max_samples"):
            check_integer(name, getattr(self, name), low=1)
        check_number("gamma", self.gamma, low=1e-6, high=1)

    def _approach(self, model: Model, images: Tensor, targets: Any, starts: Tensor) -> Tensor:
        smallest, every = Smallest(images, self.norm), torch.arange(len(images), device=images.device)
        points = self._to_boundary(model, images, targets, starts)
        smallest.update(every, points, images)
        with progress_bar(self.name, self.steps) as bar:
            for step in range(1, self.steps + 1):
                distance = sizes(points - images, self.norm).view(-1, 1, 1, 1)
                # Far from the image at first, where the paper's code probes a tenth of the range of values.
                radius = torch.full_like(distance, 0.1) if step == 1 else self.gamma * distance
                count = min(self.max_samples, int(self.samples * math.sqrt(step)))
                normals = self._normals(model, points, targets, radius, count)
                points = self._jump(model, points, targets, normals, distance / math.sqrt(step))
                points = self._to_boundary(model, images, targets, points)
                smallest.update(every, points, images)
                bar.update()
        return smallest.images

    def _between(self, images: Tensor, points: Tensor, fraction: Tensor) -> Tensor:
        """Moves points towards the images until a fraction (N,) of their distance is left."""
        fraction = fraction.view(-1, 1, 1, 1)
        if self.norm == "L2":
            return images + fraction * (points - images)
        reach = fraction * sizes(points - images, self.norm).view(-1, 1, 1, 1)
        return images + torch.minimum(torch.maximum(points - images, -reach), reach)

    def _to_boundary(self, model: Model, images: Tensor, targets: Any, points: Tensor) -> Tensor:
        """Moves adversarial points as close to the images as they stay adversarial, by bisection."""
        values = images[0].numel()
        precision = self.gamma / (math.sqrt(values) if self.norm == "L2" else values)
        low = torch.zeros(len(images), dtype=images.dtype, device=images.device)
        high = torch.ones_like(low)
        best = points
        for _ in range(min(_HALVINGS, math.ceil(-math.log2(precision)))):
            middle = (low + high) / 2
            tried = self._between(images, points, middle)
            won = self._fooled(model, tried, targets)
            best = torch.where(won.view(-1, 1, 1, 1), tried, best)
            low, high = torch.where(won, low, middle), torch.where(won, middle, high)
        return best

    def _normals(self, model: Model, points: Tensor, targets: Any, radius: Tensor, count: int) -> Tensor:
        """Estimates the directions into the adversarial region (eq. 9 and 13)."""
        won = torch.zeros((len(points), 1, 1, 1), dtype=points.dtype, device=points.device)
        probes, inside = torch.zeros_like(points), torch.zeros_like(points)
        left = count
        while left:
            together = min(left, max(1, _CALL // len(points)))
            signs, moved = self._probe(model, points, targets, radius, together)
            won += signs.sum(1)
            probes += moved.sum(1)
            inside += (signs * moved).sum(1)
            left -= together
        mean = won / count
        same = mean.abs() == 1
        # Probes that all agree say nothing beside their own mean.
        return torch.where(same, mean * probes, inside - mean * probes)

    def _probe(self, model: Model, points: Tensor, targets: Any, radius: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Returns signs (N, count, 1, 1, 1), 1 for adversarial, and displacements (N, count, C, H, W) of probes."""
        shape = (len(points) * count, *points.shape[1:])
        if self.norm == "L2":
            moves = ascend(normal(shape, points, self.generator), 1.0, "L2")
        else:
            moves = 2 * uniform(shape, points, self.generator) - 1
        index = torch.arange(len(points), device=points.device).repeat_interleave(count)
        tried = (points[index] + radius[index] * moves).clamp(0, 1)
        won = self._fooled(model, tried, pick(targets, index, len(points)))
        signs = torch.where(won, 1.0, -1.0).to(points.dtype).view(len(points), count, 1, 1, 1)
        moved = (tried - points[index]) / radius[index]
        return signs, moved.view(len(points), count, *points.shape[1:])

    def _jump(self, model: Model, points: Tensor, targets: Any, normals: Tensor, lengths: Tensor) -> Tensor:
        """Moves points along the normals, by the longest of the lengths, halved anew, that stays adversarial."""
        moved, left = points.clone(), torch.arange(len(points), device=points.device)
        directions = ascend(normals, 1.0, self.norm)
        for halving in range(_HALVINGS):
            tried = (points[left] + lengths[left] / 2**halving * directions[left]).clamp(0, 1)
            won = self._fooled(model, tried, pick(targets, left, len(points)))
            moved[left[won]] = tried[won]
            left = left[~won]
            if not len(left):
                break
        return moved
