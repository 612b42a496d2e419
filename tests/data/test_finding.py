"""Finding images with classes, masks and boxes, and refusing folders and files that do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from purifier import InputError, PurifierWarning
from purifier.data.finding import boxed_images, labelled_images, masked_images
from purifier.evaluation.tasks import Classification
from tests.scenes import COLOURS, class_folders, coco_folder, mask_folders, picture


def test_class_folders_are_numbered_in_order_or_by_the_models_names(tmp_path: Path) -> None:
    root = class_folders(tmp_path, each=2)
    assert labelled_images(root, 16).labels == (0, 0, 1, 1, 2, 2)
    assert labelled_images(root, 16, classes=("x", "red", "green", "blue")).labels == (3, 3, 2, 2, 1, 1)
    assert labelled_images(root, 16).names[0] == "blue/0.png"


def test_images_beside_the_class_folders_are_left_out_with_a_warning(tmp_path: Path) -> None:
    class_folders(tmp_path)
    known = labelled_images(tmp_path)
    Image.fromarray(picture(0, 0)).save(tmp_path / "loose.png")
    with pytest.warns(PurifierWarning, match="1 images of .* are in no class folder and are left out"):
        assert labelled_images(tmp_path).files == known.files


def test_folders_named_by_numbers_get_these_numbers(tmp_path: Path) -> None:
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
def test_folders_of_other_names_are_numbered_alphabetically_if_there_are_as_many_as_classes(
    tmp_path: Path, names: tuple[str, ...], classes: tuple[str, ...], labels: tuple[int, ...]
) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        Image.fromarray(picture(0, 1)).save(tmp_path / name / "a.png")
    assert labelled_images(tmp_path, 16, classes=classes).labels == labels


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("blue", "gren"), r"got 2 folders, of which these match no class: 'gren' \(did you mean 'green'.*\); rename"),
        (("blue", "green", "read"), r"no class: 'read' \(did you mean 'red'.*\); rename"),
        (("a", "blue", "red"), "no class: 'a'; rename"),
        (("1", "2", "3"), "no class: '3'; rename"),
        (tuple("tuvwxyz"), "no class: 't', 'u', 'v', 'w', 'x' and 2 more; rename"),
    ],
)
def test_folders_that_do_not_match_the_classes_are_refused(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"named after the model's 3 classes or by their numbers, .*{said}"):
        labelled_images(tmp_path, 16, classes=("red", "green", "blue"))


def test_a_table_states_class_numbers_or_names(tmp_path: Path) -> None:
    class_folders(tmp_path, each=1)
    table = tmp_path / "labels.csv"
    table.write_text("file,label,author\nred/0.png,7,me\nblue/0.png,green,you\n")
    found = labelled_images(tmp_path, 16, labels=table, classes=COLOURS)
    assert (found.names, found.labels) == (["red/0.png", "blue/0.png"], (7, 1))


def test_empty_folders_are_refused(tmp_path: Path) -> None:
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
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    class_folders(tmp_path, each=1)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        labelled_images(tmp_path, labels=tmp_path / "labels.csv", classes=COLOURS)
    with pytest.raises(InputError, match="expected a CSV file of labels"):
        labelled_images(tmp_path, labels=tmp_path / "none.csv")


def test_unreadable_images_and_masks_are_refused(tmp_path: Path) -> None:
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


def test_files_that_are_not_coco_instances_are_refused(tmp_path: Path) -> None:
    images, annotations = coco_folder(tmp_path)
    for text, message in (
        ("[]", "expected COCO instances"),
        ("{", "expected COCO instances"),
        (None, "expected a COCO JSON file, got .* does not exist"),
    ):
        if text is None:
            annotations.unlink()
        else:
            annotations.write_text(text)
        with pytest.raises(InputError, match=message):
            boxed_images(images, annotations=annotations)


def test_a_missing_image_of_a_coco_file_is_refused(tmp_path: Path) -> None:
    images, annotations = coco_folder(tmp_path)
    (images / "1.png").unlink()
    with pytest.raises(
        InputError, match=r"expected an image '1\.png' below .*, as .*images\[1\] says, got no such file"
    ):
        boxed_images(images, annotations=annotations)


def test_class_folders_may_be_links_and_loose_images_are_still_reported(tmp_path: Path) -> None:
    known = class_folders(tmp_path / "real", each=1)
    root = tmp_path / "root"
    root.mkdir()
    for name in ("red", "green", "blue"):
        (root / name).symlink_to(known / name)
    assert labelled_images(root, 16).labels == (0, 1, 2)
    Image.fromarray(picture(0, 0)).save(root / "loose.png")
    with pytest.warns(PurifierWarning, match="^1 images of"):
        labelled_images(root, 16)


def test_folders_numbered_by_their_order_must_be_as_many_as_the_classes(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "in", each=1)
    data = labelled_images(root, 16)
    assert data.folders == 3
    for known in (labelled_images(root, 16, classes=COLOURS), data.pick([0])):
        Classification().check(torch.rand(1, 3), known)
    with pytest.raises(
        InputError, match=r"expected as many class folders as the model has classes, 9, .* got 3; name the folders"
    ):
        Classification().check(torch.rand(1, 9), data)
    for number, name in enumerate(COLOURS):
        (root / name).rename(root / str(number + 4))
    Classification().check(torch.rand(1, 9), labelled_images(root, 16))
