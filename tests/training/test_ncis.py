"""The NCIS training: resuming, initial weights, and a folder that loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from purifier import InputError, OptionError, Purifier
from purifier.training.checkpoints import load_checkpoint
from purifier.training.ncis import NCISRecipe, NCISTraining, train
from tests.training.processes import broken_off

TINY = {
    "steps": 12,
    "batch_size": 2,
    "crop_size": 24,
    "filters": 4,
    "layers": 3,
    "precision": "no",
    "checkpoint_every": 3,
    "validate_every": 6,
    "validation_every": 4,
    "validation_images": 2,
    "warmup_steps": 2,
    "iterations": 2,
    "device": "cpu",
}


def test_a_run_that_breaks_off_ends_with_the_same_bits_as_an_unbroken_one(photos: Path, tmp_path: Path) -> None:
    config = NCISTraining(data=(str(photos),), **TINY)
    train(config, tmp_path / "unbroken")
    broken_off(lambda: train(config, tmp_path / "broken"), NCISRecipe, tmp_path / "broken")
    train(config, tmp_path / "broken")
    files = [(tmp_path / name / "ncis" / "model.safetensors").read_bytes() for name in ("unbroken", "broken")]
    assert files[0] == files[1]


def test_training_lowers_the_loss_and_writes_a_purifier_with_a_card(photos: Path, tmp_path: Path) -> None:
    config = NCISTraining(data=(str(photos),), **{**TINY, "steps": 40, "learning_rate": 3e-3, "unroll": 2})
    folder = train(config, tmp_path)
    purifier = Purifier.from_pretrained(folder)
    assert purifier.iterations == 2
    images = torch.rand(1, 3, 17, 23)
    assert purifier(images).shape == images.shape
    card = (folder / "README.md").read_text()
    assert "psr_pgd" in card and "learning_rate: 0.003" in card
    history = load_checkpoint(tmp_path / "checkpoint.pt")["history"]
    assert history[-1]["step"] == 40
    assert history[-1]["loss"] < history[0]["loss"] * 1.5
    assert {"psnr", "psnr_once", "psr_clean", "psr_pgd"} <= history[-1].keys()


def test_masked_weights_are_zero_in_the_trained_file(photos: Path, tmp_path: Path) -> None:
    purifier = Purifier.from_pretrained(train(NCISTraining(data=(str(photos),), **TINY), tmp_path))
    for layer in purifier.method.network.net.context:
        assert bool((layer.weight[:, :, layer.mask == 0] == 0).all())
        assert bool((layer.weight[:, :, layer.mask == 1] != 0).any())


def test_training_can_start_from_a_trained_purifier(photos: Path, tmp_path: Path) -> None:
    first = train(NCISTraining(data=(str(photos),), **TINY), tmp_path / "first")
    config = NCISTraining(data=(str(photos),), **{**TINY, "init": str(first), "learning_rate": 1e-9})
    second = train(config, tmp_path / "second")
    images = torch.rand(1, 3, 16, 16)
    assert torch.allclose(Purifier.from_pretrained(first)(images), Purifier.from_pretrained(second)(images), atol=1e-5)


def test_other_settings_in_the_same_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    train(NCISTraining(data=(str(photos),), **TINY), tmp_path)
    with pytest.raises(OptionError, match=r"got others: learning_rate 0.5 for 0.001; choose"):
        train(NCISTraining(data=(str(photos),), **{**TINY, "learning_rate": 0.5}), tmp_path)


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is not a folder"):
        train(NCISTraining(data=(str(tmp_path / "nothing"),), **TINY), tmp_path / "out")
    with pytest.raises(InputError, match="expected images"):
        train(NCISTraining(data=(str(tmp_path),), **TINY), tmp_path / "out")


def test_the_finished_weights_can_be_the_mean_of_first_and_last(photos: Path, tmp_path: Path) -> None:
    first = train(NCISTraining(data=(str(photos),), **TINY), tmp_path / "first")
    config = {**TINY, "init": str(first), "learning_rate": 1e-2}
    whole = train(NCISTraining(data=(str(photos),), **config), tmp_path / "whole")
    half = train(NCISTraining(data=(str(photos),), **config, init_share=0.5), tmp_path / "half")
    ends = [dict(Purifier.from_pretrained(folder).named_parameters()) for folder in (first, whole, half)]
    assert any(not torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    for key, value in ends[2].items():
        assert torch.allclose(value, (ends[0][key] + ends[1][key]) / 2, atol=1e-6)


def test_init_share_without_init_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected init beside init_share"):
        train(NCISTraining(data=(str(photos),), **TINY, init_share=0.5), tmp_path)
