"""The losses of NRP beside that of its critic: eq. 6 and 8 of the paper."""

from __future__ import annotations

from torch import Tensor


def pixel_loss(purified: Tensor, clean: Tensor) -> Tensor:
    """L_img (eq. 6): the Euclidean distance of each image (N, C, H, W) to its clean one, averaged over the batch.

    It is not divided by the number of pixels, so that it grows with the crop, as the equation says.
    """
    return (purified - clean).flatten(1).norm(dim=1).mean()


def feature_loss(purified: Tensor, clean: Tensor) -> Tensor:
    """L_feat (eq. 8): the mean absolute difference of features."""
    return (purified - clean).abs().mean()
