"""Changes that images undergo without an attacker."""

import numpy as np
import pytest

from purifier.data.degrade import degraded

RAMP = np.linspace(40, 200, 64).astype(np.uint8)
# Smooth, so that every change is visible.
SMOOTH = np.stack([np.tile(RAMP, (64, 1)), np.tile(RAMP[:, None], (1, 64)), np.full((64, 64), 90, np.uint8)], 2)
CALLS = 200


@pytest.fixture(scope="module")
def changes() -> np.ndarray:
    """Differences that many calls make, (CALLS, 64, 64, 3)."""
    return np.stack([degraded(SMOOTH, np.random.default_rng(seed)).astype(int) - SMOOTH for seed in range(CALLS)])


def test_shape_and_dtype_stay() -> None:
    for seed in range(10):
        result = degraded(SMOOTH[:50, :37], np.random.default_rng(seed))
        assert result.shape == (50, 37, 3) and result.dtype == np.uint8


def test_equal_seeds_give_equal_pixels_and_the_input_does_not_change() -> None:
    pixels = SMOOTH.copy()
    first, again = (degraded(pixels, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, again) and np.array_equal(pixels, SMOOTH)
    assert not np.array_equal(first, degraded(pixels, np.random.default_rng(6)))


def test_images_of_one_kind_are_changed_differently_and_some_not_at_all() -> None:
    texture = np.random.default_rng(0).integers(60, 200, (32, 32, 3)).astype(np.uint8)
    results = {degraded(texture, np.random.default_rng(seed)).tobytes() for seed in range(CALLS)}
    unchanged = np.mean([np.array_equal(degraded(texture, np.random.default_rng(s)), texture) for s in range(CALLS)])
    # Each of the three changes has a probability of one half, so an eighth of the images has none.
    assert 0.05 < unchanged < 0.2
    assert len(results) > CALLS / 2


def test_changes_are_small(changes: np.ndarray) -> None:
    # Noise has a standard deviation of at most 3; on smooth images the other changes are smaller still.
    assert changes.std(axis=(1, 2, 3)).max() < 4
    assert np.abs(changes.mean(axis=(1, 2, 3))).max() < 2


def test_noise_is_equal_in_all_channels_in_half_of_the_cases() -> None:
    # JPEG and sharpening barely change a uniform grey image, so what is left is the noise.
    grey = np.full((32, 32, 3), 128, np.uint8)
    results = [degraded(grey, np.random.default_rng(seed)).astype(int) for seed in range(CALLS)]
    noisy = [result for result in results if result[..., 0].std() > 1]
    assert 0.15 < len(noisy) / CALLS < 0.5
    equal = np.mean([np.ptp(result, axis=2).max() <= 2 for result in noisy])
    assert 0.3 < equal < 0.7


def test_some_images_show_the_blocks_of_jpeg() -> None:
    # The second differences of a ramp are near zero. JPEG bends it at the borders of its 8 x 8 blocks.
    def bends(pixels: np.ndarray) -> float:
        second = np.abs(np.diff(pixels.astype(float), 2, axis=1)).mean((0, 2))
        at_borders = np.isin(np.arange(len(second)) % 8, (6, 7))
        return float(second[at_borders].mean() / second[~at_borders].mean())

    found = np.array([bends(degraded(SMOOTH, np.random.default_rng(seed))) for seed in range(CALLS)])
    assert bends(SMOOTH) < 1.3
    assert 0.1 < np.mean(found > 1.5) < 0.6


def test_some_images_are_sharpened() -> None:
    edge = np.full((32, 32, 3), 100, np.uint8)
    edge[:, 16:] = 150
    overshoot = [degraded(edge, np.random.default_rng(seed))[:, 16].mean() - 150 for seed in range(CALLS)]
    assert 0.3 < np.mean(np.array(overshoot) > 2) < 0.7
