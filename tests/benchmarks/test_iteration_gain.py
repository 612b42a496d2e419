"""benchmarks/accuracy/frequency.py and iteration_gain.py, on maps whose answer is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.accuracy import frequency, iteration_gain
from benchmarks.accuracy.iteration_results import TABLES
from purifier import Purifier
from purifier.methods.gs import gaussian_kernel
from tests.builders import pictures, small_method

SIDE = 32
WAVES = {
    f"{k} {direction}": frequency.sinusoid(SIDE, k / SIDE, direction)
    for k in (1, 4, 8, 16)
    for direction in ("horizontal", "vertical")
}


def box_blur(images: Tensor) -> Tensor:
    """The mean of three pixels of a row, round the borders."""
    return (images.roll(-1, -1) + images + images.roll(1, -1)) / 3


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda images: factor * images


def test_the_identity_has_gain_one_at_all_frequencies() -> None:
    waves = {**WAVES, "diagonal": frequency.sinusoid(SIDE, 0.3, "diagonal"), "red": 0 * WAVES["4 vertical"]}
    waves["red"][0] = WAVES["4 vertical"][0]
    for found in frequency.gains(lambda images: images, pictures(2, 3, SIDE, SIDE), waves, (1, 5)).values():
        for one in found.values():
            assert list(one.values()) == pytest.approx([1, 1, 1, 1], abs=1e-4)


def test_a_box_blur_has_its_transfer_function_and_its_powers() -> None:
    found = frequency.gains(box_blur, pictures(2, 3, SIDE, SIDE), WAVES, (1, 3))
    for k in (1, 4, 8, 16):
        expected = (1 + 2 * math.cos(2 * math.pi * k / SIDE)) / 3
        for count in (1, 3):
            along, across = (found[f"{k} {direction}"][str(count)] for direction in ("horizontal", "vertical"))
            assert along["mean"] == pytest.approx(expected**count, abs=1e-3)
            assert along["total"] == pytest.approx(abs(expected) ** count, abs=1e-3)
            assert across["max"] == pytest.approx(1, abs=1e-3)


def test_a_wave_in_one_channel_and_a_diagonal_one() -> None:
    green = frequency.sinusoid(SIDE, 0.25, "horizontal", (1,))
    assert green[1, 0, :4].tolist() == pytest.approx([1, 0, -1, 0], abs=1e-6)
    assert green[0].count_nonzero() == green[2].count_nonzero() == 0
    diagonal = frequency.sinusoid(SIDE, 0.5, "diagonal")
    assert torch.equal(diagonal, diagonal.mT)
    assert diagonal[0, 1, 0].item() == pytest.approx(math.cos(math.pi / math.sqrt(2)))


def test_bands_and_spectrum_hold_the_whole_image() -> None:
    images = pictures(2, 3, SIDE, SIDE)
    power, _ = frequency.spectrum(images)
    assert power.sum().item() == pytest.approx(images.square().mean().item(), rel=1e-5)
    together = sum(value**2 for value in frequency.by_band(images).values()) ** 0.5
    assert together == pytest.approx(frequency.size(images), rel=1e-5)
    checks = (-1.0) ** torch.arange(SIDE)
    fine = frequency.by_band((checks * checks[:, None] / 255).expand(1, 3, SIDE, SIDE))
    assert fine["above 1/4"] == pytest.approx(1, abs=0.01) and fine["below 1/32"] < 0.01


def test_white_noise_is_flat_and_smoothing_it_is_not() -> None:
    noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert frequency.slope(noise) == pytest.approx(0, abs=0.2)
    assert frequency.slope(Purifier.from_pretrained("gs").method(noise)) < -1


def test_drift_adds_up() -> None:
    images = torch.full((1, 3, SIDE, SIDE), 0.5)
    found = frequency.drift(lambda x: x + 1 / 255, images, 3)
    assert [one["change"] for one in found] == pytest.approx([1, 2, 3], abs=1e-3)
    assert [one["last"] for one in found] == pytest.approx([1, 1, 1], abs=1e-3)
    assert found[2]["below 1/32"] == pytest.approx(3, abs=1e-3)


def test_the_growth_is_the_largest_eigenvalue_and_says_where() -> None:
    images = pictures(2, 3, SIDE, SIDE)
    found = frequency.growth(scaled(1.25), images, 6, 4)
    assert [found["mean"], found["max"]] == pytest.approx([1.25, 1.25], abs=1e-3)
    assert found["border"] == pytest.approx(1 - (24 / 32) ** 2, abs=0.05)
    assert sum(found[band] for band in frequency.BANDS) == pytest.approx(1)
    # Twice the differences from the mean of three: the largest eigenvalue is 8 / 3, at 1/2 cycles a pixel.
    fine = frequency.growth(lambda x: 2 * (x - box_blur(x)), images, 30, 4)
    assert fine["mean"] == pytest.approx(8 / 3, rel=0.02) and fine["above 1/4"] > 0.9
    assert fine["fx"] == pytest.approx(1 / 2, abs=0.03)
    assert fine["cosine"] == pytest.approx(1, abs=0.01)
    turned = frequency.growth(scaled(-1), images.mean(1, keepdim=True).expand(-1, 3, -1, -1), 6, 4)
    assert turned["cosine"] == pytest.approx(-1, abs=1e-3) and turned["grey"] == pytest.approx(1 / 3, abs=0.05)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, small_kit: Path, tmp_path: Path) -> str:
    """A small ncis in place of both, and small images."""
    folder = tmp_path / "eq7"
    Purifier(small_method("ncis")).save_pretrained(folder)
    sides = {"SIDE": SIDE, "OWN": 32, "WINDOWS": (16, 32), "MIDDLE": 8, "CROP": 16, "BORDER": 4, "ROUNDS": 4}
    for name, value in sides.items():
        monkeypatch.setattr(iteration_gain, name, value)
    ncis = {iteration_gain.EQ7: str(folder)}
    monkeypatch.setattr(
        iteration_gain.Setup,
        "ncis",
        lambda _, clamp=True: {
            name: Purifier.from_pretrained(source, iterations=1, clamp=clamp) for name, source in ncis.items()
        },
    )
    return str(folder)


@pytest.mark.slow
def test_every_part_is_measured_and_has_a_table(small: str, results: Path) -> None:
    iteration_gain.main(["--eq7", small, "--images", "2", "--few", "1", "--crops", "2"])
    found: dict[str, Any] = json.loads((results / "iteration_gain.json").read_text())
    for make in TABLES.values():
        assert iteration_gain.EQ7 in make(found)
    gs = next(row for row in found["gain"] if row["purifier"] == "gs" and row["direction"] == "vertical")
    taps = gaussian_kernel(5)
    finest = taps[2] - 2 * taps[1] + 2 * taps[0]
    assert [gs["gain"][key]["mean"] for key in ("1/64", "1/2")] == pytest.approx([1, finest], abs=0.02)


def test_parts_that_are_not_named_stay(small: str, results: Path) -> None:
    (results / "iteration_gain.json").write_text(json.dumps({"drift": "as it was"}))
    iteration_gain.main(["--eq7", small, "--images", "1", "--few", "1", "--parts", "windows"])
    found = json.loads((results / "iteration_gain.json").read_text())
    assert (
        list(found["commits"]) == ["windows"]
        and found["drift"] == "as it was"
        and [row["side"] for row in found["windows"]] == [16, 32]
    )
