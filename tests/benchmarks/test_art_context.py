"""benchmarks/speed/art_context.py with a toolbox of two preprocessors and a model of one layer."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.kit import imagenet, model
from benchmarks.speed.art_context import Toolbox, measure, timed
from benchmarks.speed.table import RESNET, art_context
from purifier import Purifier
from tests.builders import pictures

STUB = """
class JpegCompression:
    def __init__(self, clip_values, quality=50, channels_first=False):
        assert channels_first and clip_values == (0.0, 1.0)
        self.quality = quality
    def __call__(self, x):
        print("the toolbox talks")
        return x * self.quality / 180, None

class TotalVarMin:
    def __call__(self, x):
        assert x.shape[-1] == 3
        out = x.copy()
        out[..., 0] = 0
        return out, None

class FeatureSqueezing:
    def __init__(self, clip_values, bit_depth):
        raise ValueError(f"no {bit_depth} bits")
"""


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A Python that has the two preprocessors."""
    (tmp_path / "art" / "defences").mkdir(parents=True)
    (tmp_path / "art" / "__init__.py").write_text("__version__ = '0'")
    (tmp_path / "art" / "defences" / "preprocessor.py").write_text(STUB)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def toolbox(python: str, tmp_path: Path) -> Iterator[Toolbox]:
    with Toolbox(python, tmp_path, 1) as made:
        yield made


def test_outputs_come_back_with_channels_first_whatever_the_preprocessor_takes(toolbox: Toolbox) -> None:
    one, two = pictures(2, 3, 6, 5), pictures(2, 3, 6, 5, seed=1)
    for images in (one, two):
        torch.testing.assert_close(toolbox.purified("ART JPEG", images), images * 0.5)
        out = toolbox.purified("ART total variation", images)
        assert torch.equal(out[:, 1:], images[:, 1:]) and not out[:, 0].any()
    assert toolbox.seconds("ART JPEG", one) > 0
    assert toolbox.versions["art"] == "0"


def test_an_error_of_the_toolbox_is_said(toolbox: Toolbox) -> None:
    with pytest.raises(SystemExit, match="expected the toolbox to run, got ValueError: no 4 bits"):
        toolbox.purified("ART bit depth", pictures(1, 3, 4, 4))


def test_a_python_without_the_toolbox_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected an answer from the toolbox's environment, got none"):
        Toolbox("/bin/true", tmp_path, 1)
    with pytest.raises(SystemExit, match="expected --art-python with a Python that has the toolbox"):
        Toolbox(str(tmp_path / "none"), tmp_path, 1)


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def call(name: str) -> float:
        order.append(name)
        return float(len(order))

    assert timed({name: lambda name=name: call(name) for name in "ab"}, 2) == {"a": [3.0, 6.0], "b": [4.0, 5.0]}
    assert "".join(order) == "ba" + "ab" + "ba"


def test_the_table_has_a_row_for_each_and_accuracies_of_the_attacked_images(python: str, small_kit: Path) -> None:
    theirs = ["ART JPEG", "ART total variation"]
    args = Namespace(art_python=python, images=3, batch=2, threads=1, runs=2, ours=["gs"], theirs=theirs)
    result = measure(args)
    rows = result["rows"]
    assert list(rows) == [RESNET, "gs", *theirs]
    images, labels = imagenet(3)
    with torch.no_grad():
        purified = Purifier.from_pretrained("gs")(images)
        expected = [(model("resnet50")(x).argmax(1) == labels).float().mean().item() for x in (images, purified)]
    assert [rows[name]["standard"]["accuracy"] for name in (RESNET, "gs")] == pytest.approx(expected)
    assert rows[RESNET]["robust"]["accuracy"] < rows[RESNET]["standard"]["accuracy"] == 1
    assert rows[RESNET]["resnet50s"] == 1 and all(row["ms_per_image"] > 0 for row in rows.values())
    assert result["options"]["ART JPEG"] == {"quality": 90}
    table = art_context(result)
    assert "| ART JPEG | " in table and "| none (ResNet-50 forward) | " in table and "toolbox 0;" in table
