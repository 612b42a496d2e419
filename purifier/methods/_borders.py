"""Reflect borders (whole-sample symmetric) of any width, also wider than the image."""

from __future__ import annotations

import torch
from torch import Tensor


def reflect_index(positions: Tensor, size: int) -> Tensor:
    """Folds positions on a line into 0 .. size - 1 by reflection about the first and last sample.

    The border sample is not repeated (-1 -> 1, size -> size - 2), and the reflection goes on for as long as it
    has to, so a border may be wider than the image. A line of one sample is constant.

    Args:
        positions: Integer positions, any shape.
        size: Number of samples on the line.
    """
    period = max(2 * (size - 1), 1)
    folded = positions.remainder(period)
    return torch.minimum(folded, period - folded) if size > 1 else torch.zeros_like(positions)


def reflect_pad(images: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pads images (..., H, W) by reflection; gradients flow to every copied pixel."""
    height, width = images.shape[-2:]
    if top or bottom:
        rows = torch.arange(-top, height + bottom, device=images.device)
        images = images.index_select(-2, reflect_index(rows, height))
    if left or right:
        columns = torch.arange(-left, width + right, device=images.device)
        images = images.index_select(-1, reflect_index(columns, width))
    return images
