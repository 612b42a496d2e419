"""Finding sets of images: class folders, CSV files of labels, folders of masks, COCO files of boxes."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from purifier._errors import InputError, nearest
from purifier.data.class_folders import images_by_class
from purifier.data.images import image_folder, list_images
from purifier.data.sets import BoxedImages, LabelledImages, MaskedImages


def labelled_images(
    folder: str | Path,
    size: int | None = 224,
    count: int | None = None,
    *,
    labels: str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> LabelledImages:
    """Finds images with one class each, in class folders or listed in a CSV file.

    A folder is named after its class or has the class's number as its name; otherwise folders are numbered in sorted
    order. See `purifier.data.class_folders.number_folders`.

    Args:
        folder: The folder of images or class folders.
        size: Side of the resized images in pixels. None keeps their own size.
        count: Number of images, spread evenly over all. None means all.
        labels: CSV file with the columns "file" (a path below the folder) and "label" (a class number, or one of
            `classes`).
        classes: Names of the model's classes by number. None if unknown.

    Raises:
        InputError: If there are no images, a label is missing or unknown, or the folders do not match `classes`.
    """
    root = image_folder(folder)
    pairs, folders = images_by_class(root, classes) if labels is None else (_of_csv(root, Path(labels), classes), None)
    found = LabelledImages(
        root=root,
        files=tuple(path for path, _ in pairs),
        labels=tuple(label for _, label in pairs),
        classes=None if classes is None else tuple(classes),
        folders=folders,
        size=size,
    )
    return found.spread(count)


def _of_csv(root: Path, table: Path, classes: Sequence[str] | None) -> list[tuple[Path, int]]:
    if not table.is_file():
        raise InputError(f"expected a CSV file of labels, got {table}, which does not exist")
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
    """Finds images and their masks: .png files of the same names in the mask folder.

    Raises:
        InputError: If there are no images, or an image has no mask.
    """
    root, mask_root = image_folder(folder), image_folder(masks)
    files = list_images([root])
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
    """Finds images and their boxes in a COCO JSON file of instances; labels are its category ids.

    Raises:
        InputError: If the file is not a COCO JSON file, or an image is missing.
    """
    root, path = image_folder(folder), Path(annotations)
    try:
        truth = json.loads(path.read_text(encoding="utf-8"))
        images, entries = truth["images"], truth["annotations"]
        boxes: dict[int, list[tuple[float, float, float, float, int, int]]] = {image["id"]: [] for image in images}
        for entry in entries:
            x, y, width, height = entry["bbox"]
            # Detectors refuse boxes without an area.
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
