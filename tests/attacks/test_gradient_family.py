"""FGSM and its family: each member's own part, against closed forms."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from purifier import OptionError
from purifier.attacks import APGD, BIM, DIFGSM, DITIFGSM, FGSM, MIFGSM, PGD, RFGSM, TIFGSM, Attack
from purifier.attacks.tifgsm import smooth
from tests.attacks.victims import examples, trained

WEIGHTS = torch.linspace(-1, 1, 3 * 6 * 6).view(3, 6, 6)
IMAGES = torch.full((2, 3, 6, 6), 0.5)


def weighed(images: Tensor) -> Tensor:
    return (images * WEIGHTS.to(images)).flatten(1).sum(1)


def first(outputs: Tensor, targets: object) -> Tensor:
    return outputs


@pytest.mark.parametrize("attack", [FGSM, BIM, MIFGSM, lambda **o: PGD(random_start=False, **o)])
def test_a_linear_loss_is_climbed_to_the_corner_or_along_its_gradient(attack: Callable[..., Attack]) -> None:
    found = attack(eps=0.1, loss=first)(weighed, IMAGES, None)
    assert torch.allclose(found, IMAGES + 0.1 * WEIGHTS.sign(), atol=1e-6)
    found = attack(eps=0.1, norm="L2", loss=first)(weighed, IMAGES, None)
    assert torch.allclose(found, IMAGES + 0.1 * WEIGHTS / WEIGHTS.norm(), atol=1e-6)


def test_a_scalar_loss_is_accepted() -> None:
    found = FGSM(eps=0.1, loss=lambda outputs, targets: outputs.mean())(weighed, IMAGES, None)
    assert torch.allclose(found, IMAGES + 0.1 * WEIGHTS.sign(), atol=1e-6)


def test_targets_of_any_type_reach_the_loss_untouched() -> None:
    targets, seen = [{"boxes": "any"}], []

    def loss(outputs: Tensor, given: Tensor) -> Tensor:
        seen.append(given)
        return outputs

    PGD(steps=1, loss=loss)(weighed, IMAGES, targets)
    assert seen[0] is targets


def test_iterative_attacks_beat_one_step_on_a_trained_model() -> None:
    victim, (images, labels) = trained(), examples(40, seed=4)

    def reached(attack: Attack) -> Tensor:
        with torch.no_grad():
            return F.cross_entropy(victim(attack.seeded(0)(victim, images, labels)), labels)

    one = reached(FGSM(eps=0.1))
    assert one > reached(RFGSM(eps=0.1)) - 0.05
    assert all(reached(attack) > one for attack in (BIM(eps=0.1), PGD(eps=0.1), MIFGSM(eps=0.1), APGD(eps=0.1)))


def test_rfgsm_takes_a_random_step_and_then_a_gradient_step() -> None:
    found = RFGSM(eps=0.1, alpha=0.04, loss=first).seeded(0)(weighed, IMAGES, None)
    random_step = (found - IMAGES - 0.04 * WEIGHTS.sign()) / 0.06
    assert torch.allclose(random_step.abs(), torch.ones_like(random_step), atol=1e-5)
    assert 0.3 < (random_step > 0).float().mean() < 0.7


def test_momentum_adds_up_gradients_of_equal_length() -> None:
    """Two steps by hand: eq. 6 and 7 of the paper."""
    images, victim = IMAGES.double(), lambda x: (x**3).flatten(1).mul(torch.linspace(-1, 1, 108).double()).sum(1)

    def gradient(x: Tensor) -> Tensor:
        return 3 * x**2 * torch.linspace(-1, 1, 108).double().view(3, 6, 6)

    one = gradient(images)
    direction = one / one.abs().sum((1, 2, 3), keepdim=True)
    step = images + 0.02 * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    two = gradient(step)
    direction = 0.5 * direction + two / two.abs().sum((1, 2, 3), keepdim=True)
    expected = step + 0.02 * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    found = MIFGSM(eps=1.0, alpha=0.02, steps=2, norm="L2", decay=0.5, loss=first)(victim, images, None)
    assert torch.allclose(found, expected, atol=1e-12)


def test_momentum_without_decay_equals_bim() -> None:
    victim, (images, labels) = trained(), examples(6)
    options = {"eps": 0.05, "alpha": 0.01, "steps": 5}
    assert torch.equal(MIFGSM(decay=0.0, **options)(victim, images, labels), BIM(**options)(victim, images, labels))


def test_views_are_shrunk_and_padded_to_the_same_size() -> None:
    seen = []

    def watch(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return weighed(images)

    DIFGSM(steps=20, shrink=0.5, probability=1.0, loss=first).seeded(0)(watch, IMAGES, None)
    borders = [int((view[0, 0] == 0).all(1).sum()) for view in seen]
    assert {tuple(view.shape) for view in seen} == {tuple(IMAGES.shape)}
    assert max(borders) == 3 and len(set(borders)) > 2
    assert any(bool((view[0, 0, 0] == 0).all()) for view in seen)
    assert any(bool((view[0, 0, -1] == 0).all()) for view in seen)


def test_views_are_taken_with_the_given_probability() -> None:
    seen = []

    def watch(images: Tensor) -> Tensor:
        seen.append(bool((images == 0).any()))
        return weighed(images)

    for probability in (0.0, 0.3):
        seen.clear()
        DIFGSM(steps=100, shrink=0.5, probability=probability, loss=first).seeded(0)(watch, IMAGES, None)
        assert probability / 2 <= sum(seen) / 100 <= 1.3 * probability


def test_without_views_and_smoothing_dim_ti_is_mi_fgsm() -> None:
    victim, (images, labels) = trained(), examples(6)
    found = DITIFGSM(probability=0.0, kernel_size=1)(victim, images, labels)
    assert torch.equal(found, MIFGSM()(victim, images, labels))


def test_smoothing_is_a_gaussian_that_keeps_a_constant() -> None:
    impulse = torch.zeros(1, 2, 31, 31)
    impulse[0, 0, 15, 15] = 1
    kernel = smooth(impulse, 15)[0]
    assert kernel[0].sum() == pytest.approx(1, abs=1e-5) and not kernel[1].any()
    assert torch.count_nonzero(kernel[0]) == 15 * 15
    # exp(-(i^2 + j^2) / 2 sigma^2), sigma = 7 / sqrt(3)
    expected = torch.exp(torch.tensor(-(3.0**2 + 2.0**2) / (2 * 49 / 3)))
    assert kernel[0, 18, 17] / kernel[0, 15, 15] == pytest.approx(float(expected), abs=1e-5)
    assert torch.allclose(smooth(torch.ones(1, 3, 40, 40), 15)[..., 10:-10, 10:-10], torch.ones(1, 3, 20, 20))


def test_translation_invariance_smooths_the_gradient() -> None:
    weights = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(2))
    found = TIFGSM(eps=0.1, steps=1, kernel_size=3, loss=first)(lambda x: (x * weights).flatten(1).sum(1), IMAGES, None)
    assert torch.allclose(found, IMAGES + 0.1 * smooth(weights[None], 3).sign(), atol=1e-6)


def test_a_gradient_that_is_not_finite_leaves_its_pixel_alone() -> None:
    def victim(images: Tensor) -> Tensor:
        return weighed(images) + (images[:, 0, 0, 0] - 0.5).abs().sqrt()

    found = FGSM(eps=0.1, loss=first)(victim, IMAGES, None)
    assert found[0, 0, 0, 0] == 0.5
    assert torch.allclose(found[:, 1:], (IMAGES + 0.1 * WEIGHTS.sign())[:, 1:], atol=1e-6)


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (lambda: MIFGSM(decay=-1), "expected decay >= 0, got -1"),
        (lambda: DIFGSM(shrink=0), r"expected shrink in \(0, 1\] and probability in \[0, 1\], got shrink=0"),
        (lambda: DIFGSM(probability=2), "probability=2"),
        (lambda: TIFGSM(kernel_size=4), "expected kernel_size to be an odd integer of at least 1, got 4"),
        (lambda: BIM(steps=-1), "expected steps to be an integer of at least 0, got -1"),
        (lambda: BIM(steps=1.5), "expected steps to be an integer of at least 0, got 1.5"),
        (lambda: MIFGSM(steps=True), "expected steps to be an integer of at least 0, got True"),
        (lambda: BIM(alpha=2), r"expected alpha in units of the \[0, 1\] image range, got 2; write 2/255, not 2"),
        (lambda: PGD(eps="8/255", alpha=0.1), "expected eps to be a number, got '8/255'"),
    ],
)
def test_options_out_of_range_are_refused(attack: Callable[[], Attack], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        attack()
