"""Reading image and mask files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from purifier._errors import InputError
from purifier._images import take_apart, to_uint8
from purifier._opening import as_path, is_folder, opened
from purifier._walking import no_images, walk


def image_folder(folder: str | Path) -> Path:
    """Returns the path of a folder of images.

    Raises:
        InputError: If it is not a folder.
    """
    root = as_path(folder, wanted="a folder of images")
    if not is_folder(root):
        raise InputError(f"expected a folder of images, got {root}, which is not a folder")
    return root


def list_images(folders: Sequence[str | Path]) -> list[Path]:
    """Returns the image files below the folders, sorted within each; see `walk`.

    Raises:
        InputError: If a folder does not exist, or there is no image in any of them.
    """
    found = [walk(image_folder(folder)).complete() for folder in folders]
    paths = [path for each in found for path in each.images]
    if not paths:
        raise no_images(map(Path, folders), sum((each.skipped for each in found), Counter()))
    return paths


def read_rgb(path: Path, *, turn: bool = True) -> Tensor:
    """Reads an image file as (3, H, W), float32, in [0, 1]. An alpha channel is dropped.

    Args:
        path: The file.
        turn: Whether to apply the EXIF orientation. Masks and boxes refer to the pixels without it.

    Raises:
        InputError: If the file cannot be read.
    """
    return take_apart(path, turn=turn).rgb


def read_pixels(path: Path, *, turn: bool = True) -> np.ndarray:
    """Reads an image file as (H, W, 3), uint8; otherwise as `read_rgb`."""
    return to_uint8(read_rgb(path, turn=turn))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Turns pixels (H, W, 3), uint8, into an image (3, H, W), float32, in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() / 255


def read_mask(path: Path) -> np.ndarray:
    """Reads a mask file as class numbers (H, W), int32: palette indices or grey values.

    Raises:
        InputError: If the file cannot be read or has several channels.
    """
    with opened(path) as image:
        mode, frames, values = image.mode, getattr(image, "n_frames", 1), np.array(image)
    if frames > 1 or values.ndim != 2 or values.dtype.kind == "f":
        got = f"{frames} frames" if frames > 1 else f"mode {mode!r}"
        raise InputError(f"expected a mask with one channel of class numbers, got {got} in {path}")
    return values.astype(np.int32)  # PIL cannot resize int64


def check_mask(pixels: Sequence[int], mask: Sequence[int], path: Path) -> None:
    """Checks that a mask has its image's height and width.

    Raises:
        InputError: If it does not.
    """
    if tuple(pixels) != tuple(mask):
        raise InputError(f"expected a mask of the image's size {tuple(pixels)}, got {tuple(mask)} in {path}")


def central_square(height: int, width: int, share: float = 1.0) -> tuple[slice, slice]:
    """Returns the rows and columns of the central square of an image.

    Args:
        height: Height of the image, in pixels.
        width: Its width.
        share: Side of the square as a share of the image's shorter side.
    """
    side = max(1, round(min(height, width) * share))
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side)
