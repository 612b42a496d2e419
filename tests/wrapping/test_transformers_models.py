"""transformers' models, random weights: pixel_values=, processors, masks and labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    ResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

import purifier
from purifier import OptionError, Purifier
from tests.builders import pictures, unchanged

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
TARGETS = [{"class_labels": torch.tensor([1, 2]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.3, 0.4, 0.1, 0.1]])}]


@pytest.fixture
def purify() -> Purifier:
    return Purifier.from_pretrained("gs", iterations=2)


def values(processor: Any, images: Tensor) -> Tensor:
    """Normalises images in [0, 1] like the processor."""
    mean, std = (torch.tensor(list(v)).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    return (images - mean) / std


def watch(model: nn.Module) -> list[dict[str, Any]]:
    """Records the keyword arguments of every call."""
    calls: list[dict[str, Any]] = []
    model.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    return calls


def test_an_image_classifier_takes_pixel_values_and_gives_its_own_output_and_loss(purify: Purifier) -> None:
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_labels=4, **TINY)).eval()
    processor = ViTImageProcessor(image_mean=[0.48, 0.45, 0.40], image_std=[0.2, 0.21, 0.22])
    images, labels = pictures(2, 3, 32, 32), torch.tensor([1, 3])
    pixel_values = values(processor, images)
    with unchanged(model):
        out = purifier.wrap(model, purify, processor=processor)(pixel_values=pixel_values, labels=labels)
    by_hand = model(pixel_values=values(processor, purify(images)), labels=labels)
    assert type(out) is type(by_hand)
    torch.testing.assert_close(out.logits, by_hand.logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(out.loss, by_hand.loss, rtol=1e-3, atol=1e-4)


def test_the_processors_own_output_can_be_passed_on(purify: Purifier) -> None:
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_labels=4, **TINY)).eval()
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    photo = (pictures(3, 50, 40) * 255).byte()
    inputs = processor(photo, return_tensors="pt")
    out = purifier.wrap(model, purify, processor=processor)(**inputs)
    plain = ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False)
    by_hand = model(values(processor, purify(plain(photo, return_tensors="pt")["pixel_values"])))
    torch.testing.assert_close(out.logits, by_hand.logits, rtol=1e-3, atol=1e-4)


def test_a_detector_with_labels_gives_its_loss_and_boxes(purify: Purifier) -> None:
    config = YolosConfig(image_size=[32, 48], patch_size=8, num_detection_tokens=5, num_labels=3, **TINY)
    model, processor = YolosForObjectDetection(config).eval(), YolosImageProcessor()
    images = pictures(1, 3, 32, 48)
    with unchanged(model):
        out = purifier.wrap(model, purify, processor=processor)(pixel_values=values(processor, images), labels=TARGETS)
    by_hand = model(pixel_values=values(processor, purify(images)), labels=TARGETS)
    assert type(out) is type(by_hand)
    torch.testing.assert_close(out.pred_boxes, by_hand.pred_boxes, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(out.loss, by_hand.loss, rtol=1e-3, atol=1e-3)


def test_the_pixel_mask_and_labels_of_a_detector_are_passed_on_as_the_same_objects(purify: Purifier) -> None:
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"])
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=5, num_labels=3,
    )  # fmt: skip
    model, processor = DetrForObjectDetection(config).eval(), DetrImageProcessor()
    calls = watch(model)
    mask = torch.ones(1, 64, 64, dtype=torch.long)
    mask[:, 40:] = 0
    pixel_values = values(processor, pictures(1, 3, 64, 64))
    out = purifier.wrap(model, purify, processor=processor)(pixel_values=pixel_values, pixel_mask=mask, labels=TARGETS)
    assert out.pred_boxes.shape == (1, 5, 4)
    assert calls[0]["pixel_mask"] is mask and calls[0]["labels"] is TARGETS
    assert calls[0]["pixel_values"].shape == pixel_values.shape
    assert not torch.equal(calls[0]["pixel_values"], pixel_values)


def test_a_segmenter_gives_its_logits_and_loss(purify: Purifier) -> None:
    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8,
        num_labels=4,
    )  # fmt: skip
    model, processor = SegformerForSemanticSegmentation(config).eval(), SegformerImageProcessor()
    images, labels = pictures(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.long)
    model(images)  # transformers hooks its outputs in the first call
    with unchanged(model):
        out = purifier.wrap(model, purify, processor=processor)(pixel_values=values(processor, images), labels=labels)
    by_hand = model(pixel_values=values(processor, purify(images)), labels=labels)
    assert out.logits.shape[:2] == (1, 4)
    torch.testing.assert_close(out.logits, by_hand.logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(out.loss, by_hand.loss, rtol=1e-3, atol=1e-4)


def test_a_processor_that_does_not_normalise_means_images_in_the_unit_range(purify: Purifier) -> None:
    wrapped = purifier.wrap(lambda pixel_values: pixel_values, purify, processor=ViTImageProcessor(do_normalize=False))
    images = pictures(1, 3, 8, 8)
    assert torch.equal(wrapped(pixel_values=images), purify(images))


def test_an_image_processor_inside_a_larger_processor_is_found(purify: Purifier) -> None:
    class Larger:
        image_processor = ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])

    wrapped = purifier.wrap(lambda x: x, purify, processor=Larger())
    assert (wrapped.mean, wrapped.std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


def test_a_processor_together_with_mean_and_std_is_refused(purify: Purifier) -> None:
    with pytest.raises(OptionError, match="expected either processor or mean and std, got both"):
        purifier.wrap(lambda x: x, purify, processor=ViTImageProcessor(), mean=[0.5] * 3, std=[0.5] * 3)


def test_what_is_not_a_processor_is_refused(purify: Purifier) -> None:
    with pytest.raises(
        OptionError, match=r"expected an image processor .*, got dict with an error.*pass mean= and std="
    ):
        purifier.wrap(lambda x: x, purify, processor={"image_mean": 0.5})
