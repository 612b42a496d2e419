"""The critic of NRP, and its losses against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from purifier import OptionError
from purifier.training.critic import Critic, adversarial_loss, critic_loss

FAKE, REAL = [-0.7, 0.4, 1.3], [0.2, 2.1, -0.5]


def log_sigmoid(value: float) -> float:
    return math.log(1 / (1 + math.exp(-value)))


def log_one_minus_sigmoid(value: float) -> float:
    return math.log(1 - 1 / (1 + math.exp(-value)))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None].requires_grad_(True)


def test_the_relativistic_losses_compare_with_the_mean_score_of_the_other_kind() -> None:
    fake, real = column(FAKE), column(REAL)
    expected = -mean([log_sigmoid(f - mean(REAL)) for f in FAKE])
    assert math.isclose(adversarial_loss(fake, real, relativistic=True).item(), expected, rel_tol=1e-9)
    taken = -mean([log_sigmoid(r - mean(FAKE)) for r in REAL])
    refused = -mean([log_one_minus_sigmoid(f - mean(REAL)) for f in FAKE])
    found = critic_loss(fake, real, relativistic=True).item()
    assert math.isclose(found, (taken + refused) / 2, rel_tol=1e-9)


def test_the_vanilla_losses_use_each_score_by_itself() -> None:
    fake, real = column(FAKE), column(REAL)
    expected = -mean([log_sigmoid(f) for f in FAKE])
    assert math.isclose(adversarial_loss(fake, real, relativistic=False).item(), expected, rel_tol=1e-9)
    assert adversarial_loss(fake, real + 5, relativistic=False) == adversarial_loss(fake, real, relativistic=False)
    taken, refused = -mean([log_sigmoid(r) for r in REAL]), -mean([log_one_minus_sigmoid(f) for f in FAKE])
    found = critic_loss(fake, real, relativistic=False).item()
    assert math.isclose(found, (taken + refused) / 2, rel_tol=1e-9)


def test_only_the_relativistic_losses_stay_the_same_where_all_scores_rise_together() -> None:
    fake, real = column(FAKE), column(REAL)
    for loss in (adversarial_loss, critic_loss):
        assert torch.isclose(loss(fake + 3, real + 3, relativistic=True), loss(fake, real, relativistic=True))
        assert not torch.isclose(loss(fake + 3, real + 3, relativistic=False), loss(fake, real, relativistic=False))


@pytest.mark.parametrize("relativistic", [True, False])
def test_the_purifier_wants_higher_scores_and_the_critic_lower_ones(relativistic: bool) -> None:
    fake, real = column(FAKE), column(REAL)
    (rise,) = torch.autograd.grad(adversarial_loss(fake, real, relativistic=relativistic), fake)
    assert bool((rise < 0).all())
    judged, trusted = torch.autograd.grad(critic_loss(fake, real, relativistic=relativistic), (fake, real))
    assert bool((judged > 0).all()) and bool((trusted < 0).all())


@pytest.mark.parametrize("relativistic", [True, False])
def test_a_critic_that_is_sure_loses_nothing_and_the_purifier_almost_everything(relativistic: bool) -> None:
    fake, real = column([-40.0, -40.0]), column([40.0, 40.0])
    assert critic_loss(fake, real, relativistic=relativistic) < 1e-12
    lost = 80 if relativistic else 40
    assert math.isclose(adversarial_loss(fake, real, relativistic=relativistic).item(), lost, rel_tol=1e-6)
    assert math.isclose(critic_loss(real, fake, relativistic=relativistic).item(), lost, rel_tol=1e-6)


@pytest.mark.parametrize("relativistic", [True, False])
def test_an_undecided_critic_gives_both_the_logarithm_of_two(relativistic: bool) -> None:
    scores = torch.zeros(4, 1)
    for loss in (adversarial_loss, critic_loss):
        assert math.isclose(loss(scores, scores, relativistic=relativistic).item(), math.log(2), rel_tol=1e-6)


@pytest.mark.parametrize("side", [32, 64])
def test_the_critic_gives_one_score_a_crop(side: int) -> None:
    critic = Critic(side)
    assert critic(torch.rand(2, 3, side, side)).shape == (2, 1)
    assert critic.head[1].in_features == 512 * (side // 32) ** 2


@pytest.mark.parametrize("side", [0, 16, 33, 48, -32])
def test_the_critic_refuses_a_side_that_five_halvings_do_not_fit(side: int) -> None:
    with pytest.raises(OptionError, match=rf"multiple of 32 with a critic, got {side}; .*adversarial_weight=0"):
        Critic(side)
