"""Images with what is known about them: classes, boxes or masks.

Images are read when they are asked for, so a set may be larger than memory. Every set has a fingerprint of its files
and targets, so that results of different data never mix.
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

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._errors import InputError
from purifier._images import read_size
from purifier.data.images import central_square, check_mask, read_mask, read_rgb


@dataclass(frozen=True, kw_only=True)
class ImageSet(ABC):
    """Image files and their targets, in a fixed order.

    Attributes:
        root: The folder; names are relative to it.
        files: Its images.
        size: Side in pixels that images are resized to, how depends on the task; None for their own size.
    """

    root: Path
    files: tuple[Path, ...]
    size: int | None = None

    # Whether images are turned as their EXIF orientation says.
    _turn: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.files)

    @property
    def names(self) -> list[str]:
        """Path of each file below the root, with forward slashes."""
        return [path.relative_to(self.root).as_posix() for path in self.files]

    @abstractmethod
    def load(self, indices: Sequence[int]) -> tuple[Any, Any]:
        """Reads some images and their targets.

        Returns:
            Float images in [0, 1], (N, 3, H, W), or for detection a list of (3, H, W); and their targets.

        Raises:
            InputError: Where a file cannot be read, or the images are of different sizes.
        """

    @abstractmethod
    def pick(self, indices: Sequence[int]) -> Self:
        """Returns the set of these images only."""

    @abstractmethod
    def _target_bytes(self, index: int) -> bytes:
        """What the fingerprint takes of a target."""

    def fingerprint(self) -> str:
        """Returns the SHA-256 over names, file contents, targets and size."""
        digest = hashlib.sha256(f"{type(self).__name__} {self.size}".encode())
        for index, (name, path) in enumerate(zip(self.names, self.files, strict=True)):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            target = hashlib.sha256(self._target_bytes(index)).hexdigest()
            digest.update(os.fsencode(f"\n{name} {content} {target}"))
        return digest.hexdigest()

    def batches(self, batch_size: int) -> Iterator[list[int]]:
        """Yields runs of neighbours that are of one size, at most `batch_size` each; the same ones every time."""
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
        """Returns `count` images taken evenly over the set, so that sorted folders give all their classes."""
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise InputError(f"expected at least one image to evaluate on, got {count}")
        return self.pick([index * len(self) // count for index in range(count)])


@dataclass(frozen=True, kw_only=True)
class LabelledImages(ImageSet):
    """Images with a class each; resized images are the central square, scaled.

    Attributes:
        labels: Class number of each image.
        classes: Names of the classes by number, where they are known.
        folders: How many class folders there are, where nothing but their order says which class each is.
    """

    labels: tuple[int, ...]
    classes: tuple[str, ...] | None = None
    folders: int | None = None

    def load(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images = [square(read_rgb(self.files[index]), self.size) for index in indices]
        return _stack(images), torch.tensor([self.labels[index] for index in indices])

    def pick(self, indices: Sequence[int]) -> Self:
        files = tuple(self.files[index] for index in indices)
        return replace(self, files=files, labels=tuple(self.labels[index] for index in indices))

    def _target_bytes(self, index: int) -> bytes:
        return str(self.labels[index]).encode()


@dataclass(frozen=True, kw_only=True)
class MaskedImages(ImageSet):
    """Images with a mask of class numbers each; resized ones are squashed to a square, masks by nearest neighbour.

    Images are read as they are stored, without their EXIF orientation, as masks are.

    Attributes:
        masks: Mask file of each image: a palette or grey picture whose values are class numbers.
    """

    masks: tuple[Path, ...]

    _turn = False

    def load(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images, masks = [], []
        for index in indices:
            rgb, mask = read_rgb(self.files[index], turn=False), read_class_mask(self.masks[index])
            check_mask(rgb.shape[-2:], mask.shape, self.masks[index])
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
    """Images with boxes; resized ones are scaled so that the longer side is `size`, boxes with them.

    Images are read as they are stored, without their EXIF orientation, as boxes are.

    Attributes:
        boxes: Boxes of each image as (x1, y1, x2, y2, category id, crowd), in pixels of the file.
        categories: Names by category id.
    """

    boxes: tuple[tuple[tuple[float, float, float, float, int, int], ...], ...]
    categories: dict[int, str]

    def load(self, indices: Sequence[int]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Reads images (3, H, W) and targets with boxes (M, 4) x1 y1 x2 y2 in pixels, labels (M,) and iscrowd (M,)."""
        images, targets = [], []
        for index in indices:
            rgb, scale = read_rgb(self.files[index], turn=False), 1.0
            if self.size is not None:
                height, width = rgb.shape[-2:]
                scale = self.size / max(height, width)
                rgb = _resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))
            boxes = torch.tensor([box[:4] for box in self.boxes[index]], dtype=torch.float32).reshape(-1, 4) * scale
            labels = torch.tensor([box[4] for box in self.boxes[index]], dtype=torch.long)
            crowd = torch.tensor([box[5] for box in self.boxes[index]], dtype=torch.long)
            images.append(rgb)
            targets.append({"boxes": boxes, "labels": labels, "iscrowd": crowd})
        return images, targets

    def pick(self, indices: Sequence[int]) -> Self:
        files = tuple(self.files[index] for index in indices)
        return replace(self, files=files, boxes=tuple(self.boxes[index] for index in indices))

    def _shape(self, index: int) -> Any:
        return None  # lists of images may differ in size

    def _target_bytes(self, index: int) -> bytes:
        return json.dumps(self.boxes[index]).encode()


def square(rgb: Tensor, size: int | None) -> Tensor:
    """Cuts the central square out of an image (3, H, W) and resizes it to this side; None leaves the image as it is."""
    if size is None:
        return rgb
    rows, columns = central_square(*rgb.shape[-2:])
    return _resize(rgb[:, rows, columns], (size, size))


def read_class_mask(path: Path) -> Tensor:
    """Reads a mask file as a tensor (H, W) of class numbers, int64; see `read_mask`."""
    return torch.from_numpy(read_mask(path).astype(np.int64))


def _resize(rgb: Tensor, shape: tuple[int, int]) -> Tensor:
    if tuple(rgb.shape[-2:]) == shape:
        return rgb
    return F.interpolate(rgb[None], shape, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _stack(images: Sequence[Tensor]) -> Tensor:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InputError(f"expected images of one size in a batch, got {sorted(shapes)}; give a size to resize to")
    return torch.stack(list(images))
