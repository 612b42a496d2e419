"""C&W: the closed form of a linear model, the search over c, kappa, and early leaving."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError
from purifier.attacks import CW, PGD
from tests.attacks.victims import examples, linear, sizes, trained


def nearest_boundary(
    victim: nn.Module, weights: torch.Tensor, images: torch.Tensor, labels: torch.Tensor, dual: int = 2
) -> torch.Tensor:
    """Distance of each image to a linear model's nearest boundary: min |f| / ||w|| over the other classes.

    ||w|| is the dual norm: L2 for distances in L2, L1 for those in Linf.
    """
    logits = victim(images)
    gaps = logits.gather(1, labels[:, None]) - logits
    slopes = (weights[labels][:, None] - weights[None]).norm(p=dual, dim=2)
    return torch.where(gaps > 0, gaps / slopes, torch.inf).amin(1).detach()


def test_it_finds_the_nearest_boundary_of_a_linear_model() -> None:
    victim, weights = linear()
    images = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double() * 0.2 + 0.4
    labels = victim(images).argmax(1)
    found = CW(steps=300, search=8, c=0.1)(victim, images, labels)
    assert bool((victim(found).argmax(1) != labels).all())
    shortest = nearest_boundary(victim, weights, images, labels)
    length = sizes(found, images, "L2")
    assert bool((length >= shortest * (1 - 1e-9)).all())
    assert (length / shortest).mean() < 1.05


def test_it_fools_a_trained_model_with_less_than_pgd() -> None:
    victim, (images, labels) = trained(), examples(20, seed=3)
    found = CW(steps=100, search=5, c=0.1)(victim, images, labels)
    right = victim(images).argmax(1) == labels
    assert bool((victim(found).argmax(1) != labels)[right].all())
    typical = float(sizes(found, images, "L2")[right].median())
    pgd = PGD(eps=0.7 * typical, norm="L2", steps=20).seeded(0)(victim, images, labels)
    assert (victim(pgd).argmax(1) == labels).sum() > right.sum() / 2


def test_more_rounds_never_find_longer_perturbations() -> None:
    victim, (images, labels) = trained(), examples(10, seed=3)
    few, many = (CW(steps=60, search=n, c=1.0)(victim, images, labels) for n in (2, 6))
    fooled = victim(few).argmax(1) != labels
    assert bool((sizes(many, images, "L2") <= sizes(few, images, "L2") + 1e-6)[fooled].all())
    assert sizes(many, images, "L2")[fooled].mean() < 0.95 * sizes(few, images, "L2")[fooled].mean()


def test_kappa_is_the_margin_of_fooled_images() -> None:
    victim, (images, labels) = trained(), examples(10, seed=3)
    found = CW(steps=150, search=4, c=1.0, alpha=0.05, kappa=1.5)(victim, images, labels)
    logits = victim(found)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    assert (others - logits.gather(1, labels[:, None])[:, 0]).min() >= 1.5 - 1e-4


def test_images_that_cannot_be_fooled_are_returned_unchanged() -> None:
    def stubborn(images: Tensor) -> Tensor:
        return torch.stack([images.flatten(1).mean(1) * 0 + 5, images.flatten(1).mean(1)], 1)

    images = torch.rand(3, 3, 6, 6)
    assert torch.equal(CW(steps=20, search=2)(stubborn, images, torch.zeros(3, dtype=torch.long)), images)


def test_images_of_black_and_white_pixels_are_fooled() -> None:
    victim, (images, labels) = trained(), examples(6)
    found = CW(steps=100, search=3, c=10.0, alpha=0.2)(victim, (images > 0.5).float(), labels)
    assert bool(found.isfinite().all())
    assert (victim(found).argmax(1) != labels).float().mean() > 0.9


def test_a_round_ends_when_the_objective_stops_falling() -> None:
    victim, (images, labels) = trained(), examples(6)
    calls = []

    def watch(x: Tensor) -> Tensor:
        calls.append(len(x))
        return victim(x)

    CW(steps=1000, search=1, c=1e-6)(watch, images, labels)
    assert len(calls) < 1000


def test_a_custom_margin_takes_any_output() -> None:
    victim, (images, labels) = trained(), examples(6, seed=3)

    def margin(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        logits = outputs["logits"]
        return logits.scatter(1, targets[:, None], -torch.inf).amax(1) - logits.gather(1, targets[:, None])[:, 0]

    options = {"steps": 40, "search": 3, "c": 1.0}
    found = CW(margin=margin, **options)(lambda x: {"logits": victim(x)}, images, labels)
    assert torch.equal(found, CW(**options)(victim, images, labels))


@pytest.mark.parametrize("options", [{"alpha": 0}, {"c": 0}, {"kappa": -1}, {"share": 0}, {"share": 1.1}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(OptionError, match=f"expected .*{name} .*got .*{name}={value}"):
        CW(**options)


@pytest.mark.parametrize("name", ["steps", "search"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_counts_that_are_not_positive_integers_are_refused(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"expected {name} to be an integer of at least 1, got {value}"):
        CW(**{name: value})
