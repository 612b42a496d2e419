"""Resizing: the part of resizing and padding that leaves contents in place.

Xie et al., "Mitigating Adversarial Effects Through Randomization", ICLR 2018, shrink an image and pad it with zeros
back to its size, which moves its contents. A purifier must not move them, or boxes and masks would be off, so ours
enlarges again instead of padding: the shift is undone and the loss of fine detail stays. It is not random.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._options import check_number
from purifier.methods._base import Method, Stage


class ResizePad(Method):
    """Shrinks by `scale` (bilinear, anti-aliased) and enlarges again (bilinear); contents stay in place.

    Args:
        scale: Side of the smaller image over that of the larger, in (0, 1].
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
        # In single precision at least: torch resamples float16 with anti-aliasing on GPUs only.
        precise = images.to(torch.promote_types(images.dtype, torch.float32))
        down = F.interpolate(precise, smaller, mode="bilinear", antialias=True, align_corners=False)
        return F.interpolate(down, (height, width), mode="bilinear", align_corners=False).to(images.dtype)
