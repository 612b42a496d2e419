"""Detection with torchvision's detectors, and how images and boxes are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn, ssdlite320_mobilenet_v3_large
from torchvision.ops import roi_align

from purifier import InputError, OptionError
from purifier.training.gad import GADRecipe, GADTraining
from purifier.training.gad.tasks import Detection, make_task
from purifier.training.gad.tasks.boxes import _matches
from tests.builders import unchanged
from tests.training.gad.builders import TINY, boxed_pictures, classifier

SMALL = {**TINY, "task": "detection", "size": 64, "batch_size": 2, "attack_steps": 1, "validation_every": 3}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict:
    images, annotations = boxed_pictures(tmp_path_factory.mktemp("boxed"))
    return {**SMALL, "data": str(images), "annotations": str(annotations)}


def ssdlite() -> nn.Module:
    torch.manual_seed(0)
    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).eval()


def faster_rcnn() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 96, "rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 10}
    return fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=3, **sizes).eval()


def task(settings: dict, model: nn.Module) -> Detection:
    made = make_task(model, GADTraining(**settings))
    assert isinstance(made, Detection)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("build", [ssdlite, faster_rcnn])
def test_a_step_with_an_unmodified_detector(settings: dict, build: object) -> None:
    made = GADRecipe(GADTraining(**settings), build())  # type: ignore[operator]
    images, targets = made.crops.collate([made.crops[number] for number in range(2)])
    assert images.shape == (2, 3, 64, 64)
    with unchanged(made.task.model):
        losses = made.losses(made.model, (images, targets), 1)
    losses.total.backward()
    assert losses.total.isfinite() and {"task", "feature", "align", "inter", "intra"} <= losses.parts.keys()
    assert all(p.grad is not None for p in made.model.parameters())
    assert all(0 <= value <= 1 for value in [made.task.score(images, targets)])


def test_vectors_are_the_backbones_features_in_the_boxes(settings: dict) -> None:
    made = task(settings, faster_rcnn())
    images = torch.rand(2, 3, 64, 64)
    targets = [
        {"boxes": torch.tensor([[0.0, 0.0, 64.0, 64.0]]), "labels": torch.tensor([2])},
        {"boxes": torch.tensor([[8.0, 16.0, 40.0, 32.0], [1.0, 2.0, 30.0, 60.0]]), "labels": torch.tensor([1, 2])},
    ]
    seen = made.observe(images, targets)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    # The model's own size is 64 here, so that it resizes nothing.
    maps = made.model.backbone((images - mean) / std)["0"]
    expected = roi_align(maps, [target["boxes"] for target in targets], 3, maps.shape[-1] / 64, 2, aligned=True)
    torch.testing.assert_close(seen.vectors, expected.mean((2, 3)))
    assert seen.labels.tolist() == [2, 1, 2]
    assert seen.loss.isfinite()


def test_boxes_follow_the_detectors_own_resizing(settings: dict) -> None:
    made = task(settings, ssdlite())
    dark = torch.zeros(1, 3, 64, 64)
    lit = dark.clone()
    lit[:, :, 40:, 40:] = 1
    boxes = torch.tensor([[0.0, 0.0, 12.0, 12.0], [48.0, 48.0, 63.0, 63.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2])}]
    far, near = (made.observe(lit, targets).vectors - made.observe(dark, targets).vectors).norm(dim=1)
    assert near > 2 * far


def test_two_attacks_alternate_between_steps(settings: dict) -> None:
    made, images = task(settings, ssdlite()), torch.rand(1, 3, 64, 64)
    targets = [{"boxes": torch.tensor([[8.0, 16.0, 40.0, 32.0]]), "labels": torch.tensor([1])}]
    found = []
    for step in range(4):
        torch.manual_seed(0)
        found.append(made.attack(images, targets, step))
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    assert not torch.equal(found[0], found[1])


def test_the_papers_settings_are_the_defaults(settings: dict) -> None:
    made = task({**settings, "size": 0}, ssdlite())
    assert (made.eps, made.downsamples, made.size) == (8 / 255, 4, 256)


class Mirror:
    """A stand-in for a random generator that always flips, or never."""

    def __init__(self, flips: bool) -> None:
        self.flips = flips

    def random(self) -> float:
        return 0.0 if self.flips else 1.0


def test_boxes_are_resized_and_flipped_with_their_image(settings: dict) -> None:
    made = task(settings, ssdlite())
    items = made.items()
    # The last picture has no boxes.
    assert len(items) == 3
    (plain, said), (flipped, moved) = (made.load(items[0], Mirror(flips)) for flips in (False, True))  # type: ignore[arg-type]
    # From 64 x 96 pixels to 64 x 64: x is scaled by 2 / 3.
    expected = torch.tensor([[16 / 3, 8.0, 32.0, 38.0], [100 / 3, 20.0, 172 / 3, 60.0]])
    torch.testing.assert_close(said["boxes"], expected)
    assert said["labels"].tolist() == [1, 2]
    assert torch.equal(flipped, plain.flip(-1))
    torch.testing.assert_close(moved["boxes"][0], torch.tensor([32.0, 8.0, 64 - 16 / 3, 38.0]))


def test_a_box_is_found_once_by_its_own_class() -> None:
    truth, classes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]]), torch.tensor([1, 2])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 9.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    assert _matches(boxes, torch.tensor([1, 1, 2]), truth, classes) == 2
    assert _matches(boxes, torch.tensor([1, 1, 1]), truth, classes) == 1
    assert _matches(boxes[:0], classes[:0], truth, classes) == 0


def test_the_score_is_f1(settings: dict) -> None:
    made = task(settings, ssdlite())

    class Said(nn.Module):
        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
            return [{"boxes": box.repeat(2, 1), "scores": torch.tensor([0.9, 0.4]), "labels": torch.tensor([1, 1])}]

    made.model = Said()
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 1])}]
    assert made.score(torch.rand(1, 3, 8, 8), targets) == pytest.approx(2 / 3)


def test_missing_or_unfitting_files_and_models_are_refused(settings: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a torchvision detector"):
        task(settings, classifier())
    with pytest.raises(OptionError, match="expected annotations, a COCO JSON file, for this task, got none"):
        task({**settings, "annotations": ""}, ssdlite()).items()
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({"images": []}))
    with pytest.raises(InputError, match="expected COCO instances with images, annotations and categories"):
        task({**settings, "annotations": str(wrong)}, ssdlite()).items()
    with pytest.raises(InputError, match="got no such file"):
        task({**settings, "data": str(tmp_path)}, ssdlite()).items()
