"""What the network starts from: the identity."""

from __future__ import annotations

import torch
from torch import nn

from purifier._errors import OptionError
from purifier.methods.alloy import Alloy
from purifier.methods.nrp import ResidualBlock


@torch.no_grad()
def start_as_identity(network: Alloy) -> None:
    """Sets weights so that the network gives images in [0, 1] back as they are, and can learn from there.

    The first convolution copies the pixels of a patch, the last one reads the copies, and every block's second
    convolution is zero. The other weights stay random.

    Raises:
        OptionError: Where the network is narrower than a patch has values.
    """
    first, last = network.network[0], network.network[-1]
    assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
    channels = last.out_channels
    if network.filters < channels:
        raise OptionError(
            f"expected filters of at least {channels} with start='identity' and patch={network.patch}, got "
            f"{network.filters}; widen the network, or set start='random'"
        )
    _clear(first, channels)
    _clear(last, channels)
    for channel in range(channels):
        first.weight[channel, channel, 1, 1] = 1.0
        last.weight[channel, channel, 1, 1] = 1.0
    for block in network.network[1:-1]:
        assert isinstance(block, ResidualBlock)
        _clear(block.conv2, block.conv2.out_channels)


def _clear(conv: nn.Conv2d, rows: int) -> None:
    conv.weight[:rows] = 0
    assert conv.bias is not None
    conv.bias[:rows] = 0
