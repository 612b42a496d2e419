"""Finding sets of images: folders, class folders, CSV files of labels, folders of masks, COCO files of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from purifier._errors import InputError
from purifier._opening import as_path, is_file
from purifier.data.class_folders import check_names, images_by_class
from purifier.data.coco import read_instances
from purifier.data.images import image_folder, list_images
from purifier.data.sets import BoxedImages, LabelledImages, MaskedImages, UnlabelledImages
from purifier.data.tables import labelled_files


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
    root, classes = image_folder(folder), check_names(classes)
    pairs, folders = (
        images_by_class(root, classes)
        if labels is None
        else (labelled_files(root, as_path(labels, wanted="a CSV file of labels"), classes), None)
    )
    found = LabelledImages(
        root=root,
        files=tuple(path for path, _ in pairs),
        labels=tuple(label for _, label in pairs),
        classes=None if classes is None else tuple(classes),
        folders=folders,
        size=size,
    )
    return found.spread(count)


def unlabelled_images(folder: str | Path, size: int | None = 224, count: int | None = None) -> UnlabelledImages:
    """Finds all images below a folder.

    Args:
        folder: The folder.
        size: Side of the resized images in pixels. None keeps their own size.
        count: Number of images, spread evenly over all. None means all.

    Raises:
        InputError: If there are no images.
    """
    root = image_folder(folder)
    return UnlabelledImages(root=root, files=tuple(list_images([root])), size=size).spread(count)


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
        if not is_file(mask):
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
    root = image_folder(folder)
    images, categories = read_instances(as_path(annotations, wanted="a COCO JSON file"), root)
    found = BoxedImages(
        root=root,
        files=tuple(path for path, _ in images),
        boxes=tuple(tuple(boxes) for _, boxes in images),
        categories=categories,
        size=size,
    )
    return found.spread(count)
