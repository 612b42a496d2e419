"""HopSkipJump and the boundary attack: predicted classes only, what they spend, and the nearest boundary."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError
from purifier.attacks import Boundary, HopSkipJump
from purifier.attacks.hopskipjump import _HALVINGS
from tests.attacks.victims import examples, linear, segmenter, sizes, trained

ATTACKS: dict[str, Callable[..., Any]] = {
    "HopSkipJump": lambda **o: HopSkipJump(**{"steps": 8, "samples": 50, **o}),
    "Boundary": lambda **o: Boundary(**{"steps": 600, "sideways": 0.1, "closer": 0.1, **o}),
}
SHORT_AND_LONG = {"HopSkipJump": (1, 10), "Boundary": (1, 200)}


def grey(count: int) -> Tensor:
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double() * 0.2 + 0.4


def nearest_boundary(victim: nn.Module, weights: Tensor, images: Tensor, labels: Tensor, p: int) -> Tensor:
    """Distance to a linear model's nearest boundary, in L2 (dual p=2) or Linf (dual p=1)."""
    logits = victim(images)
    gaps = logits.gather(1, labels[:, None]) - logits
    slopes = (weights[labels][:, None] - weights[None]).norm(p=p, dim=2)
    return torch.where(gaps > 0, gaps / slopes, torch.inf).amin(1).detach()


@pytest.mark.parametrize(
    ("name", "norm", "near"), [("HopSkipJump", "L2", 1.3), ("HopSkipJump", "Linf", 1.8), ("Boundary", "L2", 1.5)]
)
def test_they_come_close_to_the_nearest_boundary_of_a_linear_model(name: str, norm: str, near: float) -> None:
    victim, weights = linear()
    images = grey(6)
    labels = victim(images).argmax(1)
    attack = ATTACKS[name](**({"norm": norm} if name == "HopSkipJump" else {})).seeded(0)
    found = attack(victim, images, labels)
    assert bool((victim(found).argmax(1) != labels).all())
    ratio = sizes(found, images, norm) / nearest_boundary(victim, weights, images, labels, 2 if norm == "L2" else 1)
    assert bool((ratio >= 1 - 1e-9).all())
    assert float(ratio.median()) < near


@pytest.mark.parametrize("name", ATTACKS)
def test_only_the_predicted_class_is_used(name: str) -> None:
    victim, (images, labels) = trained(), examples(6, seed=3)

    @torch.no_grad()
    def decisions(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return nn.functional.one_hot(victim(x).argmax(1), 5).float()

    attack = ATTACKS[name](steps=3).seeded(0)
    assert torch.equal(attack(decisions, images, labels), attack.seeded(0)(victim, images, labels))


@pytest.mark.parametrize("name", ATTACKS)
def test_more_steps_find_smaller_perturbations(name: str) -> None:
    victim, (images, _) = trained(), examples(10, seed=3)
    labels = victim(images).argmax(1)
    few, many = (ATTACKS[name](steps=n).seeded(0)(victim, images, labels) for n in SHORT_AND_LONG[name])
    assert bool((victim(many).argmax(1) != labels).all())
    assert sizes(many, images, "L2").median() < 0.9 * sizes(few, images, "L2").median()


@pytest.mark.parametrize("name", ATTACKS)
def test_images_that_are_wrong_or_cannot_be_fooled_are_unchanged(name: str) -> None:
    victim, (images, _) = trained(), examples(4, seed=3)
    labels = (victim(images).argmax(1) + 1) % 5
    assert torch.equal(ATTACKS[name]()(victim, images, labels), images)
    constant = ATTACKS[name](tries=3)(lambda x: torch.eye(5)[torch.zeros(len(x), dtype=torch.long)], images, 0 * labels)
    assert torch.equal(constant, images)


def test_hopskipjump_takes_more_probes_at_later_steps() -> None:
    victim, (images, labels) = trained(), examples(1, seed=3)
    asked = []

    def watch(x: Tensor) -> Tensor:
        asked.append(len(x))
        return victim(x)

    HopSkipJump(steps=4, samples=10, max_samples=17).seeded(0)(watch, images, labels)
    assert [count for count in asked if count > 1] == [10, 14, 17, 17]
    assert sum(asked) <= 10 + 14 + 17 + 17 + 1 + 100 + 9 * _HALVINGS


def test_a_dense_output_is_fooled_at_a_share_of_its_pixels() -> None:
    model = segmenter()
    images = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    for attack in (HopSkipJump(steps=3, samples=20, share=0.4), Boundary(steps=30, share=0.4)):
        found = attack.seeded(0)(model, images, labels)
        wrong = (model(found).argmax(1) != labels).flatten(1).float().mean(1)
        assert bool((wrong >= 0.4).all())


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (lambda: HopSkipJump(steps=0), "expected steps to be an integer of at least 1, got 0"),
        (lambda: HopSkipJump(samples=1.5), "expected samples to be an integer of at least 1, got 1.5"),
        (lambda: HopSkipJump(gamma=0), "expected gamma to be a number from 1e-06 to 1, got 0"),
        (lambda: HopSkipJump(norm="L1"), "expected norm to be 'Linf' or 'L2', got 'L1'"),
        (lambda: Boundary(tries=0), "expected tries to be an integer of at least 1, got 0"),
        (lambda: Boundary(share=2), "expected share to be a number from 1e-06 to 1, got 2"),
        (lambda: Boundary(closer=0), "expected closer to be a number from 1e-06 to 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(attack: Callable[[], object], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        attack()
