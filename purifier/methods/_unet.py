"""A residual network at several scales (a U-Net)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from purifier.methods.nrp import ResidualBlock


class Scales(nn.Module):
    """Maps features (N, C, H, W) to the same shape, through scales of 1, 1/2, 1/4, ... of both sides.

    It is a U-Net (Ronneberger et al., MICCAI 2015, https://arxiv.org/abs/1505.04597), like the denoiser of Liao et al.,
    "Defense against Adversarial Attacks Using High-Level Representation Guided Denoiser", CVPR 2018
    (https://arxiv.org/abs/1712.02976). Ours has residual blocks instead of convolutions, and its skip connections are
    added instead of concatenated. H and W must be divisible by 2**(levels - 1).

    Args:
        channels: C.
        filters: Width at the finest scale. It doubles with every coarser scale.
        blocks: Residual blocks on the way down and on the way up, at each scale. The coarsest has twice as many.
        levels: Number of scales, at least 2.
    """

    def __init__(self, channels: int, filters: int, blocks: int, levels: int) -> None:
        super().__init__()
        *widths, widest = [filters * 2**level for level in range(levels)]
        self.first = nn.Conv2d(channels, filters, 3, padding=1)
        self.before = nn.ModuleList(_residual(width, blocks) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, stride=2) for width in widths)
        self.coarsest = _residual(widest, 2 * blocks)
        self.up = nn.ModuleList(nn.Conv2d(2 * width, 4 * width, 1) for width in widths)
        self.after = nn.ModuleList(_residual(width, blocks) for width in widths)
        self.last = nn.Conv2d(filters, channels, 3, padding=1)

    def forward(self, patches: Tensor) -> Tensor:
        features, passed = self.first(patches), []
        for before, down in zip(self.before, self.down, strict=True):
            features = before(features)
            passed.append(features)
            features = down(features)
        features = self.coarsest(features)
        for up, after in zip(reversed(self.up), reversed(self.after), strict=True):
            features = after(passed.pop() + F.pixel_shuffle(up(features), 2))
        out: Tensor = self.last(features)
        return out


def _residual(filters: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(filters) for _ in range(blocks)))
