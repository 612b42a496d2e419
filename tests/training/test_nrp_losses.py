"""The pixel loss and the feature loss of NRP."""

from __future__ import annotations

import math

import torch

from purifier.training.nrp import feature_loss, pixel_loss


def test_the_pixel_loss_is_the_mean_over_images_of_their_euclidean_distance() -> None:
    clean = torch.rand(2, 3, 4, 5)
    purified = clean.clone()
    purified[0, 0, 0, 0] += 3
    purified[0, 2, 3, 4] += 4
    purified[1, 1, 2] += 2
    assert torch.isclose(pixel_loss(purified, clean), torch.tensor((5 + math.sqrt(5 * 4)) / 2))


def test_the_pixel_loss_of_an_equal_shift_grows_with_the_side_of_the_crop() -> None:
    small, large = (pixel_loss(torch.full((2, 3, side, side), 0.5), torch.zeros(2, 3, side, side)) for side in (8, 16))
    assert torch.isclose(small, torch.tensor(0.5 * math.sqrt(3 * 64)))
    assert torch.isclose(large, 2 * small)


def test_the_pixel_loss_of_a_perfect_image_has_a_finite_gradient() -> None:
    purified = torch.rand(2, 3, 4, 4, requires_grad=True)
    pixel_loss(purified, purified.detach().clone()).backward()
    assert torch.equal(purified.grad, torch.zeros_like(purified))


def test_the_feature_loss_is_the_mean_absolute_difference() -> None:
    purified, clean = torch.tensor([[1.0, -2.0], [0.5, 4.0]]), torch.tensor([[0.0, 2.0], [0.5, 1.0]])
    assert feature_loss(purified, clean).item() == (1 + 4 + 0 + 3) / 4
