"""A model that was trained on normalised images, or on BGR ones, as one of RGB images in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn


class Normalised(nn.Module):
    """A model that takes images in [0, 1] and normalises them itself.

    Gradients flow exactly. Further arguments of the call reach the model as they are.

    Args:
        net: The model or function of normalised images.
        mean: Mean of each channel, in [0, 1] units.
        std: Standard deviation of each channel, in the same units.

    Attributes:
        normalisation: The pair (mean, std).
    """

    def __init__(self, net: Callable[..., Any], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net: Any = net
        self.normalisation = (list(mean), list(std))
        # The wrapper is in the mode that its model is in.
        self.training = getattr(net, "training", False)

    def forward(self, images: Any, *rest: Any, **named: Any) -> Any:
        """Normalises images (..., 3, H, W), or a list of them, and calls the model."""
        return self.net(self._normalise(images), *rest, **named)

    def _normalise(self, images: Any) -> Any:
        if isinstance(images, list | tuple):
            return [self._normalise(image) for image in images]
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in self.normalisation)
        return (images - mean) / std


class Reversed(nn.Module):
    """A model of BGR images that takes RGB ones. Gradients flow exactly.

    Args:
        net: The model or function of BGR images.
    """

    def __init__(self, net: Callable[..., Any]) -> None:
        super().__init__()
        self.net: Any = net
        self.training = getattr(net, "training", False)

    def forward(self, images: Any, *rest: Any, **named: Any) -> Any:
        """Reverses the channels of images (..., 3, H, W), or of a list of them, and calls the model."""
        listed = isinstance(images, list | tuple)
        return self.net([image.flip(-3) for image in images] if listed else images.flip(-3), *rest, **named)
