"""The recipe: which terms are at work, what is detached, what stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from purifier import InputError, OptionError, Purifier, PurifierWarning
from purifier.training.gad import GADRecipe, GADTraining, Observed
from tests.builders import unchanged
from tests.training.gad.builders import TINY, class_folders, classifier

FEATURES = "tests.training.gad.builders:features"
PIXELS = {"reconstruction", "perceptual", "gan", "matching"}
TARGETS = {"task", "feature"}
CLASSES = {"align", "inter", "intra"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("classes"))


def recipe(folders: Path, **options: object) -> GADRecipe:
    settings = {**TINY, "perceptual_weight": 0.1, "perceptual": FEATURES, **options}
    return GADRecipe(GADTraining(data=str(folders), **settings), classifier())


def batch(made: GADRecipe) -> tuple[Tensor, Tensor]:
    return made.crops.collate([made.crops[number] for number in range(6)])


@pytest.mark.parametrize(
    ("variant", "terms"),
    [
        ("li", PIXELS),
        ("lf-noc", TARGETS),
        ("li+lf-noc", PIXELS | TARGETS),
        ("lt", PIXELS),
        ("lt+lf-noc", PIXELS | TARGETS),
        ("full", PIXELS | TARGETS | CLASSES),
    ],
)
def test_a_variant_has_the_papers_terms(folders: Path, variant: str, terms: set[str]) -> None:
    made = recipe(folders, variant=variant)
    losses = made.losses(made.model, batch(made), 0)
    assert losses.parts.keys() == terms
    assert (losses.critic is not None) == ("gan" in terms) == (made.critic is not None)
    total = sum(getattr(made.config, f"{name}_weight") * value for name, value in losses.parts.items())
    assert losses.total.item() == pytest.approx(float(total), rel=1e-5)
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.model.parameters())


@pytest.mark.parametrize("name", sorted(PIXELS | TARGETS | CLASSES))
def test_a_weight_of_zero_switches_its_term_off(folders: Path, name: str) -> None:
    made = recipe(folders, **{f"{name}_weight": 0.0})
    assert made.losses(made.model, batch(made), 0).parts.keys() == (PIXELS | TARGETS | CLASSES) - {name}


def test_without_its_terms_there_is_no_discriminator(folders: Path) -> None:
    made = recipe(folders, gan_weight=0.0, matching_weight=0.0)
    assert made.critic is None
    assert made.losses(made.model, batch(made), 0).critic is None


def fixed_outputs(clean: Tensor, adversarial: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda images: torch.cat((clean, adversarial))


@pytest.mark.parametrize(
    ("variant", "detach", "drawn"), [("li", False, True), ("li", True, False), ("lt", False, False)]
)
def test_the_adversarial_output_moves_the_clean_one_unless_it_is_detached(
    folders: Path, variant: str, detach: bool, drawn: bool
) -> None:
    others = {"perceptual_weight": 0.0, "gan_weight": 0.0, "matching_weight": 0.0}
    made = recipe(folders, variant=variant, detach_clean=detach, **others)
    images, labels = batch(made)
    clean, adversarial = images.clone().requires_grad_(), (images + 0.1).requires_grad_()
    losses = made.losses(fixed_outputs(clean, adversarial), (images, labels), 0)
    losses.total.backward()
    # The clean output equals the clean image here, so that only the adversarial one can move it.
    assert clean.grad is not None and bool(clean.grad.any()) == drawn
    assert adversarial.grad is not None and adversarial.grad.any()
    assert losses.parts["reconstruction"].item() == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("variant", ["li", "lt"])
def test_the_discriminators_loss_gives_the_generator_no_gradient(folders: Path, variant: str) -> None:
    made = recipe(folders, variant=variant)
    losses = made.losses(made.model, batch(made), 0)
    assert losses.critic is not None and made.critic is not None
    losses.critic().backward()
    assert all(p.grad is not None for p in made.critic.parameters())
    assert all(p.grad is None for p in made.model.parameters())


def test_the_clean_output_is_real_and_the_adversarial_one_fake(folders: Path) -> None:
    made = recipe(folders, variant="li")

    class Brightness(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
            return images.mean((1, 2, 3)), [images]

    made.critic = Brightness()  # type: ignore[assignment]
    images, labels = batch(made)
    for clean, adversarial, expected in ((1.0, 0.0, 0.0), (0.0, 1.0, 2.0), (0.0, 0.0, 1.0)):
        outputs = fixed_outputs(torch.full_like(images, clean), torch.full_like(images, adversarial))
        losses = made.losses(outputs, (images, labels), 0)
        assert losses.critic is not None
        assert losses.critic().item() == pytest.approx(expected)
        assert losses.parts["gan"].item() == pytest.approx((adversarial - 1) ** 2)


def test_the_attack_is_on_the_target_alone_and_within_its_radius(folders: Path) -> None:
    made = recipe(folders)
    images, labels = batch(made)
    attacked = made.task.attack(images, labels, 0)
    assert 0.5 * 0.031 < (attacked - images).abs().max() <= 0.031 + 1e-6


def test_the_users_model_is_not_changed(folders: Path) -> None:
    model = classifier().train()
    with unchanged(model):
        made = GADRecipe(GADTraining(data=str(folders), **TINY), model)
        made.losses(made.model, batch(made), 0).total.backward()
    assert not any(p.requires_grad for p in made.task.model.parameters())
    assert not made.task.model.training


def test_vectors_are_measured_by_the_length_of_clean_ones_and_thinned_out(folders: Path) -> None:
    made = recipe(folders, vectors=5)
    loss, labels = torch.zeros(()), torch.arange(20)
    clean = 7 * torch.nn.functional.normalize(torch.randn(20, 3), dim=1)
    (first, second), kept = made._vectors(Observed(loss, clean, labels), Observed(loss, 2 * clean, labels))
    assert torch.allclose(first.norm(dim=1), torch.ones(5))
    assert torch.allclose(second, 2 * first)
    assert torch.allclose(first * 7, clean[kept])


def test_vectors_that_do_not_correspond_are_refused(folders: Path) -> None:
    made = recipe(folders)
    loss, labels = torch.zeros(()), torch.arange(4)
    with pytest.raises(InputError, match="expected as many feature vectors"):
        made._vectors(Observed(loss, torch.rand(4, 2), labels), Observed(loss, torch.rand(3, 2), labels))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"variant": "all"}, "expected variant as one of li, lf-noc, li.lf-noc, lt, lt.lf-noc, full, got 'all'"),
        ({"task_weight": -1.0}, "expected loss weights >= 0, .* task_weight=-1.0"),
        (
            {"variant": "lf-noc", "task_weight": 0.0, "feature_weight": 0.0},
            "expected a weight above 0 of a loss that variant='lf-noc' uses, got 0 for each of task, feature",
        ),
        ({"task": "depth"}, "expected task='classification', 'detection', 'segmentation' or 'module:function' or"),
        ({"validation_every": 1}, "expected validation_every to be an integer of at least 2, got 1"),
        ({"eps": -0.1}, "expected margin, eps and alpha of at least 0, got"),
        ({"layer": "5"}, "expected the name of a layer of Sequential, got '5'"),
        ({"data": ""}, "expected data, a folder, for this task, got none"),
        (
            {"task": "tests.training.gad.builders:TINY"},
            "expected task to name a function of tests.training.gad.builders, got 'TINY'",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(folders: Path, options: dict, text: str) -> None:
    settings = {"data": str(folders), **TINY, **options}
    with pytest.raises(OptionError, match=text):
        GADRecipe(GADTraining(**settings), classifier())


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder for each class"):
        GADRecipe(GADTraining(data=str(tmp_path), **TINY), classifier())
    with pytest.raises(InputError, match="which is not a folder"):
        GADRecipe(GADTraining(data=str(tmp_path / "nothing"), **TINY), classifier())


def test_a_training_starts_from_a_trained_generator(folders: Path, tmp_path: Path) -> None:
    first = recipe(folders, seed=1).model
    Purifier(first, name="gad").save_pretrained(tmp_path / "gad")
    again = recipe(folders, seed=2, init=str(tmp_path / "gad")).model
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(again(images), first(images))
    assert not torch.equal(recipe(folders, seed=2).model(images), first(images))


def test_a_model_that_is_wrong_without_a_purifier_gives_a_warning(folders: Path) -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = classifier()

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images.flip(1)).flip(1)[:, [1, 0, 2]]

    made = GADRecipe(GADTraining(data=str(folders), **TINY), Wrong())
    with pytest.warns(
        PurifierWarning, match=r"scores 0.\d\d \(accuracy\) on held-out samples of 16 x 16 pixels; check"
    ):
        made.to(torch.device("cpu"))
    recipe(folders).to(torch.device("cpu"))


def test_a_model_that_is_not_a_module_is_refused(folders: Path) -> None:
    with pytest.raises(InputError, match=r"expected the model to defend as an nn.Module, got str"):
        GADRecipe(GADTraining(data=str(folders), **TINY), "resnet18")  # type: ignore[arg-type]
