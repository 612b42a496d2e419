"""Images with classes, masks and boxes: what is found, what is read, what is refused."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from purifier import InputError, PurifierWarning
from purifier.data.finding import boxed_images, labelled_images, masked_images
from purifier.evaluation.tasks import Classification
from tests.scenes import COLOURS, class_folders, coco_folder, mask_folders, picture


def test_class_folders_are_numbered_in_order_or_by_the_models_names(tmp_path):
    root = class_folders(tmp_path, each=2)
    assert labelled_images(root, 16).labels == (0, 0, 1, 1, 2, 2)
    assert labelled_images(root, 16, classes=("x", "red", "green", "blue")).labels == (3, 3, 2, 2, 1, 1)
    assert labelled_images(root, 16).names[0] == "blue/0.png"


def test_images_beside_the_class_folders_are_left_out_with_a_warning(tmp_path):
    class_folders(tmp_path)
    known = labelled_images(tmp_path)
    Image.fromarray(picture(0, 0)).save(tmp_path / "loose.png")
    with pytest.warns(PurifierWarning, match="1 images of .* are in no class folder and are left out"):
        assert labelled_images(tmp_path).files == known.files


def test_folders_named_by_numbers_have_these(tmp_path):
    for name in ("2", "10"):
        (tmp_path / name).mkdir()
        Image.fromarray(picture(0, 1)).save(tmp_path / name / "a.png")
    assert labelled_images(tmp_path, 16).labels == (10, 2)


@pytest.mark.parametrize(
    ("names", "classes", "labels"),
    [
        (("n01", "n02"), ("tench", "goldfish"), (0, 1)),
        (("cat", "emu"), ("cat", "dog"), (0, 1)),
        (("0", "2"), ("ant", "bee", "cat"), (0, 2)),
        (("2", "1"), ("1", "2"), (0, 1)),
        (("b", "a"), (), (0, 1)),
    ],
)
def test_folders_of_other_names_are_numbered_in_order_where_there_are_as_many_as_classes(
    tmp_path, names, classes, labels
):
    for name in names:
        (tmp_path / name).mkdir()
        Image.fromarray(picture(0, 1)).save(tmp_path / name / "a.png")
    assert labelled_images(tmp_path, 16, classes=classes).labels == labels


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("blue", "gren"), r"got 2 folders, of which these are no class: 'gren' \(did you mean 'green'.*\); rename"),
        (("blue", "green", "read"), r"no class: 'read' \(did you mean 'red'.*\); rename"),
        (("a", "blue", "red"), "no class: 'a'; rename"),
        (("1", "2", "3"), "no class: '3'; rename"),
        (tuple("tuvwxyz"), "no class: 't', 'u', 'v', 'w', 'x' and 2 more; rename"),
    ],
)
def test_folders_that_are_not_of_the_models_classes_are_refused(tmp_path, names, said):
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"named after the model's 3 classes or by their numbers, .*{said}"):
        labelled_images(tmp_path, 16, classes=("red", "green", "blue"))


def test_a_table_gives_numbers_or_names(tmp_path):
    class_folders(tmp_path, each=1)
    table = tmp_path / "labels.csv"
    table.write_text("file,label,author\nred/0.png,7,me\nblue/0.png,green,you\n")
    found = labelled_images(tmp_path, 16, labels=table, classes=COLOURS)
    assert (found.names, found.labels) == (["red/0.png", "blue/0.png"], (7, 1))


def test_images_are_read_in_range_square_and_resized(tmp_path):
    (tmp_path / "a").mkdir()
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, 10:20] = 255
    Image.fromarray(stripes).save(tmp_path / "a" / "x.png")
    images, labels = labelled_images(tmp_path, 5).load([0])
    assert images.shape == (1, 3, 5, 5) and labels.tolist() == [0]
    assert torch.equal(images, torch.ones(1, 3, 5, 5))
    assert labelled_images(tmp_path, None).load([0])[0].shape == (1, 3, 10, 30)


def test_a_share_of_the_images_is_spread_over_the_classes(tmp_path):
    found = labelled_images(class_folders(tmp_path, each=4), 16, 6)
    assert found.labels == (0, 0, 1, 1, 2, 2)
    with pytest.raises(InputError, match="expected at least one image"):
        labelled_images(tmp_path, 16, 0)


def test_the_fingerprint_tells_files_labels_size_and_choice_apart(tmp_path):
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


def test_batches_hold_neighbours_of_one_size(tmp_path):
    (tmp_path / "a").mkdir()
    for place, size in enumerate((8, 8, 8, 12, 8)):
        Image.fromarray(picture(0, 0, size)).save(tmp_path / "a" / f"{place}.png")
    assert list(labelled_images(tmp_path, None).batches(2)) == [[0, 1], [2], [3], [4]]
    assert list(labelled_images(tmp_path, 8).batches(2)) == [[0, 1], [2, 3], [4]]


def test_masks_are_read_as_class_numbers_and_resized_without_mixing(tmp_path):
    images, masks = mask_folders(tmp_path)
    _, found = masked_images(images, None, masks=masks).load([0, 1])
    assert found.shape == (2, 16, 16) and found.unique().tolist() == [0, 2, 255]
    small = masked_images(images, 8, masks=masks).load([0])[1]
    assert small.shape == (1, 8, 8) and set(small.unique().tolist()) <= {0, 2, 255}


def test_boxes_are_scaled_with_their_images(tmp_path):
    images, annotations = coco_folder(tmp_path)
    pictures, targets = boxed_images(images, annotations=annotations).load([0, 1])
    assert [tuple(p.shape) for p in pictures] == [(3, 64, 64), (3, 64, 80)]
    assert targets[0]["boxes"].tolist() == [[8, 8, 32, 38], [30, 30, 50, 50]]
    assert targets[0]["iscrowd"].tolist() == [0, 1]
    (half,), (target,) = boxed_images(images, 32, annotations=annotations).load([0])
    assert half.shape == (3, 32, 32) and target["boxes"][0].tolist() == [4, 4, 16, 19]


def test_empty_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="which is not a folder"):
        labelled_images(tmp_path / "none")
    with pytest.raises(InputError, match="expected a folder for each class in"):
        labelled_images(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=r"expected images \(.png, .*\) below .*, got none"):
        labelled_images(tmp_path)
    with pytest.raises(InputError, match=r"expected images \(.png, .*\) below .*, got none"):
        masked_images(tmp_path, masks=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n", "expected columns file,label in .*, got 'name,label'"),
        ("file,label\n", "expected rows of file,label"),
        ("file,label\nnone.png,1\n", "expected an image 'none.png' below .* line 2 says, got no such file"),
        ("file,label\nblue/0.png,grean\n", r"expected a class number or name in .* line 2, got 'grean'; did you mean"),
        ("file,label\nblue/0.png\n", "expected a class number or name in .* line 2, got None"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, text, message):
    class_folders(tmp_path, each=1)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        labelled_images(tmp_path, labels=tmp_path / "labels.csv", classes=COLOURS)
    with pytest.raises(InputError, match="expected a CSV file of labels"):
        labelled_images(tmp_path, labels=tmp_path / "none.csv")


def test_unreadable_images_and_masks_are_refused(tmp_path):
    root = class_folders(tmp_path / "classes", each=1)
    (root / "red" / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"0.png, which cannot be read: its format is unknown"):
        labelled_images(root, 16).load([2])
    images, masks = mask_folders(tmp_path / "masked")
    (masks / "1.png").unlink()
    with pytest.raises(InputError, match=r"expected a mask .*1.png for 1.png, got no such file"):
        masked_images(images, masks=masks)
    Image.fromarray(picture(0, 0)).save(masks / "1.png")
    with pytest.raises(InputError, match="expected a mask with one channel of class numbers, got mode 'RGB'"):
        masked_images(images, masks=masks).load([1])
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(masks / "1.png")
    with pytest.raises(InputError, match=r"expected a mask of the image's size \(16, 16\), got \(3, 4\)"):
        masked_images(images, masks=masks).load([1])


def test_images_of_several_sizes_do_not_go_into_one_batch(tmp_path):
    (tmp_path / "a").mkdir()
    for size in (8, 12):
        Image.fromarray(picture(0, 0, size)).save(tmp_path / "a" / f"{size}.png")
    with pytest.raises(InputError, match="expected images of one size in a batch"):
        labelled_images(tmp_path, None).load([0, 1])


def test_files_that_are_no_coco_instances_are_refused(tmp_path):
    images, annotations = coco_folder(tmp_path)
    for text, message in (
        ("[]", "expected COCO instances"),
        ("{", "expected COCO instances"),
        (None, "cannot be read"),
    ):
        if text is None:
            annotations.unlink()
        else:
            annotations.write_text(text)
        with pytest.raises(InputError, match=message):
            boxed_images(images, annotations=annotations)


def test_a_missing_image_of_a_coco_file_is_refused(tmp_path):
    images, annotations = coco_folder(tmp_path)
    (images / "1.png").unlink()
    with pytest.raises(InputError, match=r"got none called '1\.png'"):
        boxed_images(images, annotations=annotations)


def test_class_folders_may_be_links_and_loose_images_are_told_of_all_the_same(tmp_path):
    known = class_folders(tmp_path / "real", each=1)
    root = tmp_path / "root"
    root.mkdir()
    for name in ("red", "green", "blue"):
        (root / name).symlink_to(known / name)
    assert labelled_images(root, 16).labels == (0, 1, 2)
    Image.fromarray(picture(0, 0)).save(root / "loose.png")
    with pytest.warns(PurifierWarning, match="^1 images of"):
        labelled_images(root, 16)


def test_boxes_and_masks_are_in_pixels_of_the_file_however_it_is_to_be_turned(tmp_path):
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


def test_a_file_name_that_is_no_text_is_part_of_the_fingerprint(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.fromarray(picture(0, 0)).save(tmp_path / "cat" / "a.png")
    before = labelled_images(tmp_path, 16).fingerprint()
    (tmp_path / "cat" / "a.png").rename(tmp_path / "cat" / os.fsdecode(b"\xff.png"))
    assert labelled_images(tmp_path, 16).fingerprint() != before


def test_folders_that_only_their_order_numbers_must_be_as_many_as_the_classes(tmp_path):
    root = class_folders(tmp_path / "in", each=1)
    data = labelled_images(root, 16)
    assert data.folders == 3
    for known in (labelled_images(root, 16, classes=COLOURS), data.pick([0])):
        Classification().check(torch.rand(1, 3), known)
    with pytest.raises(
        InputError, match=r"expected as many class folders as the model has classes, 9, .* got 3, which"
    ):
        Classification().check(torch.rand(1, 9), data)
    for number, name in enumerate(COLOURS):
        (root / name).rename(root / str(number + 4))
    Classification().check(torch.rand(1, 9), labelled_images(root, 16))
