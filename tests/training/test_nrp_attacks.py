"""The attacked crops of an NRP training."""

from __future__ import annotations

import pytest
import torch

from purifier.training.nrp import NRPRecipe
from tests.training.nrp import TINY, Settings


@pytest.mark.parametrize("attack", ["ssp", "gaussian", "fgsm"])
def test_attacked_crops_stay_in_the_ball_and_in_range(settings: Settings, attack: str) -> None:
    recipe = NRPRecipe(settings(TINY, attack=attack, eps=8 / 255, eps_low=8 / 255, clean_share=0.25))
    batch = torch.rand(8, 3, 32, 32)
    attacked = recipe.attacked(batch)
    assert attacked.shape == batch.shape and attacked.min() >= 0 and attacked.max() <= 1
    assert torch.equal(attacked[:2], batch[:2])
    reach = (attacked - batch)[2:].abs().flatten(1).amax(1)
    assert bool((reach > 0).all()) and torch.allclose(reach, torch.full((6,), 8 / 255), atol=1e-5)


def test_a_batch_that_is_all_clean_comes_back(settings: Settings) -> None:
    batch = torch.rand(3, 3, 16, 16)
    assert torch.equal(NRPRecipe(settings(TINY, clean_share=1.0)).attacked(batch), batch)


def test_each_step_draws_a_strength_between_the_two(settings: Settings) -> None:
    recipe = NRPRecipe(settings(TINY, attack="gaussian", eps=16 / 255, eps_low=4 / 255))
    grey = torch.full((1, 3, 64, 64), 0.5)
    found = torch.stack([(recipe.attacked(grey) - grey).abs().max() for _ in range(30)])
    assert found.min() >= 4 / 255 - 1e-6 and found.max() <= 16 / 255 + 1e-6
    assert found.min() < 7 / 255 and found.max() > 13 / 255


def test_each_step_draws_a_step_size_between_the_two(settings: Settings) -> None:
    grey = torch.full((1, 3, 64, 64), 0.5)

    def shares(low: float, high: float) -> list[float]:
        """Shares of values that one step takes to the border of the ball: they grow with the step size."""
        recipe = NRPRecipe(settings(TINY, attack_alpha=high, attack_alpha_low=low, attack_steps=1, eps_low=16 / 255))
        return [((recipe.attacked(grey) - grey).abs() > 0.999 * 16 / 255).float().mean().item() for _ in range(40)]

    drawn, weakest, strongest = shares(0.25, 0.75), shares(0.25, 0.25), shares(0.75, 0.75)
    assert min(weakest) - 0.02 <= min(drawn) and max(drawn) <= max(strongest) + 0.02
    assert max(drawn) - min(drawn) > (min(strongest) - max(weakest)) / 2 > 0.05
