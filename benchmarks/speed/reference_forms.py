"""The purifiers in plain form, as code of their papers would be written, to compare ours with.

Written by us. Each form takes the state dict of our method and computes the same function. Plain means: float32,
contiguous memory, one module after the other, masks multiplied into the weights in every forward pass, all taps of a
masked kernel computed, features concatenated before every convolution of a dense block, and the Gaussian as a
two-dimensional convolution in every iteration.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier.methods import Method, method_name


def _gaussian(kernel_size: int) -> Tensor:
    """(3, 1, K, K) kernel of a depthwise Gaussian, sigma = (K - 1) / 6."""
    axis = torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2
    bell = torch.exp(-0.5 * (axis / ((kernel_size - 1) / 6)) ** 2)
    bell = bell / bell.sum()
    return torch.outer(bell, bell).float().expand(3, 1, -1, -1).contiguous()


class Gaussian(nn.Module):
    """One pass of a K x K Gaussian: `conv2d` on a reflected border."""

    kernel: Tensor

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.radius = kernel_size // 2
        self.register_buffer("kernel", _gaussian(kernel_size), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        padded = F.pad(images, (self.radius,) * 4, mode="reflect")
        return F.conv2d(padded, self.kernel, groups=3)


class LoopedGaussian(nn.Module):
    """GS: the pass, i times."""

    def __init__(self, kernel_size: int, iterations: int) -> None:
        super().__init__()
        self.smooth = Gaussian(kernel_size)
        self.iterations = iterations

    def forward(self, images: Tensor) -> Tensor:
        for _ in range(self.iterations):
            images = self.smooth(images)
        return images


class TorchvisionGaussian(nn.Module):
    """GS with torchvision's `gaussian_blur`, i times."""

    def __init__(self, kernel_size: int, iterations: int) -> None:
        super().__init__()
        from torchvision.transforms.v2.functional import gaussian_blur

        self.blur = gaussian_blur
        self.kernel_size = kernel_size
        self.iterations = iterations

    def forward(self, images: Tensor) -> Tensor:
        size, sigma = [self.kernel_size] * 2, [(self.kernel_size - 1) / 6] * 2
        for _ in range(self.iterations):
            images = self.blur(images, size, sigma)
        return images


# Taps that exist, row by row: all but the centre; the centre and a knight's moves; the centre and the corners.
_FIRST = ("111", "101", "111")
_SECOND = ("01010", "10001", "00100", "10001", "01010")
_OTHERS = ("101", "010", "101")


class MaskedConv(nn.Conv2d):
    """A convolution whose weights are multiplied with a mask in every forward."""

    mask: Tensor

    def __init__(self, channels_in: int, channels_out: int, taps: tuple[str, ...], dilation: int = 1) -> None:
        size = len(taps)
        super().__init__(channels_in, channels_out, size, padding=size // 2 * dilation, dilation=dilation)
        mask = torch.tensor([[float(tap) for tap in row] for row in taps])
        self.register_buffer("mask", mask.expand_as(self.weight).clone(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        weight = self.weight * self.mask
        return F.conv2d(features, weight, self.bias, padding=self.padding, dilation=self.dilation)


class PointwiseBlock(nn.Module):
    """FBI-Net's residual module."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.act1 = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.act2 = nn.PReLU(channels)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.conv1(features)
        inner = self.act1(inner)
        inner = self.conv2(inner)
        return self.act2((inner + features) / 2)


class BlindSpotNet(nn.Module):
    """FBI-Net."""

    def __init__(self, channels: int, filters: int, layers: int) -> None:
        super().__init__()
        self.context = nn.ModuleList([MaskedConv(channels, filters, _FIRST), MaskedConv(filters, filters, _SECOND)])
        self.context.extend(MaskedConv(filters, filters, _OTHERS, dilation=3) for _ in range(layers - 2))
        self.context_act = nn.ModuleList(nn.PReLU(filters) for _ in range(layers))
        self.trunk_act = nn.ModuleList(nn.PReLU(filters) for _ in range(layers - 1))
        self.trunk = nn.ModuleList(PointwiseBlock(filters) for _ in range(layers))
        self.out_act = nn.PReLU(filters)
        self.out_block = PointwiseBlock(filters)
        self.out_conv = nn.Conv2d(filters, channels, 1)

    def forward(self, patches: Tensor) -> Tensor:
        context = self.context_act[0](self.context[0](patches))
        trunk = self.trunk[0](context)
        outs = [trunk]
        for layer in range(1, len(self.context)):
            context = self.context[layer](context)
            context = self.context_act[layer](context)
            trunk = self.trunk_act[layer - 1]((context + trunk) / 2)
            trunk = self.trunk[layer](trunk)
            outs.append(trunk)
        mean = sum(outs[1:], outs[0]) / len(outs)
        return self.out_conv(self.out_block(self.out_act(mean)))


class SpacedNet(nn.Module):
    """FBI-E: FBI-Net between a space-to-depth and a depth-to-space."""

    def __init__(self, patch: int, filters: int, layers: int) -> None:
        super().__init__()
        self.patch = patch
        self.net = BlindSpotNet(3 * patch * patch, filters, layers)

    def forward(self, images: Tensor) -> Tensor:
        return F.pixel_shuffle(self.net(F.pixel_unshuffle(images, self.patch)), self.patch)


class PlainNCIS(nn.Module):
    """NCIS: FBI-E plus a Gaussian, i times. Height and width are multiples of the patch."""

    def __init__(
        self, iterations: int, patch: int, filters: int, layers: int, kernel_size: int, clamp: bool = True
    ) -> None:
        super().__init__()
        self.iterations = iterations
        self.clamp = clamp
        self.network = SpacedNet(patch, filters, layers)
        self.smoothing = Gaussian(kernel_size)

    def forward(self, images: Tensor) -> Tensor:
        for _ in range(self.iterations):
            images = self.network(images) + self.smoothing(images)
            if self.clamp:
                images = images.clamp(0, 1)
        return images


class PlainDenseBlock(nn.Module):
    """A dense block that concatenates all the features anew for every convolution."""

    def __init__(self, filters: int, growth: int) -> None:
        super().__init__()
        widths = [growth] * 4 + [filters]
        for number, width in enumerate(widths):
            self.add_module(f"conv{number + 1}", nn.Conv2d(filters + number * growth, width, 3, padding=1))
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.act(self.conv1(x))
        x2 = self.act(self.conv2(torch.cat((x, x1), 1)))
        x3 = self.act(self.conv3(torch.cat((x, x1, x2), 1)))
        x4 = self.act(self.conv4(torch.cat((x, x1, x2, x3), 1)))
        x5 = self.conv5(torch.cat((x, x1, x2, x3, x4), 1))
        return x + x5 * 0.2


class PlainBasicBlock(nn.Module):
    """Three dense blocks."""

    def __init__(self, filters: int, growth: int) -> None:
        super().__init__()
        self.RDB1 = PlainDenseBlock(filters, growth)
        self.RDB2 = PlainDenseBlock(filters, growth)
        self.RDB3 = PlainDenseBlock(filters, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.RDB3(self.RDB2(self.RDB1(x))) * 0.2


class PlainNRP(nn.Module):
    """NRP."""

    def __init__(self, filters: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, filters, 3, padding=1)
        self.RRDB_trunk = nn.Sequential(*(PlainBasicBlock(filters, growth) for _ in range(blocks)))
        self.trunk_conv = nn.Conv2d(filters, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk_conv(self.RRDB_trunk(self.conv_first(images)))


class PlainResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, plus the input."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(filters, filters, 3, padding=1)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.act(self.conv1(x)))


class PlainNRPResG(nn.Module):
    """NRP (resG)."""

    def __init__(self, filters: int, blocks: int) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, filters, 3, padding=1)
        self.act = nn.LeakyReLU(0.1)
        self.recon_trunk = nn.Sequential(*(PlainResidualBlock(filters) for _ in range(blocks)))
        self.conv_last = nn.Conv2d(filters, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv_last(self.recon_trunk(self.act(self.conv_first(images))))


_FORMS: dict[str, dict[str, type[nn.Module]]] = {
    "gs": {"naive conv2d loop": LoopedGaussian, "torchvision gaussian_blur": TorchvisionGaussian},
    "ncis": {"module by module": PlainNCIS},
    "nrp": {"module by module": PlainNRP},
    "nrp-resg": {"module by module": PlainNRPResG},
}


def form_names(method: str) -> list[str]:
    """Returns the reference forms of a method; the first is the one that ratios are of."""
    return list(_FORMS[method])


def reference(method: Method, form: str) -> nn.Module:
    """Builds a reference form with the options and weights of one of our methods.

    Args:
        method: Ours, in float32.
        form: One of `form_names`.
    """
    network = _FORMS[method_name(method)][form](**method.options)
    network.load_state_dict(method.state_dict(), strict=True)
    return network.eval().requires_grad_(False)
