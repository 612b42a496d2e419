"""A few images of each cell, kept as files for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CLEAN, ATTACKED, CHANGE = "clean", "attacked", "perturbation"
_LARGEST = 256
_AMPLIFIED = 10


def save_pictures(
    folder: Path,
    indices: Sequence[int],
    clean: Sequence[Tensor],
    attacked: Sequence[Tensor],
    purified: Mapping[str, Sequence[Tensor]],
) -> None:
    """Writes <index>-<what>.png, at most 256 pixels a side: clean, attacked, perturbation, purified-0, purified-1, ...

    Args:
        folder: Made if it is not there.
        indices: Number of each image.
        clean: Images (3, H, W) in [0, 1].
        attacked: Likewise.
        purified: Likewise, by purifier, in the order of the results.
    """
    from purifier._images import write_image

    for place, index in enumerate(indices):
        change = (0.5 + _AMPLIFIED * (attacked[place] - clean[place])).clamp(0, 1)
        shown = {CLEAN: clean[place], ATTACKED: attacked[place], CHANGE: change}
        shown |= {purified_name(number): images[place] for number, images in enumerate(purified.values())}
        for what, image in shown.items():
            write_image(_picture(image), folder / f"{index:06d}-{what}.png")


def purified_name(number: int) -> str:
    """Returns the part of a file's name that stands for the purifier of that number."""
    return f"purified-{number}"


def _picture(image: Tensor) -> Any:
    from PIL import Image

    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    picture = Image.fromarray(pixels.contiguous().numpy())
    if max(picture.size) > _LARGEST:
        picture.thumbnail((_LARGEST, _LARGEST))
    return picture
