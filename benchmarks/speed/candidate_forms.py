"""Other forms of the networks, which may be faster on a GPU than those that ship: `speed.py --candidates` tells.

Each takes the state dict of our method and computes the same function, but for rounding. What is faster where it is
measured goes into the package; until then nothing uses it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier.methods import METHODS, NCIS, NRP, Method, method_name
from purifier.methods.ncis import FBINet, MaskedConv2d
from purifier.methods.nrp import DenseBlock

SORTED, WIDE = "pixels sorted by position", "wide dense blocks"
_NAMES = {"ncis": SORTED, "nrp": WIDE}
# The dilation of FBI-Net's convolutions from the third on.
_DISTANCE = 3


class SortedFBINet(FBINet):
    """FBI-Net whose convolutions of dilation 3 are plain ones, on nine images of every third row and column each.

    From the third context layer on everything is such a convolution or works on single pixels, so the pixels are sorted
    once, and put back at the end.
    """

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        context, exists = self._layer(0, images), None
        total = trunk = self.trunk[0](context)
        for layer in range(1, len(self.context)):
            if layer == 2:
                context, trunk, total = (sort(features, _DISTANCE) for features in (context, trunk, total))
                # What fills up the last rows and columns is border, which convolutions see as zeros.
                exists = sort(torch.ones_like(images[:1, :1]), _DISTANCE).repeat(len(images), 1, 1, 1)
            context = self._layer(layer, context if exists is None else context * exists)
            trunk = self.trunk[layer](self.trunk_act[layer - 1]((trunk + context) / 2))
            total = total + trunk
        out: Tensor = self.out_conv(self.out_block(self.out_act(total / len(self.context))))
        return out if exists is None else unsort(out, _DISTANCE, height, width)

    def _layer(self, layer: int, features: Tensor) -> Tensor:
        """One context layer, not dilated."""
        conv = self.context[layer]
        assert isinstance(conv, MaskedConv2d)
        padding = conv.kernel_size[0] // 2
        out: Tensor = self.context_act[layer](F.conv2d(features, conv.weight * conv.mask, conv.bias, padding=padding))
        return out


class WideDenseBlock(DenseBlock):
    """A dense block in as many convolutions, each of the newest features alone, for all that will need them.

    Instead of ever more features to a few channels, it convolves a few features to many channels, ever fewer of them,
    and adds up what comes of that.
    """

    def forward(self, features: Tensor) -> Tensor:
        convolutions = [self.conv1, self.conv2, self.conv3, self.conv4, self.conv5]
        filters, growth = self.conv1.in_channels, self.conv1.out_channels
        bias = torch.cat([conv.bias for conv in convolutions if conv.bias is not None])
        starts = [0, *range(filters, filters + 4 * growth, growth)]
        newest, waiting = features, bias[:, None, None]
        for number, (start, size) in enumerate(zip(starts, [filters] + 4 * [growth], strict=True)):
            weight = torch.cat([conv.weight[:, start : start + size] for conv in convolutions[number:]])
            waiting = waiting + F.conv2d(newest, weight, padding=1)
            if number < 4:
                newest, waiting = F.leaky_relu(waiting[:, :growth], 0.2), waiting[:, growth:]
        return features + 0.2 * waiting


def candidates(name: str) -> list[str]:
    """Names of the other forms of a method."""
    return [_NAMES[name]] if name in _NAMES else []


def candidate(method: Method, name: str) -> Method:
    """Makes another form of a method, with its weights.

    Args:
        method: Ours.
        name: One of `candidates`.
    """
    twin = METHODS[method_name(method)](**method.options)
    if isinstance(twin, NCIS) and name == SORTED:
        net = twin.network.net
        twin.network.net = SortedFBINet(net.out_conv.out_channels, net.out_conv.in_channels, len(net.context))
    elif isinstance(twin, NRP) and name == WIDE:
        for block in twin.RRDB_trunk:
            for part in ("RDB1", "RDB2", "RDB3"):
                setattr(block, part, WideDenseBlock(twin.filters, twin.growth))
    else:
        raise ValueError(f"expected one of {candidates(method_name(method))}, got {name!r}")
    twin.load_state_dict(method.state_dict())
    return twin


def sort(features: Tensor, distance: int) -> Tensor:
    """(N, C, H, W) to (N * distance**2, C, H / distance, W / distance), up and zeros at the end; channels last.

    One image of each of the places that a pixel can have between two multiples of the distance, down and right.
    """
    channels, height, width = features.shape[1:]
    padded = F.pad(features, (0, -width % distance, 0, -height % distance))
    apart = F.pixel_unshuffle(padded, distance).unflatten(1, (channels, -1)).transpose(1, 2).flatten(0, 1)
    return apart.contiguous(memory_format=torch.channels_last)


def unsort(features: Tensor, distance: int, height: int, width: int) -> Tensor:
    """What `sort` was given, (N, C, H, W)."""
    together = features.unflatten(0, (-1, distance**2)).transpose(1, 2).flatten(1, 2)
    return F.pixel_shuffle(together, distance)[:, :, :height, :width]
