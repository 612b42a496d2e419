"""A model that was trained on normalised images, as one of images in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Normalised(nn.Module):
    """A model that takes images in [0, 1] and normalises them itself; gradients flow exactly.

    Args:
        net: Takes normalised images.
        mean: Mean of each channel, in [0, 1] units.
        std: Standard deviation of each channel, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Any:
        return self.net((images - self.mean) / self.std)
