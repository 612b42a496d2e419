"""How much of an image should be purified at each of its places: all where it looks attacked, nothing where not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier.methods._borders import crop, reflect_pad
from purifier.methods._no_grad import by_parts
from purifier.methods.gs import GaussianSmoothing
from purifier.methods.nrp import ResidualBlock

# Brings the grain of images to a scale that a network learns from.
_GAIN = 16
# Logits of places as near as this, in cells, are averaged: a perturbation covers more than one of them.
_RADIUS = 4


class Gate(nn.Module):
    """Maps images (N, 3, H, W) to weights (N, 1, H, W) in [0, 1]: 1 where they look attacked, 0 where they do not.

    That a purifier may be kept off images that nobody attacked is an idea of Meng and Chen, "MagNet: a Two-Pronged
    Defense against Adversarial Examples", CCS 2017, whose detectors refuse an image; here each place of it has a weight
    of its own. What it sees is what a pass of GS takes out of the image: the grain, in which an attack and a picture
    differ, without the picture. Sizes that the cell does not divide are padded by reflection.

    Args:
        filters: Width; twice as many for the last two layers.
        blocks: Residual blocks at half the height and width, where grain is still at its finest: the more, the fainter
            the attacks that they can tell from it.
    """

    # The side of the squares that a logit is for.
    cell = 8

    def __init__(self, filters: int, blocks: int = 0) -> None:
        super().__init__()
        self.filters = filters
        self.blocks = blocks
        self.smoothing = GaussianSmoothing(iterations=1)
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, filters, 3, padding=1),
            nn.ReLU(),
            *(ResidualBlock(filters) for _ in range(blocks)),
            nn.Conv2d(filters, filters, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(filters, 2 * filters, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * filters, 2 * filters, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * filters, 1, 1),
        )
        for layer in self.layers.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for layer in self.layers:
            if isinstance(layer, ResidualBlock):
                # Nothing comes of a block at first, or every one of them would double what goes through.
                nn.init.zeros_(layer.conv2.weight)

    @property
    def halo(self) -> int:
        """How far, in pixels, a weight looks."""
        # Half a cell of the interpolation, _RADIUS cells of the average, a cell of the last 3 x 3 convolution, one
        # position each of the other three, at strides of 4, 2 and 2 pixels, two of every block, and two of GS.
        return self.cell // 2 - 1 + (1 + _RADIUS + 1) * self.cell + 4 + 2 + 2 + 4 * self.blocks + 2

    def smoothed(self, images: Tensor) -> Tensor:
        """A pass of GS; never in half precision, whose rounding would look like an attack."""
        device = images.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.smoothed(images)
        return self.smoothing(_exact(images))

    def logits(self, images: Tensor, smoothed: Tensor | None = None) -> Tensor:
        """Logits (N, 1, ceil(H / 8), ceil(W / 8)) of being attacked, of every cell and its neighbours."""
        height, width = images.shape[-2:]
        grain = _GAIN * (_exact(images) - (self.smoothed(images) if smoothed is None else smoothed))
        # Of positive numbers only: integer division rounds negative ones otherwise in other runtimes.
        bottom, right = ((size + self.cell - 1) // self.cell * self.cell - size for size in (height, width))
        padded = reflect_pad(grain.to(images.dtype), 0, right, 0, bottom).contiguous(memory_format=torch.channels_last)
        cells = by_parts(self.layers, padded)
        return F.avg_pool2d(cells, 2 * _RADIUS + 1, stride=1, padding=_RADIUS, count_include_pad=False)

    def forward(self, images: Tensor, gate_bias: float = 0.0, smoothed: Tensor | None = None) -> Tensor:
        """Weights of every place; `gate_bias` is added to the logits, `smoothed` is the pass of GS where it is known."""
        height, width = images.shape[-2:]
        cells = (self.logits(images, smoothed) + gate_bias).sigmoid()
        return crop(F.interpolate(cells, scale_factor=float(self.cell), mode="bilinear"), height, width)


def _exact(images: Tensor) -> Tensor:
    return images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
