"""The denoiser training: its losses, resuming, the command, and a folder that smoothing takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from purifier import InputError, OptionError, Purifier
from purifier.cli import command
from purifier.smoothing import Smoothed
from purifier.training.checkpoints import load_checkpoint
from purifier.training.denoiser import DenoiserRecipe, DenoiserTraining, train

TINY: dict[str, Any] = {
    "steps": 8, "batch_size": 2, "crop_size": 32, "filters": 4, "blocks": 1, "levels": 2, "precision": "no",
    "checkpoint_every": 3, "validate_every": 4, "validation_every": 4, "validation_images": 2, "warmup_steps": 2,
    "device": "cpu", "ema_decay": 0.9,
}  # fmt: skip


def settings(photos: Path, **options: Any) -> DenoiserTraining:
    return DenoiserTraining(data=(str(photos),), **{**TINY, **options})


def features() -> nn.Module:
    """Stands in for a network that does not classify."""
    return nn.Conv2d(3, 4, 3)


def test_the_loss_is_the_squared_error_first_and_then_has_the_stability_of_every_classifier(photos: Path) -> None:
    made = DenoiserRecipe(settings(photos, classifiers=("a=reference:demo:2", "b=reference:demo:3"), pixel_weight=5.0))
    batch = torch.stack([made.crops[number] for number in range(2)])
    torch.manual_seed(0)
    first = made.losses(made.model, batch, 3)
    assert first.parts.keys() == {"pixel"} and first.total == first.parts["pixel"]
    then = made.losses(made.model, batch, 4)
    assert then.parts.keys() == {"pixel", "a", "b"}
    expected = 5 * then.parts["pixel"] + 2 * then.parts["a"] + 3 * then.parts["b"]
    assert then.total.item() == pytest.approx(float(expected), rel=1e-5)
    torch.manual_seed(0)
    noisy = batch + 0.25 * torch.randn_like(batch)
    torch.testing.assert_close(first.parts["pixel"], (made.model(noisy) - batch).square().mean().detach())


def test_a_trained_denoiser_is_nearer_to_clean_images_and_serves_the_smoothing(photos: Path, tmp_path: Path) -> None:
    folder = train(settings(photos, steps=60, mse_share=1.0, learning_rate=5e-3, validate_every=60), tmp_path)
    (found,) = load_checkpoint(tmp_path / "checkpoint.pt")["history"]
    # Noise of sigma 0.25 alone has a PSNR of 12 dB.
    assert found["psnr"] > 14 and {"kept_demo", "bare_demo"} <= found.keys()
    assert "It is not meant to be used without the smoothing" in (folder / "README.md").read_text()
    purifier = Purifier.from_pretrained(folder)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()
    assert Smoothed(model, purifier, sigma=0.25).counts(torch.rand(3, 16, 16), 10).sum() == 10


def test_a_training_that_was_stopped_resumes_to_the_same_bits(photos: Path, tmp_path: Path) -> None:
    train(settings(photos), tmp_path / "whole")
    train(settings(photos), tmp_path / "parts", minutes=0)
    train(settings(photos), tmp_path / "parts")
    one, two = (Purifier.from_pretrained(tmp_path / name / "denoiser").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_command_trains_and_names_the_denoiser(photos: Path, tmp_path: Path) -> None:
    options = [part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    told = ["--data", str(photos), "--out", str(tmp_path), "--name", "smooth-mine", "--sigma", "0.5", "--steps", "2"]
    done = CliRunner().invoke(command, ["train", "denoiser", *options, *told])
    assert done.exit_code == 0, done.output
    assert Purifier.from_pretrained(tmp_path / "smooth-mine").name == "smooth-mine"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sigma": 0.0}, "expected sigma > 0"),
        ({"mse_share": 2.0}, "expected mse_share"),
        ({"pixel_weight": -1.0}, "expected pixel_weight >= 0"),
        ({"name": "a/b"}, "expected name to be a folder name"),
        ({"classifiers": ("demo",)}, "expected an extractor as NAME=MODEL"),
    ],
)
def test_settings_out_of_range_are_refused(photos: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        settings(photos, **options)


def test_a_network_that_does_not_classify_is_refused(photos: Path) -> None:
    with pytest.raises(InputError, match=r"expected a classifier with logits .* as 'f', got another network"):
        DenoiserRecipe(settings(photos, classifiers=("f=tests.training.test_denoiser:features:1",)))
