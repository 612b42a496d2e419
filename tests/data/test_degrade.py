"""Crops that are varied as pictures are without an attacker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from purifier.data import degrade as _vary
from purifier.data.crops import RandomCrops
from purifier.data.degrade import varied


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    # Smooth, so that what is done to them shows.
    ramp = np.linspace(40, 200, 48).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (48, 1)), np.tile(ramp[:, None], (1, 48)), np.full((48, 48), 90, np.uint8)], 2)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return [tmp_path / "one.png"]


def crops(paths: list[Path], vary: float) -> torch.Tensor:
    made = RandomCrops(paths, crop_size=32, length=40, seed=3, vary=vary)
    return torch.stack([made[number] for number in range(40)])


def test_a_share_of_the_crops_is_varied_and_each_is_a_function_of_its_number(paths: list[Path]) -> None:
    plain, some, all_of_them = (crops(paths, vary) for vary in (0.0, 0.5, 1.0))
    changed = (some != plain).flatten(1).any(1).sum().item()
    # Of those that are varied one in eight stays as it was.
    assert 8 <= changed <= 28 < (all_of_them != plain).flatten(1).any(1).sum().item()
    assert torch.equal(crops(paths, 1.0), all_of_them)
    assert torch.equal((255 * all_of_them).round() / 255, all_of_them)
    assert (all_of_them - plain).abs().mean() < 0.03


def test_images_are_shrunk_without_a_filter_where_that_is_asked_for(paths: list[Path]) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(paths[0])

    def made(**options: float) -> torch.Tensor:
        crops = RandomCrops(paths, crop_size=32, length=40, seed=3, shrink=0.5, **options)
        return torch.stack([crops[number] for number in range(40)])

    filtered, aliased = made(), made(aliased=1.0)
    assert torch.equal(made(aliased=0.0), filtered) and torch.equal(made(aliased=1.0), aliased)
    assert not torch.equal(made(vary=1.0), made(vary=1.0, aliased=1.0))
    # Of stripes one pixel wide a filter leaves grey; the nearest pixels are black and white still.
    extreme = ((aliased == 0) | (aliased == 1)).flatten(1).all(1).float().mean().item()
    assert 0.3 < extreme < 0.7
    assert ((filtered == 0) | (filtered == 1)).flatten(1).all(1).float().mean().item() < 0.1


@pytest.mark.parametrize("kind", ["sharpened", "noisy", "grey noise", "compressed"])
def test_each_change_is_made(kind: str, paths: list[Path]) -> None:
    class Chosen:
        """Chances that make one of the three changes, at its strongest."""

        def __init__(self) -> None:
            noisy = [False] if kind == "noisy" else [True] if kind == "grey noise" else []
            wanted = [kind == "sharpened", bool(noisy), *noisy, kind == "compressed"]
            self.chances = iter(wanted)
            self.normal = np.random.default_rng(0).normal

        def random(self) -> float:
            return 0.0 if next(self.chances) else 1.0

        def uniform(self, low: float, high: float) -> float:
            return high

        def integers(self, low: int, high: int) -> int:
            return low if kind == "compressed" else high - 1

    pixels = np.asarray(Image.open(paths[0])).copy()
    pixels[20:28, 20:28] = 255
    found = varied(pixels, Chosen()).astype(float)  # type: ignore[arg-type]
    assert found.shape == pixels.shape
    difference = found - pixels
    spread = difference[:16, :16].std()
    if kind == "sharpened":
        assert difference[10:38, 10:38].min() < -5 and spread < 1
    elif kind != "compressed":
        assert spread == pytest.approx(_vary._NOISE_LEVELS, rel=0.1)
        channels = difference[:16, :16].reshape(-1, 3)
        assert np.ptp(channels, axis=1).max() == 0 if kind == "grey noise" else abs(np.corrcoef(channels.T)[0, 1]) < 0.2
    else:
        assert np.abs(difference).max() > 2 and found.dtype == float
