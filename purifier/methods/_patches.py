"""A network between a space-to-depth and a depth-to-space, on images of any size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier.methods._borders import crop, reflect_pad
from purifier.methods._no_grad import by_parts


def on_patches(network: Callable[[Tensor], Tensor], images: Tensor, patch: int, align: int | None = None) -> Tensor:
    """Applies a network to an image whose patches are its pixels, in bounded memory where no gradient is recorded.

    Args:
        network: Map from (N, C * patch**2, H / patch, W / patch) to the same shape.
        images: (N, C, H, W); sizes that `align` does not divide are padded by reflection and cropped back.
        patch: Side of a patch, in pixels.
        align: What H and W have to be a multiple of for the network, itself one of `patch`; `patch` where None.
    """
    align = align or patch
    height, width = images.shape[-2:]
    # Of positive numbers only: integer division rounds negative ones otherwise in other runtimes.
    bottom, right = ((size + align - 1) // align * align - size for size in (height, width))
    padded = reflect_pad(images, 0, right, 0, bottom)
    patches = F.pixel_unshuffle(padded, patch).contiguous(memory_format=torch.channels_last)
    return crop(F.pixel_shuffle(by_parts(network, patches), patch), height, width)
