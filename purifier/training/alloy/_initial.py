"""What the network starts from: the identity."""

from __future__ import annotations

import torch
from torch import nn

from purifier._errors import OptionError
from purifier.methods._scales import Scales
from purifier.methods.alloy import Alloy
from purifier.methods.nrp import ResidualBlock


@torch.no_grad()
def start_as_identity(network: Alloy) -> None:
    """Sets weights so that the network gives images in [0, 1] back as they are, and can learn from there.

    The first convolution copies the pixels of a patch, the last one reads the copies, and every block's second
    convolution is zero, and so is what comes from coarser scales. The other weights stay random.

    Raises:
        OptionError: Where the network is narrower than a patch has values.
    """
    convolutions = [one for one in network.network.modules() if isinstance(one, nn.Conv2d)]
    first, last = convolutions[0], convolutions[-1]
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
    for part in network.network.modules():
        if isinstance(part, ResidualBlock):
            _clear(part.conv2, part.conv2.out_channels)
        elif isinstance(part, Scales):
            for up in part.up:
                assert isinstance(up, nn.Conv2d)
                _clear(up, up.out_channels)


def _clear(conv: nn.Conv2d, rows: int) -> None:
    conv.weight[:rows] = 0
    assert conv.bias is not None
    conv.bias[:rows] = 0
