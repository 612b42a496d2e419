"""Where results may be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from purifier import OptionError
from purifier.data.outputs import check_outside


@pytest.mark.parametrize("place", ["data", "data/out", "data/red/../out/scores.csv", "link/out"])
def test_a_place_in_a_folder_of_images_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.raises(OptionError, match="expected a place for the results outside the folder of images"):
        check_outside(tmp_path / place, tmp_path / "elsewhere", tmp_path / "data")


@pytest.mark.parametrize("place", ["out", "data2", "data/../out", "."])
def test_other_places_are_taken(tmp_path: Path, place: str) -> None:
    (tmp_path / "data").mkdir()
    check_outside(tmp_path / place, tmp_path / "data", tmp_path / "elsewhere")


def test_a_single_image_is_no_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    check_outside(tmp_path / "a.png", tmp_path / "a.png")
