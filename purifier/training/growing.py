"""Grows a trained nrp-resg into a full nrp that computes the same, so that the larger network need not start anew."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import OptionError
from purifier.methods.nrp import NRP, BasicBlock, DenseBlock, NRPResG

# A basic block whose second and third dense blocks add nothing maps h to 1.2 h + 0.04 conv5.
_KEPT, _ADDED = 1.2, 0.04
# Slope of the leaky ReLU in a dense block, and of the one after the first convolution of nrp-resg.
_SLOPE, _FIRST_SLOPE = 0.2, 0.1

# Weight and bias of the two convolutions of a residual block.
_Residual = tuple[Tensor, Tensor, Tensor, Tensor]


@torch.no_grad()
def grow_dense(network: NRP, trained: NRPResG, probe: Tensor) -> list[int]:
    """Sets the weights of a dense network so that its output is that of a trained residual one.

    The first dense block of each basic block holds one residual block: relu(z) = (l(z) + 0.2 l(-z)) / 0.96 for the
    leaky ReLU l of slope 0.2, so the features that a dense block adds hold l(z) and l(-z) of its hidden channels. One
    basic block takes the leaky ReLU after the first convolution. The other dense blocks add nothing at first and are
    free to learn.

    Args:
        network: The dense network. Its weights that stay free keep their values.
        trained: The residual network.
        probe: Images (N, 3, H, W) in [0, 1]. If `trained` has as many blocks as `network` or more, those are left out
            whose absence changes the output for these images least.

    Returns:
        The positions of the residual blocks that were left out, in order.

    Raises:
        OptionError: If the widths differ, or the dense blocks add fewer than twice as many features.
    """
    filters = network.filters
    if trained.filters != filters or 2 * network.growth < filters:
        raise OptionError(
            f"expected a network of filters={trained.filters} and growth of at least {-(-trained.filters // 2)} to "
            f"hold the trained one, got filters={filters} and growth={network.growth}; change filters or growth"
        )
    left_out = least_needed(trained, probe, max(0, trained.blocks + 1 - network.blocks))
    residuals = [_leaky(filters, trained.conv_first.weight)]
    residuals += [_parts(block) for number, block in enumerate(trained.recon_trunk) if number not in left_out]
    # In the middle of the trunk, features have the scale of the trained network.
    scale = _KEPT ** -(network.blocks // 2)
    _copy(network.conv_first, trained.conv_first, scale, scale)
    for number, basic in enumerate(network.RRDB_trunk):
        assert isinstance(basic, BasicBlock)
        for dense in (basic.RDB1, basic.RDB2, basic.RDB3):
            _silence(dense)
        if number < len(residuals):
            _hold(basic.RDB1, residuals[number], scale)
        scale *= _KEPT
    _copy(network.trunk_conv, trained.conv_last, 1 / scale, 1)
    return left_out


@torch.no_grad()
def least_needed(trained: NRPResG, probe: Tensor, count: int) -> list[int]:
    """Returns the `count` blocks whose absence, one at a time, changes the output for a probe least, in order."""
    if not count:
        return []
    whole = _without(trained, probe, None)
    changes = [(_without(trained, probe, number) - whole).square().mean().item() for number in range(trained.blocks)]
    return sorted(sorted(range(trained.blocks), key=changes.__getitem__)[:count])


def _without(trained: NRPResG, images: Tensor, absent: int | None) -> Tensor:
    features = F.leaky_relu(trained.conv_first(images), _FIRST_SLOPE)
    for number, block in enumerate(trained.recon_trunk):
        if number != absent:
            features = block(features)
    out: Tensor = trained.conv_last(features)
    return out


def _leaky(filters: int, like: Tensor) -> _Residual:
    """Returns the leaky ReLU after the first convolution as a residual block: x + 0.9 relu(-x)."""
    identity, none = like.new_zeros(filters, filters, 3, 3), like.new_zeros(filters)
    identity[:, :, 1, 1] = torch.eye(filters)
    return -identity, none, (1 - _FIRST_SLOPE) * identity, none


def _parts(block: nn.Module) -> _Residual:
    return block.conv1.weight, block.conv1.bias, block.conv2.weight, block.conv2.bias  # type: ignore[return-value, union-attr]


def _silence(dense: DenseBlock) -> None:
    nn.init.zeros_(dense.conv5.weight)
    nn.init.zeros_(dense.conv5.bias)  # type: ignore[arg-type]


def _hold(dense: DenseBlock, residual: _Residual, scale: float) -> None:
    """Puts a residual block into a dense block whose input has `scale` times the trained features."""
    first, first_bias, second, second_bias = residual
    filters = len(first)
    rows, biases = torch.cat((first, -first)) / scale, torch.cat((first_bias, -first_bias))
    convolutions = (dense.conv1, dense.conv2, dense.conv3, dense.conv4)
    growth = dense.conv1.out_channels
    for conv, row, bias in zip(convolutions, rows.split(growth), biases.split(growth), strict=False):
        conv.weight[: len(row)] = 0
        conv.weight[: len(row), :filters] = row
        conv.bias[: len(row)] = bias  # type: ignore[index]
    factor = _KEPT / _ADDED * scale
    weight = factor / (1 - _SLOPE**2) * second
    dense.conv5.weight[:, filters : 3 * filters] = torch.cat((weight, _SLOPE * weight), 1)
    dense.conv5.bias.copy_(factor * second_bias)  # type: ignore[union-attr]


def _copy(conv: nn.Conv2d, trained: nn.Conv2d, factor: float, bias_factor: float) -> None:
    conv.weight.copy_(factor * trained.weight)
    conv.bias.copy_(bias_factor * trained.bias)  # type: ignore[union-attr, operator, arg-type]
