"""The examples run unchanged and offline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from purifier import Purifier

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PRINTS = {
    "wrap_torchvision_classifier.py": r"(0\.\d{3} .+\n){3}",
    "wrap_torchvision_detector.py": r"240 x 320: \d+ boxes\n200 x 150: \d+ boxes\n",
    "wrap_torchvision_segmenter.py": r"mask of 240 x 320 pixels\n(\d+\.\d% .+\n)+",
    "wrap_transformers_model.py": r"LABEL_\d\n",
}


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(PRINTS))
@pytest.mark.parametrize("name", ["gs", "ncis"])
def test_a_wrapping_example_prints_predictions(script: str, name: str) -> None:
    assert re.fullmatch(PRINTS[script], run(script, "--purifier", name))


def test_the_folder_example_purifies_every_image_and_nothing_else(tmp_path: Path) -> None:
    source, target = tmp_path / "photos", tmp_path / "clean"
    source.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(source / "a.png")
    Image.fromarray(pixels[:, ::-1]).save(source / "b.JPG", "JPEG")
    (source / "notes.txt").write_text("no picture")
    printed = run("purify_a_folder.py", str(source), str(target), "--purifier", "gs", "--tile", "16")
    assert sorted(path.name for path in target.iterdir()) == ["a.png", "b.png"]
    *purified, skipped = printed.splitlines()
    assert purified == [str(target / "a.png"), str(target / "b.png")]
    assert skipped.startswith("skipped: expected an image file") and "notes.txt" in skipped
    expected = np.asarray(Purifier.from_pretrained("gs").purify_image(source / "a.png")).astype(int)
    assert np.abs(np.asarray(Image.open(target / "a.png")).astype(int) - expected).max() <= 1


def test_the_training_example_prints_the_accuracies(tmp_path: Path) -> None:
    for part, each in (("train", 8), ("test", 2)):
        for name in ("cat", "ship"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(each):
                pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    folders = [str(tmp_path / part) for part in ("train", "test")]
    printed = run("harden_your_model.py", *folders, "--out", str(tmp_path / "out"), "--steps", "2", "--batch-size", "4")
    shares = [float(line.split()[0]) for line in printed.splitlines()[-5:]]
    assert all(share in (0, 0.25, 0.5, 0.75, 1) for share in shares)
    assert shares[1] <= shares[0] and shares[4] <= shares[2]
    assert Purifier.from_pretrained(tmp_path / "out" / "gad").name == "gad"


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*PRINTS, "purify_a_folder.py", "harden_your_model.py"}


def test_the_default_purifier_of_every_example_is_bundled() -> None:
    for path in EXAMPLES.glob("*.py"):
        if path.name != "harden_your_model.py":
            assert '"--purifier", default="ncis"' in path.read_text(), path.name
