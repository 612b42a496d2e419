"""Segmentation with torchvision's LR-ASPP, and how images and masks are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from purifier import InputError, OptionError
from purifier.training.gad import GADRecipe, GADTraining
from purifier.training.gad.tasks import Segmentation, make_task
from tests.training.gad.builders import TINY, masked_pictures

SMALL = {**TINY, "task": "segmentation", "size": 64, "batch_size": 2}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict:
    images, masks = masked_pictures(tmp_path_factory.mktemp("masked"))
    return {**SMALL, "data": str(images), "masks": str(masks)}


class Dense(nn.Module):
    """A segmenter at half size with an auxiliary head, and a `classifier` in front of it in the list of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Conv2d(3, 6, 2, 2), nn.ReLU(), nn.Conv2d(6, 5, 1))
        self.aux = nn.Conv2d(3, 5, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.classifier(images), "aux": self.aux(images)}


def task(settings: dict, model: nn.Module | None = None) -> Segmentation:
    torch.manual_seed(1)
    made = make_task((model or Dense()).eval(), GADTraining(**settings))
    assert isinstance(made, Segmentation)
    return made


def test_a_step_with_an_unmodified_lraspp(settings: dict) -> None:
    torch.manual_seed(0)
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    made = GADRecipe(GADTraining(**settings), model)
    images, masks = made.crops.collate([made.crops[number] for number in range(2)])
    assert images.shape == (2, 3, 64, 64) and masks.shape == (2, 64, 64)
    losses = made.losses(made.model, (images, masks), 0)
    losses.total.backward()
    assert losses.total.isfinite() and {"task", "feature", "align", "inter", "intra"} <= losses.parts.keys()
    assert all(p.grad is not None for p in made.model.parameters())


def test_vectors_are_the_input_of_the_classifiers_last_convolution(settings: dict) -> None:
    made, images = task(settings), torch.rand(2, 3, 8, 8)
    masks = torch.randint(5, (2, 8, 8))
    seen = made.observe(images, masks)
    features = made.model.classifier[:2](images)
    assert torch.equal(seen.vectors, features.permute(0, 2, 3, 1).reshape(-1, 6))
    assert seen.labels.shape == (2 * 4 * 4,)


def test_ignored_pixels_give_no_vector_and_no_loss(settings: dict) -> None:
    made, images = task(settings), torch.rand(1, 3, 8, 8)
    masks = torch.randint(5, (1, 8, 8))
    masks[:, :4] = 255
    masks[:, 4:, :4] = -100
    seen = made.observe(images, masks)
    assert len(seen.vectors) == len(seen.labels) == 2 * 2
    logits = nn.functional.interpolate(made.model(images)["out"], (8, 8), mode="bilinear", align_corners=False)
    expected = nn.functional.cross_entropy(logits[:, :, 4:, 4:], masks[:, 4:, 4:])
    torch.testing.assert_close(seen.loss, expected)


def test_labels_are_resized_to_the_nearest(settings: dict) -> None:
    masks = torch.arange(4).view(1, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels = task(settings).observe(torch.rand(1, 3, 8, 8), masks).labels
    assert labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]


def test_the_papers_settings_are_the_defaults(settings: dict) -> None:
    made = task({**settings, "size": 0})
    assert (made.eps, made.alpha, made.attack_steps, made.downsamples, made.size) == (0.03, 0.01, 3, 4, 512)


def test_the_attack_raises_the_loss_within_its_radius(settings: dict) -> None:
    made, images, masks = task(settings), torch.rand(2, 3, 8, 8), torch.randint(5, (2, 8, 8))
    attacked = made.attack(images, masks, 0)
    assert (attacked - images).abs().max() <= 0.03 + 1e-6
    assert made.observe(attacked, masks).loss > made.observe(images, masks).loss


def test_image_and_mask_are_cropped_and_flipped_together(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    values = np.random.default_rng(0).integers(0, 200, (30, 40), dtype=np.uint8)
    Image.fromarray(values).convert("RGB").save(tmp_path / "images" / "a.png")
    Image.fromarray(values).save(tmp_path / "masks" / "a.png")
    made = task({**SMALL, "size": 16, "data": str(tmp_path / "images"), "masks": str(tmp_path / "masks")})
    (item,) = made.items()
    crops = [made.load(item, np.random.default_rng(seed)) for seed in range(8)]
    for image, mask in [*crops, made.load(item, None)]:
        assert image.shape == (3, 16, 16)
        assert torch.equal((image[0] * 255).round().long(), mask)
    assert len({mask.sum().item() for _, mask in crops}) > 4
    assert torch.equal(made.load(item, None)[1], torch.from_numpy(values[7:23, 12:28].astype(np.int64)))


def test_small_images_are_enlarged_and_their_masks_stay_classes(tmp_path: Path) -> None:
    images, masks = masked_pictures(tmp_path)
    made = task({**SMALL, "size": 96, "data": str(images), "masks": str(masks)})
    image, mask = made.load(made.items()[0], None)
    assert image.shape == (3, 96, 96) and mask.shape == (96, 96)
    assert set(mask.unique().tolist()) <= {0, 1, 2, 3, 4, 255}


def test_the_score_is_the_share_of_pixels_that_count(settings: dict) -> None:
    made = task(settings, nn.Conv2d(3, 3, 1, bias=False))
    made.model.weight.data = torch.eye(3).view(3, 3, 1, 1)
    images, masks = torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 255]]])
    images[0, 0] = 1
    assert made.score(images, masks) == pytest.approx(1 / 3)


def test_missing_or_unfitting_masks_are_refused(settings: dict, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected masks, a folder, for this task, got none"):
        task({**settings, "masks": ""}).items()
    with pytest.raises(InputError, match=r"expected a mask .*, got no such file"):
        task({**settings, "masks": str(tmp_path)}).items()
    image, _ = task(settings).items()[0]
    Image.new("L", (3, 3)).save(tmp_path / "small.png")
    Image.new("RGB", (80, 70)).save(tmp_path / "colours.png")
    with pytest.raises(InputError, match=r"expected a mask of the image's size \(70, 80\), got \(3, 3\)"):
        task(settings).load((image, tmp_path / "small.png"), None)
    with pytest.raises(InputError, match="expected a mask with one channel"):
        task(settings).load((image, tmp_path / "colours.png"), None)
