"""Walking folders: every picture once, whatever the folders are linked to, and the rest counted."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from purifier import InputError
from purifier._opening import SUFFIXES
from purifier._walking import Found, images_below, make_folders, no_images, walk
from tests.builders import lock_folder


def touched(root: Path, *names: str) -> Path:
    for name in names:
        make_folders((root / name).parent)
        (root / name).touch()
    return root


def names(found: Found, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found.images]


def test_pictures_are_found_without_hidden_files(tmp_path: Path) -> None:
    wanted = ["a.png", "deep/er/b.JPG"]
    touched(tmp_path, *wanted, "._a.png", ".thumbnails/a.png", "deep/.cache/b.jpg", "notes.txt")
    (tmp_path / "folder.png").mkdir()
    assert images_below(tmp_path) == [tmp_path / name for name in wanted]
    assert images_below(tmp_path / ".thumbnails") == [tmp_path / ".thumbnails/a.png"]
    assert images_below(tmp_path / "nothing") == []


def test_every_ending_that_is_read_is_found_and_others_are_counted(tmp_path: Path) -> None:
    pictures = [f"{number}{suffix}" for number, suffix in enumerate(SUFFIXES)]
    found = walk(touched(tmp_path, *pictures, "a.txt", "b/c.TXT", "d.mov", "README"))
    assert sorted(names(found, tmp_path)) == sorted(pictures)
    assert found.skipped == Counter({".txt": 2, ".mov": 1, "without an ending": 1})
    assert found.said_skipped() == "4: 2 .txt, 1 .mov, 1 without an ending"


def test_many_kinds_of_files_are_named_in_short(tmp_path: Path) -> None:
    found = walk(touched(tmp_path, *(f"a.{letter}" for letter in "bcdefghi")))
    assert found.said_skipped() == "8: 1 .b, 1 .c, 1 .d, 1 .e, 1 .f, 1 .g, 2 others"
    assert walk(touched(tmp_path / "only", "a.png")).said_skipped() == ""


def test_a_real_folder_is_walked_once_and_before_links_to_it(tmp_path: Path) -> None:
    touched(tmp_path, "kept/z/a.png", "elsewhere/b.png")
    (tmp_path / "kept" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "kept" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "kept" / "a").symlink_to(tmp_path / "kept" / "z")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "kept")
    found = walk(tmp_path / "kept")
    assert names(found, tmp_path / "kept") == ["again/b.png", "z/a.png"]
    assert found.outside == [tmp_path / "kept" / "again"]


def test_folders_that_link_to_each_other_are_walked_in_no_time(tmp_path: Path) -> None:
    for number in range(16):
        (tmp_path / f"{number:02}").mkdir()
    for number in range(16):
        for name, target in (("x", (number + 1) % 16), ("y", (number + 5) % 16)):
            (tmp_path / f"{number:02}" / name).symlink_to(tmp_path / f"{target:02}")
    touched(tmp_path, "03/a.png")
    start = time.perf_counter()
    assert names(walk(tmp_path), tmp_path) == ["03/a.png"]
    # The same from a folder that reaches the others through links only.
    assert len(walk(tmp_path / "00").images) == 1
    assert time.perf_counter() - start < 5


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    touched(tmp_path, "photos/a.png", "private/b.png")
    (tmp_path / "photos" / "up").symlink_to(tmp_path)
    (tmp_path / "photos" / "root").symlink_to("/")
    found = walk(tmp_path / "photos")
    assert names(found, tmp_path / "photos") == ["a.png"]
    assert found.said_skipped() == "2: 2 links to a folder above"


def test_links_to_nothing_or_themselves_and_special_files_are_counted(tmp_path: Path) -> None:
    touched(tmp_path, "a.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = walk(tmp_path)
    assert names(found, tmp_path) == ["a.png", "b.png"]
    assert found.said_skipped() == "3: 2 broken links, 1 special files"
    assert images_below(tmp_path / "self.png") == []


def test_folders_may_be_nested_deeply(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 1500)
    make_folders(deep)
    (deep / "a.png").touch()
    try:
        assert images_below(tmp_path) == [deep / "a.png"]
    finally:  # pytest removes folders recursively, which so many would break
        (deep / "a.png").unlink()
        while deep != tmp_path:
            deep.rmdir()
            deep = deep.parent


def test_a_folder_of_outputs_can_be_left_out(tmp_path: Path) -> None:
    touched(tmp_path, "a.png", "out/a.png", "out/deep/b.png", "z/out/c.png")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert names(walk(tmp_path, without=tmp_path / "out"), tmp_path) == ["a.png", "z/out/c.png"]


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    lock_folder(monkeypatch, "locked")
    with pytest.raises(InputError, match=r"expected a folder that can be read, got .*locked: Permission denied"):
        images_below(tmp_path)
    (tmp_path / "a.png").touch()
    found = walk(tmp_path)
    assert found.images == [tmp_path / "a.png"]
    assert [folder for folder, _ in found.unreadable] == [tmp_path / "locked"]
    with pytest.raises(InputError, match="locked: Permission denied"):
        walk(tmp_path / "locked")


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["y" * 200] * 40)])
def test_a_name_that_the_system_refuses_is_refused_in_short(name: str) -> None:
    with pytest.raises(InputError, match=r"expected a path that can be read, got .*: File name too long") as error:
        images_below(Path(name))
    assert len(str(error.value)) < 400


def test_folders_without_pictures_say_what_is_in_them(tmp_path: Path) -> None:
    found = walk(touched(tmp_path, "a.avif", "b.avif", "c.txt"))
    message = str(no_images([tmp_path], found.skipped))
    assert message.startswith("expected images (.png, .apng, .jpg,")
    assert message.endswith(f"below {tmp_path}, got none; skipped 3: 2 .avif, 1 .txt")


def test_a_picture_is_read_through_a_link_to_a_folder_outside(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "data" / "a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cats").symlink_to(tmp_path / "data")
    assert walk(tmp_path / "set").images == [tmp_path / "set" / "cats" / "a.png"]
