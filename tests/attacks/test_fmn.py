"""FMN: the closed form of a linear model in both norms, and what steps buy."""

from typing import Any

import pytest
import torch
from torch import Tensor

from purifier import OptionError
from purifier.attacks import CW, FMN
from tests.attacks.test_decision import grey, nearest_boundary
from tests.attacks.victims import examples, linear, sizes, trained


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_it_finds_the_nearest_boundary_of_a_linear_model(norm: str) -> None:
    victim, weights = linear()
    images = grey(8)
    labels = victim(images).argmax(1)
    found = FMN(steps=200, norm=norm)(victim, images, labels)
    assert bool((victim(found).argmax(1) != labels).all())
    shortest = nearest_boundary(victim, weights, images, labels, 2 if norm == "L2" else 1)
    ratio = sizes(found, images, norm) / shortest
    assert bool((ratio >= 1 - 1e-9).all())
    assert float(ratio.median()) < 1.02 and float(ratio.mean()) < 1.1


def test_it_is_about_as_small_as_cw_with_far_fewer_gradients() -> None:
    victim, (images, _) = trained(), examples(10, seed=3)
    labels = victim(images).argmax(1)
    fmn, cw = FMN(steps=60)(victim, images, labels), CW(steps=60, search=5, c=0.1)(victim, images, labels)
    assert float(sizes(fmn, images, "L2").median()) < 1.05 * float(sizes(cw, images, "L2").median())


def test_images_that_are_wrong_or_cannot_be_fooled_are_unchanged() -> None:
    victim, (images, _) = trained(), examples(3, seed=3)
    wrong = (victim(images).argmax(1) + 1) % 5
    assert torch.equal(FMN(steps=5)(victim, images, wrong), images)
    stubborn = FMN(steps=5)(lambda x: torch.eye(5)[[0] * len(x)] + 0 * x.mean((1, 2, 3))[:, None], images, 0 * wrong)
    assert torch.equal(stubborn, images)


def test_targets_are_reached() -> None:
    victim, (images, labels) = trained(), examples(10, seed=3)
    goals = (labels + 1) % 5
    found = FMN(steps=60, targeted=True)(victim, images, goals)
    assert bool((victim(found).argmax(1) == goals).all())


def test_a_custom_margin_takes_any_output() -> None:
    victim, (images, labels) = trained(), examples(6, seed=3)

    def margin(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        logits = outputs["logits"]
        return logits.scatter(1, targets[:, None], -torch.inf).amax(1) - logits.gather(1, targets[:, None])[:, 0]

    found = FMN(steps=20, margin=margin)(lambda x: {"logits": victim(x)}, images, labels)
    assert torch.equal(found, FMN(steps=20)(victim, images, labels))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 0}, "expected steps to be an integer of at least 1, got 0"),
        ({"alpha": 0}, "expected alpha to be a number from 1e-09"),
        ({"gamma": 1}, "expected gamma to be a number from 0.0001 to 0.99, got 1"),
        ({"share": 0}, "expected share to be a number from 1e-06 to 1, got 0"),
        ({"margin": "dlr"}, "expected margin to be a function, got 'dlr'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        FMN(**options)
