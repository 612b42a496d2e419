"""alloy_gate.py, with a small classifier in place of the kit's and a gate whose weights are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import kit as _kit
from benchmarks.accuracy import alloy_gate
from purifier import Purifier
from purifier.attacks import PGD
from purifier.methods.alloy import Alloy
from tests.builders import pictures

IMAGES = pictures(6, 3, 16, 16)


def network() -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten())


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    labels = network()(IMAGES).argmax(1)

    def attacked(name: str, images: Tensor, labels: Tensor, work: Path) -> Tensor:
        return 1 - images

    monkeypatch.setattr(_kit, "RESULTS", tmp_path)
    monkeypatch.setattr(alloy_gate, "environment", lambda: {"torch": torch.__version__})
    monkeypatch.setattr(alloy_gate, "imagenet", lambda count: (IMAGES[:count], labels[:count]))
    monkeypatch.setattr(alloy_gate, "model", lambda name: network())
    monkeypatch.setattr(alloy_gate, "attacked", attacked)
    monkeypatch.setattr(alloy_gate, "photographs", lambda: ())
    monkeypatch.setattr(alloy_gate, "held_out", lambda config, count: IMAGES[:count])
    monkeypatch.setattr(alloy_gate, "attacks", lambda: {"PGD Linf 8/255": PGD(eps=8 / 255, alpha=1 / 255, steps=2)})
    return tmp_path


def measured(monkeypatch: pytest.MonkeyPatch, folder: Path, method: Alloy) -> dict[str, Any]:
    Purifier(method, name="one").save_pretrained(folder / "one")
    counts = ["--images", "6", "--few", "2", "--held-out", "3"]
    monkeypatch.setattr(sys, "argv", ["script", "--purifier", f"one={folder / 'one'}", *counts, "--name", "gate"])
    alloy_gate.main()
    found: dict[str, Any] = json.loads((folder / "gate.json").read_text())
    return found


def test_a_gate_that_is_half_open_halves_what_is_done(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    method = Alloy(iterations=1, patch=1, filters=4, blocks=1, gate=2)
    assert method.gate is not None
    for parameter in method.gate.layers[-1].parameters():
        nn.init.zeros_(parameter)
    found = measured(monkeypatch, small, method)
    rows = {(row["classifier"], row["purifier"], row["gate"]): row for row in found["accuracy"]}
    assert {key[0] for key in rows} == set(alloy_gate.CLASSIFIERS)
    assert {key[1] for key in rows} == {"gs i=5", "ncis i=5", "nrp-resg", "one"}
    labels = network()(IMAGES).argmax(1)
    with torch.no_grad():
        smooth = Purifier.from_pretrained("gs", iterations=5)(IMAGES)
        for gate, seen in ((False, smooth), (True, (IMAGES + smooth) / 2)):
            right = (network()(seen).argmax(1) == labels).sum().item()
            assert rows["resnet50", "gs i=5", gate]["standard"] == right / 6
    assert all(row["mean"] == row["least"] == row["most"] == pytest.approx(0.5) for row in found["gate"].values())
    assert found["gate"]["PGD Linf 8/255"]["attack"] and not found["gate"]["JPEG, quality 50"]["attack"]
    shares = found["cautions"]["shares"]
    assert shares.keys() == {*map(str, alloy_gate.CAUTIONS), "no gate"}
    assert all(row.keys() == {"clean", "PGD Linf 8/255"} for row in shares.values())
    printed = capsys.readouterr().out
    assert "| PGD Linf 8/255 | yes | 0.50 | 0.50 to 0.50 |" in printed and "| no gate |" in printed


def test_an_alloy_without_a_gate_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="expected an alloy with a gate, got"):
        measured(monkeypatch, small, Alloy(patch=1, filters=4, blocks=1))
