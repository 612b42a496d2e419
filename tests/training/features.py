"""Feature extractors for trainings in tests: features="tests.training.features:tiny"."""

import torch
from torch import nn


def tiny() -> nn.Module:
    """A convolution with fixed random weights and a ReLU, at half the size."""
    conv = nn.Conv2d(3, 6, 3, 2, 1)
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in conv.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random) * 0.3)
    return nn.Sequential(conv, nn.ReLU())


def nothing() -> None:
    """Returns no module."""


def greedy(width: int) -> nn.Module:
    """Wants an argument, which no configuration gives."""
    return nn.Conv2d(3, width, 3)


def classifier() -> nn.Module:
    """A convolution, a ReLU that works in place, and a linear layer: logits (N, 5)."""
    random = torch.Generator().manual_seed(9)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random) * 0.3)
    return network
