"""What the generator starts from: random weights, or nearly the identity."""

from __future__ import annotations

import torch
from torch import nn

from purifier._errors import OptionError
from purifier.methods.gad import GAD, ResidualBlock

# The straight line that the stretched hyperbolic tangent at the end brings nearest to the identity on [0, 1].
_SLOPE = 2.16


@torch.no_grad()
def start_as_identity(network: GAD) -> None:
    """Sets weights so that the network gives images in [0, 1] back nearly as they are (about 32 dB), and can learn.

    The stem copies the three channels; every down-sampling sorts the four pixels of a square into channels of their
    own, and every up-sampling puts them back; the blocks add nothing. The other weights stay random.

    Raises:
        OptionError: Where the network has a norm, which would change what is copied, or too few filters.
    """
    if network.norm != "none":
        raise OptionError(f"expected norm='none' with start='identity', got norm={network.norm!r}; change one of them")
    least = 3 * 2**network.downsamples
    if network.filters < least:
        raise OptionError(
            f"expected filters of at least {least} with start='identity' and {network.downsamples} down-samplings, got "
            f"{network.filters}"
        )
    stem, head = network.stem[0], network.head
    assert isinstance(stem, nn.Conv2d)
    _clear(stem, 3)
    _clear(head, 3)
    for channel in range(3):
        stem.weight[channel, channel, 3, 3] = 1.0
        head.weight[channel, channel, 3, 3] = _SLOPE
    assert head.bias is not None
    head.bias.fill_(-_SLOPE / 2)
    stages = zip(network.down, reversed(list(network.up)), strict=True)
    for number, (down, up) in enumerate(stages):
        _sort(down[0], up[0], 3 * 4**number)  # type: ignore[index]
    for block in network.body:
        assert isinstance(block, ResidualBlock)
        _clear(block.conv2, block.conv2.out_channels)


def _sort(down: nn.Conv2d, up: nn.ConvTranspose2d, channels: int) -> None:
    """Lets `down` sort the pixels of the first channels into four times as many, and `up` undo it."""
    _clear(down, 4 * channels)
    up.weight[:, :channels] = 0
    assert up.bias is not None
    up.bias[:channels] = 0
    for place, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        for channel in range(channels):
            sorted_into = place * channels + channel
            # Pixel 2 i + 0 or 1 is under entry 1 or 2 of a kernel of three that is padded by one.
            down.weight[sorted_into, channel, 1 + row, 1 + column] = 1.0
            up.weight[sorted_into, channel, 1 + row, 1 + column] = 1.0


def _clear(conv: nn.Conv2d, rows: int) -> None:
    conv.weight[:rows] = 0
    assert conv.bias is not None
    conv.bias[:rows] = 0
