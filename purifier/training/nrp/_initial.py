"""What the networks start from: the identity, or a trained network with fewer blocks."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from purifier._errors import OptionError
from purifier.methods.nrp import NRP, NRPResG

_BLOCK = re.compile(r"recon_trunk\.(\d+)\.(.+)")
_LAST_OF_BLOCK = re.compile(r"recon_trunk\.\d+\.conv2|RRDB_trunk\.\d+\.RDB\d\.conv5")
# What a dense basic block multiplies its input by while its last convolutions are zero.
_DENSE_GAIN = 1.2


@torch.no_grad()
def start_as_identity(network: NRP | NRPResG) -> None:
    """Sets weights so that the network gives images in [0, 1] back as they are, and can learn from there.

    The first convolution copies the three channels, the last one reads the copies, and every block's last convolution
    is zero. The other weights stay random.
    """
    _silence_blocks(network)
    first = network.conv_first
    last, gain = (
        (network.trunk_conv, _DENSE_GAIN**network.blocks) if isinstance(network, NRP) else (network.conv_last, 1.0)
    )
    _zero(last)
    _zero(first, slice(0, 3))
    for channel in range(3):
        first.weight[channel, channel, 1, 1] = 1.0
        last.weight[channel, channel, 1, 1] = 1.0 / gain


def load_grown(network: NRP | NRPResG, trained: dict[str, Tensor]) -> None:
    """Loads weights of the same network, or of an nrp-resg with fewer blocks: the same output from more depth.

    The trained blocks are spread evenly; those between them add nothing yet and learn from there.

    Raises:
        OptionError: Where the weights are of another kind, width, or of more blocks.
    """
    if isinstance(network, NRPResG):
        _silence_blocks(network)
        count = len({match[1] for key in trained if (match := _BLOCK.match(key))})
        trained = {_BLOCK.sub(lambda m: _spread(m, count, network.blocks), key): v for key, v in trained.items()}
    state = network.state_dict()
    wrong = [key for key, value in trained.items() if key not in state or state[key].shape != value.shape]
    grows = _BLOCK.match if isinstance(network, NRPResG) else lambda key: None
    missing = [key for key in state if key not in trained and not grows(key)]
    if wrong or missing:
        raise OptionError(
            f"expected init of the network's kind and width, with no more than its {network.blocks} blocks, got "
            f"weights that do not fit ({', '.join((wrong + missing)[:3])}); change network, filters or blocks"
        )
    network.load_state_dict({**state, **trained})


def _spread(match: re.Match[str], count: int, blocks: int) -> str:
    number = int(match[1])
    return f"recon_trunk.{number * blocks // count if count <= blocks else number}.{match[2]}"


def _silence_blocks(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and _LAST_OF_BLOCK.fullmatch(name):
            _zero(module)


@torch.no_grad()
def _zero(conv: nn.Conv2d, rows: slice = slice(None)) -> None:
    conv.weight[rows] = 0
    if conv.bias is not None:
        conv.bias[rows] = 0
