"""Attacks on segmenters: dicts, void pixels, every attack on logits."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from purifier import InputError, OptionError
from purifier.attacks import (
    BIM,
    BPDA,
    CW,
    EOT,
    PGD,
    Attack,
    Aware,
    DeepFool,
    SegmentationAttack,
    SegmentationLoss,
    ThreatModel,
    logits_of,
)
from tests.builders import pictures, small_purifier, unchanged

VOID = 11


class Segmenter(nn.Module):
    """Answers as torchvision's do, at half the resolution where `small`."""

    def __init__(self, small: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 1 + small, 1), nn.Tanh(), nn.Conv2d(8, 5, 3, padding=1))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.layers(images), "aux": None}


@pytest.fixture
def segmenter() -> nn.Module:
    return Segmenter().eval()


@pytest.fixture
def batch(segmenter: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    images = pictures(3, 3, 16, 16)
    masks = segmenter(images)["out"].argmax(1)
    masks[:, :4] = VOID
    return images, masks


def accuracy(segmenter: nn.Module, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    counted = masks != VOID
    return (segmenter(images)["out"].argmax(1) == masks)[counted].float().mean()


@pytest.mark.parametrize(
    "attack",
    [
        BIM(eps=0.2),
        PGD(eps=5, norm="L2"),
        DeepFool(steps=30),
        CW(steps=60, search=4, alpha=0.05, c=10.0, share=0.3),
    ],
)
def test_attacks_on_logits_lower_the_pixel_accuracy(
    segmenter: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], attack: Attack
) -> None:
    images, masks = batch
    with unchanged(segmenter):
        attacked = SegmentationAttack(attack, ignore_index=VOID)(segmenter, images, masks)
    assert accuracy(segmenter, images, masks) == 1
    assert accuracy(segmenter, attacked, masks) < 0.75
    assert attacked.min() >= 0 and attacked.max() <= 1


def test_the_loss_and_the_attack_give_the_same_images(
    segmenter: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, masks = batch
    by_loss = BIM(eps=0.05, loss=SegmentationLoss(ignore_index=VOID))(segmenter, images, masks)
    assert torch.equal(by_loss, SegmentationAttack(BIM(eps=0.05), ignore_index=VOID)(segmenter, images, masks))


def test_the_loss_is_the_mean_over_the_valid_pixels(
    segmenter: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, masks = batch
    losses = SegmentationLoss(ignore_index=VOID)(segmenter(images), masks)
    logits = segmenter(images)["out"]
    for i in range(3):
        expected = nn.functional.cross_entropy(logits[i : i + 1], masks[i : i + 1], ignore_index=VOID)
        assert torch.allclose(losses[i], expected)
    assert (SegmentationLoss(ignore_index=VOID)(segmenter(images), torch.full_like(masks, VOID)) == 0).all()


def test_void_pixels_are_ignored(segmenter: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, masks = batch
    masks = masks.clone()
    masks[:, :12] = VOID
    attacked = SegmentationAttack(BIM(eps=0.05), ignore_index=VOID)(segmenter, images, masks)
    # Two 3 x 3 convolutions reach two pixels up from row 12.
    assert torch.equal(attacked[:, :, :10], images[:, :, :10])
    assert not torch.equal(attacked[:, :, 10:], images[:, :, 10:])


def test_a_void_label_that_is_not_declared_is_refused(
    segmenter: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with pytest.raises(InputError, match=r"expected labels from 0 to 4, .* got 11"):
        SegmentationAttack(BIM())(segmenter, *batch)


def test_small_logits_are_enlarged_to_the_masks(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    segmenter, (images, masks) = Segmenter(small=True).eval(), batch
    loss = SegmentationLoss(ignore_index=VOID)
    attacked = BIM(eps=0.05, loss=loss)(segmenter, images, masks)
    assert (loss(segmenter(attacked), masks) > loss(segmenter(images), masks)).all()
    assert logits_of(segmenter)(images).shape == (3, 5, 16, 16)
    assert torch.equal(SegmentationAttack(BIM(eps=0.05), ignore_index=VOID)(segmenter, images, masks), attacked)


def test_logits_are_found_in_the_outputs_of_other_libraries(
    segmenter: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, _ = batch
    logits = segmenter(images)["out"]
    for model in (
        segmenter.layers,
        segmenter,
        lambda x: SimpleNamespace(logits=segmenter.layers(x)),
        lambda x: {"logits": segmenter.layers(x)},
    ):
        assert torch.equal(logits_of(model)(images), logits)
    with pytest.raises(
        InputError, match=r"expected logits \(N, classes, H, W\) from the segmenter.* got shape \(3, 5\)"
    ):
        logits_of(lambda x: torch.zeros(3, 5))(images)
    with pytest.raises(InputError, match=r"expected logits .* got list"):
        logits_of(lambda x: [1])(images)


@pytest.mark.parametrize("threat", [Aware(), Aware(samples=2), BPDA()])
def test_it_goes_through_a_purifier(
    segmenter: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], threat: ThreatModel
) -> None:
    images, masks = batch
    defended = small_purifier("gs").wrap(segmenter)
    attacked = threat(SegmentationAttack(BIM(eps=0.05), ignore_index=VOID), defended, images, masks)
    loss = SegmentationLoss(ignore_index=VOID)
    assert (loss(defended(attacked), masks) > loss(defended(images), masks)).all()


def test_eot_runs_inside(segmenter: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    attack = SegmentationAttack(BIM(eps=0.05), ignore_index=VOID)
    assert torch.allclose(EOT(attack, samples=2)(segmenter, *batch), attack(segmenter, *batch), atol=1e-6)


def test_it_has_the_options_of_the_attack_inside() -> None:
    attack = SegmentationAttack(BIM(eps=0.03, alpha=0.01, steps=3), ignore_index=VOID)
    assert (attack.name, attack.eps, attack.with_eps(0.06).alpha) == ("BIM", 0.03, pytest.approx(0.02))
    assert attack.settings()["ignore_index"] == VOID and attack.settings()["attack"]["steps"] == 3
    assert not SegmentationAttack(CW()).bounded
    assert BIM(loss=SegmentationLoss()).settings()["loss"] == "segmentation(ignore_index=255)"


def test_masks_of_a_wrong_shape_or_kind_are_refused(
    segmenter: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, masks = batch
    with pytest.raises(InputError, match=r"expected integer masks of shape \(3, H, W\), .* got torch.int64 of shape"):
        SegmentationAttack(BIM())(segmenter, images, masks[:2])
    with pytest.raises(InputError, match=r"expected integer masks .* got torch.float32"):
        SegmentationLoss()(segmenter(images), masks.float())
    with pytest.raises(OptionError, match="expected ignore_index to be a number, got None"):
        SegmentationAttack(BIM(), ignore_index=None)


@pytest.mark.slow
def test_bim_breaks_a_real_segmenter(kit: Path) -> None:
    import numpy as np
    from PIL import Image

    from purifier._images import take_apart

    spec = importlib.util.spec_from_file_location("kit_models_segmentation", kit / "kit_models.py")
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    files = sorted((kit / "camvid" / "test").iterdir())[:2]
    labels = [Image.open(kit / "camvid" / "test_labels" / f"{file.stem}.png") for file in files]
    images = torch.stack([take_apart(file).rgb for file in files])
    masks = torch.stack([torch.from_numpy(np.array(label)) for label in labels]).long()
    network = models.lraspp_camvid().requires_grad_(False)
    attack = SegmentationAttack(BIM(eps=0.03, alpha=0.01, steps=3), ignore_index=VOID)
    with torch.no_grad():
        clean = accuracy(network, images, masks)
        attacked = accuracy(network, attack(network, images, masks), masks)
    assert clean > 0.7 and attacked < clean - 0.3
