"""A few images of each cell, written as files for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from purifier._images import write_image

CLEAN, ATTACKED, CHANGE = "clean", "attacked", "perturbation"
_LARGEST = 256
_AMPLIFIED = 10


def save_pictures(folder: Path, index: int, clean: Tensor, attacked: Tensor, purified: Sequence[Tensor]) -> None:
    """Writes <index>-<what>.png, at most 256 pixels a side: clean, attacked, perturbation, purified-0, purified-1, ...

    Args:
        folder: Folder to write to; it is created if needed.
        index: The image's number.
        clean: The image (3, H, W) in [0, 1].
        attacked: The attacked image, likewise.
        purified: What each purifier makes of the attacked image, in the order of the results.
    """
    shown = {CLEAN: clean, ATTACKED: attacked, CHANGE: (0.5 + _AMPLIFIED * (attacked - clean)).clamp(0, 1)}
    shown |= {purified_name(number): image for number, image in enumerate(purified)}
    for what, image in shown.items():
        write_image(_picture(image), folder / f"{index:06d}-{what}.png")


def purified_name(number: int) -> str:
    """Returns the part of a file name that stands for the purifier of that number."""
    return f"purified-{number}"


def _picture(image: Tensor) -> Any:
    from PIL import Image

    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    picture = Image.fromarray(pixels.contiguous().numpy())
    if max(picture.size) > _LARGEST:
        picture.thumbnail((_LARGEST, _LARGEST))
    return picture
