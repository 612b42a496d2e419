"""Pictures of any size: large ones in blocks, with the same output."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from purifier import Purifier, PurifierWarning
from purifier._images import take_apart
from purifier.inference import pictures
from purifier.inference.pictures import memory_of, purify_picture


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BLOCK", 64)
    monkeypatch.setattr(pictures, "LARGE", 64 * 64)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["gs", "ncis", "jpeg", "median", "nrp-resg", "gated", "chain", "tiled"])
@pytest.mark.parametrize("shape", [(150, 131, 3), (65, 200), (200, 70, 4)])
def test_blocks_give_the_output_of_the_whole(name: str, shape: tuple[int, ...]) -> None:
    made = {
        "gated": lambda: Purifier.from_pretrained("gs").gated("alloy-s"),
        "chain": lambda: Purifier.chain("jpeg", "gs", "median"),
        "tiled": lambda: Purifier.from_pretrained("gs").tiled(32),
    }
    purify = made[name]() if name in made else Purifier.from_pretrained(name)
    picture = take_apart(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    with torch.inference_mode():
        whole = picture.to_pixels(purify(picture.rgb))
    difference = np.abs(purify_picture(purify, picture).astype(int) - whole)
    # Float32 rounds differently in blocks, which 8 bits show where a value lies between two steps.
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    assert np.array_equal(np.asarray(purify.purify_image(picture.pixels)), purify_picture(purify, picture))


@pytest.mark.usefixtures("small_blocks")
def test_a_purifier_of_the_whole_picture_says_how_much_memory_it_takes() -> None:
    picture = take_apart(np.zeros((70, 90, 3), np.uint8))
    with pytest.warns(
        PurifierWarning, match=r"90 x 70 pixels takes at least 0\.0 GB of memory with 'tvm', whose every"
    ):
        assert purify_picture(Purifier.from_pretrained("tvm", steps=1), picture).shape == (70, 90, 3)
    assert memory_of(9_000, 12_000) == pytest.approx(6.48)


def test_small_pictures_are_purified_whole() -> None:
    seen = []

    class Watching(Purifier):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(images.shape))
            return super().forward(images)

    Watching.from_pretrained("gs").purify_image(np.zeros((300, 400, 3), np.uint8))
    assert seen == [(3, 300, 400)]
