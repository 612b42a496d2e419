"""Batch norms that only the training has (Ioffe & Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167).

A purifier has none: its output for an image would depend on the other images of a batch, or on its mode. At the end of
the training a batch norm is a scale and a shift of each channel.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from purifier.methods._base import Method
from purifier.methods.gad_residual import ChannelAffine


def batch_normed(method: Method) -> Method:
    """Returns a copy of a new method, not yet trained, with batch norms in the place of its scales and shifts."""
    return _replaced(method, ChannelAffine, lambda old: nn.BatchNorm2d(len(old.weight)))


def folded(method: Method) -> Method:
    """Returns a copy of a trained method whose batch norms are scales and shifts again. It equals its eval mode."""
    return _replaced(method, nn.BatchNorm2d, _fixed)


def _replaced(method: Method, kind: type[nn.Module], make: Callable[..., nn.Module]) -> Method:
    copied = copy.deepcopy(method)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, kind):
                setattr(module, name, make(child))
    return copied


@torch.no_grad()
def _fixed(norm: nn.BatchNorm2d) -> ChannelAffine:
    assert norm.running_mean is not None and norm.running_var is not None
    fixed = ChannelAffine(norm.num_features).to(norm.running_mean)
    fixed.weight.copy_(norm.weight / (norm.running_var + norm.eps).sqrt())
    fixed.bias.copy_(norm.bias - norm.running_mean * fixed.weight)
    return fixed
