"""GS against the loop that it replaces, run in double precision with borders made by numpy."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from purifier import OptionError, Purifier
from purifier.methods import gs
from purifier.methods.gs import GaussianSmoothing, gaussian_kernel, trimmed
from tests.builders import pictures


def loop(images: Tensor, kernel_size: int, iterations: int) -> Tensor:
    """The definition: i times, reflect the borders and convolve with the K x K Gaussian of sigma = (K - 1) / 6."""
    radius = kernel_size // 2
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    square = torch.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * ((kernel_size - 1) / 6) ** 2))
    kernel = (square / square.sum()).expand(3, 1, -1, -1)
    out = images.double()
    for _ in range(iterations):
        padded = np.pad(out.numpy(), ((0, 0), (0, 0), (radius, radius), (radius, radius)), mode="reflect")
        out = F.conv2d(torch.from_numpy(padded), kernel, groups=3)
    return out


@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9, 11])
@pytest.mark.parametrize("size", [(2, 3), (9, 16), (31, 24)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_it_equals_the_loop_for_every_number_of_iterations(kernel_size: int, size: tuple[int, int]) -> None:
    images = pictures(1, 3, *size)
    for iterations in range(21):
        out = GaussianSmoothing(kernel_size=kernel_size, iterations=iterations)(images)
        torch.testing.assert_close(out.double(), loop(images, kernel_size, iterations), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("iterations", [1, 7, 20])
def test_a_border_may_be_wider_than_the_image(size: tuple[int, int], iterations: int) -> None:
    images = pictures(2, 3, *size)
    out = GaussianSmoothing(kernel_size=11, iterations=iterations)(images)
    torch.testing.assert_close(out.double(), loop(images, 11, iterations), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kernel_size", "iterations"), [(3, 1), (5, 7), (11, 20)])
@pytest.mark.parametrize("extra", [0, 1, 160])
def test_sizes_of_one_and_of_several_blocks_equal_the_loop(kernel_size: int, iterations: int, extra: int) -> None:
    images = pictures(1, 3, 9, gs._BLOCK_CPU + extra)
    smooth = GaussianSmoothing(kernel_size=kernel_size, iterations=iterations)
    for turned in (images, images.mT):
        torch.testing.assert_close(smooth(turned).double(), loop(turned, kernel_size, iterations), rtol=0, atol=1e-6)


def test_blocks_equal_the_dense_matrix_also_where_the_border_is_wider_than_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, smooth = pictures(1, 3, 37, 41), GaussianSmoothing(kernel_size=11, iterations=20)
    dense = smooth(images)
    for longest in (1, 5, 16, 40):
        monkeypatch.setattr(gs, "_BLOCK_CPU", longest)
        torch.testing.assert_close(smooth(images), dense, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dense", [True, False])
def test_the_compiled_forms_equal_the_blocks(monkeypatch: pytest.MonkeyPatch, dense: bool) -> None:
    monkeypatch.setattr(gs, "_DENSE_COMPILED", 384 if dense else 0)
    torch._dynamo.reset()
    smooth = GaussianSmoothing(kernel_size=5, iterations=7)
    compiled = torch.compile(smooth, backend="eager", fullgraph=True)
    for size in ((20, 150), (31, 17), (140, 9), (1, 3)):
        images, weights = pictures(2, 3, *size), pictures(2, 3, *size, seed=1)
        leaves = [images.clone().requires_grad_() for _ in range(2)]
        outs = [call(leaf) for call, leaf in zip((compiled, smooth), leaves, strict=True)]
        torch.testing.assert_close(*outs, rtol=0, atol=1e-6)
        gradients = [torch.autograd.grad((o * weights).sum(), x)[0] for o, x in zip(outs, leaves, strict=True)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)


def test_a_half_precision_picture_in_channels_last_is_smoothed_too() -> None:
    images, smooth = pictures(2, 3, 150, 40), GaussianSmoothing()
    half = images.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(smooth(half).float(), smooth(images), rtol=0, atol=0.02)


def test_the_gradient_of_the_blocks_equals_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gs, "_BLOCK_CPU", 2)
    smooth = GaussianSmoothing(kernel_size=5, iterations=2).double()
    assert torch.autograd.gradcheck(smooth, pictures(1, 3, 5, 6, dtype=torch.float64).requires_grad_())


@pytest.mark.parametrize("size", [(1, 1), (6, 5), (4, 500)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_constant_images_stay_constant(size: tuple[int, int]) -> None:
    images = torch.tensor([0.1, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, *size)
    out = GaussianSmoothing(kernel_size=11, iterations=20)(images)
    torch.testing.assert_close(out, images, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kernel_size", "iterations"), [(5, 0), (1, 7)])
def test_no_iterations_or_a_single_tap_is_the_identity(kernel_size: int, iterations: int) -> None:
    images = pictures(1, 3, 6, 5)
    assert torch.equal(GaussianSmoothing(kernel_size=kernel_size, iterations=iterations)(images), images)


def test_it_is_linear() -> None:
    smooth, one, two = GaussianSmoothing(), pictures(1, 3, 8, 9), pictures(1, 3, 8, 9, seed=1)
    torch.testing.assert_close(smooth(0.3 * one + 0.6 * two), 0.3 * smooth(one) + 0.6 * smooth(two))


def test_the_kernel_sums_to_one_and_has_the_standard_deviation_of_its_passes() -> None:
    once, many = gaussian_kernel(5), gaussian_kernel(5, 7)
    assert len(many) == 29
    assert sum(many) == pytest.approx(1, abs=1e-12)

    def variance(taps: list[float]) -> float:
        return sum(tap * (at - len(taps) // 2) ** 2 for at, tap in enumerate(taps))

    assert variance(many) == pytest.approx(7 * variance(once), rel=1e-12)


@pytest.mark.parametrize(("kernel_size", "iterations"), [(1, 0), (5, 1), (5, 7), (5, 20), (11, 20)])
def test_the_omitted_ends_of_the_kernel_are_negligible(kernel_size: int, iterations: int) -> None:
    whole = gaussian_kernel(kernel_size, iterations)
    kept = trimmed(whole)
    ends = (len(whole) - len(kept)) // 2
    assert kept == whole[ends : len(whole) - ends]
    assert 1 - sum(kept) <= 2.1e-9
    # Fewer would not do.
    assert sum(whole[: ends + 1]) > 1e-9


def test_the_halo_grows_with_the_square_root_of_the_iterations() -> None:
    (few,), (many,) = (GaussianSmoothing(iterations=number).stages() for number in (5, 20))
    assert few.halo is not None and many.halo is not None
    assert many.halo <= 2.2 * few.halo


@pytest.mark.parametrize("size", [(256, 256), (480, 640)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_twenty_iterations_cost_about_what_one_does(size: tuple[int, int]) -> None:
    images = pictures(2, 3, *size)
    once, often = GaussianSmoothing(iterations=1), GaussianSmoothing(iterations=20)

    def seconds(smooth: GaussianSmoothing) -> float:
        start = time.perf_counter()
        smooth(images)
        return time.perf_counter() - start

    seconds(once), seconds(often)
    ratios = [seconds(often) / seconds(once) for _ in range(9)]
    assert statistics.median(ratios) < 2.5


def test_iterations_can_be_set_later() -> None:
    images, purify = pictures(1, 3, 12, 9), Purifier.from_pretrained("gs", iterations=2)
    assert purify.iterations == 2
    purify.iterations = 9
    assert purify.iterations == 9
    assert torch.equal(purify(images), Purifier.from_pretrained("gs", iterations=9)(images))


@pytest.mark.parametrize("value", [-1, 2.0, True, "3"])
def test_wrong_iterations_are_refused(value: object) -> None:
    purify = Purifier.from_pretrained("gs")
    with pytest.raises(OptionError, match="expected iterations to be an integer of at least 0, got"):
        purify.iterations = value  # type: ignore[assignment]
    assert purify.iterations == 7


@pytest.mark.parametrize("value", [0, 4, -3, 2.5])
def test_an_even_kernel_size_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match="expected kernel_size to be an odd integer of at least 1, got"):
        GaussianSmoothing(kernel_size=value)  # type: ignore[arg-type]


def test_matrices_are_kept_from_a_call_without_gradients_to_one_with_them() -> None:
    method, images = GaussianSmoothing(kernel_size=5, iterations=3), torch.rand(1, 3, 19, 23)
    gs._kept.cache_clear()
    with torch.inference_mode():
        expected = method(images)
    made = gs._kept.cache_info().misses
    images.requires_grad_(True)
    out = method(images)
    out.sum().backward()
    assert torch.equal(out, expected.clone()) and images.grad is not None
    # Every output is a mean, and the border gives what it takes.
    assert images.grad.sum().item() == pytest.approx(images.numel(), rel=1e-5)
    assert made == 2 and gs._kept.cache_info().misses == made


def test_cached_matrices_depend_on_dtype_and_size() -> None:
    method = GaussianSmoothing(kernel_size=5, iterations=2)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for size in (7, 12):
            images = torch.rand(1, 3, size, size, dtype=torch.float64).to(dtype)
            assert method(images).dtype == dtype and method(images).shape == images.shape
