"""Defences: the bare model of an evaluation, as a function of RGB images in [0, 1]."""

from __future__ import annotations

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


def test_an_attached_model_of_bgr_images_keeps_its_order_of_channels() -> None:
    model, images = OfBGR(), pictures(2, 3, 12, 10)
    purifier.attach(model, "gs", channels="BGR")
    made = Defences(model, {"gs": purifier.Purifier.from_pretrained("gs")})
    torch.testing.assert_close(made.model(images), classifier()(images))
    expected = purifier.wrap(classifier(), "gs")(images)
    torch.testing.assert_close(made.defended["gs"](images.flip(1)), expected)
    assert made.identity["channels"] == "BGR"
    assert "channels" not in Defences(OfBGR(), {}).identity
