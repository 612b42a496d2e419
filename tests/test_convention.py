"""Images as they come: a little outside [0, 1], BGR, in 0..255, grey."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import purifier
from purifier import InputError, OptionError, PurifiedModel, Purifier, PurifierWarning, _convention, _errors, _wrapping
from tests.builders import pictures

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGES = pictures(2, 3, 24, 24)


@pytest.fixture(autouse=True)
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that are clamped are warned of once per process; one test looks at it."""
    monkeypatch.setattr(_errors, "_given", {_convention.CLAMPED, _wrapping.PROMISE})


def see(purify: Purifier, **options: object) -> PurifiedModel:
    """A model that gives back what it is fed."""
    return purifier.wrap(lambda images: images, purify, **options)  # type: ignore[arg-type]


@pytest.fixture
def purify() -> Purifier:
    return Purifier.from_pretrained("gs", iterations=2)


def bicubic() -> Tensor:
    edges = (pictures(2, 3, 8, 8) > 0.5).float()
    resized = F.interpolate(edges, (32, 32), mode="bicubic")
    assert resized.min() < -0.05 and resized.max() > 1.05
    return resized


def noisy() -> Tensor:
    return IMAGES + 0.25 * torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [bicubic, noisy])
@pytest.mark.parametrize("normalised", [False, True])
def test_resampling_and_noise_are_clamped(make: object, normalised: bool, purify: Purifier) -> None:
    images: Tensor = make()  # type: ignore[operator]
    want = purify(images.clamp(0, 1))
    if normalised:
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        found = see(purify, mean=MEAN, std=STD)((images - mean) / std) * std + mean
    else:
        found = see(purify)(images)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-5)


def test_the_warning_of_it_comes_once_and_names_the_option(purify: Purifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_errors, "_given", {_wrapping.PROMISE})
    with pytest.warns(PurifierWarning, match=r"bicubic resizing or with noise.*out_of_range='clamp' or 'refuse'"):
        see(purify)(bicubic())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        see(purify)(bicubic())


@pytest.mark.parametrize(
    "images",
    [IMAGES * 255, (IMAGES - 0.5) / 0.5, (IMAGES - 0.45) / 0.225],
    ids=["0..255", "minus one to one", "ImageNet"],
)
def test_other_ranges_are_refused_with_what_to_pass(images: Tensor, purify: Purifier) -> None:
    with pytest.raises(InputError, match=r"mean=.*std=.*255.*noisy or resampled images, pass out_of_range='clamp'"):
        see(purify)(images)


def test_strict_and_lenient_are_a_choice(purify: Purifier) -> None:
    with pytest.raises(InputError, match="expected images in"):
        see(purify, out_of_range="refuse")(bicubic())
    wild = 3 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(see(purify, out_of_range="clamp")(wild), purify(wild.clamp(0, 1)))
    with pytest.raises(OptionError, match="expected out_of_range out of 'auto', 'clamp', 'refuse', got 'no'"):
        see(purify, out_of_range="no")


def test_a_clamped_value_has_no_gradient_and_the_others_have_that_of_the_purifier(purify: Purifier) -> None:
    images = bicubic().requires_grad_()
    see(purify)(images).sum().backward()
    inside = images.detach().clamp(0, 1).requires_grad_()
    purify(inside).sum().backward()
    assert images.grad is not None and inside.grad is not None
    outside = (images < 0) | (images > 1)
    assert outside.any() and not images.grad[outside].any()
    # At the very ends of the range, torch decides.
    within = (images > 0) & (images < 1)
    torch.testing.assert_close(images.grad[within], inside.grad[within])


def test_images_in_bgr_are_purified_as_rgb(purify: Purifier) -> None:
    found = see(purify, channels="BGR")(IMAGES.flip(1))
    assert torch.equal(found, purify(IMAGES).flip(1))


def test_the_mean_of_bgr_images_is_given_in_the_order_of_rgb(purify: Purifier) -> None:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    values = ((IMAGES - mean) / std).flip(1)
    found = see(purify, channels="BGR", mean=MEAN, std=STD)(values)
    torch.testing.assert_close(found, ((purify(IMAGES) - mean) / std).flip(1), rtol=0, atol=1e-5)


def test_images_in_0_to_255_are_a_normalisation(purify: Purifier) -> None:
    found = see(purify, mean=0, std=1 / 255)(IMAGES * 255)
    torch.testing.assert_close(found, purify(IMAGES) * 255, rtol=0, atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"mean": [0.1307], "std": [0.3081]}], ids=["plain", "normalised"])
def test_a_model_of_one_channel_gets_one(options: dict[str, list[float]], purify: Purifier) -> None:
    digits = pictures(2, 1, 28, 28)
    want = purify(digits.expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    mean, std = options.get("mean", [0.0])[0], options.get("std", [1.0])[0]
    found = see(purify, **options)((digits - mean) / std)
    torch.testing.assert_close(found * std + mean, want, rtol=0, atol=1e-5)
    assert found.shape == (2, 1, 28, 28)


def test_one_channel_with_three_means_is_refused(purify: Purifier) -> None:
    with pytest.raises(InputError, match=r"expected three channels for mean=.*, got one; give one number for each"):
        see(purify, mean=MEAN, std=STD)(pictures(2, 1, 28, 28))


def test_a_white_page_that_is_normalised_needs_its_mean_and_std(purify: Purifier) -> None:
    page = torch.ones(1, 3, 24, 24)
    page[..., 10:12, 4:20] = 0.6
    values = page * 2 - 1
    found = see(purify, mean=0.5, std=0.5)(values)
    torch.testing.assert_close(found, purify(page) * 2 - 1, rtol=0, atol=1e-5)
    # Without them it looks like a picture in [0, 1]. Ordinary pictures are refused: see above.
    assert torch.equal(see(purify)(values), purify(values))


def test_values_in_the_range_by_rounding_are_left_alone(purify: Purifier) -> None:
    images = IMAGES * 1.02
    assert torch.equal(see(purify)(images), purify(images))


def test_an_image_in_another_range_is_refused_in_a_batch_of_good_ones_too(purify: Purifier) -> None:
    batch = torch.cat([torch.full((15, 3, 24, 24), 0.5), IMAGES[:1] * 2 - 0.5])
    for images in (batch[-1:], batch):
        with pytest.raises(InputError, match="expected images in"):
            see(purify)(images)


@pytest.mark.parametrize("out_of_range", ["auto", "clamp", "refuse"])
def test_nan_is_refused_whatever_happens_to_values_out_of_range(out_of_range: str, purify: Purifier) -> None:
    images = IMAGES.clone()
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="got NaN values"):
        see(purify, out_of_range=out_of_range)(images)


@pytest.mark.parametrize(("mean", "std"), [(float("nan"), 1), (0, float("inf")), ([0, float("inf"), 0], 1)])
def test_mean_and_std_are_finite(mean: object, std: object, purify: Purifier) -> None:
    with pytest.raises(OptionError, match=r"finite number per channel \(3\), got"):
        see(purify, mean=mean, std=std)
