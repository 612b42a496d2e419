"""purifier detect: scores of files, thresholds, exit codes and the histogram."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from purifier import InputError, OptionError, OutputError, Purifier, PurifierError
from purifier.cli import command

SMOOTH, NOISY = "smooth.png", "noisy.png"


def picture(path: Path, noise: int = 0, size: tuple[int, int] = (48, 40), seed: int = 0) -> None:
    """Writes a smooth picture, with noise of so many levels, which the gate takes for an attack."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    ramp = np.broadcast_to(np.linspace(60, 190, width)[None, :, None], (height, width, 3))
    grain = noise * np.sign(np.random.default_rng(seed).standard_normal(ramp.shape))
    Image.fromarray((ramp + seed % 7 + grain).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "in" / SMOOTH)
    picture(tmp_path / "in" / "deep" / NOISY, noise=8)
    return tmp_path / "in"


def detect(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["detect", *map(str, arguments), "--device", "cpu"])


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def calibrated(folder: Path, count: int = 40, rate: float = 0.1) -> Path:
    for number in range(count):
        picture(folder / "clean" / f"{number}.png", noise=number % 2, seed=number)
    result = detect(folder / "clean", "--calibrate", "--false-positive-rate", rate, "--out", folder / "t.json")
    assert result.exit_code == 0, result.output
    return folder / "t.json"


def test_every_picture_has_a_row_with_the_score_of_the_library(folder: Path, tmp_path: Path) -> None:
    result = detect(folder, "--out", tmp_path / "scores.csv")
    assert result.exit_code == 0 and "scored 2, failed 0" in result.output
    found = rows((tmp_path / "scores.csv").read_text())
    assert [row["file"] for row in found] == [f"deep/{NOISY}", SMOOTH]
    purifier = Purifier.from_pretrained("alloy-s")
    for row in found:
        pixels = np.array(Image.open(folder / row["file"])).transpose(2, 0, 1)
        expected = purifier.attack_score(torch.from_numpy(pixels).float() / 255)
        assert abs(float(row["score"]) - float(expected)) < 1e-5
    assert float(found[0]["score"]) > 0.9 > 0.5 > float(found[1]["score"])


def test_without_out_the_table_goes_to_the_terminal(folder: Path) -> None:
    result = detect(folder / SMOOTH)
    assert result.exit_code == 0
    assert [row["file"] for row in rows(result.stdout)] == [SMOOTH]


def test_the_batch_size_does_not_change_the_scores(folder: Path) -> None:
    for number in range(3):
        picture(folder / f"more{number}.png", noise=2, seed=number)
    one, three = (rows(detect(folder, "--batch-size", size).stdout) for size in (1, 3))
    assert [row["file"] for row in one] == [row["file"] for row in three]
    assert all(abs(float(a["score"]) - float(b["score"])) < 1e-5 for a, b in zip(one, three, strict=True))


def test_calibrating_writes_a_threshold_that_marks_attacked_pictures(folder: Path, tmp_path: Path) -> None:
    limit = calibrated(tmp_path)
    stored = json.loads(limit.read_text())
    assert stored["pictures"] == 40 and stored["false_positive_rate"] == 0.1 and stored["purifier"] == "alloy-s"
    low, high = stored["interval"]
    assert low <= stored["value"] <= high
    result = detect(folder, "--threshold", limit)
    assert [row["attacked"] for row in rows(result.stdout)] == ["1", "0"]
    assert result.exit_code == 3 and "attacked 1" in result.stderr
    result = detect(folder / SMOOTH, "--threshold", limit)
    assert result.exit_code == 0 and rows(result.stdout)[0]["attacked"] == "0"


def test_the_threshold_goes_to_threshold_json_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert detect("clean", "--calibrate", "--false-positive-rate", "0.1").exit_code == 0
    assert (tmp_path / "threshold.json").read_text() == (tmp_path / "t.json").read_text()


def test_a_threshold_of_another_gate_is_refused(folder: Path, tmp_path: Path) -> None:
    limit = calibrated(tmp_path)
    stored = json.loads(limit.read_text())
    stored["detector"]["gate"]["sha256"] = "0" * 64
    limit.write_text(json.dumps(stored))
    error = detect(folder, "--threshold", limit).exception
    assert isinstance(error, InputError) and "for the gate of 'alloy-s', got one for another" in str(error)


def test_a_threshold_replaces_nothing_but_a_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    limit = calibrated(tmp_path)
    assert calibrated(tmp_path) == limit
    Path("threshold.json").write_text('{"mine": 1}')
    for out in ([], ["--out", "threshold.json"]):
        error = detect("clean", "--calibrate", "--false-positive-rate", "0.1", *out).exception
        assert isinstance(error, OptionError) and "threshold.json, which is something else" in str(error)
    error = detect("clean", "--calibrate", "--false-positive-rate", "0.1", "--histogram", "threshold.json").exception
    assert isinstance(error, OptionError) and Path("threshold.json").read_text() == '{"mine": 1}'


def test_too_few_pictures_are_refused_before_any_is_read(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "broken.png").write_bytes(b"")
    error = detect(tmp_path / "clean", "--calibrate", "--false-positive-rate", "0.01").exception
    assert isinstance(error, InputError) and "expected at least 368 clean pictures" in str(error)


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_scored(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("text")
    result = detect(folder)
    assert result.exit_code == 1
    assert "broken.png" in result.stderr and "failed 1" in result.stderr and "1 .txt" in result.stderr
    assert len(rows(result.stdout)) == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--calibrate"], "--calibrate and --false-positive-rate together"),
        (["--false-positive-rate", "0.1"], "--calibrate and --false-positive-rate together"),
        (["--calibrate", "--false-positive-rate", "0.1", "--threshold", "t"], "either --calibrate or --threshold"),
        (["--calibrate", "--false-positive-rate", "0.9"], "expected false_positive_rate to be a number"),
        (["--purifier", "gs"], "expected a purifier with one gate to score images"),
        (["--out", "/missing/folder/scores.csv"], "'/missing/folder/scores.csv': No such file or directory"),
        (["--histogram", "/missing/folder/scores.png"], "'/missing/folder/scores.png': No such file or directory"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder: Path, options: list[str], text: str) -> None:
    error = detect(folder, *options).exception
    assert isinstance(error, OptionError | OutputError) and text in str(error)


def test_no_file_that_is_read_is_replaced(folder: Path, tmp_path: Path) -> None:
    limit, image = calibrated(tmp_path), folder / SMOOTH
    before = {path: path.read_bytes() for path in (limit, image)}
    for options, text in [
        (["--out", image], "expected --out with another ending than those of pictures"),
        (["--out", tmp_path / "new.PNG"], "expected --out with another ending than those of pictures"),
        (["--out", limit, "--threshold", limit], "expected --out to replace no file that is read"),
        (["--out", tmp_path / "in" / ".." / "t.json", "--threshold", limit], "expected --out to replace no file"),
        (["--out", tmp_path / "a", "--histogram", tmp_path / "a"], "expected --histogram to replace no file"),
        (["--histogram", folder / "deep" / "scores.png"], "outside the folder of images"),
    ]:
        error = detect(folder, *options).exception
        assert isinstance(error, OptionError) and text in str(error), options
    error = detect(image, "--histogram", image).exception
    assert isinstance(error, OptionError) and "expected --histogram to replace no file" in str(error)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf_8_is_escaped(folder: Path, tmp_path: Path) -> None:
    picture(folder / os.fsdecode(b"caf\xe9.png"))
    assert detect(folder, "--out", tmp_path / "scores.csv").exit_code == 0
    for text in ((tmp_path / "scores.csv").read_text(), detect(folder).stdout):
        assert [row["file"] for row in rows(text)] == [r"caf\udce9.png", f"deep/{NOISY}", SMOOTH]


def test_a_source_without_pictures_is_refused(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "missing.png"):
        assert isinstance(detect(source).exception, InputError)


def test_the_histogram_is_a_png(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    limit = calibrated(tmp_path)
    for options in ([], ["--threshold", limit]):
        path = tmp_path / f"{len(options)}.png"
        detect(folder, "--histogram", path, *options)
        with Image.open(path) as image:
            shown = np.array(image.convert("RGB")).reshape(-1, 3)
        colours = {tuple(pixel) for pixel in np.unique(shown, axis=0)}
        assert (0x1D, 0x4E, 0xD8) in colours
        assert ((0xC2, 0x41, 0x0C) in colours) == bool(options)


def test_without_matplotlib_the_histogram_is_refused_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purifier._extras.find_spec", lambda _: None)
    error = detect(folder, "--histogram", "a.png").exception
    assert isinstance(error, PurifierError) and 'pip install "torch-purifier[eval]"' in str(error)
    assert detect(folder).exit_code == 0


def test_a_batch_that_fails_is_scored_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(folder / "other.png")
    expected = rows(detect(folder).stdout)
    score = Purifier.attack_score

    def small(self: Purifier, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 1:
            raise torch.OutOfMemoryError("too large")
        return score(self, images)

    monkeypatch.setattr(Purifier, "attack_score", small)
    found = rows(detect(folder).stdout)
    assert [row["file"] for row in found] == [row["file"] for row in expected]
