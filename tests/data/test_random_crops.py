"""Options of the random crops: degraded crops, and images shrunk without antialiasing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from purifier.data.crops import RandomCrops

COUNT = 40


def crops(pixels: np.ndarray, folder: Path, **options: float) -> torch.Tensor:
    """Crops (COUNT, 3, 32, 32) of one image."""
    Image.fromarray(pixels).save(folder / "one.png")
    made = RandomCrops([folder / "one.png"], crop_size=32, length=COUNT, seed=3, **options)
    return torch.stack([made[number] for number in range(COUNT)])


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
