"""The smallest perturbations that an attack has found."""

from __future__ import annotations

import torch
from torch import Tensor

from purifier.attacks._balls import Norm, sizes


class Smallest:
    """The smallest perturbation found so far that fools the model, for each image.

    Attributes:
        images: (N, C, H, W): the adversarial image of smallest norm; the clean image before one is found.
        lengths: Norm of its perturbation, (N,); infinite before one is found.
    """

    def __init__(self, images: Tensor, norm: Norm) -> None:
        self.images = images.clone()
        self.lengths = torch.full((len(images),), torch.inf, dtype=images.dtype, device=images.device)
        self._norm: Norm = norm

    def update(self, index: Tensor, points: Tensor, images: Tensor) -> None:
        """Takes points (M, C, H, W) that fool the model, for the images (N, C, H, W) of the numbers `index` (M,)."""
        lengths = sizes(points - images[index], self._norm)
        smaller = lengths < self.lengths[index]
        self.lengths[index[smaller]] = lengths[smaller]
        self.images[index[smaller]] = points[smaller]
