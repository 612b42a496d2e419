"""Images with what is known about them: classes, boxes or masks.

Images are read when they are asked for, so a set may be larger than memory. Every set has a fingerprint of its files
and targets, so that results of different data never mix.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._class_folders import number_folders, told_apart
from purifier._errors import InputError, PurifierWarning, nearest
from purifier._images import images_below, no_images, read_size, take_apart


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
        images = [central_square(read_rgb(self.files[index]), self.size) for index in indices]
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
            rgb, mask = read_rgb(self.files[index], turn=False), read_mask(self.masks[index])
            if rgb.shape[-2:] != mask.shape:
                raise InputError(
                    f"expected a mask of the image's size {tuple(rgb.shape[-2:])}, got {tuple(mask.shape)} in "
                    f"{self.masks[index]}"
                )
            if self.size is not None:
                rgb = _resize(rgb, (self.size, self.size))
                mask = F.interpolate(mask[None, None].float(), (self.size, self.size), mode="nearest-exact")[
                    0, 0
                ].long()
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


# -- finding them ---------------------------------------------------------------------------------------------------


def labelled_images(
    folder: str | Path,
    size: int | None = 224,
    count: int | None = None,
    *,
    labels: str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> LabelledImages:
    """Finds images with a class each: a folder for each class, or a folder and a CSV file with the labels.

    Folders named after `classes` get those numbers; folders named by numbers get these; others are numbered in sorted
    order, where `classes` are not known or as many.

    Args:
        folder: Where the images are.
        size: Side in pixels; None for their own size.
        count: How many, evenly over all; None for all.
        labels: CSV file with columns "file" (below the folder) and "label" (a number, or a name out of `classes`).
        classes: Names of the model's classes by number.

    Raises:
        InputError: Where there are no images, labels are missing or not understood, or folders are not of `classes`.
    """
    root = _folder(folder)
    pairs = _of_class_folders(root, classes) if labels is None else _of_csv(root, Path(labels), classes)
    found = LabelledImages(
        root=root,
        files=tuple(path for path, _ in pairs),
        labels=tuple(label for _, label in pairs),
        classes=None if classes is None else tuple(classes),
        folders=_folders_in_order(root, classes) if labels is None else None,
        size=size,
    )
    return found.spread(count)


def _class_folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _folders_in_order(root: Path, classes: Sequence[str] | None) -> int | None:
    names = _class_folders(root)
    return None if told_apart(names, classes) else len(names)


def _of_class_folders(root: Path, classes: Sequence[str] | None) -> list[tuple[Path, int]]:
    names = _class_folders(root)
    if not names:
        raise InputError(
            f"expected a folder for each class in {root}, got none; sort the images into class folders, or give a CSV "
            "file with the columns file,label"
        )
    numbers = number_folders(root, names, classes)
    pairs = [(path, numbers[name]) for name in names for path in images_below(root / name)]
    if not pairs:
        raise no_images(root)
    loose = len(set(images_below(root)) - {path for path, _ in pairs})
    if loose:
        warnings.warn(
            f"{loose} images of {root} are in no class folder and are left out; sort them in, or give a CSV file with "
            "the columns file,label",
            PurifierWarning,
            stacklevel=4,
        )
    return pairs


def _of_csv(root: Path, table: Path, classes: Sequence[str] | None) -> list[tuple[Path, int]]:
    if not table.is_file():
        raise InputError(f"expected a CSV file of labels, got {table}, which is not there")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"file", "label"} <= set(reader.fieldnames or ()):
            raise InputError(f"expected columns file,label in {table}, got {','.join(reader.fieldnames or ())!r}")
        rows = [(row["file"], row["label"]) for row in reader]
    if not rows:
        raise InputError(f"expected rows of file,label in {table}, got none")
    pairs = []
    for line, (name, label) in enumerate(rows, start=2):
        if not (root / (name or "")).is_file():
            raise InputError(f"expected an image {name!r} below {root}, as {table} line {line} says, got no such file")
        pairs.append((root / name, _label(label, classes, f"{table} line {line}")))
    return pairs


def _label(text: str | None, classes: Sequence[str] | None, place: str) -> int:
    try:
        return int(text or "")
    except ValueError:
        pass
    if classes is not None and text is not None and text in classes:
        return list(classes).index(text)
    advice = nearest(str(text), classes or ())
    raise InputError(f"expected a class number{' or name' if classes else ''} in {place}, got {text!r}{advice}")


def masked_images(
    folder: str | Path, size: int | None = None, count: int | None = None, *, masks: str | Path
) -> MaskedImages:
    """Finds images and the mask of each: a file of the same name, .png, in the mask folder.

    Raises:
        InputError: Where there are no images, or one has no mask.
    """
    root, mask_root = _folder(folder), _folder(masks)
    files = images_below(root)
    if not files:
        raise no_images(root)
    found = []
    for path in files:
        mask = mask_root / path.relative_to(root).with_suffix(".png")
        if not mask.is_file():
            raise InputError(f"expected a mask {mask} for {path.name}, got no such file")
        found.append(mask)
    return MaskedImages(root=root, files=tuple(files), masks=tuple(found), size=size).spread(count)


def boxed_images(
    folder: str | Path, size: int | None = None, count: int | None = None, *, annotations: str | Path
) -> BoxedImages:
    """Finds images and their boxes, as a COCO JSON file of instances has them; labels are its category ids.

    Raises:
        InputError: Where the file is no COCO JSON, or an image is missing.
    """
    root, path = _folder(folder), Path(annotations)
    try:
        truth = json.loads(path.read_text(encoding="utf-8"))
        images, entries = truth["images"], truth["annotations"]
        boxes: dict[int, list[tuple[float, float, float, float, int, int]]] = {image["id"]: [] for image in images}
        for entry in entries:
            x, y, width, height = entry["bbox"]
            # Boxes without an area are marks, and detectors refuse them.
            if width > 0 and height > 0:
                corner = (x, y, x + width, y + height)
                boxes[entry["image_id"]].append((*corner, entry["category_id"], entry.get("iscrowd", 0)))
        categories = {category["id"]: str(category["name"]) for category in truth["categories"]}
    except OSError as error:
        raise InputError(f"expected a COCO JSON file, got {path}, which cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"expected COCO instances with images, annotations and categories in {path}, got something else: {error!r}"
        ) from error
    if not images:
        raise InputError(f"expected images in {path}, got none")
    files = tuple(root / image["file_name"] for image in images)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(f"expected the images of {path} below {root}, got none called {missing[0]!r}")
    found = BoxedImages(
        root=root,
        files=files,
        boxes=tuple(tuple(boxes[image["id"]]) for image in images),
        categories=categories,
        size=size,
    )
    return found.spread(count)


# -- reading them ---------------------------------------------------------------------------------------------------


def read_rgb(path: Path, *, turn: bool = True) -> Tensor:
    """Reads an image file as (3, H, W) float in [0, 1]; an alpha channel is dropped.

    `turn` is whether its EXIF orientation is applied, which masks and boxes in pixels of the file do not know.

    Raises:
        InputError: Where it cannot be read.
    """
    return take_apart(path, turn=turn).rgb


def read_mask(path: Path) -> Tensor:
    """Reads a mask file as (H, W) class numbers: palette indices or grey values.

    Raises:
        InputError: Where it cannot be read or has several channels.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.array(image)
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        raise InputError(f"expected a mask file, got {path}, which cannot be read: {error}") from error
    if values.ndim != 2:
        raise InputError(f"expected a mask with one channel of class numbers, got mode {mode!r} in {path}")
    return torch.from_numpy(values.astype(np.int64))


def _folder(folder: str | Path) -> Path:
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"expected a folder of images, got {root}, which is not a folder")
    return root


def central_square(rgb: Tensor, size: int | None) -> Tensor:
    """Cuts the central square out of an image (3, H, W) and resizes it to this side; as it is where None."""
    if size is None:
        return rgb
    height, width = rgb.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _resize(rgb[:, top : top + side, left : left + side], (size, size))


def _resize(rgb: Tensor, shape: tuple[int, int]) -> Tensor:
    if tuple(rgb.shape[-2:]) == shape:
        return rgb
    return F.interpolate(rgb[None], shape, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _stack(images: Sequence[Tensor]) -> Tensor:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InputError(f"expected images of one size in a batch, got {sorted(shapes)}; give a size to resize to")
    return torch.stack(list(images))
