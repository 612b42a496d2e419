"""The fixed feature extractor that a configuration names."""

from __future__ import annotations

import copy
import importlib

import torch
from torch import nn

from purifier._errors import OptionError
from purifier.attacks.ssp import vgg16_features


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
        return copy.deepcopy(vgg16_features(torch.device("cpu")))
    module, _, function = name.partition(":")
    if not (module and function):
        raise OptionError(f"expected features='vgg16' or 'module:function', got {name!r}")
    try:
        made = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, TypeError) as error:
        raise OptionError(
            f"expected features='module:function' that can be imported and called, got {name!r}: {error}; start "
            "where the module is, or put its folder on PYTHONPATH"
        ) from error
    if not isinstance(made, nn.Module):
        raise OptionError(f"expected {name} to return an nn.Module, got {type(made).__name__}")
    return made.eval().requires_grad_(False)
