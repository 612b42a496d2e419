"""GAD's residual network: the identity at first, a range without a clamp, and features of the whole image."""

from __future__ import annotations

import pytest
import torch

from purifier import OptionError
from purifier.methods.gad_residual import GADResidual
from tests.builders import pictures, small_method


def test_a_new_one_returns_its_input_and_can_learn_from_there() -> None:
    torch.manual_seed(0)
    method, images = GADResidual(filters=4, blocks=1), pictures(2, 3, 10, 13)
    out = method(images)
    assert torch.equal(out, images)
    out.square().sum().backward()
    assert method.last.weight.grad is not None and method.last.weight.grad.any()


def test_the_output_stays_in_range_however_large_the_change() -> None:
    method, images = small_method("gad-residual"), pictures(2, 3, 8, 8)
    with torch.no_grad():
        method.last.weight.mul_(1000)  # type: ignore[union-attr, operator]
    out = method(images)
    assert out.min() >= 0 and out.max() <= 1 and not torch.equal(out, images)


def test_the_change_moves_a_pixel_by_its_share_of_the_way_to_white_or_black() -> None:
    images = torch.full((1, 3, 4, 4), 0.6)
    for bias, expected in ((10.0, 0.6 + 0.4 * torch.tensor(1.0).tanh()), (-10.0, 0.6 - 0.6 * torch.tensor(1.0).tanh())):
        method = GADResidual(filters=2, blocks=0)
        torch.nn.init.constant_(method.last.bias, bias)  # type: ignore[arg-type]
        torch.testing.assert_close(method(images), expected.expand_as(images))


def test_every_output_pixel_depends_on_the_whole_image() -> None:
    method, images = small_method("gad-residual").double(), pictures(1, 3, 64, 64, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(method(images)[0, :, :8, :8].sum(), images)
    assert gradient[0, :, 56:, 56:].any()


def test_features_and_outputs_in_one_call_equal_those_of_two() -> None:
    method, images = small_method("gad-residual"), pictures(3, 3, 9, 8)
    purified, features = method.purified_and_features(images)  # type: ignore[operator]
    assert features.shape == (3, 8)
    assert torch.equal(purified, method(images))
    assert torch.equal(features, method.features(images))  # type: ignore[operator]


@pytest.mark.parametrize("patch", [1, 4, 8])
@pytest.mark.parametrize("skip", [False, True])
def test_patches_of_other_sizes_keep_shape_and_range_and_see_the_image(patch: int, skip: bool) -> None:
    torch.manual_seed(0)
    method, images = GADResidual(filters=4, blocks=1, patch=patch, skip=skip), pictures(2, 3, 33, 20)
    torch.nn.init.normal_(method.last.weight, std=0.1)
    out = method(images)
    assert out.shape == images.shape and out.min() >= 0 and out.max() <= 1 and not torch.equal(out, images)
    assert method.options["patch"] == patch
    fine, _ = method._encoded(images)
    assert fine.shape[-2:] == tuple(-(-side // (2 * patch)) * 2 for side in images.shape[-2:])


def test_a_patch_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(OptionError, match="expected a power of 2 as patch, got 6"):
        GADResidual(patch=6)


@pytest.mark.parametrize("name", ["filters", "blocks", "fine_blocks", "patch"])
def test_options_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match=rf"expected {name} .* got -1"):
        GADResidual(**{name: -1})


def test_without_the_skip_a_new_one_returns_grey_and_the_image_has_no_way_past_the_features() -> None:
    method, images = GADResidual(filters=4, blocks=1, skip=False), pictures(2, 3, 8, 8).requires_grad_()
    out = method(images)
    assert torch.equal(out, torch.full_like(out, 0.5))
    (gradient,) = torch.autograd.grad(out.sum(), images)
    assert not gradient.any()
