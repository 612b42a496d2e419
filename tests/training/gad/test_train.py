"""The GAD training: resuming, the command, and a folder that loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import purifier
from purifier import OptionError, Purifier
from purifier.cli import command
from purifier.training.checkpoints import load_checkpoint
from purifier.training.gad import GADRecipe, GADTraining, train
from tests.builders import unchanged
from tests.training.gad.builders import TINY, class_folders, classifier
from tests.training.processes import broken_off

OWN_TASK = """
import torch
from purifier.training.gad import Observed, Task

class Brightness(Task):
    size = 8
    scores = "nearness"

    def items(self):
        return list(range(20))

    def load(self, item, random):
        shift = 0.0 if random is None else 0.1 * random.random()
        return torch.full((3, self.size, self.size), item / 40 + shift), float(item)

    def attack(self, images, targets, step):
        return (images + self.eps).clamp(0, 1)

    def observe(self, images, targets):
        found = self.model(images)
        return Observed((found.mean(1) - targets.float() / 40).square().mean(), found, (targets > 10).long())

    def score(self, images, targets):
        return 1 - (self.model(images).mean(1) - targets / 40).abs().mean().item()
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("classes"))


def test_a_run_that_breaks_off_ends_with_the_same_bits_as_an_unbroken_one(folders: Path, tmp_path: Path) -> None:
    config = GADTraining(data=str(folders), **TINY)
    train(config, tmp_path / "unbroken", model=classifier())
    broken_off(lambda: train(config, tmp_path / "broken", model=classifier()), GADRecipe, tmp_path / "broken")
    train(config, tmp_path / "broken", model=classifier())
    files = [(tmp_path / name / "gad" / "model.safetensors").read_bytes() for name in ("unbroken", "broken")]
    assert files[0] == files[1]
    critics = [load_checkpoint(tmp_path / name / "checkpoint.pt")["critic"] for name in ("unbroken", "broken")]
    assert all(torch.equal(value, critics[1][name]) for name, value in critics[0].items())


def test_training_lowers_the_loss_and_writes_a_purifier_with_a_card(folders: Path, tmp_path: Path) -> None:
    settings = {**TINY, "steps": 60, "learning_rate": 3e-3, "validate_every": 10, "sample_every": 30}
    model = classifier()
    with unchanged(model):
        folder = train(GADTraining(data=str(folders), **settings), tmp_path, model=model)
    history = load_checkpoint(tmp_path / "checkpoint.pt")["history"]
    assert history[-1]["step"] == 60
    assert history[-1]["loss"] < 0.85 * history[0]["loss"]
    assert history[-1]["psnr"] > history[0]["psnr"]
    assert {"clean", "attacked", "clean_bare", "attacked_bare"} <= history[-1].keys()
    assert history[-1]["clean_bare"] == 1.0
    card = (folder / "README.md").read_text()
    assert "it was trained for: accuracy," in card and "eps 0.031, alpha 0.0175" in card
    assert str(folders) not in card
    assert (tmp_path / "samples" / "step-000060.png").exists()
    wrapped = purifier.wrap(model, Purifier.from_pretrained(folder))
    assert wrapped(torch.rand(2, 3, 17, 23)).shape == (2, 3)


def test_mixed_precision_and_parts_of_a_batch_train_too(folders: Path, tmp_path: Path) -> None:
    settings = {**TINY, "steps": 2, "precision": "bf16", "accumulate": 2, "workers": 1}
    folder = train(GADTraining(data=str(folders), **settings), tmp_path, model=classifier())
    assert all(p.isfinite().all() for p in Purifier.from_pretrained(folder).parameters())


def test_a_task_of_the_users_own_takes_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brightness_task.py").write_text(OWN_TASK)
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    settings = {**TINY, "size": 0, "task": "brightness_task:Brightness"}
    train(GADTraining(**settings), tmp_path / "out", model=model)
    history = load_checkpoint(tmp_path / "out" / "checkpoint.pt")["history"]
    assert history[-1]["clean_bare"] == pytest.approx(1.0)
    assert history[-1]["attacked_bare"] == pytest.approx(1 - 8 / 255, abs=1e-4)


def test_another_model_or_other_settings_in_the_same_folder_are_refused(folders: Path, tmp_path: Path) -> None:
    config = GADTraining(data=str(folders), **{**TINY, "steps": 3})
    train(config, tmp_path, model=classifier())
    other = classifier()
    other[4].bias.data += 1
    with pytest.raises(OptionError, match=r"expected the model that .* was trained for, got another"):
        train(config, tmp_path, model=other)
    with pytest.raises(OptionError, match=r"got others: margin [0-9.]+ for"):
        train(GADTraining(data=str(folders), **{**TINY, "steps": 3, "margin": 2.0}), tmp_path, model=classifier())


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["train", "gad", *map(str, arguments)])


def test_the_command_trains_for_a_model_by_name(folders: Path, tmp_path: Path) -> None:
    options = [
        part
        for name, value in {**TINY, "steps": 2, "variant": "li+lf-noc"}.items()
        for part in (f"--{name.replace('_', '-')}", value)
    ]
    model = ("--model", "tests.training.gad.builders:classifier")
    done = run("--data", folders, "--out", tmp_path, *model, *options)
    assert done.exit_code == 0, done.output
    assert f"Trained {tmp_path / 'gad'}" in done.output
    assert Purifier.from_pretrained(tmp_path / "gad").name == "gad"


def test_the_command_takes_the_models_that_evaluate_takes(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tests.training.gad.builders import classifier as build\n")
    settings = {**TINY, "steps": 2, "size": 32}
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    done = run("--data", folders, "--out", tmp_path / "mine", "--model", f"{tmp_path / 'mine.py'}:build", *options)
    assert done.exit_code == 0, done.output
    done = run("--data", folders, "--out", tmp_path / "demo", "--model", "reference:demo", *options)
    assert "named after the model's 24 classes" in str(done.exception)


def test_the_command_explains_its_settings_and_refuses_what_is_not_a_model(folders: Path, tmp_path: Path) -> None:
    text = re.sub(r"\s+", " ", run("--help").output)
    assert "--model" in text and "Weight lambda 4 of the pixel loss L_r (eq. 1)." in text and "[li|lf-noc|" in text
    out = ("--data", folders, "--out", tmp_path)
    for name, said in (
        ("nothing", "expected a model as reference:demo, torchvision:NAME"),
        ("os:getcwd", "to return a model"),
        ("tests.training.gad.builders:function", "to return an nn.Module"),
    ):
        done = run(*out, "--model", name)
        assert done.exit_code != 0
        assert said in f"{done.output} {done.exception}"
