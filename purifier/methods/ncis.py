"""NCIS: neural contextual iterative smoothing, with its blind-spot network FBI-Net.

Cha et al., "NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024,
section 4 (https://arxiv.org/abs/2106.11644): F(x) = FBI-E(x) + G(x) (eq. 10), where G is one Gaussian pass with K = 11
and FBI-E is FBI-Net between space-to-depth and depth-to-space by m = 2 (eq. 9). Purifying applies F i times.

Deviations: sizes that are not multiples of m are padded by reflection and cropped back. Each application may be clamped
to [0, 1] (`clamp`). The PReLUs have their convolution's number of output channels; the published code uses the number
of input channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import WeightsError
from purifier._options import LARGE, SLOW, check_bool, check_integer
from purifier._tracing import is_exporting
from purifier.methods._base import Method, Stage
from purifier.methods._no_grad import may_overwrite
from purifier.methods._patches import on_patches
from purifier.methods.gs import GaussianSmoothing

_RING = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
_KNIGHT = [(2, 2)] + [(2 + y, 2 + x) for y in (-2, -1, 1, 2) for x in (-2, -1, 1, 2) if abs(y) != abs(x)]
_CORNERS = [(1, 1), (0, 0), (0, 2), (2, 0), (2, 2)]
# The same taps without the centre, as 2 x 2 grids of (rows, columns). Each grid is a dilated convolution.
_KNIGHT_GRIDS = [(slice(1, None, 2), slice(0, None, 4)), (slice(0, None, 4), slice(1, None, 2))]
_CORNER_GRIDS = [(slice(0, None, 2), slice(0, None, 2))]


class MaskedConv2d(nn.Conv2d):
    """A convolution with only some taps. The weights of the other taps are zero and stay zero.

    Args:
        channels_in: Input channels.
        channels_out: Output channels.
        kernel_size: Odd size of the square kernel. The padding keeps height and width.
        taps: (row, column) of each tap.
        dilation: Distance between taps, in pixels.
        grids: Slices of rows and columns whose 2 x 2 grids are exactly these taps without the centre. With grids, the
            CPU computes these taps only.
    """

    mask: Tensor

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        taps: list[tuple[int, int]],
        *,
        dilation: int = 1,
        grids: Sequence[tuple[slice, slice]] = (),
    ) -> None:
        padding = kernel_size // 2 * dilation
        super().__init__(channels_in, channels_out, kernel_size, padding=padding, dilation=dilation)
        mask = torch.zeros(kernel_size, kernel_size)
        for tap in taps:
            mask[tap] = 1
        self.register_buffer("mask", mask, persistent=False)
        self.grids = tuple(grids)
        fan_in = channels_in * len(taps)
        with torch.no_grad():
            nn.init.normal_(self.weight, std=(2 / fan_in) ** 0.5)
            self.weight.mul_(mask)
            nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def check_weights(self) -> None:
        """Raises WeightsError if a loaded weight of a missing tap is not zero."""
        if bool((self.weight * (1 - self.mask)).count_nonzero()):
            raise WeightsError(
                "expected zero weights at the masked taps, got others; the file belongs to another network"
            )

    def forward(self, features: Tensor) -> Tensor:
        """Convolves. The gradient of a missing tap is zero, so optimiser steps keep its weight at zero."""
        # On a GPU one full convolution replaces three that would each read and write all features.
        if self.grids and features.device.type == "cpu" and not is_exporting():
            return self._convolve_taps(features)
        return self._conv_forward(features, self.weight * self.mask, self.bias)

    def _convolve_taps(self, features: Tensor) -> Tensor:
        """Sums a dilated 2 x 2 convolution per grid of taps and a 1 x 1 convolution for the centre."""
        overwrite, centre = may_overwrite(), self.kernel_size[0] // 2
        out = F.conv2d(features, self.weight[:, :, centre, centre, None, None], self.bias)
        for rows, columns in self.grids:
            # The padding is the distance of the first tap from the centre.
            steps = [step.step * width for step, width in zip((rows, columns), self.dilation, strict=True)]
            first = [(centre - step.start) * width for step, width in zip((rows, columns), self.dilation, strict=True)]
            part = F.conv2d(features, self.weight[:, :, rows, columns], padding=first, dilation=steps)
            out = out.add_(part) if overwrite else out + part
        return out


class ResidualBlock(nn.Module):
    """Two 1 x 1 convolutions with a PReLU between them, averaged with their input, then a PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.act1 = nn.PReLU(channels, init=0.0)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.act2 = nn.PReLU(channels, init=0.0)

    def forward(self, features: Tensor) -> Tensor:
        inner: Tensor = self.conv2(self.act1(self.conv1(features)))
        out: Tensor = self.act2(_mean(inner, features, may_overwrite()))
        return out


def _mean(one: Tensor, other: Tensor, overwrite: bool) -> Tensor:
    """Returns the mean of two tensors, in place of the first if `overwrite` is True."""
    return one.add_(other).mul_(0.5) if overwrite else (one + other) / 2


class FBINet(nn.Module):
    """The blind-spot network: an output pixel never depends on the input pixel at its own position.

    Args:
        channels: Input and output channels.
        filters: Width of the hidden layers.
        layers: Number of masked convolutions (context layers), at least 2.
    """

    def __init__(self, channels: int, filters: int = 64, layers: int = 8) -> None:
        super().__init__()
        convolutions = [
            MaskedConv2d(channels, filters, 3, _RING),
            MaskedConv2d(filters, filters, 5, _KNIGHT, grids=_KNIGHT_GRIDS),
        ]
        convolutions += [
            MaskedConv2d(filters, filters, 3, _CORNERS, dilation=3, grids=_CORNER_GRIDS) for _ in range(layers - 2)
        ]
        self.context = nn.ModuleList(convolutions)
        self.context_act = nn.ModuleList(nn.PReLU(filters, init=0.0) for _ in range(layers))
        self.trunk_act = nn.ModuleList(nn.PReLU(filters, init=0.0) for _ in range(layers - 1))
        self.trunk = nn.ModuleList(ResidualBlock(filters) for _ in range(layers))
        self.out_act = nn.PReLU(filters, init=0.0)
        self.out_block = ResidualBlock(filters)
        self.out_conv = nn.Conv2d(filters, channels, 1)

    @property
    def halo(self) -> int:
        """Largest distance between an output pixel and an input pixel that it depends on."""
        return 1 + 2 + 3 * (len(self.context) - 2)

    def forward(self, images: Tensor) -> Tensor:
        overwrite = may_overwrite()
        context = self.context_act[0](self.context[0](images))
        trunk = self.trunk[0](context)
        total = trunk.clone() if overwrite else trunk
        for layer in range(1, len(self.context)):
            context = self.context_act[layer](self.context[layer](context))
            trunk = self.trunk[layer](self.trunk_act[layer - 1](_mean(trunk, context, overwrite)))
            total = total.add_(trunk) if overwrite else total + trunk
        out: Tensor = self.out_conv(self.out_block(self.out_act(total / len(self.context))))
        return out


class FBIE(nn.Module):
    """FBI-Net on m x m patches (eq. 9): an output patch never depends on the input patch at its own position.

    Args:
        patch: m. Sizes that are not multiples of m are padded by reflection and cropped back.
        filters: Width of FBI-Net.
        layers: Depth of FBI-Net.
    """

    def __init__(self, patch: int = 2, filters: int = 64, layers: int = 8) -> None:
        super().__init__()
        self.patch = patch
        self.net = FBINet(3 * patch * patch, filters, layers)

    @property
    def halo(self) -> int:
        """Largest distance, in pixels, between an output pixel and an input pixel that it depends on."""
        return self.patch * (self.net.halo + 1)

    def forward(self, images: Tensor) -> Tensor:
        return on_patches(self.net, images, self.patch)


class NCIS(Method):
    """Replaces every patch by a prediction from its surroundings plus a Gaussian pass, several times.

    Args:
        iterations: i, the number of applications of F. 0 returns the images unchanged, which defends nothing.
        patch: m of FBI-E.
        filters: Width of FBI-Net.
        layers: Depth of FBI-Net.
        kernel_size: K of the Gaussian pass; 0 leaves it out, as an ablation of the paper does.
        clamp: Whether each application ends with a clamp to [0, 1].
    """

    tunable = ("iterations", "clamp")

    def __init__(
        self,
        *,
        iterations: int = 5,
        patch: int = 2,
        filters: int = 64,
        layers: int = 8,
        kernel_size: int = 11,
        clamp: bool = True,
    ) -> None:
        super().__init__()
        self.iterations = check_integer("iterations", iterations, low=0, high=self.most_iterations, why=SLOW)
        self.clamp = check_bool("clamp", clamp)
        self.network = FBIE(
            check_integer("patch", patch, low=1, high=32, why=LARGE),
            check_integer("filters", filters, low=1, high=1024, why=LARGE),
            check_integer("layers", layers, low=2, high=64, why=SLOW),
        )
        check_integer("kernel_size", kernel_size, low=0)
        self.smoothing = GaussianSmoothing(kernel_size=kernel_size, iterations=1) if kernel_size else None

    @property
    def options(self) -> dict[str, Any]:
        net = self.network.net
        return {
            "iterations": self.iterations,
            "patch": self.network.patch,
            "filters": net.out_conv.in_channels,
            "layers": len(net.context),
            "kernel_size": self.smoothing.kernel_size if self.smoothing else 0,
            "clamp": self.clamp,
        }

    def stages(self) -> list[Stage]:
        halo = max(self.network.halo, self.smoothing.kernel_size // 2 if self.smoothing else 0)
        return [Stage(self.step, halo=halo, align=self.network.patch)] * self.iterations

    def reconstruct(self, images: Tensor) -> Tensor:
        """Returns F(x) = FBI-E(x) + G(x), not clamped. Training fits it to x (eq. 7)."""
        out: Tensor = self.network(images)
        return out if self.smoothing is None else out + self.smoothing(images)

    def step(self, images: Tensor) -> Tensor:
        """Applies F once, clamped if `clamp` is True."""
        out = self.reconstruct(images)
        return out.clamp(0, 1) if self.clamp else out
