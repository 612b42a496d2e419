"""Wavelet denoising against scikit-image, and the network that doubles the sides."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError, Purifier
from purifier.methods._wavelets import denoised
from purifier.methods.wavelet_sr import WaveletSR
from tests.builders import pictures


def of_scikit_image(images: Tensor, sigma: float, levels: int) -> Tensor:
    restoration = pytest.importorskip("skimage.restoration", reason="needs the extra [demo]")
    pytest.importorskip("pywt", reason="scikit-image needs PyWavelets for this")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            restoration.denoise_wavelet(
                image.permute(1, 2, 0).double().numpy(),
                sigma=sigma, wavelet="db1", mode="soft", wavelet_levels=levels, convert2ycbcr=True,
                method="BayesShrink", channel_axis=-1, rescale_sigma=True,
            )
            for image in images
        ]  # fmt: skip
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float().clamp(0, 1)


@pytest.mark.parametrize(("sigma", "levels"), [(0.01, 4), (0.04, 4), (0.04, 2), (0.2, 3)])
def test_the_wavelets_equal_those_of_scikit_image(sigma: float, levels: int) -> None:
    random = torch.Generator().manual_seed(0)
    images = (pictures(2, 3, 64, 48) + 0.03 * torch.randn(2, 3, 64, 48, generator=random)).clamp(0, 1)
    ours = denoised(images, sigma, levels).clamp(0, 1)
    assert (ours - of_scikit_image(images, sigma, levels)).abs().max() < 1e-4
    assert (ours - images).abs().mean() > 1e-4


def test_denoising_lowers_the_error_of_a_noisy_picture() -> None:
    ramp = torch.linspace(0, 1, 64)
    clean = torch.stack((ramp.expand(64, 64), ramp[:, None].expand(64, 64), (ramp * 6).sin().expand(64, 64) / 2 + 0.5))[
        None
    ]
    noisy = clean + 0.04 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    errors = [(image - clean).square().mean() for image in (noisy, denoised(noisy, 0.04, 4))]
    assert errors[1] < 0.6 * errors[0]


def test_a_size_that_is_no_multiple_gives_what_its_reflection_gives() -> None:
    images = pictures(1, 3, 30, 27)
    rows, columns = [*range(30), 28, 27], [*range(27), *range(25, 20, -1)]
    padded = images[:, :, rows][..., columns]
    torch.testing.assert_close(denoised(images, 0.04, 4), denoised(padded, 0.04, 4)[..., :30, :27])


def test_a_flat_picture_stays_flat() -> None:
    images = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(denoised(images, 0.04, 4), images)


def test_gradients_of_the_whole_method_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    method = WaveletSR(levels=2, filters=4, growth=2, layers=1).double()
    images = pictures(1, 3, 8, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(method, (images,), eps=1e-7, atol=1e-4)


def test_without_noise_only_the_network_is_applied() -> None:
    images = pictures(1, 3, 16, 16)
    method = WaveletSR(sigma=0, filters=4, growth=2, layers=1)
    expected = nn.functional.avg_pool2d(method.network(images), 2)
    torch.testing.assert_close(method(images), expected)


def test_the_shipped_network_nearly_keeps_a_photograph_that_it_doubles_and_averages() -> None:
    data = pytest.importorskip("skimage.data", reason="needs the extra [demo]")
    photograph = torch.from_numpy(data.astronaut()[100:196, 200:296].copy()).permute(2, 0, 1)[None] / 255
    out = Purifier.from_pretrained("wavelet-sr", sigma=0)(photograph)
    assert 10 * (1 / (out - photograph).square().mean()).log10() > 30


@pytest.mark.parametrize(
    ("option", "message"),
    [({"sigma": -0.1}, "expected sigma"), ({"levels": 0}, "expected levels"), ({"filters": 0}, "expected filters")],
)
def test_options_out_of_range_are_refused(option: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        WaveletSR(**option)  # type: ignore[arg-type]
