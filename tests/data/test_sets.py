"""Image sets: reading, resizing, batches and fingerprints."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from purifier import InputError, OptionError
from purifier.data.finding import boxed_images, labelled_images, masked_images
from tests.scenes import class_folders, coco_folder, mask_folders, picture


def test_images_are_read_in_range_square_and_resized(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, 10:20] = 255
    Image.fromarray(stripes).save(tmp_path / "a" / "x.png")
    images, labels = labelled_images(tmp_path, 5).load([0])
    assert images.shape == (1, 3, 5, 5) and labels.tolist() == [0]
    assert torch.equal(images, torch.ones(1, 3, 5, 5))
    assert labelled_images(tmp_path, None).load([0])[0].shape == (1, 3, 10, 30)


def test_a_share_of_the_images_is_spread_over_the_classes(tmp_path: Path) -> None:
    found = labelled_images(class_folders(tmp_path, each=4), 16, 6)
    assert found.labels == (0, 0, 1, 1, 2, 2)
    with pytest.raises(InputError, match="expected at least one image"):
        labelled_images(tmp_path, 16, 0)


def test_the_fingerprint_depends_on_files_labels_size_and_choice(tmp_path: Path) -> None:
    found = labelled_images(class_folders(tmp_path, each=2), 16)
    prints = {
        found.fingerprint(),
        replace(found, size=8).fingerprint(),
        replace(found, labels=(0, 0, 1, 1, 2, 1)).fingerprint(),
        found.pick([0, 1]).fingerprint(),
    }
    assert len(prints) == 4
    assert found.fingerprint() == labelled_images(tmp_path, 16).fingerprint()
    Image.fromarray(picture(1, 9)).save(found.files[0])
    assert found.fingerprint() not in prints


def test_batches_hold_neighbours_of_one_size(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for place, size in enumerate((8, 8, 8, 12, 8)):
        Image.fromarray(picture(0, 0, size)).save(tmp_path / "a" / f"{place}.png")
    assert list(labelled_images(tmp_path, None).batches(2)) == [[0, 1], [2], [3], [4]]
    assert list(labelled_images(tmp_path, 8).batches(2)) == [[0, 1], [2, 3], [4]]


def test_masks_are_read_as_class_numbers_and_resized_without_interpolation(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path)
    _, found = masked_images(images, None, masks=masks).load([0, 1])
    assert found.shape == (2, 16, 16) and found.unique().tolist() == [0, 2, 255]
    small = masked_images(images, 8, masks=masks).load([0])[1]
    assert small.shape == (1, 8, 8) and set(small.unique().tolist()) <= {0, 2, 255}


def test_boxes_are_scaled_with_their_images(tmp_path: Path) -> None:
    images, annotations = coco_folder(tmp_path)
    pictures, targets = boxed_images(images, annotations=annotations).load([0, 1])
    assert [tuple(p.shape) for p in pictures] == [(3, 64, 64), (3, 64, 80)]
    assert targets[0]["boxes"].tolist() == [[8, 8, 32, 38], [30, 30, 50, 50]]
    assert targets[0]["iscrowd"].tolist() == [0, 1]
    (half,), (target,) = boxed_images(images, 32, annotations=annotations).load([0])
    assert half.shape == (3, 32, 32) and target["boxes"][0].tolist() == [4, 4, 16, 19]


def test_images_of_several_sizes_are_refused_in_one_batch(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for size in (8, 12):
        Image.fromarray(picture(0, 0, size)).save(tmp_path / "a" / f"{size}.png")
    with pytest.raises(InputError, match="expected images of one size in a batch"):
        labelled_images(tmp_path, None).load([0, 1])


def test_boxes_and_masks_refer_to_pixels_without_the_exif_orientation(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[2:8, 30:38] = 255
    turned = Image.Exif()
    turned[0x0112] = 6
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png", exif=turned)
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / "images" / "b.png")
    for name in ("a", "b"):
        Image.fromarray(pixels[..., 0] // 255).save(tmp_path / "masks" / f"{name}.png")
    masked = masked_images(tmp_path / "images", masks=tmp_path / "masks")
    assert list(masked.batches(2)) == [[0, 1]]
    (image, _), (mask, _) = masked.load([0, 1])
    assert torch.equal(image[0].bool(), mask.bool())
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 20}],
        "annotations": [{"image_id": 1, "bbox": [30, 2, 8, 6], "category_id": 1}],
        "categories": [{"id": 1, "name": "patch"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(truth))
    (image,), (target,) = boxed_images(tmp_path / "images", annotations=tmp_path / "boxes.json").load([0])
    left, top, right, bottom = target["boxes"][0].int().tolist()
    assert image[:, top:bottom, left:right].min() == 1 and image.sum() == 3 * 8 * 6


def test_file_names_that_are_not_valid_text_change_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.fromarray(picture(0, 0)).save(tmp_path / "cat" / "a.png")
    before = labelled_images(tmp_path, 16).fingerprint()
    (tmp_path / "cat" / "a.png").rename(tmp_path / "cat" / os.fsdecode(b"\xff.png"))
    assert labelled_images(tmp_path, 16).fingerprint() != before


@pytest.mark.parametrize("value", ["16", 0, -4, 1.5, float("nan"), True, 10**9])
def test_sizes_and_numbers_of_images_of_other_types_are_refused(value: object, tmp_path: Path) -> None:
    root = class_folders(tmp_path, each=1)
    with pytest.raises(OptionError, match="expected size to be an integer"):
        labelled_images(root, value)  # type: ignore[arg-type]
    if value not in (0, -4, 10**9):
        with pytest.raises(OptionError, match="expected the number of images to be an integer"):
            labelled_images(root, 16, value)  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", [5, None, b"bytes", ["a"], object()])
def test_folders_that_are_no_paths_are_refused(folder: object, tmp_path: Path) -> None:
    root = class_folders(tmp_path, each=1)
    for find in (
        lambda: labelled_images(folder),  # type: ignore[arg-type]
        lambda: masked_images(root, masks=folder),  # type: ignore[arg-type]
        lambda: boxed_images(root, annotations=folder),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=r"expected the path of a .*, got .*; give text or a pathlib\.Path"):
            find()
    with pytest.raises(OptionError, match="expected classes as a list of their names"):
        labelled_images(root, classes="abc")
