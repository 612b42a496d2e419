"""What an image processor does to values is measured, not read off its settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import purifier
from purifier import OptionError, Purifier
from purifier._processor import measure_processor
from tests.builders import pictures

SIZE = {"height": 32, "width": 32}
PROCESSORS: dict[str, Any] = {
    "ViT": lambda: transformers.ViTImageProcessor(size=SIZE),
    "MobileViT, BGR": lambda: transformers.MobileViTImageProcessor(size=SIZE, crop_size=SIZE),
    "EfficientNet, std twice": lambda: transformers.EfficientNetImageProcessor(size=SIZE),
    "Swin2SR, no mean": lambda: transformers.Swin2SRImageProcessor(),
    "SuperPoint, no mean": lambda: transformers.SuperPointImageProcessor(size=SIZE),
    "Chameleon, own scale": lambda: transformers.ChameleonImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE),
    "no normalisation": lambda: transformers.ViTImageProcessor(size=SIZE, do_normalize=False),
}


@pytest.fixture
def purify() -> Purifier:
    return Purifier.from_pretrained("gs", iterations=2)


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_a_processor_makes_is_purified_as_the_picture_that_it_was(name: str, purify: Purifier) -> None:
    processor = PROCESSORS[name]()
    pixels = (pictures(1, 3, 32, 32)[0] * 255).round()
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy().astype(np.uint8))
    values = processor(images=picture, return_tensors="pt")["pixel_values"]
    mean, std, channels = measure_processor(processor)
    images = values.flip(1) if channels == "BGR" else values
    if mean is not None:
        mean, std = (torch.tensor(list(v), dtype=torch.float32).view(3, 1, 1) for v in (mean, std))
        images = images * std + mean
    # Some processors pad or resize; the picture itself is in the upper left corner of what they make.
    torch.testing.assert_close(images[0, :, :32, :32], pixels / 255, rtol=0, atol=1e-3)
    found = purifier.wrap(lambda pixel_values: pixel_values, purify, processor=processor)(pixel_values=values)
    want = purify(images.clamp(0, 1))
    want = want if mean is None else (want - mean) / std
    torch.testing.assert_close(found, want.flip(1) if channels == "BGR" else want, rtol=0, atol=1e-2)


def test_the_stated_numbers_are_kept_to_the_bit() -> None:
    processor = transformers.ViTImageProcessor(size=SIZE, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    mean, std, channels = measure_processor(processor)
    assert (list(mean), list(std), channels) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], "RGB")


def test_a_processor_that_is_not_linear_is_refused() -> None:
    def darken(images: Any, return_tensors: str) -> dict[str, torch.Tensor]:
        values = torch.from_numpy(np.asarray(images).copy()).permute(2, 0, 1)[None].float() / 255
        return {"pixel_values": values**2.2}

    with pytest.raises(OptionError, match="normalises each channel linearly, got function, which turns black into"):
        measure_processor(darken)


def test_a_processor_that_makes_patches_is_refused() -> None:
    processor = transformers.Qwen2VLImageProcessor(min_pixels=784, max_pixels=3136)
    with pytest.raises(OptionError, match=r"if these are patches, purify the picture before the processor"):
        measure_processor(processor)
