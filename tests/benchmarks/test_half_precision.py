"""benchmarks/accuracy/half_precision.py, with a small classifier in place of the kit's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import kit as _kit
from benchmarks.accuracy import half_precision
from purifier import Purifier
from purifier.methods.alloy import Alloy
from tests.builders import pictures


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    images = pictures(6, 3, 16, 16)
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    labels = network(images).argmax(1)

    def attacked(name: str, images: Tensor, labels: Tensor, work: Path) -> Tensor:
        return 1 - images

    monkeypatch.setattr(_kit, "RESULTS", tmp_path)
    monkeypatch.setattr(half_precision, "RESULTS", tmp_path)
    monkeypatch.setattr(half_precision, "environment", lambda: {"torch": torch.__version__})
    monkeypatch.setattr(half_precision, "imagenet", lambda count: (images[:count], labels[:count]))
    monkeypatch.setattr(half_precision, "model", lambda name: network)
    monkeypatch.setattr(half_precision, "attacked", attacked)
    return tmp_path


def measured(monkeypatch: pytest.MonkeyPatch, results: Path, *purifiers: str) -> list[dict[str, object]]:
    monkeypatch.setattr(
        sys, "argv", ["script", "--models", "a", "b", "--images", "6", "--purifiers", *purifiers, "--name", "half"]
    )
    half_precision.main()
    rows: list[dict[str, object]] = json.loads((results / "half.json").read_text())["rows"]
    return rows


def test_both_dtypes_are_measured_once_and_again_for_other_weights(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one"
    Purifier(Alloy(patch=1, filters=4, blocks=1), name="one").save_pretrained(one)
    rows = measured(monkeypatch, results, "gs", f"one={one}")
    assert [(row["classifier"], row["purifier"]) for row in rows] == [
        (classifier, name) for name in ("gs", "one") for classifier in ("a", "b")
    ]
    for dtype in ("float32", "bfloat16"):
        row = rows[0][dtype]
        assert isinstance(row, dict) and row["images"] == 6 and row["standard"] > row["robust"]
    assert "| a | gs |" in capsys.readouterr().out

    with monkeypatch.context() as patched:
        patched.setattr(half_precision, "measure", lambda *_: pytest.fail("measured again"))
        assert measured(patched, results, "gs", f"one={one}") == rows
    Purifier(Alloy(patch=1, filters=4, blocks=1), name="one").save_pretrained(one)
    seen = []
    measure = half_precision.measure
    monkeypatch.setattr(half_precision, "measure", lambda *given: seen.append(given[:2]) or measure(*given))
    again = measured(monkeypatch, results, "gs", f"one={one}")
    assert seen == [("a", str(one)), ("b", str(one))]
    assert again[:2] == rows[:2] and len(again) == 4
    assert "one: other options or weights than those of half.json" in capsys.readouterr().out


def test_other_settings_are_not_mixed(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, results, "gs")
    stored = json.loads((results / "half.json").read_text())
    stored["settings"]["eps"] = 1
    (results / "half.json").write_text(json.dumps(stored))
    with pytest.raises(SystemExit, match="was made with"):
        measured(monkeypatch, results, "gs")
