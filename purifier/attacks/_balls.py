"""Norm balls of perturbations: random starts, steepest-ascent steps and projections."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier.attacks._random import normal, uniform

Norm = Literal["Linf", "L2"]


def check_norm(norm: str) -> None:
    if not isinstance(norm, str) or norm not in get_args(Norm):
        raise OptionError(f"expected norm='Linf' or norm='L2', got {norm!r}")


def _length(perturbations: Tensor) -> Tensor:
    """L2 length of each image's perturbation, (N, 1, 1, 1), never zero."""
    return perturbations.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)


def sizes(perturbations: Tensor, norm: Norm) -> Tensor:
    """Norm of each image's perturbation, (N,)."""
    return perturbations.flatten(1).norm(p=2 if norm == "L2" else torch.inf, dim=1)


def project(perturbations: Tensor, eps: float | Tensor, norm: Norm) -> Tensor:
    """Moves perturbations (N, C, H, W) to the nearest point of the ball of radius eps, a number or (N, 1, 1, 1)."""
    if norm == "Linf":
        return perturbations.clamp(-eps, eps)  # type: ignore[arg-type]
    return perturbations * (eps / _length(perturbations)).clamp_max(1)


def ascend(gradients: Tensor, alpha: float, norm: Norm) -> Tensor:
    """Returns the step of size alpha along which a linear loss grows most."""
    if norm == "Linf":
        return alpha * gradients.sign()
    return alpha * gradients / _length(gradients)


def random_start(images: Tensor, eps: float, norm: Norm, generator: torch.Generator | None) -> Tensor:
    """Draws perturbations like `images`, uniform in the ball of radius eps."""
    if norm == "Linf":
        return (2 * uniform(images.shape, images, generator) - 1) * eps
    direction = normal(images.shape, images, generator)
    radius = eps * uniform((len(images), 1, 1, 1), images, generator) ** (1 / images[0].numel())
    return direction / _length(direction) * radius
