"""Spatial: its movements against exact ones, and its search."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from purifier import InputError, OptionError
from purifier.attacks import Spatial
from purifier.attacks.spatial import rotate_and_shift
from tests.attacks.victims import examples, segmenter, trained


def only(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.double)


def test_quarter_turns_and_whole_shifts_are_exact() -> None:
    images = torch.rand(1, 3, 8, 8, dtype=torch.double)
    turned = rotate_and_shift(images, only(90), only(0), only(0))
    assert torch.allclose(turned, images.rot90(1, (2, 3)), atol=1e-9)
    moved = rotate_and_shift(images, only(0), only(0.25), only(0.125))
    assert torch.allclose(moved[..., 2:, 1:], images[..., :-2, :-1], atol=1e-9)
    assert moved[..., :2, :].abs().max() < 1e-9 and moved[..., :1].abs().max() < 1e-9


def test_shifts_follow_the_rotation_and_are_along_the_axes_of_the_result() -> None:
    images = torch.rand(1, 3, 8, 8, dtype=torch.double)
    found = rotate_and_shift(images, only(90), only(0.25), only(0))
    turned = rotate_and_shift(images, only(90), only(0), only(0))
    assert torch.allclose(found[..., 2:, :], turned[..., :-2, :], atol=1e-9)


@pytest.mark.parametrize("shape", [(16, 16), (12, 20)])
def test_movements_are_those_of_torchvision(shape: tuple[int, int]) -> None:
    images = torch.rand(1, 3, *shape, dtype=torch.double)
    found = rotate_and_shift(images, only(20), only(2 / shape[0]), only(-3 / shape[1]))
    expected = affine(images, -20, [-3, 2], 1.0, [0.0], InterpolationMode.BILINEAR)
    assert torch.allclose(found, expected, atol=1e-6)


def test_oblong_images_are_turned_without_distortion() -> None:
    images = torch.zeros(1, 1, 20, 40, dtype=torch.double)
    images[..., 8:12, 18:22] = 1  # a square in the middle
    turned = rotate_and_shift(images, only(90), only(0), only(0))
    assert torch.allclose(turned, images, atol=1e-9)


def test_the_grid_has_every_combination_and_the_worst_is_kept() -> None:
    victim, (images, labels) = trained(), examples(6)
    asked, right = [], torch.ones(6, dtype=torch.bool)

    def watch(x: Tensor) -> Tensor:
        asked.append(x)
        return victim(x)

    attack = Spatial(rotation=40, shift=0.25, angles=3, shifts=3)
    found = attack(watch, images, labels)
    assert attack.steps == 27 and len(asked) == 28
    for x in asked:
        right &= victim(x).argmax(1) == labels
    assert torch.equal(victim(found).argmax(1) == labels, right) and not bool(right.all())
    assert torch.equal(asked[0], images) and bool(torch.isclose(asked[14], images, atol=1e-5).all())


def test_random_versions_stay_within_the_limits() -> None:
    moves = torch.cat(list(Spatial(rotation=20, shift=0.1, search="random", tries=50).seeded(0)._moves(examples(8)[0])))
    assert moves.shape == (400, 3)
    assert bool((moves.abs().amax(0) <= torch.tensor([20, 0.1, 0.1])).all())
    assert bool((moves.abs().amax(0) > 0.9 * torch.tensor([20, 0.1, 0.1])).all())


def test_dense_outputs_need_a_loss_of_their_own() -> None:
    images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long)
    with pytest.raises(InputError, match=r"labels would have to move with the image; attack a classifier"):
        Spatial(angles=1, shifts=1)(segmenter(), images, labels)
    Spatial(angles=1, shifts=1, loss=lambda outputs, targets: outputs.mean())(segmenter(), images, labels)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rotation": 200}, "expected rotation to be a number from 0 to 180, got 200"),
        ({"shift": -0.1}, "expected shift to be a number from 0 to 1, got -0.1"),
        ({"search": "all"}, "expected search to be 'grid' or 'random', got 'all'"),
        ({"tries": 0}, "expected tries to be an integer of at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        Spatial(**options)
