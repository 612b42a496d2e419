"""purifier train: options from settings, YAML files, and a training that ends in a folder that loads."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from purifier import Purifier
from purifier.cli import command, main
from purifier.training import ncis

TINY = {
    "network": "nrp-resg",
    "attack": "gaussian",
    "features": "tests.test_cli_train:tiny_features",
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


def tiny_features():
    import torch

    return torch.nn.Conv2d(3, 2, 3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def train(*arguments: object):
    return CliRunner().invoke(command, ["train", *map(str, arguments)])


def as_options(settings: dict) -> list[str]:
    return [text for key, value in settings.items() for text in (f"--{key.replace('_', '-')}", str(value))]


def test_the_help_lists_the_methods_and_says_what_each_setting_does():
    assert {"ncis", "nrp"} <= set(train("--help").output.split())
    text = " ".join(train("nrp", "--help").output.split())
    assert "--adversarial-weight" in text and "critic" in text and "--relativistic / --no-relativistic" in text


def test_training_by_options_ends_in_a_folder_that_loads(photos, tmp_path):
    result = train("nrp", "--data", photos, "--out", tmp_path, *as_options(TINY))
    assert result.exit_code == 0, result.output
    purifier = Purifier.from_pretrained(tmp_path / "nrp-resg")
    assert purifier.name == "nrp-resg" and purifier.method.blocks == 2


def test_the_settings_of_a_training_are_kept_and_can_be_used_again(photos, tmp_path):
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
        ("blok: 3", "expected settings of NRPTraining in"),
        ("- 1", "expected 'name: value' lines"),
        ("a: [", "expected YAML in"),
        ("blocks: many", "'many' is not a valid integer"),
    ],
)
def test_a_file_that_is_no_settings_is_refused(text, message, photos, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    result = train("nrp", "--config", tmp_path / "bad.yaml", "--data", photos, "--out", tmp_path)
    assert result.exit_code == 2 and message in result.output


def test_training_without_images_is_refused(tmp_path):
    result = train("nrp", "--out", tmp_path)
    assert result.exit_code == 2 and "--data" in result.output


def test_every_setting_is_an_option_with_its_default_and_what_it_means():
    text = " ".join(train("ncis", "--help").output.split())
    for field in dataclasses.fields(ncis.NCISTraining):
        assert f"--{field.name.replace('_', '-')} " in text
    assert "--precision [auto|no|bf16]" in text
    assert "--clamp / --no-clamp" in text
    assert "Width of FBI-Net. [default: 64]" in text
    assert "Optimiser steps. [default: 8000]" in text


def test_without_accelerate_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr("purifier.commands._extras.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as stop:
        main(["train", "ncis", "--data", "photographs", "--out", "run"])
    assert stop.value.code == 1
    assert 'pip install "torch-purifier[train]"' in capsys.readouterr().err


def test_the_settings_are_handed_on(monkeypatch):
    got = []

    def record(config, out, *, minutes):
        got.extend((config, out, minutes))
        return out / "ncis"

    monkeypatch.setattr(ncis, "train", record)
    call = ["--data", "a", "--data", "b", "--out", "run", "--steps", 7, "--no-clamp", "--precision", "no"]
    assert "trained" in train("ncis", *call, "--minutes", 5).output
    assert got == [ncis.NCISTraining(data=("a", "b"), steps=7, clamp=False, precision="no"), Path("run"), 5.0]


def test_a_training_that_is_not_done_says_so(photos, tmp_path):
    options = ["--data", photos, "--out", tmp_path, *as_options(TINY)]
    result = train("nrp", *options, "--minutes", 0)
    assert result.exit_code == 0 and "not done yet, the same command goes on; so far there is" in result.output
    assert f"trained {tmp_path / 'nrp-resg'}" in train("nrp", *options).output


def test_plain_yaml_is_understood(photos, tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({**TINY, "data": str(photos)}).replace("precision: 'no'", "precision: no"))
    assert "precision: no" in config.read_text()
    result = train("nrp", "--config", config, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    config.write_text("steps: 3.7")
    result = train("nrp", "--config", config, "--data", photos, "--out", tmp_path / "b")
    assert result.exit_code == 2 and "expected a whole number for steps in" in result.output
