"""NRP: the neural representation purifier, in its two published sizes.

Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020, sections 3 and 4.1
(https://arxiv.org/abs/2006.04924). The smaller one, "NRP (resG)", was published with the paper's code,
https://github.com/Muzammal-Naseer/NRP. Attribute names are those of the published checkpoints, so that their state
dicts load unchanged. No skip connection runs from input to output, because it would pass the perturbation on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._options import LARGE, SLOW, check_integer
from purifier.methods._base import Method, Stage
from purifier.methods._no_grad import by_parts, may_overwrite


def _conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def _add(features: Tensor, change: Tensor, share: float, overwrite: bool) -> Tensor:
    """Returns features + share * change, in place of `change` if `overwrite` is True."""
    if not overwrite:
        return features + (change if share == 1 else share * change)
    return (change if share == 1 else change.mul_(share)).add_(features)


class DenseBlock(nn.Module):
    """Five convolutions on all earlier features. The output of the last, times 0.2, is added to the input."""

    def __init__(self, filters: int, growth: int) -> None:
        super().__init__()
        self.conv1 = _conv(filters, growth)
        self.conv2 = _conv(filters + growth, growth)
        self.conv3 = _conv(filters + 2 * growth, growth)
        self.conv4 = _conv(filters + 3 * growth, growth)
        self.conv5 = _conv(filters + 4 * growth, filters)

    def forward(self, features: Tensor) -> Tensor:
        overwrite, seen = may_overwrite(), features
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            # Not slices of one buffer, because a convolution would copy each slice.
            seen = torch.cat((seen, F.leaky_relu(conv(seen), 0.2, inplace=overwrite)), 1)
        return _add(features, self.conv5(seen), 0.2, overwrite)


class BasicBlock(nn.Module):
    """Three dense blocks in sequence, times 0.2, plus the input."""

    def __init__(self, filters: int, growth: int) -> None:
        super().__init__()
        self.RDB1 = DenseBlock(filters, growth)
        self.RDB2 = DenseBlock(filters, growth)
        self.RDB3 = DenseBlock(filters, growth)

    def forward(self, features: Tensor) -> Tensor:
        return _add(features, self.RDB3(self.RDB2(self.RDB1(features))), 0.2, may_overwrite())


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, plus the input; no normalisation."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.conv1 = _conv(filters, filters)
        self.conv2 = _conv(filters, filters)

    def forward(self, features: Tensor) -> Tensor:
        overwrite = may_overwrite()
        return _add(features, self.conv2(F.relu(self.conv1(features), inplace=overwrite)), 1, overwrite)


class NRP(Method):
    """The full purifier: dense blocks, 16,550,275 parameters.

    Args:
        filters: Width of the trunk.
        blocks: Number of basic blocks.
        growth: Number of features that each convolution of a dense block adds.
    """

    def __init__(self, *, filters: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()
        self.filters = check_integer("filters", filters, low=1, high=1024, why=LARGE)
        self.blocks = check_integer("blocks", blocks, low=1, high=64, why=SLOW)
        self.growth = check_integer("growth", growth, low=1, high=1024, why=LARGE)
        self.conv_first = _conv(3, filters)
        self.RRDB_trunk = nn.Sequential(*(BasicBlock(filters, growth) for _ in range(blocks)))
        self.trunk_conv = _conv(filters, 3)

    @property
    def options(self) -> dict[str, Any]:
        return {"filters": self.filters, "blocks": self.blocks, "growth": self.growth}

    def stages(self) -> list[Stage]:
        return [Stage(self.purify, halo=15 * self.blocks + 2)]

    def purify(self, images: Tensor) -> Tensor:
        """Applies the network. The output is not clamped."""
        return by_parts(self._purify, images)

    def _purify(self, images: Tensor) -> Tensor:
        features = self.conv_first(images.contiguous(memory_format=torch.channels_last))
        for block in self.RRDB_trunk:
            # Block by block, so that earlier features are freed.
            features = block(features)
        out: Tensor = self.trunk_conv(features)
        return out


class NRPResG(Method):
    """The small purifier, "NRP (resG)": residual blocks, 1,702,211 parameters.

    Args:
        filters: Width of the trunk.
        blocks: Number of residual blocks.
    """

    def __init__(self, *, filters: int = 64, blocks: int = 23) -> None:
        super().__init__()
        self.filters = check_integer("filters", filters, low=1, high=1024, why=LARGE)
        self.blocks = check_integer("blocks", blocks, low=1, high=64, why=SLOW)
        self.conv_first = _conv(3, filters)
        self.recon_trunk = nn.Sequential(*(ResidualBlock(filters) for _ in range(blocks)))
        self.conv_last = _conv(filters, 3)

    @property
    def options(self) -> dict[str, Any]:
        return {"filters": self.filters, "blocks": self.blocks}

    def stages(self) -> list[Stage]:
        return [Stage(self.purify, halo=2 * self.blocks + 2)]

    def purify(self, images: Tensor) -> Tensor:
        """Applies the network. The output is not clamped."""
        return by_parts(self._purify, images)

    def _purify(self, images: Tensor) -> Tensor:
        first = self.conv_first(images.contiguous(memory_format=torch.channels_last))
        features = F.leaky_relu(first, 0.1, inplace=may_overwrite())
        del first
        for block in self.recon_trunk:
            # Block by block, so that earlier features are freed.
            features = block(features)
        out: Tensor = self.conv_last(features)
        return out
