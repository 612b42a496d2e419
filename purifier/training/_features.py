"""The fixed feature extractor that a configuration names."""

from __future__ import annotations

import copy

import torch
from torch import nn

from purifier.attacks.ssp import vgg16_features
from purifier.training._named import make_module

_INSTEAD = "name a network of your own, module:function, in its place: --features for nrp, --extractors for alloy"


def load_features(name: str) -> nn.Module:
    """Returns a fixed map of images (N, 3, H, W) in [0, 1] to features (N, ...), on the CPU.

    Args:
        name: "vgg16" for torchvision's VGG16 up to relu3_3, whose weights are read from torch's hub cache or
            downloaded once; or "module:function", a function of no arguments that returns a module.

    Raises:
        OptionError: Where the name has another form, or there is no such function.
        WeightsError: Where the weights of VGG16 cannot be had.
    """
    if name == "vgg16":
        # A copy: the cached one stays on the CPU where this one is moved.
        return copy.deepcopy(vgg16_features(torch.device("cpu"), instead=_INSTEAD))
    return make_module(name, "features", "'vgg16'").eval().requires_grad_(False)
