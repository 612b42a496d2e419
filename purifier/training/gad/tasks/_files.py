"""Files of the samples, and random crops of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from purifier._errors import InputError, OptionError

# Zeros that are added on each side of small images before the crop.
_PADDING = 4


def folder_of(name: str, option: str) -> Path:
    """Returns the folder that an option names.

    Raises:
        OptionError: Where the option was not given.
        InputError: Where there is no such folder.
    """
    if not name:
        raise OptionError(f"expected {option}, a folder, for this task, got none")
    if not Path(name).is_dir():
        raise InputError(f"expected {option} to be a folder, got {name}, which is none")
    return Path(name)


def resized(pixels: np.ndarray, height: int, width: int, *, nearest: bool = False) -> np.ndarray:
    """Resizes pixels (H, W, 3) or a mask (H, W), uint8."""
    if pixels.shape[:2] == (height, width):
        return pixels
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize((width, height), how))


def central_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Cuts out the central square of pixels (H, W, 3) and resizes it to (size, size, 3)."""
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return resized(pixels[top : top + side, left : left + side], size, size)


def padded_crop(pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Crop of the central square that is moved by up to 4 pixels, with zeros beyond the border, flipped at random."""
    padded = np.pad(central_square(pixels, size), ((_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)))
    top, left = random.integers(2 * _PADDING + 1, size=2)
    return _flipped(padded[top : top + size, left : left + size], random)


def resized_crop(pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Square crop of a quarter to the whole of the shorter side, squared, resized to `size`, flipped at random."""
    shorter = min(pixels.shape[:2])
    side = max(1, round(shorter * random.uniform(0.25, 1.0) ** 0.5))
    top, left = (random.integers(length - side + 1) for length in pixels.shape[:2])
    return _flipped(resized(pixels[top : top + side, left : left + side], size, size), random)


def _flipped(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return pixels[:, ::-1] if random.random() < 0.5 else pixels
