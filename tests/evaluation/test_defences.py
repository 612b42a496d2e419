"""Defences: the bare model of an evaluation, as a function of RGB images in [0, 1]."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import purifier
from purifier.evaluation.defences import Defences
from tests.builders import pictures
from tests.recorders import classifier


class OfBGR(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = classifier()

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images.flip(1))
        return out


@pytest.mark.parametrize("way", ["wrap", "attach"])
def test_a_defended_model_of_bgr_images_keeps_its_order_of_channels(way: str) -> None:
    model: nn.Module = OfBGR()
    images = pictures(2, 3, 12, 10)
    if way == "wrap":
        model = purifier.wrap(model, "gs", channels="BGR")
    else:
        purifier.attach(model, "gs", channels="BGR")
    made = Defences(model, {"gs": purifier.Purifier.from_pretrained("gs")})
    torch.testing.assert_close(made.model(images), classifier()(images))
    expected = purifier.wrap(classifier(), "gs")(images)
    torch.testing.assert_close(made.defended["gs"](images.flip(1)), expected)
    assert made.identity["channels"] == "BGR"
    assert "channels" not in Defences(OfBGR(), {}).identity


def test_a_wrapped_model_keeps_its_normalisation_unless_another_is_given() -> None:
    mean, std, images = [0.5] * 3, [0.25] * 3, pictures(2, 3, 12, 10)
    inner = classifier()
    wrapped = purifier.wrap(inner, "gs", mean=mean, std=std)
    torch.testing.assert_close(Defences(wrapped, {}).model(images), inner((images - 0.5) / 0.25))
    assert Defences(wrapped, {}).identity == Defences(inner, {}, mean=mean, std=std).identity
    assert Defences(wrapped, {}, mean=[0.0] * 3, std=[1.0] * 3).identity["normalisation"] == ([0.0] * 3, [1.0] * 3)
