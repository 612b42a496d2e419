"""Perturbations that many images share: patches and universal perturbations."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from purifier import InputError, OptionError
from purifier.attacks import PGD, DetectionAttack, Patch, Universal
from tests.attacks.victims import examples, trained

WEIGHTS = torch.linspace(-1, 1, 3 * 12 * 12).view(3, 12, 12)


def weighed(images: Tensor) -> Tensor:
    return (images * WEIGHTS).flatten(1).sum(1)


def first(outputs: Tensor, targets: object) -> Tensor:
    return outputs


def accuracy(victim: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((victim(images).argmax(1) == labels).float().mean())


# Patches.


@pytest.mark.parametrize("shared", [True, False])
def test_a_fixed_patch_changes_its_square_only(shared: bool) -> None:
    victim, (images, labels) = trained(), examples(6)
    found = Patch(size=1 / 3, place="fixed", top=0, left=1, shared=shared, steps=3)(victim, images, labels)
    changed = (found != images).any(1)
    assert bool(changed[:, :4, 8:].float().mean() > 0.99) and not changed[:, 4:].any() and not changed[:, :, :8].any()
    assert torch.equal(found[0, :, :4, 8:], found[1, :, :4, 8:]) == shared


def test_the_patch_of_a_linear_model_is_the_sign_of_its_weights() -> None:
    images = torch.rand(3, 3, 12, 12)
    attack = Patch(size=0.5, place="fixed", top=1, left=0, steps=40, alpha=0.1, loss=first)
    patch = attack.learn(weighed, images, None)
    assert torch.equal(patch, (WEIGHTS[None, :, 6:, :6] > 0).float())


def test_random_places_differ_between_images_and_cover_all_corners() -> None:
    attack, images = Patch(size=0.5).seeded(0), torch.zeros(200, 3, 12, 12)
    found = attack.apply(images, torch.ones(1, 3, 6, 6))
    assert bool((found.sum((1, 2, 3)) == 3 * 36).all())
    corners = found[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].sum(0)
    assert bool((corners > 0).all()) and bool((corners < 20).all())


def test_a_patch_learnt_at_random_places_fools_unseen_images_more_than_noise() -> None:
    victim, (seen, labels), (unseen, truth) = trained(), examples(30, seed=2), examples(30, seed=3)
    attack = Patch(size=0.5, steps=30, alpha=0.1)
    patch = attack.seeded(0).learn(victim, seen, labels)
    learnt = accuracy(victim, attack.seeded(1).apply(unseen, patch), truth)
    noise = accuracy(victim, attack.seeded(1).apply(unseen, torch.rand_like(patch)), truth)
    assert learnt < noise - 0.1


def test_a_detector_gets_a_patch_for_each_image() -> None:
    images = torch.rand(2, 3, 12, 12)
    attack = DetectionAttack(
        Patch(size=0.5, place="fixed", top=0, left=0, steps=40, alpha=0.1), loss=lambda outputs, targets: outputs
    )
    found = attack(weighed, images, [None, None])
    assert attack.name == "Patch-<lambda>"
    assert torch.equal(found[:, :, :6, :6], (WEIGHTS[None, :, :6, :6] > 0).float().expand(2, -1, -1, -1))


def test_patches_that_do_not_fit_are_refused() -> None:
    images = torch.rand(2, 3, 12, 12)
    for shape in ((1, 3, 13, 13), (3, 3, 4, 4), (1, 1, 4, 4), (1, 3, 4, 5), (3, 4, 4)):
        with pytest.raises(InputError, match=r"expected patches of shape \(1 or 2, 3, S, S\) no larger"):
            Patch().apply(images, torch.rand(shape))


# Universal perturbations.


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_perturbation_of_a_linear_model_is_that_of_its_weights(norm: str) -> None:
    images = torch.rand(7, 3, 12, 12) * 0.2 + 0.4
    loss = {"loss": first, "clip": 1e6}
    delta = Universal(eps=0.1, norm=norm, batch=3, steps=4, **loss).learn(weighed, images, None)
    expected = WEIGHTS.sign() if norm == "Linf" else WEIGHTS / WEIGHTS.norm()
    assert torch.allclose(delta[0], 0.1 * expected, atol=1e-6)


def test_all_images_get_one_perturbation_that_fools_unseen_ones_too() -> None:
    victim, (seen, labels), (unseen, truth) = trained(), examples(40, seed=2), examples(40, seed=3)
    attack = Universal(eps=0.15, batch=10)
    delta = attack.seeded(0).learn(victim, seen, labels)
    assert delta.abs().max() <= 0.15 + 1e-6
    assert torch.equal(attack.seeded(0)(victim, seen, labels), (seen + delta).clamp(0, 1))
    assert accuracy(victim, (unseen + delta).clamp(0, 1), truth) < accuracy(victim, unseen, truth) - 0.1
    alone = accuracy(victim, PGD(eps=0.15).seeded(0)(victim, seen, labels), labels)
    assert alone <= accuracy(victim, (seen + delta).clamp(0, 1), labels)


def test_losses_above_the_clip_do_not_count() -> None:
    images = torch.rand(2, 3, 12, 12) * 0.2 + 0.4
    low, high = torch.zeros(3, 12, 12), torch.zeros(3, 12, 12)
    low[:, :6], high[:, 6:] = 1, 1

    def two(x: Tensor) -> Tensor:
        return torch.stack([(x[0] * low).sum(), (x[1] * high).sum() + 1000])

    delta = Universal(eps=0.1, clip=500.0, loss=first).learn(two, images, None)
    assert len(images) == 2 and bool((delta[0][:, 6:] == 0).all())


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (lambda: Patch(size=0), "expected size to be a number from 1e-06 to 1, got 0"),
        (lambda: Patch(place="left"), "expected place='random' or place='fixed', got 'left'"),
        (lambda: Patch(top=2), "expected top to be a number from 0 to 1, got 2"),
        (lambda: Patch(samples=0), "expected samples to be an integer of at least 1, got 0"),
        (lambda: Patch(shared=1), "expected shared to be True or False, got 1"),
        (lambda: Universal(batch=0), "expected batch to be an integer of at least 1, got 0"),
        (lambda: Universal(clip=0), "expected clip > 0, got 0"),
    ],
)
def test_options_out_of_range_are_refused(attack: Callable[[], object], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        attack()


@pytest.mark.parametrize("attack", [Patch(steps=1), Universal(steps=1)])
def test_there_is_nothing_to_learn_from_no_images(attack: Patch | Universal) -> None:
    with pytest.raises(InputError, match="expected at least one image to learn"):
        attack.learn(trained(), torch.rand(0, 3, 12, 12), torch.zeros(0, dtype=torch.long))
