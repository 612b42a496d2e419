"""The losses of Alloy against values worked out by hand."""

import pytest
import torch

from purifier.training.alloy._losses import pixel_loss, relative_distance


def test_the_pixel_loss_is_the_mean_absolute_difference():
    clean = torch.tensor([[0.2, 0.5], [1.0, 0.0]])
    purified = torch.tensor([[0.3, 0.1], [1.0, 0.5]])
    assert pixel_loss(purified, clean).item() == pytest.approx((0.1 + 0.4 + 0 + 0.5) / 4)


def test_the_relative_distance_is_in_units_of_the_clean_features():
    clean, other = torch.tensor([[1.0, -3.0], [0.0, 2.0]]), torch.tensor([[2.0, -3.0], [0.0, -1.0]])
    assert relative_distance([other], [clean]).item() == pytest.approx((1 + 3) / (1 + 3 + 2))
    assert relative_distance([10 * other], [10 * clean]).item() == pytest.approx(4 / 6)


def test_layers_count_alike_whatever_their_size_and_scale():
    clean = [torch.ones(1, 2), torch.full((1, 8), 50.0)]
    other = [torch.tensor([[1.0, 2.0]]), torch.full((1, 8), 60.0)]
    assert relative_distance(other, clean).item() == pytest.approx((0.5 + 0.2) / 2)


def test_the_same_features_have_no_distance_and_features_of_zero_no_infinite_one():
    assert relative_distance([torch.ones(1, 3)], [torch.ones(1, 3)]) == 0
    assert relative_distance([torch.ones(1, 3)], [torch.zeros(1, 3)]).isfinite()


def test_half_precision_is_summed_in_single():
    # 4,096 differences of 1 would stop at 2,048 in half precision.
    clean, other = torch.ones(1, 4096).half(), torch.zeros(1, 4096).half()
    found = relative_distance([other], [clean])
    assert found.dtype == torch.float32 and found == 1


def test_gradients_flow_to_the_features_alone():
    clean, other = torch.rand(2, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(relative_distance([other], [clean.detach()]), other)
    unit = 1 / clean.detach().abs().sum()
    assert torch.allclose(gradient, unit * (other - clean).detach().sign())
