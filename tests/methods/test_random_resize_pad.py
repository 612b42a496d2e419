"""Random resizing and padding: what stays, what moves, and where its random numbers come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from purifier import OptionError, Purifier
from purifier.methods.random_resize_pad import RandomResizePad
from tests.builders import pictures


def test_it_is_the_identity_without_shrinking() -> None:
    images = pictures(2, 3, 9, 14)
    assert torch.equal(RandomResizePad(least=1)(images), images)


def test_images_are_shrunk_and_put_on_black_at_random_places() -> None:
    torch.manual_seed(0)
    out = RandomResizePad(least=0.5)(torch.ones(200, 3, 20, 40))
    assert out.shape == (200, 3, 20, 40) and set(out.unique().tolist()) == {0.0, 1.0}
    places = set()
    for image in out[:, 0]:
        rows, columns = image.any(1).nonzero()[:, 0], image.any(0).nonzero()[:, 0]
        height, width = len(rows), len(columns)
        # One solid part, of the shape of the image up to rounding.
        assert int(image.sum()) == height * width and 10 <= height <= 20 and abs(width - 2 * height) <= 1
        assert torch.equal(rows, torch.arange(int(rows[0]), int(rows[-1]) + 1))
        places.add((int(rows[0]), int(columns[0]), height))
    # Sizes, and both ends of every place, occur.
    assert {height for _, _, height in places} == set(range(10, 21))
    assert {0, 20} <= {top + height for top, _, height in places} | {top for top, _, _ in places}


def test_contents_are_those_of_the_image() -> None:
    images = pictures(1, 3, 16, 16)
    out = RandomResizePad(least=0.5)(images)
    assert set(out.unique().tolist()) <= {0.0, *images.unique().tolist()}


def test_it_follows_its_generator_and_leaves_the_global_one_alone() -> None:
    method, images = RandomResizePad(), pictures(4, 3, 33, 32)
    before = torch.get_rng_state()
    method.generator = torch.Generator().manual_seed(3)
    first, second = method(images), method(images)
    method.generator.manual_seed(3)
    assert torch.equal(method(images), first) and not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_flow_to_the_pixels_that_are_left() -> None:
    images = pictures(1, 3, 16, 16).requires_grad_()
    RandomResizePad(least=0.5)(images).sum().backward()
    assert images.grad is not None
    assert set(images.grad.unique().tolist()) <= {0.0, 1.0} and images.grad.sum() > 3 * 8 * 8 - 1


def test_a_purifier_of_it_is_random_and_can_be_saved(tmp_path: Path) -> None:
    purifier = Purifier(RandomResizePad(least=0.8), name="random")
    purifier.save_pretrained(tmp_path)
    loaded = Purifier.from_pretrained(tmp_path)
    assert loaded.method.random and loaded.method.options == {"least": 0.8}
    assert Purifier.from_pretrained(tmp_path, least=0.9).method.options == {"least": 0.9}


@pytest.mark.parametrize("least", [0, 1.1, -1, "a", None])
def test_odd_shares_are_refused(least: object) -> None:
    with pytest.raises(OptionError):
        RandomResizePad(least=least)  # type: ignore[arg-type]
