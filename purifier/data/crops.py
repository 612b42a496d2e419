"""Random crops of the images in folders.

A crop is a function of (seed, index) alone, so a resumed run gets the same crops as an unbroken one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from purifier._errors import InputError, OptionError
from purifier.data.degrade import degraded
from purifier.data.images import central_square, read_pixels, to_tensor

# Width of the border of zeros that `padded_crop` adds, in pixels.
_PADDING = 4

_T = TypeVar("_T")


def split_validation(items: Sequence[_T], every: int) -> tuple[list[_T], list[_T]]:
    """Splits items into (training, validation): each `every`-th item is for validation.

    Raises:
        InputError: If there are fewer than two items.
        OptionError: If `every` is below 2, which leaves no item for training.
    """
    if every < 2:
        raise OptionError(f"expected validation_every >= 2, got {every}, which leaves no images to train on")
    if len(items) < 2:
        raise InputError(f"expected at least 2 images, one of them to validate, got {len(items)}; add images")
    return [item for i, item in enumerate(items) if i % every], [item for i, item in enumerate(items) if i % every == 0]


def evenly(items: Sequence[_T], count: int) -> list[_T]:
    """Returns at most `count` items, spread over the sequence.

    Raises:
        OptionError: If `count` is below 1.
    """
    if count < 1:
        raise OptionError(f"expected at least 1 image to validate on, got validation_images={count}")
    return list(items[:: max(1, len(items) // count)][:count])


class RandomCrops(Dataset[Tensor]):
    """Random square crops of images. Each image is first shrunk at random, and each crop is flipped at random.

    Args:
        paths: Image files.
        crop_size: Side of the crop in pixels. Smaller images are enlarged to it.
        length: Number of crops.
        seed: Random seed. A crop depends on the seed and its index only.
        shrink: Smallest factor, in (0, 1], by which an image is shrunk before the crop. 1 keeps its size.
        aliased: Share of the shrunk images that are shrunk without antialiasing.
        vary: Share of the crops that are degraded; see `degraded`.
        cache_bytes: Size of the cache of decoded images, in bytes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        crop_size: int,
        length: int,
        seed: int,
        shrink: float = 1.0,
        aliased: float = 0.0,
        vary: float = 0.0,
        cache_bytes: int = 2 << 30,
    ) -> None:
        self.paths = list(paths)
        self.crop_size = crop_size
        self.length = length
        self.seed = seed
        self.shrink = shrink
        self.aliased = aliased
        self.vary = vary
        self._cache: dict[int, np.ndarray] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        """Returns crop number `index`, (3, crop_size, crop_size), float in [0, 1]."""
        random = np.random.default_rng((self.seed, index))
        pixels = self._pixels(int(random.integers(len(self.paths))))
        factor = random.uniform(self.shrink, 1.0)
        height, width = (max(self.crop_size, round(side * factor)) for side in pixels.shape[:2])
        if (height, width) != pixels.shape[:2]:
            # Drawn only if needed, so that the crops of runs without this option do not change.
            aliased = self.aliased > 0 and random.random() < self.aliased
            pixels = _aliased(pixels, height, width, random) if aliased else resized(pixels, height, width)
        top = random.integers(height - self.crop_size + 1)
        left = random.integers(width - self.crop_size + 1)
        crop = pixels[top : top + self.crop_size, left : left + self.crop_size]
        crop = crop[:, ::-1] if random.random() < 0.5 else crop
        vary = self.vary > 0 and random.random() < self.vary
        return to_tensor(degraded(np.ascontiguousarray(crop), random) if vary else crop)

    def _pixels(self, number: int) -> np.ndarray:
        if number in self._cache:
            return self._cache[number]
        pixels = read_pixels(self.paths[number])
        if pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._cache[number] = pixels
        return pixels


def _aliased(pixels: np.ndarray, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Shrinks pixels without antialiasing: by nearest neighbour, or bilinearly."""
    kernel = Image.Resampling.NEAREST if random.random() < 0.5 else Image.Resampling.BILINEAR
    scale = (pixels.shape[1] / width, 0, 0, 0, pixels.shape[0] / height, 0)
    return np.asarray(Image.fromarray(pixels).transform((width, height), Image.Transform.AFFINE, scale, kernel))


def resized(pixels: np.ndarray, height: int, width: int, *, nearest: bool = False) -> np.ndarray:
    """Resizes pixels (H, W, 3), uint8, bicubically, or a mask (H, W) by nearest neighbour, with PIL."""
    if pixels.shape[:2] == (height, width):
        return pixels
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize((width, height), how))


def bicubic_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Cuts out the central square of pixels (H, W, 3), uint8, and resizes it to (size, size, 3) with PIL, bicubic."""
    rows, columns = central_square(*pixels.shape[:2])
    return resized(pixels[rows, columns], size, size)


def padded_crop(pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Returns the central square of pixels (H, W, 3) at `size`, shifted by up to 4 pixels and flipped at random."""
    padded = np.pad(bicubic_square(pixels, size), ((_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)))
    top, left = random.integers(2 * _PADDING + 1, size=2)
    return _flipped(padded[top : top + size, left : left + size], random)


def resized_crop(pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Returns a random square of pixels (H, W, 3) at `size`, flipped at random.

    Its area is a quarter to the whole of the largest square.
    """
    shorter = min(pixels.shape[:2])
    side = max(1, round(shorter * random.uniform(0.25, 1.0) ** 0.5))
    top, left = (random.integers(length - side + 1) for length in pixels.shape[:2])
    return _flipped(resized(pixels[top : top + side, left : left + side], size, size), random)


def _flipped(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return pixels[:, ::-1] if random.random() < 0.5 else pixels
