"""Wavelet denoising and super-resolution.

Mustafa et al., "Image Super-Resolution as a Defense Against Adversarial Attacks", IEEE Transactions on Image
Processing, 2019 (https://arxiv.org/abs/1901.01677): wavelet denoising, then a super-resolution network that doubles the
sides of the image. Its new detail is that of natural images.

Deviations: the network is a small residual dense network (Zhang et al., "Residual Dense Network for Image
Super-Resolution", CVPR 2018, https://arxiv.org/abs/1802.08797), not EDSR. Its output is averaged over 2 x 2 pixels,
because a purifier keeps the size of the image; the paper leaves the resizing to the classifier.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._options import LARGE, check_integer, check_number
from purifier.methods._base import Method, Stage
from purifier.methods._no_grad import by_parts
from purifier.methods._wavelets import denoised


class DenseLayer(nn.Module):
    """Adds new features, joins them with the old ones by a 1 x 1 convolution, and adds the input."""

    def __init__(self, filters: int, growth: int) -> None:
        super().__init__()
        self.grow = nn.Conv2d(filters, growth, 3, padding=1)
        self.join = nn.Conv2d(filters + growth, filters, 1)

    def forward(self, features: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat((features, F.relu(self.grow(features))), 1))
        return joined + features


class SuperResolution(nn.Module):
    """Maps images (N, 3, H, W) in [0, 1] to (N, 3, 2 H, 2 W), not clamped."""

    def __init__(self, filters: int, growth: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, filters, 3, padding=1)
        self.second = nn.Conv2d(filters, filters, 3, padding=1)
        self.layers = nn.ModuleList(DenseLayer(filters, growth) for _ in range(layers))
        self.fuse = nn.Sequential(
            nn.Conv2d(layers * filters, filters, 1),
            nn.Conv2d(filters, filters, 3, padding=1),
        )
        self.head = nn.Sequential(
            nn.Conv2d(filters, 64, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 12, 3, padding=1),
        )
        self.last = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        features, seen = self.second(first), []
        for layer in self.layers:
            features = layer(features)
            seen.append(features)
        head = self.head(self.fuse(torch.cat(seen, 1)) + first)
        out: Tensor = self.last(F.interpolate(head, scale_factor=2.0, mode="nearest"))
        return out


class WaveletSR(Method):
    """Denoises by wavelets, doubles the sides by a network, and averages back to the size of the image.

    Args:
        sigma: Standard deviation of the noise that the wavelets remove, in units of the [0, 1] range. 0 means none.
        levels: Scales of the wavelets.
        filters: Width of the network.
        growth: Features that each dense layer adds.
        layers: Number of dense layers.
    """

    tunable = ("sigma", "levels")

    def __init__(
        self, *, sigma: float = 0.08, levels: int = 4, filters: int = 64, growth: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        self.sigma = check_number("sigma", sigma, low=0, high=1)
        self.levels = check_integer("levels", levels, low=1, high=8)
        self.filters = check_integer("filters", filters, low=1, high=1024, why=LARGE)
        self.growth = check_integer("growth", growth, low=1, high=1024, why=LARGE)
        self.layers = check_integer("layers", layers, low=1, high=64, why=LARGE)
        self.network = SuperResolution(filters, growth, layers)

    @property
    def options(self) -> dict[str, Any]:
        size = {"filters": self.filters, "growth": self.growth, "layers": self.layers}
        return {"sigma": self.sigma, "levels": self.levels, **size}

    def stages(self) -> list[Stage]:
        # Thresholds depend on the whole image. Each 3 x 3 convolution reaches one pixel further, the 5 x 5 one two.
        return [Stage(self._denoised, halo=None), Stage(self._redrawn, halo=self.layers + 8)]

    def _denoised(self, images: Tensor) -> Tensor:
        if not self.sigma:
            return images
        # Squares of details are too small for half precision.
        exact = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
        return denoised(exact, self.sigma, self.levels).to(images.dtype)

    def _redrawn(self, images: Tensor) -> Tensor:
        return by_parts(self._doubled_and_averaged, images)

    def _doubled_and_averaged(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(self.network(images.contiguous(memory_format=torch.channels_last)), 2)
