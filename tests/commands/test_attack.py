"""purifier attack: files that stay in the attack's ball after rounding, and runs that resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from purifier import Purifier, reference_model
from purifier.cli import command
from tests.scenes import COLOURS, Colours, class_folders, picture

SCENES = Path(__file__).parents[1] / "scenes.py"


def attack(*arguments: object, model: str = f"{SCENES}:colours") -> Result:
    defaults = ["--model", model, "--device", "cpu"]
    return CliRunner().invoke(command, ["attack", *map(str, arguments), *defaults])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB" and image.format == "PNG"
        return np.asarray(image).astype(int)


def outputs(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.*")) if not p.name.startswith(".")
    }


def predicted(image: np.ndarray) -> int:
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    return int(Colours()(batch).argmax())


@pytest.mark.parametrize("spec", ["PGD:steps=5", "FGSM", "PGD:steps=5,alpha=8/255"])
def test_a_folder_tree_is_attacked_within_the_ball(tmp_path: Path, spec: str) -> None:
    source = class_folders(tmp_path / "in", each=2)
    result = attack(source, tmp_path / "out", "--attack", spec, "--eps", "8/255")
    assert result.exit_code == 0, result.output
    assert "attacked 6 (" in result.output and "skipped 0, failed 0" in result.output
    fooled = 0
    for path in sorted(source.rglob("*.png")):
        target = tmp_path / "out" / path.relative_to(source)
        clean, found = pixels(path), pixels(target)
        note = json.loads(target.with_suffix(".json").read_text())
        assert 0 < np.abs(found - clean).max() <= 8
        assert note["linf"] == pytest.approx(np.abs(found - clean).max() / 255, abs=1e-6)
        assert (note["label"], note["prediction_clean"], note["prediction"]) == (
            predicted(clean),
            predicted(clean),
            predicted(found),
        )
        assert note["settings"]["attack"]["eps"] == pytest.approx(8 / 255)
        fooled += note["prediction"] != note["label"]
    assert fooled and f"({fooled} fool the model)" in result.output


def test_attacked_images_inside_the_source_folder_are_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "in", each=1)
    before = outputs(source)
    result = attack(source, source / "attacked", "--attack", "FGSM")
    assert f"outside the folder of images, {source}, got {source / 'attacked'}" in str(result.exception)
    assert outputs(source) == before
    # One image is no folder of images.
    assert attack(source / "red" / "0.png", source / "attacked.png", "--attack", "FGSM").exit_code == 0


@pytest.mark.parametrize("name", ["b.jpg", "b.tif"])
def test_a_lossy_output_format_is_refused(tmp_path: Path, name: str) -> None:
    Image.fromarray(picture(0, 0)).save(tmp_path / "a.png")
    result = attack(tmp_path / "a.png", tmp_path / name, "--attack", "FGSM")
    assert f"expected a DST that ends in .png, got '{name}'" in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_a_radius_between_two_8_bit_steps_is_rounded_down(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "in", each=1)
    assert attack(source, tmp_path / "out", "--eps", "2.9/255", "--attack", "FGSM").exit_code == 0
    for path in source.rglob("*.png"):
        assert np.abs(pixels(tmp_path / "out" / path.relative_to(source)) - pixels(path)).max() == 2
    result = attack(source, tmp_path / "other", "--eps", "0.5/255")
    assert "expected an Linf eps of at least 1/255" in str(result.exception)


def test_given_labels_replace_the_predictions(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "in", each=1)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{name}/0.png,green\n" for name in COLOURS))
    assert attack(source, tmp_path / "out", "--labels", table, "--attack", "FGSM").exit_code == 0
    notes = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("*.json")]
    assert [note["label"] for note in notes] == [1, 1, 1]
    table.write_text("file,label\nred/0.png,0\n")
    result = attack(source, tmp_path / "b", "--labels", table)
    assert "expected a label for every image, got none for" in str(result.exception)
    table.write_text("file,label\n" + "".join(f"{name}/0.png,9\n" for name in COLOURS))
    result = attack(source, tmp_path / "c", "--labels", table)
    assert "expected labels within 0..2" in str(result.exception)


def test_outputs_of_other_labels_are_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "in", each=1)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{name}/0.png,0\n" for name in COLOURS))
    assert attack(source, tmp_path / "out", "--labels", table, "--attack", "FGSM").exit_code == 0
    table.write_text(table.read_text().replace("red/0.png,0", "red/0.png,2"))
    result = attack(source, tmp_path / "out", "--labels", table, "--attack", "FGSM")
    assert "(label: 0 there, 2 here); choose another DST" in str(result.exception)


def test_a_failed_overwrite_leaves_no_image_of_the_old_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = class_folders(tmp_path / "in", each=1), tmp_path / "out"
    assert attack(source, out, "--attack", "FGSM", "--eps", "2/255").exit_code == 0

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        attack(source, out, "--attack", "FGSM", "--eps", "16/255", "--overwrite")
    assert not list(out.rglob("*.png"))
    assert "attacked 3 (" in attack(source, out, "--attack", "FGSM", "--eps", "16/255").output
    assert np.abs(pixels(out / "red" / "0.png") - pixels(source / "red" / "0.png")).max() > 2


def test_an_aware_attack_differs_from_a_blind_one_and_needs_a_purifier(tmp_path: Path) -> None:
    Image.fromarray(picture(0, 1, 32)).save(tmp_path / "a.png")
    arguments = ["--purifier", "gs:iterations=2", "--attack", "PGD:steps=3", "--eps", "12/255"]
    for threat in ("blind", "aware"):
        target = tmp_path / f"{threat}.png"
        result = attack(tmp_path / "a.png", target, "--threat", threat, *arguments, model="reference:demo")
        assert result.exit_code == 0, result.output
    notes = {threat: json.loads((tmp_path / f"{threat}.json").read_text()) for threat in ("blind", "aware")}
    for threat, note in notes.items():
        image = torch.from_numpy(pixels(tmp_path / f"{threat}.png")).permute(2, 0, 1)[None].float() / 255
        defended = Purifier.from_pretrained("gs", iterations=2).wrap(reference_model("demo"))
        assert note["prediction"] == int(defended(image).argmax())
    assert not np.array_equal(pixels(tmp_path / "blind.png"), pixels(tmp_path / "aware.png"))
    result = attack(tmp_path / "a.png", tmp_path / "c.png", "--threat", "aware")
    assert "expected --purifier for the threat aware, got none" in str(result.exception)


def test_existing_outputs_are_skipped_and_those_of_other_settings_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "in", each=2)
    out = tmp_path / "out"
    assert attack(source, out, "--attack", "PGD:steps=2").exit_code == 0
    before = outputs(out)
    (out / "red" / "1.png").unlink()
    result = attack(source, out, "--attack", "PGD:steps=2")
    assert "attacked 1 (" in result.output and "skipped 5" in result.output
    assert outputs(out) == before
    result = attack(source, out, "--attack", "PGD:steps=3")
    assert "attack.steps: 2 there, 3 here); choose another DST" in str(result.exception)
    assert outputs(out) == before
    assert attack(source, out, "--attack", "PGD:steps=3", "--overwrite").exit_code == 0
    assert outputs(out) != before


def test_existing_files_without_settings_are_not_overwritten(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "in", each=1)
    (tmp_path / "out" / "red").mkdir(parents=True)
    (tmp_path / "out" / "red" / "0.png").write_bytes(b"mine")
    result = attack(source, tmp_path / "out")
    assert "with its settings in 0.json, got none" in str(result.exception)
    assert (tmp_path / "out" / "red" / "0.png").read_bytes() == b"mine"


def test_a_json_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "in", each=1)
    (tmp_path / "out" / "red").mkdir(parents=True)
    note = tmp_path / "out" / "red" / "0.json"
    note.write_text('{"shapes": []}')
    assert "with its settings in 0.json, got none" in str(attack(source, tmp_path / "out").exception)
    assert note.read_text() == '{"shapes": []}'
    assert attack(source, tmp_path / "out", "--overwrite").exit_code == 0 and "settings" in note.read_text()


def test_a_source_that_was_replaced_is_attacked_again(tmp_path: Path) -> None:
    source, out = class_folders(tmp_path / "in", each=1), tmp_path / "out"
    assert attack(source, out, "--attack", "PGD:steps=2").exit_code == 0
    later = (out / "red" / "0.png").stat().st_mtime_ns + 10**9
    os.utime(source / "red" / "0.png", ns=(later, later))
    assert "attacked 1 (" in attack(source, out, "--attack", "PGD:steps=2").output


def test_images_are_cropped_and_resized_to_the_given_size(tmp_path: Path) -> None:
    Image.fromarray(picture(0, 1, 40)).save(tmp_path / "a.png")
    assert attack(tmp_path / "a.png", tmp_path / "out", "--size", "24").exit_code == 0
    assert pixels(tmp_path / "out" / "a.png").shape == (24, 24, 3)


def test_files_that_cannot_be_read_are_reported_and_the_others_attacked(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "in", each=1)
    (source / "red" / "0.png").write_bytes(b"no picture")
    result = attack(source, tmp_path / "out", "--attack", "FGSM")
    assert result.exit_code == 1
    assert "attacked 2" in result.output and "failed 1" in result.output
    assert "red/0.png, which cannot be read" in result.output


@pytest.mark.parametrize(
    ("model", "text"),
    [("training", "expected a model in eval mode"), ("detached", "expected a model that gives gradients")],
)
def test_models_that_cannot_be_attacked_are_refused(tmp_path: Path, model: str, text: str) -> None:
    source = class_folders(tmp_path / "in", each=1)
    result = attack(source, tmp_path / "out", model=f"{SCENES}:{model}")
    assert text in str(result.exception) + result.output and result.exit_code == 1


@pytest.mark.slow
def test_a_killed_run_is_completed_with_identical_files(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "in", each=4)

    def call(out: Path) -> list[str]:
        options = ["--attack", "PGD:steps=2", "--batch-size", "3", "--device", "cpu"]
        return ["attack", str(source), str(out), "--model", f"{SCENES}:colours", *options]

    start = [sys.executable, "-m", "purifier", *call(tmp_path / "out")]
    run = subprocess.Popen(start, env={**os.environ, "SLOW_MODEL": "0.2"}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").rglob("*.png")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert 0 < len(list((tmp_path / "out").rglob("*.png"))) < 12
    for out in ("out", "whole"):
        assert CliRunner().invoke(command, call(tmp_path / out)).exit_code == 0
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_a_table_of_a_whole_set_labels_the_images_of_a_part(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "in", each=1)
    (tmp_path / "labels.csv").write_text("file,label\nblue/0.png,2\ngreen/0.png,2\nred/0.png,2\n")
    assert attack(root / "red", tmp_path / "out", "--labels", tmp_path / "labels.csv").exit_code == 0
    assert json.loads((tmp_path / "out" / "0.json").read_text())["label"] == 2
