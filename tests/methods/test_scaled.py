"""Maps at a smaller scale."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from purifier import Purifier
from purifier.methods._scaled import at_scale, halo_at
from tests.builders import pictures, small_method


def double(images: Tensor) -> Tensor:
    return 2 * images


@pytest.mark.parametrize(("scale", "small"), [(Fraction(3, 4), (18, 24)), (Fraction(7, 8), (21, 28)), (1, (24, 32))])
def test_the_map_sees_the_image_at_the_scale(scale: Fraction, small: tuple[int, int]) -> None:
    seen: list[tuple[int, ...]] = []

    def spy(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape[-2:]))
        return images

    at_scale(spy, pictures(1, 3, 24, 32), Fraction(scale))
    assert seen == [small]


def test_the_image_is_shrunk_and_enlarged() -> None:
    images = pictures(2, 3, 24, 32)
    small = F.interpolate(images, (12, 16), mode="bilinear")
    expected = F.interpolate(2 * small, (24, 32), mode="bilinear")
    torch.testing.assert_close(at_scale(double, images, Fraction(1, 2)), expected)


@pytest.mark.parametrize("shape", [(23, 30), (1, 70), (5, 3)])
def test_sizes_that_do_not_divide_are_kept(shape: tuple[int, int]) -> None:
    images = pictures(1, 3, *shape)
    out = at_scale(double, images, Fraction(3, 4))
    assert out.shape == images.shape
    # A flat image stays flat up to its borders.
    torch.testing.assert_close(
        at_scale(double, torch.full_like(images, 0.3), Fraction(3, 4)), torch.full_like(out, 0.6)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    assert at_scale(double, pictures(1, 3, 8, 8).to(dtype), Fraction(3, 4)).dtype == dtype


@pytest.mark.parametrize("eighths", range(4, 9))
@pytest.mark.parametrize("reach", [0, 3])
def test_no_output_depends_on_pixels_beyond_the_halo(eighths: int, reach: int) -> None:
    scale = Fraction(eighths, 8)
    kernel = torch.ones(3, 1, 2 * reach + 1, 2 * reach + 1)
    image = pictures(1, 3, 160, 160).requires_grad_()
    out = at_scale(lambda small: F.conv2d(small, kernel, padding=reach, groups=3), image, scale)
    for place in range(70, 90):
        (gradient,) = torch.autograd.grad(out[..., place, place].sum(), image, retain_graph=True)
        touched = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        assert (touched - place).abs().max() <= halo_at(reach, scale)


def test_the_gate_sees_the_image_as_it_is_and_the_network_a_smaller_one() -> None:
    method = small_method("alloy", gate=3, iterations=1, scale=0.5)
    seen: dict[str, tuple[int, ...]] = {}
    method.gate.layers.register_forward_pre_hook(lambda module, inputs: seen.update(gate=tuple(inputs[0].shape)))
    method.network[0].register_forward_pre_hook(lambda module, inputs: seen.update(network=tuple(inputs[0].shape)))
    Purifier(method)(pictures(1, 3, 32, 48))
    assert seen == {"gate": (1, 3, 32, 48), "network": (1, 12, 8, 12)}


def test_the_scale_can_be_set_at_loading(tmp_path: Path) -> None:
    Purifier(small_method("alloy", iterations=1, scale=0.5)).save_pretrained(tmp_path)
    images = pictures(1, 3, 16, 24)
    loaded = [Purifier.from_pretrained(tmp_path, **options) for options in ({}, {"scale": 0.5}, {"scale": 1.0})]
    assert torch.equal(loaded[0](images), loaded[1](images))
    assert torch.equal(loaded[2](images), Purifier(small_method("alloy", iterations=1))(images))
