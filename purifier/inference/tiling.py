"""Tiling: the same output in bounded memory.

Each stage of a method is applied to tiles that overlap by the stage's halo, so that every output pixel depends on the
same input pixels as in the whole image.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from purifier._errors import OptionError
from purifier.methods import Method, Stage


def apply_tiled(method: Method, images: Tensor, size: int) -> Tensor:
    """Applies a method in tiles of at most `size` x `size` output pixels. Gradients flow.

    Args:
        method: The method. Stages without a finite halo see the whole image.
        images: (N, 3, H, W).
        size: Side of a tile, in pixels.
    """
    for stage in method.stages():
        images = apply_stage(stage, images, size)
    return images


def check_tileable(method: Method, size: int, name: str) -> None:
    """Raises OptionError if the method cannot be tiled."""
    if not isinstance(size, int) or size < 16:
        raise OptionError(f"expected a tile size of at least 16 pixels, got {size!r}")
    if any(stage.halo is None for stage in method.stages()):
        raise OptionError(f"{name!r} cannot be tiled: every output pixel depends on the whole image; leave tiled() out")


def spans(length: int, size: int, halo: int, align: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields (start, stop, first, last): the span of a tile's output and the span of its input."""
    size = max(align, size - size % align)
    for start in range(0, length, size):
        stop = min(length, start + size)
        first = max(0, start - halo)
        yield start, stop, first - first % align, min(length, stop + halo)


def apply_stage(stage: Stage, images: Tensor, size: int) -> Tensor:
    """Does `apply_tiled` for one stage, whose output may have other channels, and a position for each of its cells."""
    height, width = images.shape[-2:]
    if stage.halo is None or (height <= size and width <= size):
        return stage.apply(images)
    whole = () if stage.whole is None else (apply_stage(stage.whole, images, size),)
    out: Tensor | None = None
    for top, bottom, first_row, last_row in spans(height, size, stage.halo, stage.align):
        for left, right, first_column, last_column in spans(width, size, stage.halo, stage.align):
            tile = stage.apply(images[..., first_row:last_row, first_column:last_column], *whole)
            if out is None:
                out = tile.new_empty(*tile.shape[:2], -(-height // stage.cell), -(-width // stage.cell))
            rows, columns = _cells(top, bottom, 0, stage.cell), _cells(left, right, 0, stage.cell)
            inside = _cells(top, bottom, first_row, stage.cell), _cells(left, right, first_column, stage.cell)
            out[..., rows, columns] = tile[..., inside[0], inside[1]]
    assert out is not None
    return out


def _cells(start: int, stop: int, first: int, cell: int) -> slice:
    """Returns the cells of the pixels from start to stop, counted from the pixel `first`."""
    return slice((start - first) // cell, -(-(stop - first) // cell))
