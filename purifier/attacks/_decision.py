"""DecisionAttack: attacks that see the predicted class alone, neither scores nor gradients."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._options import check_integer, check_number
from purifier.attacks._random import integers, uniform
from purifier.attacks.base import Attack, Model, pick
from purifier.attacks.losses import fooled, margin

# Sides of the noise's blocks: 1, 2, 4, 8 or 16 pixels.
_COARSEST = 4


@dataclass(kw_only=True, eq=False, repr=False)
class DecisionAttack(Attack):
    """Starts at noise that fools the model and comes closer to the image while the model stays fooled.

    Images that are misclassified from the start are returned unchanged, and so are images for which no noise is found.

    Args:
        tries: Largest number of noise images that are tried as a start.
        share: Share of pixels to fool in a dense output, in (0, 1].
    """

    gradient: ClassVar[bool] = False
    bounded: ClassVar[bool] = False

    tries: int = 100
    share: float = 0.9
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("tries", self.tries, low=1)
        check_number("share", self.share, low=1e-6, high=1)

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        found = images.clone()
        left = (~self._fooled(model, images, targets)).nonzero().squeeze(1)
        starts, ready = self._starts(model, images[left], pick(targets, left, len(images)))
        left, starts = left[ready], starts[ready]
        if len(left):
            found[left] = self._approach(model, images[left], pick(targets, left, len(images)), starts)
        return found

    @abstractmethod
    def _approach(self, model: Model, images: Tensor, targets: Any, starts: Tensor) -> Tensor:
        """Returns adversarial images near `images`, given adversarial `starts` (N, C, H, W), N > 0."""

    def _fooled(self, model: Model, points: Tensor, targets: Any) -> Tensor:
        """Returns which points (N,) fool the model."""
        return fooled(margin(model(points), targets), self.share)

    def _starts(self, model: Model, images: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
        """Returns noise images, and which of them (N,) fool the model."""
        starts, ready = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
        for _ in range(self.tries):
            left = (~ready).nonzero().squeeze(1)
            if not len(left):
                break
            noise = self._noise(images[left])
            won = self._fooled(model, noise, pick(targets, left, len(images)))
            starts[left[won]], ready[left[won]] = noise[won], True
        return starts, ready

    def _noise(self, images: Tensor) -> Tensor:
        """Draws uniform noise in blocks. Models call fine noise one class, which coarser noise may leave."""
        side = 2 ** int(integers(1, _COARSEST, images, self.generator))
        height, width = images.shape[-2:]
        blocks = uniform((*images.shape[:2], -(-height // side), -(-width // side)), images, self.generator)
        return F.interpolate(blocks, scale_factor=side)[..., :height, :width]
