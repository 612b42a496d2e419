"""Trainings that are stopped, interrupted, or go wrong: what was done is kept, and is said."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from purifier import InputError, OptionError, Purifier, PurifierWarning
from purifier.training import _loop
from purifier.training._checkpoint import load_checkpoint, prepare_folder
from purifier.training._stopping import Stopping
from purifier.training.ncis import NCISRecipe, NCISTraining, train

TINY = {
    "steps": 6,
    "batch_size": 2,
    "crop_size": 16,
    "filters": 4,
    "layers": 3,
    "precision": "no",
    "checkpoint_every": 100,
    "validate_every": 100,
    "validation_every": 4,
    "validation_images": 2,
    "warmup_steps": 0,
    "iterations": 2,
    "device": "cpu",
}


@pytest.fixture
def config(photos) -> NCISTraining:
    return NCISTraining(data=(str(photos),), **TINY)


def at_step(monkeypatch, number, action):
    """Has `action` done in the middle of a step."""
    losses = NCISRecipe.losses

    def acting(self, model, batch, step):
        if step == number:
            action()
        return losses(self, model, batch, step)

    monkeypatch.setattr(NCISRecipe, "losses", acting)


def test_an_interrupted_training_ends_its_step_keeps_it_and_goes_on_to_the_same_bits(
    config, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "stopped")
        assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(tmp_path / "stopped" / "checkpoint.pt")["step"] == 3
    assert "stopped after 3 of 6 steps; the same call goes on from there" in capsys.readouterr().out
    for name in ("stopped", "whole"):
        train(config, tmp_path / name)
    files = [(tmp_path / name / "ncis" / "model.safetensors").read_bytes() for name in ("stopped", "whole")]
    assert files[0] == files[1]


def test_the_second_interrupt_acts_at_once():
    with pytest.raises(KeyboardInterrupt), Stopping() as stopping:
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_training_that_breaks_down_says_so_and_leaves_the_checkpoint_before(config, tmp_path, monkeypatch):
    kept = replace(config, checkpoint_every=2)
    at_step(monkeypatch, 2, lambda: fail_from_now_on(monkeypatch))
    with pytest.raises(OptionError, match=r"got loss nan.* by step 4; the checkpoint of step 2 is as it was; train at"):
        train(kept, tmp_path)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["step"] == 2 and all(value.isfinite().all() for value in state["model"].values())
    assert not (tmp_path / "ncis").exists()


def fail_from_now_on(monkeypatch):
    backward = _loop._Training._backward

    def failing(self, batch, parts):
        backward(self, batch, parts)
        return {"loss": torch.tensor(float("nan"))}

    monkeypatch.setattr(_loop._Training, "_backward", failing)


def test_a_picture_that_cannot_be_read_costs_no_step_that_was_done(config, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    # Drawn late, by the seed.
    broken = replace(config, data=(str(data),), steps=40, batch_size=1)
    numbers = [int(np.random.default_rng((0, k)).integers(6)) for k in range(40)]
    last = max(set(numbers), key=numbers.index)
    recipe = NCISRecipe(broken)
    path = recipe.crops.paths[last]
    picture = path.read_bytes()
    path.write_bytes(picture[:60])
    with pytest.raises(InputError, match=path.name):
        train(broken, tmp_path / "out")
    assert load_checkpoint(tmp_path / "out" / "checkpoint.pt")["step"] == numbers.index(last) > 0
    path.write_bytes(picture)
    assert Purifier.from_pretrained(train(broken, tmp_path / "out")).name == "ncis"


def test_other_pictures_in_the_same_folder_are_told_of(config, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    long = replace(config, data=(str(data),))
    train(long, tmp_path / "out", minutes=0)
    assert load_checkpoint(tmp_path / "out" / "checkpoint.pt")["step"] == 1
    (data / "1.png").unlink()
    with pytest.warns(PurifierWarning, match="the samples are not those that"):
        train(long, tmp_path / "out")


def test_what_does_not_change_the_weights_may_change_between_runs(config, tmp_path):
    train(config, tmp_path, minutes=0)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 1
    other = replace(config, checkpoint_every=2, validate_every=3, sample_every=2, workers=1)
    train(other, tmp_path)
    history = load_checkpoint(tmp_path / "checkpoint.pt")["history"]
    assert [row["step"] for row in history] == [3, 6]


@pytest.mark.parametrize("under", ["a_file/run", "a_file"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(config, tmp_path, under):
    (tmp_path / "a_file").write_text("mine")
    with pytest.raises(OptionError, match=r"expected a folder to write, got .*; choose another one"):
        train(config, tmp_path / under)
    assert (tmp_path / "a_file").read_text() == "mine"


def test_trying_a_folder_leaves_nothing_in_it(tmp_path):
    prepare_folder(tmp_path / "new" / "one")
    assert not list((tmp_path / "new" / "one").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "expected steps to be an integer of at least 1, got 0"),
        ({"steps": 3.7}, "expected steps to be an integer"),
        ({"seed": -1}, "expected seed to be an integer of at least 0"),
        ({"workers": -1}, "expected workers to be an integer of at least 0"),
        ({"warmup_steps": -1}, "expected warmup_steps to be"),
        ({"learning_rate": -1.0}, "expected a learning_rate above 0, got -1.0"),
        ({"learning_rate": float("nan")}, "expected a learning_rate above 0, got nan"),
        ({"ema_decay": 2.0}, "expected ema_decay to be a number from 0 to 1"),
        ({"precision": "fp16"}, "expected precision to be auto, no or bf16, got 'fp16'"),
        ({"gradient_norm": float("nan")}, "expected gradient_norm of at least 0"),
        ({"crop_size": 0}, "expected crop_size to be an integer of at least 1"),
        ({"shrink": 2.0}, "expected shrink to be a number from 0.01 to 1"),
        ({"iterations": 0}, "expected iterations to be an integer of at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config, tmp_path, change, message):
    with pytest.raises(OptionError, match=message):
        train(replace(config, **change), tmp_path)


def test_one_folder_may_be_given_as_text(photos, tmp_path):
    for data in (str(photos), Path(photos)):
        assert NCISTraining(data=data, **TINY).data == (str(photos),)
