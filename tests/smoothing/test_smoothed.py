"""Certificates against closed forms of a linear classifier, and against an attack that tries to break them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import InputError, OptionError, Purifier, attach, wrap
from purifier._convention import Convention
from purifier.attacks import EOT, PGD
from purifier.smoothing import ABSTAIN, Smoothed, lower_bound
from tests.attacks.victims import examples, trained
from tests.builders import pictures, small_purifier

SIGMA = 0.25


def halves(weight: float = 0.5) -> nn.Module:
    """A linear classifier of two classes: class 1 if the sum of the red channel is above its half."""
    layer = nn.Linear(48, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, :16] = weight
        layer.bias.copy_(torch.tensor([0.0, -8.0 * weight]))
    return nn.Sequential(nn.Flatten(), layer).eval()


def at(distance: float) -> Tensor:
    """An image at a distance from the border between the classes of `halves`."""
    image = torch.full((3, 4, 4), 0.5)
    image[0] += distance / 4
    return image


def smoothed(model: Callable[..., Any], **options: Any) -> Smoothed:
    return Smoothed(model, **{"sigma": SIGMA, "generator": torch.Generator().manual_seed(0), **options})


@pytest.mark.parametrize("distance", [0.1, 0.3, 0.6])
def test_the_radius_of_a_linear_classifier_is_just_below_the_distance_to_its_border(distance: float) -> None:
    found = smoothed(halves(), batch_size=1000).certify(at(distance), draws=20_000)
    assert found.label == 1 and found.draws == 20_000
    # The bound of 20,000 draws of the exact probability, give or take four standard deviations of the share.
    chance = NormalDist().cdf(distance / SIGMA)
    spread = 4 * (20_000 * chance * (1 - chance)) ** 0.5
    low = lower_bound(int(20_000 * chance - spread), 20_000, 0.001)
    assert SIGMA * NormalDist().inv_cdf(low) <= found.radius < distance


def test_certificates_exceed_the_true_radius_no_more_often_than_alpha() -> None:
    judge = smoothed(halves(), batch_size=100)
    wrong = sum(judge.certify(at(0.2), first_draws=10, draws=100, alpha=0.1).radius > 0.2 for _ in range(200))
    assert 0 < wrong < 20 + 4 * (200 * 0.1 * 0.9) ** 0.5


def test_the_radius_grows_with_the_draws_up_to_that_of_draws_that_all_hit() -> None:
    judge = smoothed(halves(), batch_size=1000)
    radii = [judge.certify(at(2.0), draws=draws).radius for draws in (20, 200, 2000)]
    expected = [SIGMA * NormalDist().inv_cdf(0.001 ** (1 / draws)) for draws in (20, 200, 2000)]
    assert radii == pytest.approx(expected)


def test_an_image_on_the_border_gets_no_certificate_and_no_prediction() -> None:
    judge = smoothed(halves())
    found = judge.certify(at(0.0), draws=500)
    assert found.label is None and found.radius == 0.0
    assert int(judge.predict(at(0.0), draws=200)) == ABSTAIN


def test_a_certificate_that_cannot_come_any_more_stops_early() -> None:
    found = smoothed(halves(), batch_size=50).certify(at(0.0), draws=1000)
    assert found.label is None and found.draws < 1000


def test_looks_stop_at_a_radius_that_is_enough_with_a_bound_for_all_of_them() -> None:
    found = smoothed(halves(), batch_size=50).certify(at(2.0), draws=1000, enough=0.3, looks=10)
    assert found.draws == 100
    assert found.lower == pytest.approx(lower_bound(100, 100, 0.001 / 10))


def test_predictions_are_those_of_the_classifier_far_from_its_border() -> None:
    images = torch.stack([at(1.0), at(-1.0), at(1.5)])
    assert smoothed(halves()).predict(images).tolist() == [1, 0, 1]
    assert smoothed(halves()).predict(images[0]).shape == ()


def test_counts_do_not_depend_on_the_batch_size() -> None:
    one, many = (smoothed(halves(), batch_size=size).counts(at(0.2), 64) for size in (1, 64))
    assert one.sum() == many.sum() == 64 and torch.equal(one, many)


def test_no_attack_within_the_radius_changes_a_certified_prediction() -> None:
    images, _ = examples(30, seed=3)
    judge = smoothed(trained(), denoiser=small_purifier("gs"), sigma=0.12, batch_size=200)
    attack = EOT(attack=PGD(norm="L2", eps=1.0, alpha=0.25, steps=8), samples=10)
    broken = certified = moved = 0
    for image in images:
        found = judge.certify(image, draws=400)
        if found.label is None:
            continue
        certified += 1
        noisy = lambda x: judge.logits(x + judge.sigma * torch.randn_like(x))  # noqa: E731
        target = torch.tensor([found.label])
        within = attack.with_eps(0.98 * found.radius).seeded(0)(noisy, image[None], target)[0]
        assert (within - image).norm() <= found.radius
        broken += int(judge.predict(within, draws=400)) not in (found.label, ABSTAIN)
        # Far outside, the same attack does change predictions: it is no straw man.
        beyond = attack.with_eps(6.0).seeded(0)(noisy, image[None], target)[0]
        moved += int(judge.predict(beyond, draws=100)) != found.label
        if certified == 8:
            break
    assert certified == 8 and broken == 0 and moved >= 6


def test_a_denoiser_recovers_predictions_that_noise_destroys() -> None:
    # The denoiser knows the images: it returns the mean colour of each channel.
    class Mean(nn.Module):
        def purify(self, images: Tensor) -> Tensor:
            return images.mean((2, 3), keepdim=True).expand_as(images)

    image, model = torch.full((3, 4, 4), 0.52), nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[1, 0] = 1.0
        model[1].bias.copy_(torch.tensor([0.0, -0.5]))
    bare, denoised = smoothed(model), smoothed(model)
    denoised.denoiser = Mean()  # type: ignore[assignment]
    assert denoised.counts(image, 2000)[1] > bare.counts(image, 2000)[1] + 50


def test_the_normalisation_of_the_model_is_applied_after_the_denoiser() -> None:
    seen: list[Tensor] = []

    def model(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.zeros(len(images), 2)

    judge = smoothed(model, denoiser=Purifier.from_pretrained("gs"), mean=[0.5] * 3, std=[0.5] * 3)
    judge.logits(torch.full((1, 3, 4, 4), 0.75))
    torch.testing.assert_close(seen[0], torch.full((1, 3, 4, 4), 0.5))


@pytest.mark.parametrize("way", ["wrap", "attach"])
@pytest.mark.parametrize("convention", [{}, {"mean": [0.5] * 3, "std": [0.25] * 3}, {"channels": "BGR"}])
def test_a_purifier_in_front_of_the_model_is_a_denoiser_in_its_own_convention(
    way: str, convention: dict[str, Any]
) -> None:
    model, purifier = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval(), small_purifier("gs")
    images = pictures(3, 3, 4, 4)
    if way == "wrap":
        defended = wrap(model, purifier, **convention)
    else:
        attach(defended := copy.deepcopy(model), purifier, **convention)
    expected = defended(Convention.of(**convention).from_unit(images, images))
    judge = smoothed(defended, sigma=0.5)
    torch.testing.assert_close(judge.logits(images), expected)
    # Noise of this size leaves [0, 1] by more than a purifier takes in a call.
    assert judge.predict(images, draws=20).shape == (3,)
    if not convention:
        assert judge.certify(images[0]) == smoothed(model, denoiser=purifier, sigma=0.5).certify(images[0])


def test_a_denoiser_comes_before_the_purifier_of_the_model() -> None:
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval(), pictures(2, 3, 4, 4)
    jpeg, gs = Purifier.from_pretrained("jpeg"), small_purifier("gs")
    torch.testing.assert_close(smoothed(wrap(model, gs), denoiser=jpeg).logits(images), model(gs(jpeg(images))))


def test_mean_and_std_beside_those_of_a_wrapper_are_refused() -> None:
    with pytest.raises(
        OptionError, match=r"expected no mean and std for a model that has a purifier.*give them to wrap"
    ):
        smoothed(wrap(halves(), small_purifier("gs")), mean=[0.5] * 3, std=[0.5] * 3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_no_votes(value: float) -> None:
    judge = smoothed(lambda x: torch.full((len(x), 5), value))
    for ask in (judge.certify, judge.predict):
        with pytest.raises(
            InputError, match="expected finite logits from the model, got NaN or infinity for 100 of 100"
        ):
            ask(at(0.1))


def test_a_class_that_the_model_rules_out_is_no_fault() -> None:
    ruled_out = smoothed(lambda x: torch.tensor([-torch.inf, 1.0]).expand(len(x), 2))
    assert int(ruled_out.predict(at(0.1))) == 1


def test_equal_seeds_give_equal_certificates() -> None:
    assert smoothed(halves()).certify(at(0.1)) == smoothed(halves()).certify(at(0.1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sigma": 0}, "expected sigma > 0, in units of the \\[0, 1\\] range, such as 0.25, got 0"),
        ({"sigma": True}, "expected sigma > 0"),
        ({"batch_size": 0}, "expected batch_size"),
        ({"generator": 5}, r"expected generator to be a torch.Generator or None, got 5; make one from a seed"),
        ({"generator": "cpu"}, "expected generator to be a torch.Generator or None, got 'cpu'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        smoothed(halves(), **options)


def test_bad_input_is_refused() -> None:
    judge = smoothed(halves())
    with pytest.raises(InputError, match=r"expected one image \(3, H, W\) to certify, got shape \(2, 3, 4, 4\)"):
        judge.certify(torch.rand(2, 3, 4, 4))
    with pytest.raises(InputError, match=r"expected images in \[0, 1\], got values .* give the mean and std"):
        judge.predict(torch.rand(1, 3, 4, 4) * 255)
    with pytest.raises(InputError, match="expected images in single or double precision"):
        judge.predict(torch.rand(1, 3, 4, 4).half())
    with pytest.raises(InputError, match=r"expected logits \(1, classes\) from the model, got dict"):
        smoothed(lambda x: {"out": x}).logits(torch.rand(1, 3, 4, 4))
    with pytest.raises(InputError, match="expected a model in eval mode"):
        smoothed(nn.Sequential(nn.Dropout(), nn.Flatten(), nn.Linear(48, 2))).predict(torch.rand(1, 3, 4, 4))
    for name, value in (("draws", 0), ("first_draws", 0), ("looks", 0)):
        with pytest.raises(OptionError, match=f"expected {name}"):
            judge.certify(at(0.1), **{name: value})
    for odd in (-1.0, True, "1"):
        with pytest.raises(OptionError, match="expected enough to be a number"):
            judge.certify(at(0.1), enough=odd)  # type: ignore[arg-type]
