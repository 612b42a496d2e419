"""Random crops of image files, the split into training and validation, and how files are read for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from purifier import InputError, OptionError
from purifier.data.crops import RandomCrops, split_validation
from purifier.data.images import list_images, read_pixels
from tests.training.conftest import write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def test_a_crop_is_decided_by_seed_and_index_alone(photos: Path) -> None:
    paths = list_images([photos])
    first, second = (RandomCrops(paths, crop_size=16, length=9, seed=4, shrink=0.5) for _ in range(2))
    _ = first[3]
    assert torch.equal(first[7], second[7])
    assert not torch.equal(first[7], first[8])
    assert first[7].shape == (3, 16, 16) and first[7].min() >= 0 and first[7].max() <= 1


def test_small_images_are_enlarged_to_the_crop(photos: Path) -> None:
    assert RandomCrops(list_images([photos]), crop_size=64, length=1, seed=0)[0].shape == (3, 64, 64)


def test_validation_files_are_not_trained_on(photos: Path) -> None:
    training, validation = split_validation(list_images([photos]), 4)
    assert len(validation) == 2 and len(training) == 6 and not set(training) & set(validation)


def test_a_split_that_leaves_nothing_to_train_on_is_refused(photos: Path) -> None:
    with pytest.raises(InputError, match="expected at least 2 images, one of them to validate, got 1"):
        split_validation(list_images([photos])[:1], 4)
    with pytest.raises(OptionError, match="expected validation_every >= 2, got 1"):
        split_validation(list_images([photos]), 1)


def test_hidden_files_are_not_read_as_images(photos: Path) -> None:
    (photos / "._photo.jpg").write_bytes(b"junk")
    assert not [path for path in list_images([photos]) if path.name.startswith(".")]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        read_pixels(tmp_path / "broken.jpg")


def test_sixteen_bit_images_are_scaled_to_eight_bits(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 32896, dtype=np.uint16)).save(tmp_path / "grey.png")
    assert (read_pixels(tmp_path / "grey.png") == np.full((4, 5, 3), 128, dtype=np.uint8)).all()
