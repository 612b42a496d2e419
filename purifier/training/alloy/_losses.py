"""The losses of Alloy: nearness to the clean image in pixels, and in the features of fixed networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pixel_loss(purified: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of images."""
    return (purified - clean).abs().mean()


def relative_distance(features: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of features, in units of the mean absolute clean feature; the mean over layers.

    Args:
        features: Features (N, ...) of each layer.
        clean: Those of the clean images; no gradient flows to the unit.
    """
    found = [
        (one.float() - other.float()).abs().mean() / other.detach().float().abs().mean().clamp_min(1e-8)
        for one, other in zip(features, clean, strict=True)
    ]
    return torch.stack(found).mean()
