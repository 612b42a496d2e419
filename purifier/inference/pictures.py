"""Purifying a picture of any size: large ones in blocks, so that only their 8-bit pixels are held whole."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from purifier._errors import warn_once
from purifier._images import Picture
from purifier.inference.tiling import spans
from purifier.methods import Method

# Pictures with more pixels are purified in blocks. The output is the same up to the rounding of float32.
BLOCK = 2048
LARGE = 4 * BLOCK * BLOCK
# Float32 copies of a picture that a purifier without blocks holds at least: input, output, and what is between them.
_COPIES = 5


class Purifies(Protocol):
    """What is used of a `Purifier`."""

    method: Method
    name: str

    def __call__(self, images: Tensor, /) -> Tensor:
        """Purifies an image (3, H, W)."""


@torch.inference_mode()
def purify_picture(purifier: Purifies, picture: Picture) -> np.ndarray:
    """Returns the purified pixels of a picture, in the form of `picture.pixels`.

    Warns of the memory if a large picture cannot be purified in blocks.
    """
    height, width = picture.size
    if height * width <= LARGE:
        return picture.to_pixels(purifier(picture.rgb))
    stages = purifier.method.stages()
    halos = [stage.halo for stage in stages]
    if None in halos:
        warn_once(
            f"a picture of {width} x {height} pixels takes at least {memory_of(height, width):.1f} GB of memory with "
            f"{purifier.name!r}, whose every output pixel depends on the whole picture; make the picture smaller, or "
            "choose another purifier",
            stacklevel=3,
        )
        return picture.to_pixels(purifier(picture.rgb))
    halo, align = sum(halo for halo in halos if halo), math.lcm(*(stage.align for stage in stages))
    out = np.empty_like(picture.pixels)
    for top, bottom, first_row, last_row in spans(height, BLOCK, halo, align):
        for left, right, first_column, last_column in spans(width, BLOCK, halo, align):
            block = purifier(picture.part(slice(first_row, last_row), slice(first_column, last_column)))
            inner = block[:, top - first_row : bottom - first_row, left - first_column : right - first_column]
            out[top:bottom, left:right] = picture.to_pixels(inner)
    return out


def memory_of(height: int, width: int) -> float:
    """Returns a lower bound of the memory, in GB, of purifying a picture as a whole."""
    return height * width * 3 * torch.float32.itemsize * _COPIES / 1e9
