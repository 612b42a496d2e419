"""Parts of label-free attacks: losses on a classifier's own predictions, noise, and strengths drawn at random."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier.methods.noise import ProjectedNoise

# Gaussian noise of dynamic inference: sigma 0.05 with eps 16/255.
_SIGMA_OF_EPS = 0.05 / (16 / 255)


def divergence(logits: Tensor, predictions: Tensor) -> Tensor:
    """Kullback-Leibler divergence of predictions from the softmax of logits, in nats.

    Args:
        logits: The classifier's output (N, K) for the images at hand.
        predictions: Class probabilities (N, K) of the clean images.

    Returns:
        The divergence of each image (N,). Gradients flow to the logits; at the clean image they are zero.
    """
    return F.kl_div(logits.float().log_softmax(1), predictions, reduction="none").sum(1)


def top_class_loss(logits: Tensor, predictions: Tensor) -> Tensor:
    """Cross entropy (N,) of logits (N, K) with the most likely class of predictions (N, K).

    Unlike the divergence, it has a gradient at the clean image, where attacks without a random start begin.
    """
    return F.cross_entropy(logits.float(), predictions.argmax(1), reduction="none")


def gaussian(images: Tensor, eps: float) -> Tensor:
    """Adds Gaussian noise within eps to images in [0, 1], as dynamic inference does for eps 16/255."""
    noised: Tensor = ProjectedNoise(sigma=_SIGMA_OF_EPS * eps, eps=eps)(images)
    return noised


def between(low: float, high: float) -> float:
    """Draws a number between two from torch's global generator."""
    return low + (high - low) * torch.rand(()).item()
