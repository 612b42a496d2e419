"""benchmarks/accuracy/nrp_acceptance.py, with small classifiers in place of the kit's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.accuracy import nrp_acceptance as script
from purifier import attacks
from tests.builders import pictures

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def kit(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(6, 3, 16, 16)
    networks = {
        name: nn.Sequential(nn.AvgPool2d(8 // (k + 1)), nn.Flatten()) for k, name in enumerate(script.CLASSIFIERS)
    }
    labels = networks["resnet50"](images).argmax(1)
    linf = script.WHITE_BOX["PGD Linf 16/255"]
    monkeypatch.setattr(script, "imagenet", lambda count: (images[:count], labels[:count]))
    monkeypatch.setattr(script, "model", lambda name: networks[name].eval())
    monkeypatch.setattr(script, "feature_extractor", lambda: nn.AvgPool2d(2))
    monkeypatch.setattr(script, "CHUNK", 2)
    monkeypatch.setattr(script, "WHITE_BOX", {"PGD Linf 16/255": linf})


def test_more_images_go_on_from_fewer_and_give_what_they_give_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.attack(tmp_path, 4, CPU)
    four = script.measure(tmp_path, 4, ["gs"], CPU)
    assert set(four) == {"none", "gs i=5"}
    clean = {"clean", "SSP 16/255", "PGD Linf 16/255 on resnet50", "PGD Linf 16/255 on mobilenet_v2"}
    assert set(four["none"]) == clean and four["none"]["clean"]["resnet50"] == 4
    assert four["none"]["PGD Linf 16/255 on resnet50"]["resnet50"] < 4

    script.attack(tmp_path, 6, CPU)
    asked = []
    chunk_of = script.chunk_of
    monkeypatch.setattr(script, "chunk_of", lambda *given: asked.append(given[3]) or chunk_of(*given))
    six = script.measure(tmp_path, 6, ["gs"], CPU)
    assert set(asked) == {2} and len(asked) == 8
    assert script.measure(tmp_path, 4, ["gs"], CPU) == four and len(asked) == 8

    other = tmp_path / "other"
    script.attack(other, 6, CPU)
    assert script.measure(other, 6, ["gs"], CPU) == six


def test_other_weights_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script.attack(tmp_path, 2, CPU)
    script.measure(tmp_path, 2, ["gs"], CPU)
    asked = []
    chunk_of = script.chunk_of
    monkeypatch.setattr(script, "chunk_of", lambda *given: asked.append(given[1]) or chunk_of(*given))
    script.measure(tmp_path, 2, ["gs"], CPU)
    assert asked == []
    monkeypatch.setattr(script, "bundled_config", lambda name: {"files": {"model.safetensors": "new"}})
    script.measure(tmp_path, 2, ["gs"], CPU)
    assert asked == ["clean", "SSP 16/255", "PGD Linf 16/255", "PGD Linf 16/255"]


def test_attacks_that_are_there_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script.attack(tmp_path, 2, CPU)
    monkeypatch.setattr(attacks.SSP, "__call__", lambda *_: pytest.fail("made again"))
    script.attack(tmp_path, 2, CPU)


def test_measuring_without_attacked_images_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="run the command `attack` first"):
        script.measure(tmp_path, 2, ["gs"], CPU)


def test_a_number_of_images_that_is_no_multiple_of_a_chunk_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script", "measure", "--images", "5"])
    with pytest.raises(SystemExit):
        script.main()
    assert "expected --images as a multiple of 2, got 5" in capsys.readouterr().err
