"""The losses of Alloy: nearness to the clean image, in pixels and in the features of fixed networks; the gate's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


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


def gate_loss(spoilt: Tensor, attacked: bool, clean: Tensor) -> Tensor:
    """Cross entropy of a gate's logits, for spoilt images, attacked or not, and for clean ones; the mean, in nats."""
    found = [
        F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, float(wanted), dtype=torch.float32))
        for logits, wanted in ((spoilt, attacked), (clean, False))
    ]
    return torch.stack(found).mean()
