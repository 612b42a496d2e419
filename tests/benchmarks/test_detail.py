"""benchmarks/accuracy/detail.py, on small pictures, with attacks that are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import kit as _kit
from benchmarks.accuracy import detail
from purifier import Purifier
from tests.builders import pictures

IMAGES = pictures(4, 3, 24, 24)


def test_a_constant_is_coarse_and_a_checkerboard_the_finest_detail() -> None:
    board = (torch.arange(24)[:, None] + torch.arange(24)) % 2 * 2.0 - 1
    flat, fine = (
        detail.bands(difference.expand(2, 3, 24, 24) / 255) for difference in (torch.full((24, 24), 3.0), board)
    )
    assert flat["coarse"] == pytest.approx(3.0, abs=1e-3) and max(flat[name] for name in detail.BANDS) < 1e-3
    assert fine["finest"] == pytest.approx(1.0, abs=0.05) and fine["coarse"] < 1e-3


def test_bands_add_up_to_the_difference() -> None:
    parts, left = torch.zeros_like(IMAGES), IMAGES
    for passes in detail.BANDS.values():
        smooth = detail.GaussianSmoothing(iterations=passes)(left)
        parts, left = parts + left - smooth, smooth
    torch.testing.assert_close(parts + left, IMAGES)


def test_an_alloy_is_measured_without_its_gate() -> None:
    assert detail.purifier("alloy-s").method.options["gate_bias"] == 20.0
    assert detail.purifier("gs").name == "gs"


def test_every_purifier_is_measured_under_every_attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def attacked(images: Tensor) -> dict[str, Tensor]:
        return {"none": images, "far": 1 - images}

    monkeypatch.setattr(_kit, "RESULTS", tmp_path)
    monkeypatch.setattr(detail, "environment", lambda: {"torch": torch.__version__})
    monkeypatch.setattr(detail, "photographs", lambda: ())
    monkeypatch.setattr(detail, "held_out", lambda config, count: IMAGES[:count])
    monkeypatch.setattr(detail, "attacked", attacked)
    monkeypatch.setattr(sys, "argv", ["script", "--images", "3", "--purifiers", "gs", "--name", "small"])
    detail.main()
    rows = json.loads((tmp_path / "small.json").read_text())["rows"]
    assert [(row["purifier"], row["attack"]) for row in rows] == [
        ("the images themselves", "none"), ("none", "far"), ("gs", "none"), ("gs", "far"),
    ]  # fmt: skip
    with torch.inference_mode():
        expected = detail.bands(Purifier.from_pretrained("gs")(1 - IMAGES[:3]) - IMAGES[:3])
    assert rows[-1]["finest"] == pytest.approx(expected["finest"]) and rows[-1]["coarse"] == pytest.approx(
        expected["coarse"]
    )
    assert f"| gs | far | {expected['finest']:.1f} |" in capsys.readouterr().out
