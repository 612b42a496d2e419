"""torchvision's classifiers, detectors and segmenters, random weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import purifier
from purifier import Purifier
from tests.builders import pictures, unchanged

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def detector() -> torch.nn.Module:
    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=4, box_score_thresh=0.0, min_size=64, max_size=96
    )
    return model.eval()


@pytest.fixture
def purify() -> Purifier:
    return Purifier.from_pretrained("gs", iterations=2)


def photos() -> list[Tensor]:
    return [pictures(3, 70, 90), pictures(3, 64, 51, seed=1)]


def test_a_classifier_is_called_with_purified_images(purify: Purifier) -> None:
    model = resnet18(weights=None, num_classes=6).eval()
    images = pictures(2, 3, 40, 48)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with unchanged(model):
        out = purifier.wrap(model, purify, mean=MEAN, std=STD)((images - mean) / std)
    assert out.shape == (2, 6)
    torch.testing.assert_close(out, model((purify(images) - mean) / std), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(out, model((images - mean) / std), rtol=1e-3, atol=1e-4)


def test_a_detector_is_called_with_a_list_of_purified_images(detector: torch.nn.Module, purify: Purifier) -> None:
    with unchanged(detector), torch.no_grad():
        out = purifier.wrap(detector, purify)(photos())
        by_hand = detector([purify(photo) for photo in photos()])
    assert [set(one) for one in out] == [{"boxes", "labels", "scores"}] * 2
    assert sum(len(one["boxes"]) for one in out) > 0
    for one, other in zip(out, by_hand, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in other)


def test_boxes_stay_within_the_sizes_of_the_images(detector: torch.nn.Module, purify: Purifier) -> None:
    with torch.no_grad():
        out = purifier.wrap(detector, purify)(photos())
    for one, photo in zip(out, photos(), strict=True):
        assert one["boxes"][:, 2].max() <= photo.shape[2]
        assert one["boxes"][:, 3].max() <= photo.shape[1]


def test_a_detector_in_training_mode_gives_its_losses(detector: torch.nn.Module, purify: Purifier) -> None:
    targets = [
        {"boxes": torch.tensor([[5.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[1.0, 2.0, 30.0, 33.0]]), "labels": torch.tensor([2])},
    ]
    images = [photo.requires_grad_() for photo in photos()]
    detector.train()
    try:
        wrapped = purifier.wrap(detector, purify)
        assert wrapped.training
        torch.manual_seed(4)
        losses = wrapped(images, targets)
        torch.manual_seed(4)
        by_hand = detector([purify(image) for image in images], targets)
        assert detector.training
    finally:
        detector.eval()
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert all(torch.equal(losses[key], by_hand[key]) for key in by_hand)
    gradients = torch.autograd.grad(sum(losses.values()), images)
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_a_segmenter_gives_masks_of_the_size_of_the_images(purify: Purifier) -> None:
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).eval()
    images = pictures(1, 3, 67, 50)
    with unchanged(model), torch.no_grad():
        out = purifier.wrap(model, purify)(images)
    assert list(out) == ["out"]
    assert out["out"].shape == (1, 5, 67, 50)
    with torch.no_grad():
        assert torch.equal(out["out"], model(purify(images))["out"])
