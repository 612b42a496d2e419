"""What the network starts from: the identity, or a trained network."""

from __future__ import annotations

import torch
from torch import nn

from purifier._errors import OptionError
from purifier._purifier import Purifier
from purifier.methods._unet import Scales
from purifier.methods.alloy import Alloy
from purifier.methods.nrp import ResidualBlock
from purifier.training._trained import copy_weights


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


@torch.no_grad()
def start_from(network: Alloy, source: str) -> None:
    """Loads the weights of a trained alloy: of the same size, or of one level and twice as many blocks.

    The latter become the finest scale of a network of several levels. What they are trained together with, the coarser
    scales, stays random, but nothing comes from it yet: the network begins with what the trained one does. A gate of
    another size than the trained one's, or where that has none, stays random too.

    Args:
        network: What is to be trained.
        source: Name or folder of the trained purifier.

    Raises:
        OptionError: Where its weights are of another kind or size.
    """
    trained = Purifier.from_pretrained(source).method
    if isinstance(trained, Alloy) and any(
        trained.options[size] != network.options[size] for size in ("gate", "gate_blocks")
    ):
        trained.gate = network.gate
    finest = network.network
    if not isinstance(finest, Scales) or not isinstance(trained, Alloy) or trained.levels > 1:
        copy_weights(network, trained, source)
        return
    flat = Alloy(**{**network.options, "levels": 1, "blocks": 2 * network.blocks})
    copy_weights(flat, trained, source)
    assert isinstance(flat.network, nn.Sequential)
    parts = [finest.first, *finest.before[0].children(), *finest.after[0].children(), finest.last]
    for part, known in zip(parts, flat.network, strict=True):
        part.load_state_dict(known.state_dict())
    if network.gate is not None and flat.gate is not None:
        network.gate.load_state_dict(flat.gate.state_dict())
    up = finest.up[0]
    assert isinstance(up, nn.Conv2d)
    _clear(up, up.out_channels)


def _clear(conv: nn.Conv2d, rows: int) -> None:
    conv.weight[:rows] = 0
    assert conv.bias is not None
    conv.bias[:rows] = 0
