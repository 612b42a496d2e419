"""purifier train: options from settings, YAML files, and a training that ends in a folder that loads."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from purifier import OptionError, Purifier
from purifier.cli import command, main
from purifier.training import ncis

TINY: dict[str, Any] = {
    "network": "nrp-resg",
    "attack": "gaussian",
    "features": "tests.training.features:tiny",
    "filters": 4,
    "blocks": 2,
    "crop_size": 16,
    "batch_size": 2,
    "steps": 2,
    "adversarial_weight": 0.0,
    "precision": "no",
    "validation_every": 2,
    "validation_images": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def train(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["train", *map(str, arguments)])


def as_options(settings: dict[str, Any]) -> list[str]:
    return [text for key, value in settings.items() for text in (f"--{key.replace('_', '-')}", str(value))]


def test_the_help_lists_the_methods_and_explains_each_setting() -> None:
    assert {"ncis", "nrp"} <= set(train("--help").output.split())
    text = " ".join(train("nrp", "--help").output.split())
    assert "--adversarial-weight" in text and "critic" in text and "--relativistic / --no-relativistic" in text


def test_the_help_of_gad_states_the_steps_of_attacks_that_know_the_purifier() -> None:
    text = " ".join(train("gad", "--help").output.split())
    assert 'and 1 for attacks through purifier and model, those of threat "aware" and half of "both"' in text


@pytest.mark.parametrize("kind", ["train ncis", "train gad --model reference:demo", "bank make"])
def test_results_inside_the_photographs_are_refused(kind: str, photos: Path) -> None:
    needed = ["--networks", "a=b:c:0", "--sources", "pgd:a:64:2"] if kind == "bank make" else []
    arguments = [*kind.split(), "--data", str(photos), *needed, "--out", str(photos / "out")]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, OptionError), result.output
    assert f"outside the folder of images, {photos}, got {photos / 'out'}" in str(result.exception)
    assert not (photos / "out").exists()


def test_training_by_options_ends_in_a_folder_that_loads(photos: Path, tmp_path: Path) -> None:
    result = train("nrp", "--data", photos, "--out", tmp_path, *as_options(TINY))
    assert result.exit_code == 0, result.output
    purifier = Purifier.from_pretrained(tmp_path / "nrp-resg")
    assert purifier.name == "nrp-resg" and purifier.method.blocks == 2


def test_the_settings_of_a_training_are_kept_and_can_be_used_again(photos: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({**TINY, "data": [str(photos)]}))
    result = train("nrp", "--config", config, "--out", tmp_path / "first", "--blocks", 1)
    assert result.exit_code == 0, result.output
    kept = tmp_path / "first" / "nrp-resg" / "training.yaml"
    assert yaml.safe_load(kept.read_text())["blocks"] == 1
    result = train("nrp", "--config", kept, "--out", tmp_path / "second")
    assert result.exit_code == 0, result.output
    first, second = (Purifier.from_pretrained(tmp_path / name / "nrp-resg") for name in ("first", "second"))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blok: 3", "expected settings of NRPTraining, got 'blok'; did you mean 'blocks'"),
        ("- 1", "expected 'name: value' lines"),
        ("a: [", "expected YAML in"),
        ("blocks: many", "'many' is not a valid integer"),
    ],
)
def test_a_file_without_valid_settings_is_refused(text: str, message: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    result = train("nrp", "--config", tmp_path / "bad.yaml", "--data", photos, "--out", tmp_path)
    assert result.exit_code == 2 and message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("belief_weight", "did you mean 'prediction_weight'?"),
        ("unroll", "this setting was removed, because it did not help in the ablation of docs/alloy.md"),
    ],
)
def test_settings_of_earlier_versions_are_refused_with_a_hint(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(f"{name}: 1")
    for option in (("--config", tmp_path / "old.yaml"), (f"--{name.replace('_', '-')}", 1)):
        result = train("alloy", *option, "--data", tmp_path, "--out", tmp_path / "out")
        assert result.exit_code == 2 and message in " ".join(result.output.split())


def test_training_without_images_is_refused(tmp_path: Path) -> None:
    result = train("nrp", "--out", tmp_path)
    assert result.exit_code == 2 and "--data" in result.output


def test_every_setting_is_an_option_with_its_default_and_help() -> None:
    text = " ".join(train("ncis", "--help").output.split())
    for field in dataclasses.fields(ncis.NCISTraining):
        assert f"--{field.name.replace('_', '-')} " in text
    assert "--precision [auto|no|bf16]" in text
    assert "--clamp / --no-clamp" in text
    assert "Width of the blind-spot network (FBI-Net). [default: 64]" in text
    assert "Optimiser steps. [default: 8000]" in text
    assert "chooses the GPU. [default: auto]" in text


def test_without_accelerate_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("purifier._extras.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as stop:
        main(["train", "ncis", "--data", "photographs", "--out", "run"])
    assert stop.value.code == 1
    assert 'pip install "torch-purifier[train]"' in capsys.readouterr().err


def test_options_reach_the_training_as_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Any] = []

    def record(config: ncis.NCISTraining, out: Path, *, minutes: float | None) -> Path:
        got.extend((config, out, minutes))
        return out / "ncis"

    monkeypatch.setattr(ncis, "train", record)
    call = ["--data", "a", "--data", "b", "--out", "run", "--steps", 7, "--no-clamp", "--precision", "no"]
    assert "Stopped early" in train("ncis", *call, "--minutes", 5).output
    assert got == [ncis.NCISTraining(data=("a", "b"), steps=7, clamp=False, precision="no"), Path("run"), 5.0]


def test_a_training_that_stopped_early_says_so(photos: Path, tmp_path: Path) -> None:
    options = ["--data", photos, "--out", tmp_path, *as_options(TINY)]
    result = train("nrp", *options, "--minutes", 0)
    assert (
        result.exit_code == 0
        and "Stopped early: the purifier is not trained yet. Run the same command to resume." in result.output
    )
    assert f"Trained {tmp_path / 'nrp-resg'}" in train("nrp", *options).output


def test_yaml_may_be_plain(photos: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({**TINY, "data": str(photos)}).replace("precision: 'no'", "precision: no"))
    assert "precision: no" in config.read_text()
    result = train("nrp", "--config", config, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    config.write_text("steps: 3.7")
    result = train("nrp", "--config", config, "--data", photos, "--out", tmp_path / "b")
    assert result.exit_code == 2 and "expected a whole number for steps in" in result.output


def test_the_command_of_the_page_adapts_alloy_s(photos: Path, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"    purifier (train alloy --init alloy-s .*?)\n\n", page, flags=re.DOTALL)
    words = found.replace("\\\n", " ").replace("my_module:build", "tests.training.features:classifier").split()
    words = [str(photos) if word == "PHOTOS" else str(tmp_path) if word == "runs/mine" else word for word in words]
    small = ["--steps", "1", "--batch-size", "1", "--crop-size", "32", "--device", "cpu", "--validation-images", "1"]
    small += ["--warmup-steps", "0", "--precision", "no", "--validation-every", "4"]
    done = CliRunner().invoke(command, [*words, *small])
    assert done.exit_code == 0, done.output
    purifier = Purifier.from_pretrained(tmp_path / "mine")
    assert purifier.method.options["gate"] == 32


def test_a_setting_without_a_default_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bank", "make", "--out", "bank"])
    assert "Missing option '--data'" in capsys.readouterr().err
