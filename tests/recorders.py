"""Small models that record their calls, and normalised images for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Recorder(nn.Module):
    """Keeps what it was called with and returns an object of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.output = object()

    def forward(self, *args: Any, **kwargs: Any) -> object:
        self.calls.append((args, kwargs))
        return self.output


class Classifier(nn.Module):
    """Small, smooth, with a batch norm whose mode shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.LazyLinear(5))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.layers(images)
        return out


def classifier(height: int = 12, width: int = 10) -> Classifier:
    model = Classifier().eval()
    model(torch.zeros(1, 3, height, width))
    return model


def normalise(images: Tensor, mean: list[float] = MEAN, std: list[float] = STD) -> Tensor:
    dtype = images.dtype
    return (images - torch.tensor(mean, dtype=dtype).view(3, 1, 1)) / torch.tensor(std, dtype=dtype).view(3, 1, 1)
