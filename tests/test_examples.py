"""The examples run unchanged and offline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from purifier import Purifier
from tests.scale.pictures import encoded

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PRINTS = {
    "wrap_torchvision_classifier.py": r"(0\.\d{3} .+\n){3}",
    "wrap_torchvision_detector.py": r"240 x 320: \d+ boxes\n200 x 150: \d+ boxes\n",
    "wrap_torchvision_segmenter.py": r"mask of 240 x 320 pixels\n(\d+\.\d% .+\n)+",
    "wrap_transformers_model.py": r"LABEL_\d\n",
}


def run(script: str, *arguments: str) -> str:
    return python(str(EXAMPLES / script), *arguments)


def python(*arguments: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Runs programs one after another in one process, which imports torch once.
TOGETHER = """
import runpy, sys
for call in sys.argv[1:]:
    sys.argv = call.split()
    runpy.run_path(sys.argv[0], run_name="__main__")
    print("---")
"""


@pytest.mark.slow
def test_the_wrapping_examples_print_predictions() -> None:
    names = ("gs", "ncis", "gs", "ncis")
    calls = [f"{EXAMPLES / script} --purifier {name}" for script, name in zip(sorted(PRINTS), names, strict=True)]
    printed = python("-c", TOGETHER, *calls).split("---\n")
    for script, found in zip(sorted(PRINTS), printed[:-1], strict=True):
        assert re.fullmatch(PRINTS[script], found), script


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


def test_the_datasets_example_purifies_every_picture(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    for number in range(3):
        path = tmp_path / "in" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number))
    printed = run("datasets_map.py", str(tmp_path / "in"), str(tmp_path / "out"), "--purifier", "gs")
    assert printed == "3 pictures, columns image, label\n"
    found = datasets.load_from_disk(str(tmp_path / "out"))
    assert sorted(found["label"]) == [0, 0, 1]
    expected = np.asarray(Purifier.from_pretrained("gs").purify_image(tmp_path / "in" / "class1" / "1.png"))
    assert np.array_equal(np.asarray(found[found["label"].index(1)]["image"]), expected)


def test_the_webdataset_example_purifies_its_batches(tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="needs webdataset")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in {"a.png": encoded(0), "a.cls": b"1", "b.jpg": encoded(1, "JPEG"), "b.cls": b"2"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    printed = run("webdataset_pipeline.py", str(tmp_path / "0.tar"), "--purifier", "gs", "--size", "16")
    assert re.fullmatch(r"\(2, 3, 16, 16\) in \[0\.\d\d, 0\.\d\d\], classes \[1 2\]\n", printed), printed


def test_every_example_is_tested() -> None:
    others = {"purify_a_folder.py", "harden_your_model.py", "datasets_map.py", "webdataset_pipeline.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*PRINTS, *others}


def test_the_default_purifier_of_every_example_is_bundled() -> None:
    for path in EXAMPLES.glob("*.py"):
        if path.name != "harden_your_model.py":
            assert '"--purifier", default="ncis"' in path.read_text(), path.name
