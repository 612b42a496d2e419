"""The training loop: stopping, interrupts, failures, resuming, and the settings it refuses."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from purifier import InputError, OptionError, Purifier, PurifierWarning
from purifier.training.checkpoints import load_checkpoint, prepare_folder
from purifier.training.loop import Losses, fit, train_purifier
from purifier.training.ncis import NCISRecipe, NCISTraining, train
from purifier.training.processes import Stopping

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
def config(photos: Path) -> NCISTraining:
    return NCISTraining(data=(str(photos),), **TINY)


class Acting(NCISRecipe):
    """A recipe that acts in the middle of a step, or whose loss is NaN from a step on."""

    def __init__(
        self, config: NCISTraining, step: int, act: Callable[[], None] = lambda: None, *, fails: bool = False
    ) -> None:
        super().__init__(config)
        self.step, self.act, self.fails = step, act, fails

    def losses(self, model: Callable[[Tensor], list[Tensor]], batch: Tensor, step: int) -> Losses:
        if step == self.step:
            self.act()
        found = super().losses(model, batch, step)
        return Losses(found.total * torch.nan) if self.fails and step >= self.step else found


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handler of SIGINT, which a process that was started in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_training_ends_its_step_saves_it_and_resumes_to_the_same_bits(
    config: NCISTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stopped").mkdir()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(Acting(config, 2, lambda: os.kill(os.getpid(), signal.SIGINT)), config, tmp_path / "stopped")
    assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(tmp_path / "stopped" / "checkpoint.pt")["step"] == 3
    assert (
        "stopped after 3 of 6 steps: the purifier is not trained yet; the same call resumes from there"
        in capsys.readouterr().out
    )
    for name in ("stopped", "whole"):
        train(config, tmp_path / name)
    files = [(tmp_path / name / "ncis" / "model.safetensors").read_bytes() for name in ("stopped", "whole")]
    assert files[0] == files[1]


@pytest.mark.usefixtures("interruptible")
def test_the_second_interrupt_acts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Stopping() as stopping:
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_nan_loss_ends_the_training_and_keeps_the_checkpoint_before(config: NCISTraining, tmp_path: Path) -> None:
    kept = replace(config, checkpoint_every=2)
    with pytest.raises(OptionError, match=r"got loss nan.* by step 4; the checkpoint of step 2 is kept; train at"):
        train_purifier(lambda: Acting(kept, 3, fails=True), kept, tmp_path)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["step"] == 2 and all(value.isfinite().all() for value in state["model"].values())
    assert not (tmp_path / "ncis").exists()


def test_an_unreadable_picture_loses_no_finished_step(config: NCISTraining, photos: Path, tmp_path: Path) -> None:
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


def test_other_pictures_in_the_same_folder_give_a_warning(config: NCISTraining, photos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    long = replace(config, data=(str(data),))
    train(long, tmp_path / "out", minutes=0)
    assert load_checkpoint(tmp_path / "out" / "checkpoint.pt")["step"] == 1
    (data / "1.png").unlink()
    with pytest.warns(PurifierWarning, match="the samples are not those that"):
        train(long, tmp_path / "out")


def test_settings_that_do_not_change_the_weights_may_change_between_runs(config: NCISTraining, tmp_path: Path) -> None:
    train(config, tmp_path, minutes=0)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 1
    other = replace(config, checkpoint_every=2, validate_every=3, sample_every=2, workers=1)
    train(other, tmp_path)
    history = load_checkpoint(tmp_path / "checkpoint.pt")["history"]
    assert [row["step"] for row in history] == [3, 6]


@pytest.mark.parametrize("under", ["a_file/run", "a_file"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(
    config: NCISTraining, tmp_path: Path, under: str
) -> None:
    (tmp_path / "a_file").write_text("mine")
    with pytest.raises(OptionError, match=r"expected a folder to write, got .*; choose another one"):
        train(config, tmp_path / under)
    assert (tmp_path / "a_file").read_text() == "mine"


def test_checking_a_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new" / "one")
    assert not list((tmp_path / "new" / "one").iterdir())
