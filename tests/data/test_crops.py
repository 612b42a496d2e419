"""Crops of image files and of pixels, the split into training and validation, and how files are read for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from purifier import InputError, OptionError
from purifier.data.crops import RandomCrops, padded_crop, resized_crop, split_validation
from purifier.data.images import list_images, read_pixels
from tests.training.conftest import write_photos

COUNT = 40


def crops(pixels: np.ndarray, folder: Path, **options: float) -> torch.Tensor:
    """Crops (COUNT, 3, 32, 32) of one image."""
    Image.fromarray(pixels).save(folder / "one.png")
    made = RandomCrops([folder / "one.png"], crop_size=32, length=COUNT, seed=3, **options)
    return torch.stack([made[number] for number in range(COUNT)])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def smooth() -> np.ndarray:
    """A smooth image (48, 48, 3), in which every change is visible."""
    ramp = np.linspace(40, 200, 48).astype(np.uint8)
    return np.stack([np.tile(ramp, (48, 1)), np.tile(ramp[:, None], (1, 48)), np.full((48, 48), 90, np.uint8)], 2)


@pytest.fixture
def stripes() -> np.ndarray:
    """Black and white stripes (64, 64, 3), one pixel wide."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2] = 255
    return pixels


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


def test_a_share_of_the_crops_is_degraded(smooth: np.ndarray, tmp_path: Path) -> None:
    plain, some, every = (crops(smooth, tmp_path, vary=vary) for vary in (0.0, 0.5, 1.0))
    changed = (some != plain).flatten(1).any(1).sum().item()
    # Of the crops that are degraded, one in eight or more stays as it was.
    assert 8 <= changed <= 28 < (every != plain).flatten(1).any(1).sum().item()
    assert (every - plain).abs().mean() < 0.03


def test_degraded_crops_have_pixels_of_eight_bits_and_repeat_themselves(smooth: np.ndarray, tmp_path: Path) -> None:
    every = crops(smooth, tmp_path, vary=1.0)
    assert torch.equal((255 * every).round() / 255, every)
    assert torch.equal(crops(smooth, tmp_path, vary=1.0), every)


def test_without_antialiasing_stripes_stay_black_and_white_in_half_of_the_crops(
    stripes: np.ndarray, tmp_path: Path
) -> None:
    def black_and_white(images: torch.Tensor) -> float:
        return ((images == 0) | (images == 1)).flatten(1).all(1).float().mean().item()

    # A filter turns stripes into grey, as does bilinear interpolation; the nearest pixels are black or white.
    assert 0.3 < black_and_white(crops(stripes, tmp_path, shrink=0.5, aliased=1.0)) < 0.7
    assert black_and_white(crops(stripes, tmp_path, shrink=0.5)) < 0.1


def test_crops_without_an_option_are_those_of_a_share_of_zero(stripes: np.ndarray, tmp_path: Path) -> None:
    plain = crops(stripes, tmp_path, shrink=0.5)
    assert torch.equal(crops(stripes, tmp_path, shrink=0.5, aliased=0.0, vary=0.0), plain)


def test_a_small_crop_is_moved_by_up_to_four_pixels_with_zeros_beyond() -> None:
    pixels = np.full((16, 16, 3), 255, np.uint8)
    pixels[0, 0] = 7
    crops = [padded_crop(pixels, 16, np.random.default_rng(seed)) for seed in range(40)]
    assert all(crop.shape == (16, 16, 3) for crop in crops)
    zeros = {int((crop[:, :, 0] == 0).sum()) for crop in crops}
    assert max(zeros) > 16 * 3 and len(zeros) > 5
    assert {bool((crop[:, :4] == 7).any()) for crop in crops} == {True, False}


def test_a_large_crop_is_a_square_part_of_the_image() -> None:
    ramp = np.tile(np.arange(100, dtype=np.uint8)[:, None, None], (1, 150, 3))
    spans = [np.ptp(resized_crop(ramp, 80, np.random.default_rng(seed))[:, 0, 0].astype(int)) for seed in range(30)]
    assert min(spans) >= 45 and max(spans) > 85
