"""Reflect borders (whole-sample symmetric) of any width, even wider than the image."""

from __future__ import annotations

import torch
from torch import Tensor


def reflect_index(positions: Tensor, size: int) -> Tensor:
    """Folds positions on a line into 0 .. size - 1 by reflection about the first and last sample.

    The border sample is not repeated (-1 -> 1, size -> size - 2). The reflection repeats, so a border may be wider than
    the image. A line of one sample is constant.

    Args:
        positions: Integer positions, any shape.
        size: Number of samples on the line.
    """
    if isinstance(size, int):
        period: int | Tensor = max(2 * (size - 1), 1)
    else:
        # A tensor instead of a branch for a line of one sample, so that a graph for every size includes that case.
        period = (2 * torch.arange(size, device=positions.device)[-1:]).clamp_min(1)
    folded = positions.remainder(period)
    return torch.minimum(folded, period - folded)


def reflect_pad(images: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pads images (..., H, W) by reflection. Gradients flow to every copied pixel."""
    height, width = images.shape[-2:]
    if _may_differ(top) or _may_differ(bottom):
        rows = torch.arange(-top, height + bottom, device=images.device)
        images = images.index_select(-2, reflect_index(rows, height))
    if _may_differ(left) or _may_differ(right):
        columns = torch.arange(-left, width + right, device=images.device)
        images = images.index_select(-1, reflect_index(columns, width))
    return images


def crop(images: Tensor, height: int, width: int) -> Tensor:
    """Returns the first rows and columns of images (..., H, W)."""
    if isinstance(height, int) and isinstance(width, int):
        return images[..., :height, :width]
    # In a graph for every size, a slice would add a constraint on the size.
    rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
    return images.index_select(-2, rows).index_select(-1, columns)


def _may_differ(border: int) -> bool:
    """Whether a border may have a width above 0; True if the width depends on an open size."""
    return not isinstance(border, int) or border != 0
