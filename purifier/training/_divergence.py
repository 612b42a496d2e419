"""The losses of attacks that need no labels: away from what a classifier says of the clean image."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def divergence(logits: Tensor, beliefs: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each image, (N,), of beliefs (N, K) from those that logits (N, K) stand for."""
    return F.kl_div(logits.float().log_softmax(1), beliefs, reduction="none").sum(1)


def disbelief(logits: Tensor, beliefs: Tensor) -> Tensor:
    """Cross entropy of each image, (N,), of logits (N, K) with the class that beliefs (N, K) are surest of.

    Unlike the divergence it has a gradient at the clean image, where attacks without a random start begin.
    """
    return F.cross_entropy(logits.float(), beliefs.argmax(1), reduction="none")
