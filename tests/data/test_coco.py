"""COCO files of boxes: every wrong entry is refused by its number, and nothing outside the folder is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from purifier import InputError
from purifier.data.coco import read_instances
from purifier.data.finding import boxed_images
from tests.scenes import coco_folder


def changed(root: Path, *keys: Any, value: Any) -> tuple[Path, Path]:
    """A good file in which one value is another; Ellipsis removes it."""
    images, annotations = coco_folder(root)
    truth = json.loads(annotations.read_text())
    place = truth
    for key in keys[:-1]:
        place = place[key]
    if value is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    annotations.write_text(json.dumps(truth))
    return annotations, images


def test_boxes_categories_and_crowds_are_read(tmp_path: Path) -> None:
    images, annotations = coco_folder(tmp_path)
    found, categories = read_instances(annotations, images)
    assert [path.name for path, _ in found] == ["0.png", "1.png"]
    assert found[0][1] == [(8, 8, 32, 38, 1, 0), (30, 30, 50, 50, 1, 1)]
    assert categories == {1: "thing"}


def test_ids_may_be_texts_and_boxes_fractions(tmp_path: Path) -> None:
    annotations, images = changed(tmp_path, "images", 0, "id", value="first")
    truth = json.loads(annotations.read_text())
    for entry in truth["annotations"][:3]:
        entry["image_id"], entry["bbox"] = "first", [0.25, 0.5, 3.5, 4]
    annotations.write_text(json.dumps(truth))
    assert read_instances(annotations, images)[0][0][1][0] == (0.25, 0.5, 3.75, 4.5, 1, 0)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("images", 1, "id"), 7, r"got the id 7 a second time in .*images\[1\]"),
        (("images", 1, "id"), [7], r"expected id as an integer or text in .*images\[1\], got \[7\]"),
        (("images", 1, "id"), 1.5, r"expected id as an integer or text in .*images\[1\]"),
        (("images", 1, "id"), ..., r"expected an object with id in .*images\[1\]"),
        (("images", 1, "file_name"), "../instances.json", r"images\[1\], which leads out of it"),
        (("images", 1, "file_name"), "/etc/passwd", r"images\[1\], which leads out of it"),
        (("images", 1, "file_name"), "none.png", r"expected an image 'none.png' below .*images\[1\] says, got no such"),
        (("images", 1, "file_name"), "n" * 300, "File name too long"),
        (("images", 1, "file_name"), 5, r"expected file_name as text in .*images\[1\], got 5"),
        (("images", 1), "text", r"expected an object with file_name in .*images\[1\], got 'text'"),
        (("images",), [], "expected an image|expected images|expected the id of an image"),
        (("images",), {}, "got {} instead of a list of images"),
        (("categories",), ..., "got None instead of a list of categories"),
        (("categories", 0, "id"), "1", r"expected id as an integer from 0 to .* in .*categories\[0\], got '1'"),
        (("categories", 0, "id"), 10**30, r"categories\[0\]"),
        (("annotations", 4, "image_id"), 99, r"expected the id of an image as image_id in .*annotations\[4\], got 99"),
        (("annotations", 4, "category_id"), True, r"category_id as an integer .*annotations\[4\], got True"),
        (("annotations", 4, "iscrowd"), 2, r"expected iscrowd as 0 or 1 in .*annotations\[4\], got 2"),
        (("annotations", 4, "bbox"), ..., r"expected an object with bbox in .*annotations\[4\]"),
        *(
            (("annotations", 4, "bbox"), box, r"expected bbox as four finite numbers .*annotations\[4\]")
            for box in (
                [1, 2, 3],
                [1, 2, 3, 4, 5],
                [1, 2, float("nan"), 4],
                [1, 2, float("inf"), 4],
                [1, 2, 1e30, 4],
                [1, 2, "3", 4],
                [1, 2, True, 4],
                [1, 2, None, 4],
                [1, 2, 10**400, 4],
                "1234",
                None,
            )
        ),
    ],
)
def test_wrong_entries_are_refused_by_their_number(keys: Any, value: Any, message: str, tmp_path: Path) -> None:
    annotations, images = changed(tmp_path, *keys, value=value)
    with pytest.raises(InputError, match=message) as error:
        boxed_images(images, annotations=annotations)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"null", b'"text"', b'{"images": [1e999]}']
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    images, annotations = coco_folder(tmp_path)
    annotations.write_bytes(content)
    with pytest.raises(InputError, match=r"expected COCO instances with images, .*instances\.json, got"):
        boxed_images(images, annotations=annotations)


def test_no_images_are_refused(tmp_path: Path) -> None:
    annotations, images = changed(tmp_path, "images", value=[])
    annotations.write_text(json.dumps({**json.loads(annotations.read_text()), "annotations": []}))
    with pytest.raises(InputError, match=r"expected images in .*, got none"):
        boxed_images(images, annotations=annotations)
