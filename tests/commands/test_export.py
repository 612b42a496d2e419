"""purifier export: files written as asked, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from purifier import OptionError, PurifierError, UnknownNameError, _extras
from purifier.cli import command
from purifier.inference.export import read_metadata

MODEL = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["export", *map(str, arguments)])


def test_a_chain_is_written_verified_and_described(tmp_path: Path) -> None:
    result = run("gs", tmp_path / "p.onnx", "--iterations", 2, "--chain", "bit-depth")
    assert result.exit_code == 0, result.output
    assert "exported gs+bit-depth (purifier, onnx, opset 18, images of any size from 1x1)" in result.output
    assert "verified with ONNX Runtime: largest difference" in result.output
    links = json.loads(read_metadata(tmp_path / "p.onnx")["config"])["options"]["links"]
    assert [link["method"] for link in links] == ["gs", "bit-depth"]
    assert links[0]["options"]["iterations"] == 2


def test_a_model_behind_a_purifier_is_written_in_torch_export(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODEL)
    model = ("--model", f"{tmp_path / 'mine.py'}:build", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.2")
    result = run("gs", tmp_path / "m.pt2", "--format", "torch-export", "--size", "32x40", *model)
    assert result.exit_code == 0, result.output
    assert "exported gs (wrapped model, torch-export, images of 32x40)" in result.output
    assert "verified with torch.export.load" in result.output
    facts = read_metadata(tmp_path / "m.pt2")
    assert json.loads(facts["mean"]) == [0.5, 0.4, 0.3]
    assert torch.export.load(tmp_path / "m.pt2").module()(torch.zeros(4, 3, 32, 40)).shape == (4, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("jpeg",), OptionError, "its codec is Pillow's"),
        (("gs", "--chain", "jpeg"), OptionError, "its codec is Pillow's"),
        (("gz",), UnknownNameError, "got 'gz'"),
        (("gs", "--size", "224"), OptionError, "expected --size as HEIGHTxWIDTH"),
        (("gs", "--mean", "0,0,0"), OptionError, "add --model"),
        (("gs", "--model", "reference:demo", "--std", "a,b"), OptionError, "expected --std as numbers"),
        (("gs", "--opset", "3"), OptionError, "at least 18"),
    ],
)
def test_wrong_calls_are_refused(
    arguments: tuple[str, ...], error: type[PurifierError], message: str, tmp_path: Path
) -> None:
    name, *options = arguments
    result = run(name, tmp_path / "p.onnx", *options)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extras, "find_spec", lambda name: None)
    result = run("gs", tmp_path / "p.onnx")
    assert isinstance(result.exception, PurifierError)
    assert "'onnx' for purifier export --format onnx" in str(result.exception)
    assert "torch-purifier[export]" in str(result.exception)
