"""The reference classifiers: their data, their training, and how they are packaged."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from torch import nn

from benchmarks.recipes import cifar10
from benchmarks.recipes.cifar10_targets import build, epoch_of, fused
from benchmarks.recipes.classifier_training import Trainer, move_average, package, read_schedule
from purifier.models.reference import ReferenceClassifier


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kit with two test images, stored out of order."""
    monkeypatch.setenv("PURIFIER_KIT", str(tmp_path))
    with tarfile.open(tmp_path / "cifar10_test.tar.gz", "w:gz") as file:
        for name, value in (("test/truck/0000.jpg", 200), ("test/airplane/0000.jpg", 40)):
            picture = io.BytesIO()
            Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(picture, "JPEG")
            entry = tarfile.TarInfo(name)
            entry.size = len(picture.getvalue())
            file.addfile(entry, io.BytesIO(picture.getvalue()))
    return tmp_path


def test_a_part_is_read_in_the_order_of_its_files(archive: Path) -> None:
    images, labels = cifar10.load_part("test")
    assert images.shape == (2, 3, 32, 32) and images.dtype == torch.uint8
    assert labels.tolist() == [0, 9]
    assert images[0].float().mean().round() == 40


def test_a_part_is_unpacked_once(archive: Path) -> None:
    folder = cifar10.extract_part("test", archive / "out")
    assert sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*")) == [
        "airplane/0000.jpg",
        "truck/0000.jpg",
    ]
    (archive / "cifar10_test.tar.gz").unlink()
    assert cifar10.extract_part("test", archive / "out") == folder


@pytest.mark.parametrize("name", ["resnet20", "vgg8"])
def test_folding_the_batch_norms_changes_no_output(name: str) -> None:
    torch.manual_seed(0)
    model = build(name)
    with torch.no_grad():
        model(torch.rand(8, 3, 32, 32))  # statistics that are not those of the start
    images = torch.rand(2, 3, 32, 32)
    before = model.eval()(images)
    folded = fused(model)
    torch.testing.assert_close(folded(images), before, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.equal(model(images), before)


def test_resnet20_has_twenty_layers_and_its_size() -> None:
    model = build("resnet20")
    layers = [m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
    assert len(layers) == 20
    assert 268_000 < sum(p.numel() for p in model.parameters()) < 275_000


def test_an_epoch_sees_every_image_once_moved_and_resized_the_same_each_time() -> None:
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 32, 32).contiguous()
    labels = torch.arange(10)
    once, again = (list(epoch_of(images, labels, size=16, batch=5, seed=3)) for _ in range(2))
    seen = torch.cat([y for _, y in once])
    assert sorted(seen.tolist()) == list(range(10)) and seen.tolist() != list(range(10))
    for (crops, targets), (crops_again, targets_again) in zip(once, again, strict=True):
        assert crops.shape == (5, 3, 16, 16)
        assert torch.equal(crops, crops_again) and torch.equal(targets, targets_again)
        torch.testing.assert_close(crops[:, 0, 0, 0] * 255, targets.float())


def test_the_average_moves_by_its_decay() -> None:
    average, model = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.zeros_(average.weight)
    nn.init.ones_(model.weight)
    move_average(average, model, 0.75)
    assert average.weight.item() == pytest.approx(0.25)


def trainer() -> Trainer:
    torch.manual_seed(0)
    return Trainer(nn.Linear(3, 2), 6, lr=0.5, weight_decay=0.0, smoothing=0.0, warmup=0.1)


def test_a_stopped_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    def batches(epoch: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(torch.eye(3)[:2].mul(size + epoch)[..., None, None], torch.tensor([0, 1]))] * 2

    def flat(one: Trainer) -> Trainer:
        one.forward = lambda images: one.model(images.flatten(1))
        return one

    whole, first, second = flat(trainer()), flat(trainer()), flat(trainer())
    whole.run(tmp_path / "whole.pt", [1, 1, 2], batches)
    first.run(tmp_path / "parts.pt", [1], batches)
    second.run(tmp_path / "parts.pt", [1, 1, 2], batches)
    assert (second.step, second.epoch) == (6, 3)
    for name in ("model", "average"):
        one, other = (getattr(each, name).state_dict() for each in (whole, second))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_schedule_gives_the_size_of_every_epoch() -> None:
    assert read_schedule("64:2,96:1") == [64, 64, 96]


def test_a_packaged_classifier_has_its_weights_in_half_precision(tmp_path: Path) -> None:
    architecture = {"widths": (4, 4), "blocks": (1,), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    model = ReferenceClassifier(classes=("a", "b"), **architecture)
    package(model, architecture, tmp_path, "mine")
    config, stored = json.loads((tmp_path / "config.json").read_text()), (tmp_path / "model.safetensors").read_bytes()
    assert (config["name"], config["classes"]) == ("mine", ["a", "b"])
    assert config["sha256"] == hashlib.sha256(stored).hexdigest()
    weights = load(stored)
    assert all(torch.equal(value, model.state_dict()[key].half()) for key, value in weights.items())
