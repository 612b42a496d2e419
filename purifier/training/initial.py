"""Initial weights: the identity, or those of a trained purifier."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from purifier._errors import OptionError
from purifier._purifier import Purifier
from purifier.methods import gad
from purifier.methods._base import Method
from purifier.methods._unet import Scales
from purifier.methods.alloy import Alloy
from purifier.methods.nrp import NRP, NRPResG

_BLOCK = re.compile(r"recon_trunk\.(\d+)\.(.+)")
_LAST_OF_BLOCK = re.compile(r"recon_trunk\.\d+\.conv2|RRDB_trunk\.\d+\.RDB\d\.conv5")
# Factor by which a dense basic block scales its input while its last convolutions are zero.
_DENSE_GAIN = 1.2
# Slope of the line before GAD's final hyperbolic tangent that comes nearest to the identity on [0, 1].
_SLOPE = 2.16


def copy_weights(network: Method, trained: Method, source: str) -> None:
    """Copies the weights of a trained method of the same kind and size.

    Args:
        network: The method to be trained.
        trained: The trained method.
        source: Its name or folder, for the message.

    Raises:
        OptionError: If its weights are of another kind or size.
    """
    try:
        network.load_state_dict(trained.state_dict())
    except RuntimeError:
        raise OptionError(
            f"expected init to name a {type(network).__name__} of the size that is trained, {network.options}, got "
            f"{source!r}, a {type(trained).__name__} with {trained.options}; change the settings of the network"
        ) from None


def load_trained(network: Method, source: str) -> None:
    """Does `copy_weights` from a purifier's name or folder."""
    copy_weights(network, Purifier.from_pretrained(source).method, source)


def load_alloy(network: Alloy, source: str) -> None:
    """Loads the weights of a trained alloy: of the same size, or of one level and twice as many blocks.

    The latter become the finest level of a network of several. The coarser levels stay random but contribute nothing
    yet, so the network starts with the output of the trained one. A gate that the trained one lacks, or has in another
    size, stays random too.

    Args:
        network: The method to be trained.
        source: Name or folder of the trained purifier.

    Raises:
        OptionError: If its weights are of another kind or size.
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
    _zero(finest.up[0])


def load_grown(network: NRP | NRPResG, trained: dict[str, Tensor]) -> None:
    """Loads weights of the same network, or of an nrp-resg with fewer blocks, which keeps its output.

    The trained blocks are spread evenly. The blocks between them add nothing at first.

    Raises:
        OptionError: If the weights are of another kind or width, or of more blocks.
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


@torch.no_grad()
def nrp_identity(network: NRP | NRPResG) -> None:
    """Sets weights so that the network returns images in [0, 1] unchanged and can learn from there.

    The first convolution copies the three channels, the last one reads the copies, and every block's last convolution
    is zero. The other weights stay random.

    Raises:
        OptionError: If the network has fewer than three filters.
    """
    if network.conv_first.out_channels < 3:
        raise OptionError(f"expected filters >= 3 to start as the identity, got {network.conv_first.out_channels}")
    _silence_blocks(network)
    first = network.conv_first
    last, gain = (
        (network.trunk_conv, _DENSE_GAIN**network.blocks) if isinstance(network, NRP) else (network.conv_last, 1.0)
    )
    _zero(last)
    _zero(first, 3)
    for channel in range(3):
        first.weight[channel, channel, 1, 1] = 1.0
        last.weight[channel, channel, 1, 1] = 1.0 / gain


def _silence_blocks(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if _LAST_OF_BLOCK.fullmatch(name):
            _zero(module)


@torch.no_grad()
def gad_identity(network: gad.GAD) -> None:
    """Sets weights so that the network returns images in [0, 1] nearly unchanged (32 dB) and can learn from there.

    The stem copies the three channels. Every down-sampling sorts the four pixels of a square into channels of their
    own, and every up-sampling puts them back. The blocks add nothing. The other weights stay random.

    Raises:
        OptionError: If the network has a norm, which would change the copies, or too few filters.
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
    assert isinstance(stem, nn.Conv2d) and head.bias is not None
    _zero(stem, 3)
    _zero(head)
    for channel in range(3):
        stem.weight[channel, channel, 3, 3] = 1.0
        head.weight[channel, channel, 3, 3] = _SLOPE
    head.bias.fill_(-_SLOPE / 2)
    stages = zip(network.down, reversed(list(network.up)), strict=True)
    for number, (down, up) in enumerate(stages):
        _sort(down[0], up[0], 3 * 4**number)  # type: ignore[index]
    for block in network.body:
        assert isinstance(block, gad.ResidualBlock)
        _zero(block.conv2)


def _sort(down: nn.Conv2d, up: nn.ConvTranspose2d, channels: int) -> None:
    """Makes `down` sort the pixels of the first channels into four times as many channels, and `up` undo it."""
    _zero(down, 4 * channels)
    up.weight[:, :channels] = 0
    assert up.bias is not None
    up.bias[:channels] = 0
    for place, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        for channel in range(channels):
            target = place * channels + channel
            # Pixel 2 i + 0 or 1 is at entry 1 or 2 of a kernel of three that is padded by one.
            down.weight[target, channel, 1 + row, 1 + column] = 1.0
            up.weight[target, channel, 1 + row, 1 + column] = 1.0


@torch.no_grad()
def _zero(conv: nn.Module, rows: int | None = None) -> None:
    """Sets the weights and biases of a convolution's first output channels to zero. None means all of them."""
    assert isinstance(conv, nn.Conv2d)
    conv.weight[:rows] = 0
    if conv.bias is not None:
        conv.bias[:rows] = 0
