"""Images with classes, masks or boxes.

Images are read when they are asked for, so a set may be larger than memory. The fingerprint of a set changes with its
files and targets, so that results of different data never mix.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._errors import InputError
from purifier._images import read_size
from purifier._options import check_integer
from purifier.data.coco import Box
from purifier.data.images import central_square, check_mask, read_mask, read_rgb

# Side of an image in pixels that fills the memory.
_LARGEST_SIDE = 32_768


@dataclass(frozen=True, kw_only=True)
class ImageSet(ABC):
    """Image files and their targets, in a fixed order.

    Attributes:
        root: The folder; names are relative to it.
        files: Its images.
        size: Side of the resized images in pixels; each kind of set resizes differently. None keeps their own size.
    """

    root: Path
    files: tuple[Path, ...]
    size: int | None = None

    # Whether the EXIF orientation is applied.
    _turn: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.size is not None:
            check_integer("size", self.size, low=1, high=_LARGEST_SIDE, why="images of that side fill the memory")

    def __len__(self) -> int:
        return len(self.files)

    @property
    def names(self) -> list[str]:
        """Path of each file relative to the root, with forward slashes."""
        return [path.relative_to(self.root).as_posix() for path in self.files]

    @abstractmethod
    def load(self, indices: Sequence[int]) -> tuple[Any, Any]:
        """Reads some images and their targets.

        Returns:
            Float images in [0, 1], (N, 3, H, W), or for detection a list of (3, H, W); and their targets.

        Raises:
            InputError: If a file cannot be read, or the images are of different sizes.
        """

    @abstractmethod
    def pick(self, indices: Sequence[int]) -> Self:
        """Returns a set of these images only."""

    @abstractmethod
    def _target_bytes(self, index: int) -> bytes:
        """Bytes of a target for the fingerprint."""

    def fingerprint(self) -> str:
        """Returns the SHA-256 over names, file contents, targets and size."""
        digest = hashlib.sha256(f"{type(self).__name__} {self.size}".encode())
        for index, (name, path) in enumerate(zip(self.names, self.files, strict=True)):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            target = hashlib.sha256(self._target_bytes(index)).hexdigest()
            digest.update(os.fsencode(f"\n{name} {content} {target}"))
        return digest.hexdigest()

    def batches(self, batch_size: int) -> Iterator[list[int]]:
        """Yields batches of consecutive images of one size, at most `batch_size` each; always the same ones."""
        batch: list[int] = []
        last: Any = None
        for index in range(len(self)):
            shape = self._shape(index)
            if batch and (shape != last or len(batch) == batch_size):
                yield batch
                batch = []
            batch.append(index)
            last = shape
        if batch:
            yield batch

    def _shape(self, index: int) -> Any:
        return read_size(self.files[index], turn=self._turn) if self.size is None else self.size

    def spread(self, count: int | None) -> Self:
        """Returns `count` images spread evenly over the set, so that sorted class folders all contribute."""
        if count is None:
            return self
        check_integer("the number of images", count, low=-1)
        if count >= len(self):
            return self
        if count < 1:
            raise InputError(f"expected at least one image to evaluate on, got {count}")
        return self.pick([index * len(self) // count for index in range(count)])


@dataclass(frozen=True, kw_only=True)
class LabelledImages(ImageSet):
    """Images with one class each. Resizing crops the central square and scales it.

    Attributes:
        labels: Class number of each image.
        classes: Names of the classes by number; None if unknown.
        folders: Number of class folders if only their order assigns them to classes, otherwise None.
    """

    labels: tuple[int, ...]
    classes: tuple[str, ...] | None = None
    folders: int | None = None

    def load(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return _squares(self, indices), torch.tensor([self.labels[index] for index in indices])

    def pick(self, indices: Sequence[int]) -> Self:
        files = tuple(self.files[index] for index in indices)
        return replace(self, files=files, labels=tuple(self.labels[index] for index in indices))

    def _target_bytes(self, index: int) -> bytes:
        return str(self.labels[index]).encode()


@dataclass(frozen=True, kw_only=True)
class UnlabelledImages(ImageSet):
    """Images without targets. Resizing crops the central square and scales it."""

    def load(self, indices: Sequence[int]) -> tuple[Tensor, None]:
        return _squares(self, indices), None

    def pick(self, indices: Sequence[int]) -> Self:
        return replace(self, files=tuple(self.files[index] for index in indices))

    def _target_bytes(self, index: int) -> bytes:
        return b""


@dataclass(frozen=True, kw_only=True)
class MaskedImages(ImageSet):
    """Images with one mask of class numbers each. Resizing squeezes images into a square; masks use nearest neighbours.

    Images are read without their EXIF orientation, as masks are.

    Attributes:
        masks: Mask file of each image: a palette or greyscale image whose values are class numbers.
    """

    masks: tuple[Path, ...]

    _turn = False

    def load(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images, masks = [], []
        for index in indices:
            rgb, path = read_rgb(self.files[index], turn=False), self.masks[index]
            mask = torch.from_numpy(read_mask(path)).long()
            check_mask(rgb.shape[-2:], mask.shape, path)
            if self.size is not None:
                shape = (self.size, self.size)
                rgb = _resize(rgb, shape)
                mask = F.interpolate(mask[None, None].float(), shape, mode="nearest-exact")[0, 0].long()
            images.append(rgb)
            masks.append(mask)
        return _stack(images), torch.stack(masks)

    def pick(self, indices: Sequence[int]) -> Self:
        files = tuple(self.files[index] for index in indices)
        return replace(self, files=files, masks=tuple(self.masks[index] for index in indices))

    def _target_bytes(self, index: int) -> bytes:
        return self.masks[index].read_bytes()


@dataclass(frozen=True, kw_only=True)
class BoxedImages(ImageSet):
    """Images with boxes. Resized images, and their boxes, are scaled so that the longer side is `size`.

    Images are read without their EXIF orientation, as boxes are.

    Attributes:
        boxes: Boxes of each image as (x1, y1, x2, y2, category id, crowd), in pixels of the file.
        categories: Names of the categories by id.
    """

    boxes: tuple[tuple[Box, ...], ...]
    categories: dict[int, str]

    def load(self, indices: Sequence[int]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Reads images (3, H, W) and targets with boxes (M, 4) x1 y1 x2 y2 in pixels, labels (M,) and iscrowd (M,)."""
        images = []
        for index in indices:
            rgb = read_rgb(self.files[index], turn=False)
            height, width = rgb.shape[-2:]
            scale = self._scale(height, width)
            images.append(_resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale)))))
        return images, [self.target(index) for index in indices]

    def target(self, index: int) -> dict[str, Tensor]:
        """Returns the target of an image, as `load` does, without reading its pixels."""
        scale = 1.0 if self.size is None else self._scale(*read_size(self.files[index], turn=False))
        boxes = torch.tensor([box[:4] for box in self.boxes[index]], dtype=torch.float32).reshape(-1, 4) * scale
        labels = torch.tensor([box[4] for box in self.boxes[index]], dtype=torch.long)
        crowd = torch.tensor([box[5] for box in self.boxes[index]], dtype=torch.long)
        return {"boxes": boxes, "labels": labels, "iscrowd": crowd}

    def _scale(self, height: int, width: int) -> float:
        return 1.0 if self.size is None else self.size / max(height, width)

    def pick(self, indices: Sequence[int]) -> Self:
        files = tuple(self.files[index] for index in indices)
        return replace(self, files=files, boxes=tuple(self.boxes[index] for index in indices))

    def _shape(self, index: int) -> Any:
        return None  # batches are lists of images, which may differ in size

    def _target_bytes(self, index: int) -> bytes:
        return json.dumps(self.boxes[index]).encode()


def bilinear_square(rgb: Tensor, size: int | None, share: float = 1.0) -> Tensor:
    """Cuts out the central square of an image and resizes it with torch, bilinearly, with antialiasing.

    Args:
        rgb: Image (3, H, W), float, in [0, 1].
        size: Side of the result in pixels. None returns the image unchanged.
        share: Side of the square as a share of the image's shorter side.
    """
    if size is None:
        return rgb
    height, width = rgb.shape[-2:]
    rows, columns = central_square(height, width, share)
    return _resize(rgb[:, rows, columns], (size, size))


def _resize(rgb: Tensor, shape: tuple[int, int]) -> Tensor:
    if tuple(rgb.shape[-2:]) == shape:
        return rgb
    return F.interpolate(rgb[None], shape, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _squares(images: ImageSet, indices: Sequence[int]) -> Tensor:
    """Reads the central squares of some images."""
    return _stack([bilinear_square(read_rgb(images.files[index]), images.size) for index in indices])


def _stack(images: Sequence[Tensor]) -> Tensor:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InputError(f"expected images of one size in a batch, got {sorted(shapes)}; give a size to resize to")
    return torch.stack(list(images))
