"""Whatever is in a label file, its images are below the folder, or it is refused in our words."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from purifier import InputError
from purifier.data.coco import read_instances
from purifier.data.tables import labelled_files
from tests.properties.amount import examples

PARTS = ["a.png", "b.png", "..", ".", "sub", "link", "out.png", "", "/", "\0", "x" * 300]
PATHS = st.lists(st.sampled_from(PARTS), max_size=4).map("/".join)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    PATHS,
)


def data(root: Path) -> Path:
    """A folder with pictures, beside one that must not be read, and a link out of it."""
    folder = root / "data"
    if not folder.exists():
        (folder / "sub").mkdir(parents=True)
        for path in (folder / "a.png", folder / "sub" / "b.png", root / "out.png"):
            Image.new("L", (4, 4)).save(path)
        (folder / "link").symlink_to(folder / "sub")
    return folder


def inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


@given(rows=st.lists(st.tuples(PATHS, st.one_of(st.sampled_from(["0", "3", "cat"]), st.text(max_size=4))), max_size=4))
@examples(120)
def test_a_table_names_files_below_the_folder_or_is_refused(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    folder, table = data(tmp_path), tmp_path / "labels.csv"
    text = "file,label\n" + "".join(f"{path},{label}\n" for path, label in rows)
    table.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = labelled_files(folder, table, ["dog", "cat"])
    except InputError as error:
        assert str(error).startswith("expected") and len(str(error)) < 1500
        return
    assert found and all(inside(path, folder) and path.is_file() and 0 <= label < 2**31 for path, label in found)


@given(content=st.binary(max_size=80))
@examples(120)
def test_any_bytes_are_a_table_or_refused(content: bytes, tmp_path: Path) -> None:
    folder, table = data(tmp_path), tmp_path / "labels.csv"
    table.write_bytes(b"file,label\na.png,1\n" + content)
    try:
        assert labelled_files(folder, table, None)[0] == (folder / "a.png", 1)
    except InputError as error:
        assert "labels.csv" in str(error)


GOOD = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "sub/b.png"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 2.5, 2]},
        {"image_id": 2, "category_id": 1, "bbox": [1, 1, 1, 1]},
    ],
    "categories": [{"id": 1, "name": "thing"}],
}
PLACES = [
    *(("images", number, name) for number in (0, 1) for name in ("id", "file_name")),
    *(("annotations", 0, name) for name in ("image_id", "category_id", "bbox", "iscrowd")),
    *(("annotations", 0, "bbox", number) for number in range(4)),
    *(("categories", 0, name) for name in ("id", "name")),
    *((name,) for name in GOOD),
    *((name, 0) for name in GOOD),
]


@given(place=st.sampled_from(PLACES), value=ODD)
@examples(120)
def test_a_coco_file_with_one_odd_value_is_read_or_refused(place: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    folder, path = data(tmp_path), tmp_path / "boxes.json"
    truth: Any = copy.deepcopy(GOOD)
    holder = truth
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    path.write_text(json.dumps(truth))
    try:
        images, categories = read_instances(path, folder)
    except InputError as error:
        assert str(error).startswith("expected") and len(str(error)) < 1500
        return
    assert images and all(inside(file, folder) and file.is_file() for file, _ in images)
    boxes = [box for _, found in images for box in found]
    assert all(abs(value) <= 2e7 for box in boxes for value in box[:4])
    assert all(box[2] > box[0] and box[3] > box[1] and 0 <= box[4] < 2**31 and box[5] in (0, 1) for box in boxes)
    assert all(isinstance(number, int) for number in categories)
