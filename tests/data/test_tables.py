"""CSV files of labels: every wrong row is refused with its line, and nothing outside the folder is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from purifier import InputError
from purifier.data.tables import class_number, inside, labelled_files, labels_of, read_table
from tests.scenes import COLOURS, class_folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    return class_folders(tmp_path / "data", each=2)


def table(root: Path, text: str | bytes) -> Path:
    path = root.parent / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_are_read_in_order_with_quotes_and_a_byte_order_mark(root: Path) -> None:
    path = table(root, '\ufefflabel,file\n2,"red/0.png"\ngreen,blue/../blue/1.png\n\n0,./red/1.png\n')
    found = labelled_files(root, path, COLOURS)
    assert found == [(root / "red/0.png", 2), (root / "blue/1.png", 1), (root / "red/1.png", 0)]
    assert [row.line for row in read_table(path)] == [2, 3, 5]
    path.write_text(f"file,label\n{root / 'red/0.png'},1\n")
    assert labelled_files(root, path, None) == [(root / "red/0.png", 1)]


@pytest.mark.parametrize(
    "name", ["../secret.png", "red/../../secret.png", "{parent}/secret.png", "link/../secret.png", "/etc/passwd", ".."]
)
def test_images_outside_the_folder_are_refused(name: str, root: Path) -> None:
    (root / "link").symlink_to(root / "red")
    path = table(root, f"file,label\nred/0.png,1\n{name.format(parent=root.parent)},1\n")
    with pytest.raises(InputError, match=r"labels\.csv line 3(, which leads out of it| says, got no such file)"):
        labelled_files(root, path, None)


def test_an_image_behind_a_link_in_the_folder_is_read(root: Path) -> None:
    (root / "link").symlink_to(root.parent)
    assert inside(root, "link/secret.png", "here") == root / "link/secret.png"
    # Behind a link, ".." would lead out; it is resolved by name instead.
    (root / "deep").mkdir()
    (root / "deep" / "link").symlink_to(root.parent / "data" / "red")
    with pytest.raises(InputError, match="got no such file"):
        inside(root, "deep/link/../blue/0.png", "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"file,label\nred/0.png,1\n\xff\xfe,1\n", r"expected text in UTF-8 in .*labels\.csv"),
        ("file,label\nred/0.png," + "1" * 200_000, r"expected CSV in .*, got a wrong line after line 1: field larger"),
        ("file,label\nred/0.png,1e30\n", r"expected a class number in .*labels\.csv line 2, got '1e30'"),
        ("file,label\nred/0.png,1\nred/1.png,99999999999\n", r"line 3, got '99999999999'"),
        ("file,label\nred/0.png,-1\n", "line 2, got '-1'"),
        ("file,label\nred/0.png,nan\n", "line 2, got 'nan'"),
        ("file,label\nred/0.png\n", "line 2, got None"),
        ("file,label\n,1\n", r"expected an image '' below .*line 2 says, got no such file"),
        ("file,label\n" + "n" * 300 + ".png,1\n", "File name too long"),
        ("file,label\nred,1\n", "expected an image 'red' below .*got no such file"),
        (
            "file,label\nred/0.png,1\nblue/0.png,1\nred/./0.png,2\n",
            r"expected one label for 'red/./0.png', got 1 and, in",
        ),
        ("", "expected columns file,label in .*, got ''"),
        ("file\n" + "x" * 500, "expected columns file,label"),
        ("x" * 500 + "\n", r"expected columns file,label in .*, got 'x+\.\.\.x+'"),
    ],
)
def test_wrong_tables_are_refused_with_the_line(text: str | bytes, message: str, root: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        labelled_files(root, table(root, text), None)
    assert len(str(error.value)) < 1000


def test_a_null_byte_is_no_name_of_a_file(root: Path) -> None:
    with pytest.raises(InputError):
        labelled_files(root, table(root, "file,label\nred/0.png\0,1\n"), None)
    with pytest.raises(InputError, match="got no such file"):
        inside(root, "red/0.png\0", "here")


def test_a_folder_or_nothing_is_no_table(root: Path) -> None:
    for path in (root, root / "none.csv"):
        with pytest.raises(InputError, match="expected a CSV file of labels, got"):
            read_table(path)


def test_class_names_win_over_nothing_and_numbers_over_names() -> None:
    assert class_number("green", COLOURS, "here") == 1
    assert class_number("0", ["1", "0"], "here") == 0
    assert class_number("0" * 30, ["a", "0" * 30], "here") == 1


@pytest.mark.parametrize("prefix", ["", "data/", "data/red/"])
def test_labels_of_some_files_may_be_relative_to_their_folder_or_one_above(prefix: str, root: Path) -> None:
    files = [root / "red" / name for name in ("0.png", "1.png")]
    rows = [f"{os.path.relpath(path, root.parent / prefix)},{number}" for number, path in enumerate(files)]
    path = table(root, "\n".join(["file,label", f"{'blue/' if prefix != 'data/red/' else ''}none.png,7", *rows]))
    path = path.rename(path.with_name("moved.csv") if prefix else path)
    assert labels_of(files, path, root / "red", None) == {files[0]: 0, files[1]: 1}


def test_a_file_without_a_row_is_named_and_wrong_labels_of_other_files_do_not_matter(root: Path) -> None:
    path = table(root, "file,label\nblue/0.png,nonsense\nred/0.png,1\n../../x,3\n")
    assert labels_of([root / "red/0.png"], path, root / "red", None) == {root / "red/0.png": 1}
    with pytest.raises(
        InputError, match=r"expected a label for every image, got none for .*red/1\.png in .*labels\.csv"
    ):
        labels_of([root / "red/0.png", root / "red/1.png"], path, root / "red", None)
