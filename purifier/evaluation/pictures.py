"""A few images of each cell, written as files for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from purifier._images import to_uint8, write_image

CLEAN, ATTACKED, CHANGE = "clean", "attacked", "perturbation"
# Boxes with a lower score are not drawn.
LEAST_SCORE = 0.5
_LARGEST = 256
# Distinct for all kinds of colour vision: Okabe & Ito, "Color Universal Design".
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (240, 228, 66))
_AMPLIFIED = 10


def save_pictures(
    folder: Path,
    index: int,
    clean: Tensor,
    attacked: Tensor,
    purified: Sequence[Tensor],
    draw: Callable[[list[Tensor]], list[Tensor]],
) -> None:
    """Writes <index>-<what>.png, at most 256 pixels a side: clean, attacked, perturbation, purified-0, purified-1, ...

    Args:
        folder: Folder to write to; it is created if needed.
        index: The image's number.
        clean: The image (3, H, W) in [0, 1].
        attacked: The attacked image, likewise.
        purified: What each purifier makes of the attacked image, in the order of the results.
        draw: Draws the model's predictions into images.
    """
    names = [CLEAN, ATTACKED, *map(purified_name, range(len(purified)))]
    shown = dict(zip(names, draw([clean, attacked, *purified]), strict=True))
    shown[CHANGE] = (0.5 + _AMPLIFIED * (attacked - clean)).clamp(0, 1)
    for what, image in shown.items():
        write_image(_picture(image), folder / f"{index:06d}-{what}.png")


def purified_name(number: int) -> str:
    """Returns the part of a file name that stands for the purifier of that number."""
    return f"purified-{number}"


def with_classes(image: Tensor, classes: Tensor) -> Tensor:
    """Returns an image (3, H, W) with the class of each pixel (H, W) as a colour; class 0 has none."""
    tint = _colours(image)[(classes - 1) % len(_COLOURS)].permute(2, 0, 1)
    return torch.where(classes > 0, 0.45 * image + 0.55 * tint, image)


def with_boxes(image: Tensor, found: Mapping[str, Tensor]) -> Tensor:
    """Returns an image (3, H, W) with the outlines of the boxes that a detector is sure of."""
    drawn, (height, width) = image.clone(), image.shape[-2:]
    thick = max(1, max(height, width) // 128)
    sure = (found["scores"] >= LEAST_SCORE) & found["boxes"].isfinite().all(1)
    for box, label in zip(found["boxes"][sure].round().tolist(), found["labels"][sure].tolist(), strict=True):
        left, top = (round(min(max(value, 0), most - 1)) for value, most in zip(box[:2], (width, height), strict=True))
        right, bottom = (round(min(max(value, 1), most)) for value, most in zip(box[2:], (width, height), strict=True))
        colour = _colours(image)[label % len(_COLOURS)][:, None, None]
        outline = drawn[:, top:bottom, left:right]
        inside = outline[:, thick:-thick, thick:-thick].clone()
        outline[:] = colour
        outline[:, thick:-thick, thick:-thick] = inside
    return drawn


def _colours(image: Tensor) -> Tensor:
    return torch.tensor(_COLOURS, dtype=image.dtype, device=image.device) / 255


def _picture(image: Tensor) -> Any:
    from PIL import Image

    picture = Image.fromarray(to_uint8(image.detach().cpu().float().clamp(0, 1)))
    if max(picture.size) > _LARGEST:
        picture.thumbnail((_LARGEST, _LARGEST))
    return picture
