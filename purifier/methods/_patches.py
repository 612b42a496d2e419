"""Applies a network between space-to-depth and depth-to-space, to images of any size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier.methods._borders import crop, reflect_pad
from purifier.methods._no_grad import by_parts


def on_patches(network: Callable[[Tensor], Tensor], images: Tensor, patch: int, align: int | None = None) -> Tensor:
    """Applies a network to an image whose patches are its pixels. Without gradients the memory is bounded.

    Args:
        network: Map from (N, C * patch**2, H / patch, W / patch) to the same shape.
        images: (N, C, H, W). Sizes that are not multiples of `align` are padded by reflection and cropped back.
        patch: Side of a patch, in pixels.
        align: The network needs H and W to be multiples of this, which is a multiple of `patch`. None means `patch`.
    """
    align = align or patch
    height, width = images.shape[-2:]
    # With positive numbers only, because other runtimes round the division of negative integers differently.
    bottom, right = ((size + align - 1) // align * align - size for size in (height, width))
    padded = reflect_pad(images, 0, right, 0, bottom)
    patches = F.pixel_unshuffle(padded, patch).contiguous(memory_format=torch.channels_last)
    return crop(F.pixel_shuffle(by_parts(network, patches), patch), height, width)
