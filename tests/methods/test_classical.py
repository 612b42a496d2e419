"""The classical baselines against their definitions."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from purifier import OptionError, Purifier
from purifier.methods.bit_depth import BitDepth
from purifier.methods.jpeg import JPEG
from purifier.methods.median import Median
from purifier.methods.noise import ProjectedNoise
from purifier.methods.resize_pad import ResizePad
from purifier.methods.tvm import TVM
from tests.builders import pictures

# -- jpeg -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [10, 75, 90])
def test_jpeg_equals_the_codec_of_pillow(quality: int) -> None:
    images = pictures(2, 3, 21, 34)
    for image, out in zip(images, JPEG(quality=quality)(images), strict=True):
        file = io.BytesIO()
        pixels = np.rint(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file)).astype(np.float32) / 255
        np.testing.assert_array_equal(out.permute(1, 2, 0).numpy(), expected)


def test_jpeg_loses_more_at_a_lower_quality() -> None:
    images = pictures(1, 3, 32, 32)
    errors = [(JPEG(quality=quality)(images) - images).square().mean().item() for quality in (10, 50, 95)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("quality", [0, 101, 50.0])
def test_a_jpeg_quality_out_of_range_is_refused(quality: object) -> None:
    with pytest.raises(OptionError, match="expected quality to be an integer from 1 to 100, got"):
        JPEG(quality=quality)  # type: ignore[arg-type]


# -- bit depth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_depth_leaves_two_to_the_bits_levels(bits: int) -> None:
    ramp = torch.linspace(0, 1, 3000).view(1, 3, 1, 1000)
    levels = BitDepth(bits=bits)(ramp).unique()
    torch.testing.assert_close(levels, torch.arange(2**bits) / (2**bits - 1))


def test_eight_bits_leave_an_eight_bit_picture_as_it_is() -> None:
    images = torch.arange(192).view(1, 3, 8, 8) / 255
    torch.testing.assert_close(BitDepth(bits=8)(images), images)


def test_bit_depth_takes_the_nearest_level() -> None:
    images = pictures(1, 3, 16, 16)
    assert (BitDepth(bits=3)(images) - images).abs().max() <= 0.5 / 7 + 1e-6


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(OptionError, match=f"expected bits to be an integer from 1 to 8, got {bits}"):
        BitDepth(bits=bits)


# -- median ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [(2, 3), (13, 10)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_median_equals_the_median_of_numpy(kernel_size: int, size: tuple[int, int]) -> None:
    images, radius = pictures(1, 3, *size), kernel_size // 2
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (radius, radius), (radius, radius)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size, kernel_size), axis=(2, 3))
    np.testing.assert_array_equal(Median(kernel_size=kernel_size)(images).numpy(), np.median(windows, axis=(-2, -1)))


def test_median_removes_a_lone_bright_pixel() -> None:
    images = torch.full((1, 3, 7, 7), 0.25)
    images[..., 3, 3] = 1
    assert torch.equal(Median()(images), torch.full((1, 3, 7, 7), 0.25))


# -- total variation ------------------------------------------------------------------------------------------------


def variation(images: Tensor) -> float:
    """Isotropic total variation over all channels together."""
    down = torch.zeros_like(images)
    right = torch.zeros_like(images)
    down[..., :-1, :] = images[..., 1:, :] - images[..., :-1, :]
    right[..., :-1] = images[..., 1:] - images[..., :-1]
    return float((down.square() + right.square()).sum(1).sqrt().sum())


def kept(size: tuple[int, int], keep: float, seed: int) -> Tensor:
    return (torch.rand(size, generator=torch.Generator().manual_seed(seed)) < keep).double()


def test_tvm_lowers_the_total_variation() -> None:
    images = pictures(1, 3, 24, 30)
    assert variation(TVM()(images)) < 0.5 * variation(images)


def test_the_objective_of_tvm_falls_with_the_steps() -> None:
    images, weight = pictures(1, 3, 24, 30, dtype=torch.float64), 0.1
    mask = kept((24, 30), 0.7, 3)

    def objective(z: Tensor) -> float:
        return float(0.5 * (mask * (z - images)).square().sum()) + weight * variation(z)

    values = [objective(TVM(keep=0.7, weight=weight, seed=3, steps=s)(images)) for s in (1, 5, 20, 80, 320, 640)]
    assert objective(images) > values[0]
    assert all(later < earlier for earlier, later in pairwise(values))
    assert values[-2] - values[-1] < 0.01 * (values[0] - values[-1])


def test_tvm_reaches_the_minimum_of_its_objective() -> None:
    images, weight = pictures(1, 3, 6, 6, dtype=torch.float64), 0.1
    mask = kept((6, 6), 0.7, 3)
    z = TVM(keep=0.7, weight=weight, seed=3, steps=3000)(images)

    def objective(z: Tensor) -> float:
        return float(0.5 * (mask * (z - images)).square().sum()) + weight * variation(z)

    least = objective(z)
    for seed in range(20):
        step = 0.01 * (pictures(1, 3, 6, 6, seed=seed, dtype=torch.float64) - 0.5)
        assert objective(z + step) > least - 1e-6


def test_tvm_keeps_a_constant_image() -> None:
    images = torch.full((1, 3, 12, 12), 0.4)
    torch.testing.assert_close(TVM()(images), images, rtol=0, atol=1e-6)


def test_tvm_of_no_weight_is_the_identity() -> None:
    images = pictures(1, 3, 12, 12)
    assert torch.equal(TVM(weight=0)(images), images)


def test_the_seed_of_tvm_decides_which_pixels_are_kept() -> None:
    images = pictures(1, 3, 12, 12)
    assert not torch.equal(TVM(seed=0)(images), TVM(seed=1)(images))


# -- resizing -------------------------------------------------------------------------------------------------------


def test_resizing_at_scale_one_is_the_identity() -> None:
    images = pictures(1, 3, 13, 10)
    torch.testing.assert_close(ResizePad(scale=1)(images), images)


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.7, 0.9])
def test_resizing_keeps_a_centred_square_centred(scale: float) -> None:
    images = torch.zeros(1, 3, 33, 33)
    images[..., 12:21, 12:21] = 1
    out = ResizePad(scale=scale)(images)
    at = torch.arange(33.0)
    for axis in (-1, -2):
        profile = out[0, 0].sum(axis)
        assert float((profile * at).sum() / profile.sum()) == pytest.approx(16, abs=1e-3)
    torch.testing.assert_close(out, out.flip(-1, -2), rtol=0, atol=1e-5)


def test_resizing_loses_a_checkerboard_and_keeps_a_constant() -> None:
    board = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).float().expand(1, 3, -1, -1)
    assert ResizePad(scale=0.5)(board).std() < 0.1 * board.std()
    torch.testing.assert_close(ResizePad(scale=0.5)(torch.full((1, 3, 9, 7), 0.3)), torch.full((1, 3, 9, 7), 0.3))


@pytest.mark.parametrize("scale", [0, 1.5, "half", True])
def test_a_scale_out_of_range_is_refused(scale: object) -> None:
    with pytest.raises(OptionError, match=r"expected scale to be a number from 0\.01 to 1, got"):
        ResizePad(scale=scale)  # type: ignore[arg-type]


# -- noise ----------------------------------------------------------------------------------------------------------


def test_noise_stays_within_eps_and_has_its_standard_deviation() -> None:
    images = torch.full((1, 3, 200, 200), 0.5)
    narrow = ProjectedNoise(sigma=0.05, eps=16 / 255)(images) - images
    assert narrow.abs().max() == pytest.approx(16 / 255, abs=1e-6)
    wide = ProjectedNoise(sigma=0.05, eps=1)(images) - images
    assert float(wide.std()) == pytest.approx(0.05, rel=0.02)
    assert abs(float(wide.mean())) < 0.001


def test_noise_of_no_sigma_is_the_identity() -> None:
    images = pictures(1, 3, 9, 8)
    assert torch.equal(ProjectedNoise(sigma=0)(images), images)


def test_noise_follows_its_generator_and_leaves_the_global_one_alone() -> None:
    noise, images = ProjectedNoise(), pictures(1, 3, 9, 8)
    before = torch.get_rng_state()
    noise.generator = torch.Generator().manual_seed(3)
    first = noise(images)
    noise.generator.manual_seed(3)
    assert torch.equal(noise(images), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_tvm_has_finite_gradients_in_half_precision_where_images_are_flat() -> None:
    images = torch.full((1, 3, 16, 16), 0.25, dtype=torch.float16)
    images[..., 8:] = 0.75
    images.requires_grad_(True)
    for dtype in (torch.float16, torch.bfloat16):
        (gradient,) = torch.autograd.grad(Purifier.from_pretrained("tvm", dtype=dtype)(images).sum(), images)
        assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_tvm_keeps_the_same_pixels_whatever_torchs_default_dtype_is() -> None:
    images, purify = torch.rand(1, 3, 9, 8), Purifier.from_pretrained("tvm")
    expected = purify(images)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(purify(images), expected)
    finally:
        torch.set_default_dtype(torch.float32)
