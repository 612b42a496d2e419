"""What the network starts from: the identity, or trained weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

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


def load_trained(network: Alloy, trained: Mapping[str, Tensor]) -> None:
    """Loads weights of a network of the same size.

    Raises:
        OptionError: Where they are of another kind or size.
    """
    try:
        network.load_state_dict(trained)
    except RuntimeError as error:
        raise OptionError(
            f"expected init of the network's kind, patch={network.patch}, filters={network.filters} and "
            f"blocks={network.blocks}, got weights that do not fit: {' '.join(str(error).split())[:200]}"
        ) from None


def _clear(conv: nn.Conv2d, rows: int) -> None:
    conv.weight[:rows] = 0
    assert conv.bias is not None
    conv.bias[:rows] = 0
