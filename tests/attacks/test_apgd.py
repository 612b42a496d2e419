"""APGD: the step sizes of the paper, what it reaches, and its three losses."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from purifier import InputError, OptionError
from purifier.attacks import APGD, PGD
from purifier.attacks.apgd import _checkpoints, _Pace
from tests.attacks.victims import examples, linear, trained


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("eps", [0.02, 0.05, 0.1])
def test_it_reaches_at_least_the_loss_of_pgd_at_the_same_steps(norm: str, eps: float) -> None:
    victim, (images, labels) = trained(), examples(40, seed=6)
    eps = eps if norm == "Linf" else 12 * eps

    def reached(attack: APGD | PGD) -> Tensor:
        with torch.no_grad():
            return F.cross_entropy(victim(attack.seeded(0)(victim, images, labels)), labels)

    assert reached(APGD(eps=eps, norm=norm, steps=20)) >= reached(PGD(eps=eps, norm=norm, steps=20)) - 1e-3


def test_checkpoints_are_those_of_the_paper() -> None:
    """p = 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 for 100 steps (section 3.1)."""
    found = _checkpoints(100)
    assert list(found) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(found.values()) == [22, 19, 16, 13, 10, 7, 6, 6]


def test_the_step_is_halved_under_the_two_conditions_of_the_paper() -> None:
    pace = _Pace(0.2, 0.75, torch.zeros(3))
    pace.rises = torch.tensor([9.0, 7.0, 8.0])
    assert pace.halve(torch.tensor([1.0, 1.0, 1.0]), 10).tolist() == [False, True, False]
    assert pace.step.tolist() == pytest.approx([0.2, 0.1, 0.2])
    # No new peak at the same step size; the one that was halved just now has another chance.
    pace.rises = torch.full((3,), 10.0)
    assert pace.halve(torch.tensor([1.0, 1.0, 1.5]), 10).tolist() == [True, False, False]
    assert pace.step.tolist() == pytest.approx([0.1, 0.1, 0.2])


@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_each_loss_fools_a_linear_model_exactly_where_a_boundary_is_in_the_ball(loss: str, norm: str) -> None:
    """The ball reaches a boundary at |f| / ||w||_1 (Linf) or |f| / ||w||_2 (L2)."""
    victim, weights = linear(classes=4)
    images = torch.rand(30, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double() * 0.2 + 0.4
    logits = victim(images)
    labels = logits.argmax(1)
    gaps = logits.gather(1, labels[:, None]) - logits
    slopes = (weights[labels][:, None] - weights[None]).norm(p=1 if norm == "Linf" else 2, dim=2)
    distances = torch.where(gaps > 0, gaps / slopes, torch.inf).amin(1).detach()
    eps = float(distances.sort().values[14:16].mean())
    clear = (distances - eps).abs() > 0.02 * eps
    found = APGD(eps=eps, norm=norm, loss=loss, steps=50, goals=3).seeded(0)(victim, images, labels)
    broken = victim(found).argmax(1) != labels
    assert torch.equal(broken[clear], (distances < eps)[clear])


def test_restarts_only_add_fooled_images() -> None:
    victim, (images, labels) = trained(), examples(40, seed=6)

    def broken(restarts: int) -> Tensor:
        attack = APGD(eps=0.06, steps=5, restarts=restarts).seeded(0)
        return victim(attack(victim, images, labels)).argmax(1) != labels

    one, many = broken(1), broken(4)
    assert not bool((one & ~many).any())


def test_fooled_images_take_no_further_restarts() -> None:
    victim, (images, _) = trained(), examples(20, seed=6)
    labels = victim(images).argmax(1)
    labels[:4] = (labels[:4] + 1) % 5  # wrong from the start, and so in a tiny ball
    sizes = []

    def watch(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return victim(x)

    APGD(eps=1e-7, steps=5, restarts=2).seeded(0)(watch, images, labels)
    assert sizes == [20] * 6 + [16] * 6


def test_a_custom_loss_keeps_the_point_of_the_highest_loss() -> None:
    found = APGD(eps=0.1, steps=10, loss=lambda outputs, targets: -(outputs - targets).square())
    images = torch.full((2, 3, 4, 4), 0.5)
    adversarial = found.seeded(0)(lambda x: x.flatten(1).mean(1), images, torch.tensor([0.53, 0.9]))
    assert adversarial.flatten(1).mean(1).tolist() == pytest.approx([0.53, 0.6], abs=3e-3)


def test_names_state_the_loss() -> None:
    assert [APGD(loss=loss).name for loss in ("ce", "dlr", "dlr-targeted")] == ["APGD", "APGD-DLR", "APGD-T"]
    assert APGD(loss="dlr").settings()["loss"] == "dlr"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"loss": "mse"}, "expected loss to be 'ce' or 'dlr' or 'dlr-targeted' or a function, got 'mse'"),
        ({"loss": "dlr-targeted", "targeted": True}, "takes labels to leave and chooses its goals itself"),
        ({"steps": 0}, "expected steps to be an integer of at least 1, got 0"),
        ({"steps": 1.5}, "expected steps to be an integer of at least 1, got 1.5"),
        ({"goals": 1.5}, "expected goals to be an integer of at least 1, got 1.5"),
        ({"rho": 1}, r"expected rho in \(0, 1\), got 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        APGD(**options)


def test_a_loss_of_another_shape_is_refused() -> None:
    victim, (images, labels) = trained(), examples(3)
    with pytest.raises(InputError, match=r"expected a loss per image, \(3,\), or a scalar, got shape \(3, 5\)"):
        APGD(steps=1, loss=lambda outputs, targets: outputs)(victim, images, labels)
