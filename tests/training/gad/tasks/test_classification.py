"""Classification with torchvision's ResNet-18, and how images and labels are read."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from purifier import InputError, OptionError
from purifier.training.gad import GADRecipe, GADTraining
from purifier.training.gad.tasks import Classification, make_task
from purifier.training.label_free import divergence
from tests.training.gad.builders import TINY, class_folders, classifier


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("classes"))


def task(folders: Path, model: nn.Module | None = None, **options: object) -> Classification:
    made = make_task(model or classifier(), GADTraining(data=str(folders), **{**TINY, **options}))
    assert isinstance(made, Classification)
    return made


def test_a_step_with_an_unmodified_resnet(folders: Path) -> None:
    torch.manual_seed(0)
    made = GADRecipe(GADTraining(data=str(folders), **{**TINY, "size": 32}), resnet18(num_classes=3))
    images, labels = made.crops.collate([made.crops[number] for number in range(4)])
    assert images.shape == (4, 3, 32, 32)
    losses = made.losses(made.model, (images, labels), 0)
    losses.total.backward()
    assert losses.total.isfinite() and {"task", "feature", "align", "intra"} <= losses.parts.keys()
    assert all(p.grad is not None for p in made.model.parameters())


def test_vectors_are_the_input_of_the_last_linear_layer(folders: Path) -> None:
    made, images = task(folders), torch.rand(5, 3, 16, 16)
    labels = torch.tensor([0, 1, 2, 1, 0])
    seen = made.observe(images, labels)
    logits = made.model(images)
    torch.testing.assert_close(made.model[4](seen.vectors), logits)
    torch.testing.assert_close(seen.loss, nn.functional.cross_entropy(logits, labels))
    assert torch.equal(seen.labels, labels)


def test_the_input_of_another_layer_can_be_asked_for(folders: Path) -> None:
    assert task(folders, layer="2").observe(torch.rand(2, 3, 16, 16), torch.tensor([0, 1])).vectors.shape[1] == 8 * 256


def test_the_attack_moves_the_models_predictions(folders: Path) -> None:
    made = task(folders)
    images, labels = torch.rand(4, 3, 16, 16), torch.zeros(4, dtype=torch.long)
    predictions = made.model(images).softmax(1)
    attacked = made.attack(images, labels, 0)
    small = (images + 0.031 * torch.rand_like(images).sub(0.5).sign()).clamp(0, 1)
    assert (divergence(made.model(attacked), predictions) > divergence(made.model(small), predictions)).all()
    assert (attacked - images).abs().max() <= 0.031 + 1e-6


def test_the_divergence_is_the_kullback_leibler_divergence() -> None:
    one, other = torch.tensor([[0.25, 0.75]]), torch.tensor([[0.5, 0.5]])
    expected = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert divergence(other.log(), one).item() == pytest.approx(expected)


def test_the_papers_settings_are_the_defaults(folders: Path) -> None:
    made = task(folders, size=0)
    assert (made.eps, made.alpha, made.attack_steps, made.downsamples, made.size) == (0.031, 0.0175, 4, 2, 32)


@pytest.mark.parametrize(
    ("names", "classes", "numbers"),
    [
        (["10", "9"], None, {"10": 10, "9": 9}),
        (["cat", "ant"], None, {"ant": 0, "cat": 1}),
        (["cat", "ant"], ["cat", "dog", "ant"], {"ant": 2, "cat": 0}),
        (["cat", "emu"], ["cat", "dog"], {"cat": 0, "emu": 1}),
    ],
)
def test_folders_are_numbered(tmp_path: Path, names: list[str], classes: list[str] | None, numbers: dict) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name / "0.png")
    model = classifier()
    model.classes = classes  # type: ignore[assignment]
    assert {path.parent.name: label for path, label in task(tmp_path, model).items()} == numbers


def test_folders_that_are_not_classes_of_the_model_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dgo"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name / "0.png")
    model = classifier()
    model.classes = ["cat", "dog", "emu"]  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"of which these match no class: 'dgo' \(did you mean 'dog'\?\); rename them"):
        task(tmp_path, model).items()


def test_the_score_is_accuracy(folders: Path) -> None:
    made = task(folders)
    pairs = [made.load(item, None) for item in made.items()]
    images, labels = torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])
    assert made.score(images, labels) == 1.0
    assert made.score(images, (labels + 1) % 3) == 0.0


def test_a_sample_is_decided_by_seed_and_index_alone(folders: Path) -> None:
    first, second = (GADRecipe(GADTraining(data=str(folders), **TINY), classifier()).crops for _ in range(2))
    _ = first[3]
    assert torch.equal(first[7][0], second[7][0]) and first[7][1] == second[7][1]
    assert not torch.equal(first[7][0], first[8][0])


def test_the_model_is_not_pickled_with_the_samples(folders: Path) -> None:
    samples = GADRecipe(GADTraining(data=str(folders), **TINY), classifier()).crops
    twin = pickle.loads(pickle.dumps(samples))
    assert not any(isinstance(value, nn.Module) for value in vars(twin.task).values())
    assert torch.equal(twin[4][0], samples[4][0])


def test_a_model_that_does_not_fit_is_refused(folders: Path) -> None:
    with pytest.raises(OptionError, match=r"expected a model with an nn\.Linear, got Conv2d without one"):
        task(folders, nn.Conv2d(3, 3, 3))
    dense = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(2), nn.Linear(256, 5))
    with pytest.raises(InputError, match=r"expected logits \(N, classes\) from the model, got shape \(2, 4, 5\)"):
        task(folders, dense).observe(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))
    with pytest.raises(InputError, match=r"expected class numbers below 3, .*, got 5"):
        task(folders).observe(torch.rand(2, 3, 16, 16), torch.tensor([0, 5]))
    unused = classifier()
    unused.append(nn.Identity())
    unused.spare = nn.Linear(2, 2)  # type: ignore[assignment]
    unused.forward = lambda images: nn.Sequential(*list(unused)[:6])(images)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="to be called with a tensor in a call of Sequential"):
        task(folders, unused).observe(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))


def test_fewer_folders_than_classes_are_refused_if_their_classes_are_unknown(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    shutil.rmtree(root / "a-red")
    images, labels = torch.rand(2, 3, 16, 16), torch.tensor([1, 2])
    made = task(root)
    made.items()
    for act in (lambda: made.attack(images, labels, 0), lambda: made.observe(images, labels)):
        with pytest.raises(
            InputError, match=r"expected as many class folders as the model has classes, 3, .* got 2; name "
        ):
            act()
    named = classifier()
    named.classes = ["a-red", "b-green", "c-blue"]
    made = task(root, named)
    assert {label for _, label in made.items()} == {1, 2}
    made.observe(images, labels)
    for number, name in enumerate(("b-green", "c-blue"), start=1):
        (root / name).rename(root / str(number))
    made = task(root)
    assert {label for _, label in made.items()} == {1, 2}
    made.observe(images, labels)


def test_a_model_that_returns_no_logits_is_named_before_it_is_attacked(folders: Path) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = classifier()

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.net(images), images

    with pytest.raises(InputError, match=r"expected logits \(N, classes\) from the model, got tuple"):
        task(folders, Pair()).attack(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), 0)
