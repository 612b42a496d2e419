"""Purifying pictures: small ones in batches of one size, large ones in blocks, of whose floats few are held.

Every engine makes the same batches, and so the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from purifier._errors import InputError, warn_once
from purifier._images import Picture
from purifier.inference.tiling import spans
from purifier.methods import Method

# Pictures with more pixels are purified in blocks. The output is the same up to the rounding of float32.
BLOCK = 2048
LARGE = 4 * BLOCK * BLOCK
# Float32 copies of a picture that a purifier without blocks holds at least: input, output, and what is between them.
_COPIES = 5
# A batch holds at most this many pixels for each image that is allowed, so large images go alone.
_PIXELS_PER_IMAGE = 1 << 20
# Batches are made of so many consecutive pictures for each image of a batch: bounded, and the unit of work elsewhere.
WINDOW = 32

Item = TypeVar("Item")


class Purifies(Protocol):
    """What is used of a `Purifier`."""

    method: Method
    name: str

    def __call__(self, images: Tensor, /) -> Tensor:
        """Purifies images (3, H, W) or (N, 3, H, W)."""

    def purify_and_score(self, images: Tensor, /) -> tuple[Tensor, Tensor]:
        """Returns purified images and their attack scores."""

    def attack_score(self, images: Tensor, /) -> Tensor:
        """Returns the attack scores of images."""

    def tiled(self, size: int, /) -> Self:
        """Returns a purifier that works tile by tile."""

    def _fine_enough(self, sixteen_bit: bool) -> Self: ...


class Purified(NamedTuple):
    """The purified pixels of a picture, in the form of `Picture.pixels`, and its attack score if it was asked for."""

    pixels: np.ndarray
    score: float | None


def windows(items: Iterable[Item], batch_size: int) -> Iterator[list[Item]]:
    """Yields the consecutive items that batches are made of."""
    iterator = iter(items)
    while window := list(islice(iterator, WINDOW * batch_size)):
        yield window


def batches(items: Iterable[Item], size_of: Callable[[Item], tuple[int, int]], batch_size: int) -> Iterator[list[Item]]:
    """Yields batches of items whose pictures have one size. An item whose size cannot be read comes alone.

    Args:
        items: What has a picture.
        size_of: Returns the height and width of the picture of an item, or raises InputError.
        batch_size: The largest number of pictures in a batch.
    """
    for window in windows(items, batch_size):
        waiting: dict[tuple[int, int], list[Item]] = {}
        for item in window:
            try:
                size = size_of(item)
            except InputError:
                yield [item]
                continue
            batch = waiting.setdefault(size, [])
            batch.append(item)
            if len(batch) >= min(batch_size, max(1, batch_size * _PIXELS_PER_IMAGE // (size[0] * size[1]))):
                yield waiting.pop(size)
        yield from waiting.values()


def purify_pictures(
    purifier: Purifies, pictures: Sequence[Picture], *, scored: bool = False
) -> list[Purified | Exception]:
    """Purifies a batch of pictures of one size.

    Args:
        purifier: The purifier.
        pictures: The pictures.
        scored: Whether they get attack scores, for which the purifier needs a gate.

    Returns:
        For each picture the result, or the exception that it failed with.
    """
    results: dict[bool, Iterator[Purified | Exception]] = {}
    for deep in {picture.sixteen_bit for picture in pictures}:
        chosen = purifier._fine_enough(True) if deep else purifier
        results[deep] = iter(_purify([one for one in pictures if one.sixteen_bit is deep], chosen, scored))
    return [next(results[picture.sixteen_bit]) for picture in pictures]


def _purify(pictures: list[Picture], purifier: Purifies, scored: bool) -> Sequence[Purified | Exception]:
    """Purifies a batch, and one by one if that fails, for example for want of memory."""
    try:
        if pictures[0].size[0] * pictures[0].size[1] > LARGE:
            return [_purify_large(purifier, picture, scored) for picture in pictures]
        with torch.inference_mode():
            images = torch.stack([picture.rgb for picture in pictures])
            purified, scores = purifier.purify_and_score(images) if scored else (purifier(images), None)
            values = [None] * len(pictures) if scores is None else scores.tolist()
            pixels = [picture.to_pixels(rgb) for picture, rgb in zip(pictures, purified, strict=True)]
            return [Purified(*result) for result in zip(pixels, values, strict=True)]
    except (RuntimeError, ValueError, MemoryError) as error:
        if len(pictures) == 1:
            return [error]
    return [_purify([picture], purifier, scored)[0] for picture in pictures]


@torch.inference_mode()
def _purify_large(purifier: Purifies, picture: Picture, scored: bool) -> Purified:
    pixels = purify_picture(purifier, picture)
    return Purified(pixels, purifier.attack_score(picture.rgb).item() if scored else None)


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
    if any(stage.whole is not None for stage in stages):
        # It has to see the whole picture first.
        return picture.to_pixels(purifier.tiled(BLOCK)(picture.rgb))
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
