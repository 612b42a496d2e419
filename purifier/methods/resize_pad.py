"""Resizing: the part of resizing and padding that keeps contents in place.

Xie et al., "Mitigating Adversarial Effects Through Randomization", ICLR 2018 (https://arxiv.org/abs/1711.01991), shrink
an image and pad it with zeros to its old size, at random. That moves the contents, so boxes and masks would be wrong.
Ours enlarges the image again instead of padding it, and is not random.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._options import check_number
from purifier.methods._base import Method, Stage


class ResizePad(Method):
    """Shrinks by `scale` (bilinear, anti-aliased) and enlarges again (bilinear). Contents stay in place.

    Args:
        scale: Side of the small image, as a share of the side of the original, in (0, 1].
    """

    tunable = ("scale",)

    def __init__(self, *, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = check_number("scale", scale, low=0.01, high=1)

    @property
    def options(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def stages(self) -> list[Stage]:
        return [Stage(self._resample, halo=None)]

    def _resample(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        smaller = (max(1, round(height * self.scale)), max(1, round(width * self.scale)))
        # In single precision or better: on the CPU, torch cannot resample float16 with anti-aliasing.
        precise = images.to(torch.promote_types(images.dtype, torch.float32))
        down = F.interpolate(precise, smaller, mode="bilinear", antialias=True, align_corners=False)
        return F.interpolate(down, (height, width), mode="bilinear", align_corners=False).to(images.dtype)
