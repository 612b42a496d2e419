"""Grows a trained nrp-resg into a full nrp of nearly the same output, so that the larger one need not start anew."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from purifier._errors import OptionError
from purifier.methods.nrp import NRP, BasicBlock, DenseBlock, NRPResG, ResidualBlock

# A basic block with silent dense blocks multiplies its input by 1.2. It adds 0.04 conv5 of each dense block.
_KEPT, _ADDED = 1.2, 0.04
# Slope of the leaky ReLU in a dense block, and of the one after the first convolution of nrp-resg.
_SLOPE, _FIRST_SLOPE = 0.2, 0.1
# Scale of features after the first basic block by that of the image in it. At 64 the output of the shipped weights is
# off by less than from rounding to float16; a larger one makes weights so small that a step of Adam changes them more.
_GAIN = 64.0


@torch.no_grad()
def grow_dense(network: NRP, trained: NRPResG) -> None:
    """Sets the weights of a dense network so that its output is nearly that of a trained residual one.

    A dense block holds one residual block: relu(z) = (l(z) + 0.2 l(-z)) / 0.96 for the leaky ReLU l of slope 0.2, and
    the features that a dense block adds hold l(z) and l(-z) of its hidden channels. The first dense block of each basic
    block holds one, from the second basic block on.

    The first basic block gets the image x in three channels. Its first dense block returns 5 (a - x), where a are the
    trained first features, so that the skip cancels x: x + 0.2 * 5 (a - x) = a. Its second dense block holds the first
    residual block. That sees a - x instead of a, which is nearly the same, because x has 1 / 64 of the scale of a.

    The other dense blocks add nothing at first and are free to learn.

    Args:
        network: The dense network. Its weights that stay free keep their values.
        trained: The residual network.

    Raises:
        OptionError: If the widths differ or are below three, the dense blocks add fewer than twice as many features, or
            the trained network has more blocks.
    """
    _check(network, trained)
    trunk: list[BasicBlock] = list(network.RRDB_trunk)  # type: ignore[arg-type]
    blocks: list[ResidualBlock] = list(trained.recon_trunk)  # type: ignore[arg-type]
    for basic in trunk:
        for dense in (basic.RDB1, basic.RDB2, basic.RDB3):
            nn.init.zeros_(dense.conv5.weight)
            _bias(dense.conv5).zero_()
    # In the middle of the trunk, features have the scale of the trained network.
    scale = _KEPT ** (1 - network.blocks // 2)
    _begin(network, trained, scale)
    _hold(trunk[0].RDB2, blocks[0].conv1, blocks[0].conv2, 5 * scale, scale)
    for number, basic in enumerate(trunk[1:], 1):
        if number < len(blocks):
            _hold(basic.RDB1, blocks[number].conv1, blocks[number].conv2, scale, _KEPT * scale)
        scale *= _KEPT
    network.trunk_conv.weight.copy_(trained.conv_last.weight / scale)
    _bias(network.trunk_conv).copy_(_bias(trained.conv_last))


def _check(network: NRP, trained: NRPResG) -> None:
    filters, least = trained.filters, -(-trained.filters // 2)
    if filters < 3 or network.filters != filters or network.growth < least or network.blocks < trained.blocks:
        raise OptionError(
            f"expected a network of filters={max(3, filters)}, growth of at least {least} and at least "
            f"{trained.blocks} blocks to hold the trained one, got filters={network.filters}, growth={network.growth} "
            f"and blocks={network.blocks}; change these settings, or start from a smaller network of at least 3 filters"
        )


def _begin(network: NRP, trained: NRPResG, scale: float) -> None:
    """Makes the first dense block hold the first convolution and its leaky ReLU, with the skip cancelled."""
    filters, small = network.filters, scale / _GAIN
    nn.init.zeros_(network.conv_first.weight)
    _bias(network.conv_first).zero_()
    network.conv_first.weight[:3, :, 1, 1] = small * torch.eye(3)
    first, second = nn.Conv2d(filters, filters, 3), nn.Conv2d(filters, filters, 3)
    for conv in (first, second):
        nn.init.zeros_(conv.weight)
    first.weight[:, :3] = trained.conv_first.weight
    first.bias = trained.conv_first.bias
    second.weight[:, :, 1, 1] = torch.eye(filters)
    _bias(second).zero_()
    dense = network.RRDB_trunk[0].RDB1
    assert isinstance(dense, DenseBlock)
    _hold(dense, first, second, small, scale, _FIRST_SLOPE)
    # x + 0.2 * -30 x is -5 x.
    dense.conv5.weight[:, :filters, 1, 1] = -30 * torch.eye(filters)


def _hold(
    dense: DenseBlock, first: nn.Conv2d, second: nn.Conv2d, scale: float, scale_out: float, slope: float = 0.0
) -> None:
    """Puts two convolutions with a leaky ReLU between them into a dense block.

    Args:
        dense: The dense block.
        first: The first convolution.
        second: The second one.
        scale: Scale of the dense block's input relative to that of `first`.
        scale_out: Scale of the basic block's output relative to that of `second`.
        slope: Slope of the leaky ReLU.
    """
    filters = len(first.weight)
    rows, biases = torch.cat((first.weight, -first.weight)) / scale, torch.cat((_bias(first), -_bias(first)))
    convolutions = (dense.conv1, dense.conv2, dense.conv3, dense.conv4)
    growth = dense.conv1.out_channels
    for conv, row, bias in zip(convolutions, rows.split(growth), biases.split(growth), strict=False):
        conv.weight[: len(row)] = 0
        conv.weight[: len(row), :filters] = row
        _bias(conv)[: len(row)] = bias
    # The leaky ReLU of a slope k is ((1 - 0.2 k) l(z) + (0.2 - k) l(-z)) / 0.96.
    weight = scale_out / _ADDED / (1 - _SLOPE**2) * second.weight
    joined = torch.cat(((1 - _SLOPE * slope) * weight, (_SLOPE - slope) * weight), 1)
    dense.conv5.weight[:, filters : 3 * filters] = joined
    _bias(dense.conv5).copy_(scale_out / _ADDED * _bias(second))


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
