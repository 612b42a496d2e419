"""Random resizing and padding.

Xie et al., "Mitigating Adversarial Effects Through Randomization", ICLR 2018, section 3
(https://arxiv.org/abs/1711.01991): an image is resized to a random size and padded with zeros at random places.

Our deviation: the output has the size of the input, so the image is shrunk. The paper enlarges images of 299 pixels to
between 299 and 331, and pads them to 331 pixels; as shares of the larger side, these are our defaults. Interpolation is
by nearest neighbours.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._options import check_number
from purifier.methods._base import Method, Stage


class RandomResizePad(Method):
    """Shrinks each image by a random factor and puts it at a random place on black. New in every call; gradients flow.

    Contents move: it is for classifiers, and boxes and masks would be wrong.

    Args:
        least: Smallest side of the shrunk image, as a share of the side of the original, in (0, 1].
    """

    random = True
    tunable = ("least",)
    export_obstacle = "its sizes and places are drawn by torch"

    def __init__(self, *, least: float = 299 / 331) -> None:
        super().__init__()
        self.least = check_number("least", least, low=0.01, high=1)
        self.generator: torch.Generator | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {"least": self.least}

    def stages(self) -> list[Stage]:
        return [Stage(self._moved, halo=None)]

    def _moved(self, images: Tensor) -> Tensor:
        return torch.stack([self._one(image) for image in images])

    def _one(self, image: Tensor) -> Tensor:
        """Shrinks and moves an image (C, H, W)."""
        height, width = image.shape[-2:]
        # One draw for both sides, so that the shape is kept.
        size, down, right = self._draws()
        share = self.least + (1 - self.least) * size
        small = (_at_least_one(height * share), _at_least_one(width * share))
        shrunk = F.interpolate(image[None], small, mode="nearest-exact")[0]
        top, left = math.floor((1 + height - small[0]) * down), math.floor((1 + width - small[1]) * right)
        return F.pad(shrunk, (left, width - small[1] - left, top, height - small[0] - top))

    def _draws(self) -> list[float]:
        """Three numbers in [0, 1)."""
        device = "cpu" if self.generator is None else self.generator.device
        found: list[float] = torch.rand(3, generator=self.generator, device=device, dtype=torch.float64).tolist()
        return found


def _at_least_one(side: float) -> int:
    return max(1, round(side))
