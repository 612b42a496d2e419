"""The task that GAD is trained with in front of a detector with losses of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.accuracy.yolox import Detector, loss_of
from benchmarks.recipes.yolox_boxes import label
from benchmarks.recipes.yolox_task import YoloxTask, detection_loss
from purifier.evaluation import boxed_images
from purifier.training.gad import GADRecipe, GADTraining
from tests.builders import unchanged
from tests.training.gad.builders import TINY, boxed_pictures

CATEGORIES = [1, 2]


class TinyYolox(nn.Module):
    """Two classes and one box a place, at stride 32."""

    def __init__(self) -> None:
        super().__init__()
        self.d3 = nn.Conv2d(3, 6, 8, 8)
        self.d4, self.d5 = nn.Conv2d(6, 5, 2, 2), nn.Conv2d(5, 4, 2, 2)
        self.head = nn.Conv2d(4, 7, 1)

    def forward(self, images: Tensor) -> Tensor:
        raw = self.head(F.silu(self.d5(self.d4(self.d3(images))))).flatten(2).transpose(1, 2)
        places = 32 * torch.stack(torch.meshgrid(torch.arange(13.0), torch.arange(13.0), indexing="xy"), -1).flatten(
            0, 1
        )
        return torch.cat((raw[..., :2] + places, 40 * raw[..., 2:4].exp(), raw[..., 4:].sigmoid()), 2)


def decode(raw: Tensor) -> list[dict[str, Tensor]]:
    return [{"boxes": one[:2, :4], "scores": one[:2, 4], "labels": one[:2, 5:].argmax(1)} for one in raw]


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(TinyYolox(), decode, CATEGORIES).eval()


@pytest.mark.parametrize(
    ("kind", "overlap", "score", "expected"),
    [("cls", 1.0, 0.5, 0.6931), ("loc", 0.6, 0.5, 0.4), ("cls+loc", 0.6, 0.5, 1.0931), ("cls+loc", 1.0, 1.0, 0.0)],
)
def test_the_losses_are_lost_scores_and_lost_overlap(
    detector: Detector, kind: str, overlap: float, score: float, expected: float
) -> None:
    raw = torch.tensor([[0, 0, 10 * overlap, 10, score, 0, 1], [50, 50, 60, 60, 1, 1, 0]])
    truth = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([2])}
    assert loss_of(detector, kind)([{"raw": raw}], [truth]).item() == pytest.approx(expected, abs=1e-4)


def test_a_step_in_front_of_it(detector: Detector, tmp_path: Path) -> None:
    images, annotations = boxed_pictures(tmp_path)
    small = {**TINY, "size": 64, "batch_size": 2, "attack_steps": 1, "validation_every": 3}
    files = {"data": str(images), "annotations": str(annotations)}
    made = GADRecipe(GADTraining(**{**small, **files, "task": "benchmarks.recipes.yolox_task:YoloxTask"}), detector)
    assert isinstance(made.task, YoloxTask)
    pictures, targets = made.crops.collate([made.crops[number] for number in range(2)])
    with unchanged(made.task.model):
        losses = made.losses(made.model, (pictures, targets), 1)
    losses.total.backward()
    assert losses.total.isfinite() and {"task", "feature", "align", "inter", "intra"} <= losses.parts.keys()
    assert all(p.grad is not None for p in made.model.parameters())
    assert 0 <= made.task.score(pictures, targets) <= 1


def test_features_are_those_of_the_boxes(detector: Detector, tmp_path: Path) -> None:
    images, annotations = boxed_pictures(tmp_path)
    files = {"data": str(images), "annotations": str(annotations)}
    made = GADRecipe(
        GADTraining(**{**TINY, **files, "size": 64, "task": "benchmarks.recipes.yolox_task:YoloxTask"}), detector
    )
    # Two plain halves of a picture: a box in either has the features of a picture that is plain all over.
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., 32:] = 1
    boxes = torch.tensor([[4.0, 4, 28, 60], [36.0, 4, 60, 60]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2])}]
    found = made.task.observe(picture, targets)
    with torch.no_grad():
        plain = [_levels(detector.net, torch.full((1, 3, 416, 416), value)) for value in (0.0, 1.0)]
    torch.testing.assert_close(found.vectors.detach(), torch.stack(plain), atol=1e-4, rtol=1e-4)
    assert found.labels.tolist() == [1, 2]


def _levels(net: nn.Module, picture: Tensor) -> Tensor:
    """The features of a plain picture, of all levels."""
    maps = [net.d3(picture)]
    for level in (net.d4, net.d5):
        maps.append(level(maps[-1]))
    return torch.cat([one[0, :, one.shape[2] // 2, one.shape[3] // 2] for one in maps])


def test_images_of_one_size_are_detected_together_as_one_by_one(detector: Detector) -> None:
    images = [torch.rand(3, 40, 60) for _ in range(3)]
    together = detector(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = detector([image])
        assert alone.keys() == found.keys()
        for name in alone:
            torch.testing.assert_close(found[name], alone[name])
    assert [len(one["boxes"]) for one in detector([images[0], torch.rand(3, 50, 50)])] == [2, 2]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Found: -log(0.5) + 1 - 0.8; the worse one beside it does not count.
        ([[0, 0, 10, 8, 1.0, 0, 0.5], [0, 0, 10, 6, 1.0, 0, 0.5]], 0.6931 + 0.2),
        # A sure box where there is nothing: -log(1 - 0.9) more; an unsure one is let be.
        ([[0, 0, 10, 10, 1.0, 0, 1.0], [50, 50, 60, 60, 0.9, 1, 0], [70, 70, 80, 80, 0.4, 1, 0]], 2.3026),
    ],
)
def test_the_training_loss_wants_each_object_found_and_nothing_else(
    detector: Detector, rows: list[list[float]], expected: float
) -> None:
    raw = torch.tensor(rows, requires_grad=True)
    truth = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([2])}
    loss = detection_loss(detector)([{"raw": raw}], [truth])
    assert loss.item() == pytest.approx(expected, abs=1e-3)
    loss.backward()
    assert raw.grad is not None and raw.grad.isfinite().all()


def test_photographs_are_labelled_with_what_is_seen_at_the_samples_size(detector: Detector, tmp_path: Path) -> None:
    Image.new("RGB", (80, 40), "white").save(tmp_path / "a.jpg")
    sure = {"boxes": torch.tensor([[8.0, 16, 24, 32], [0, 0, 4, 4]]), "scores": torch.tensor([0.9, 0.1])}
    seen: list[torch.Size] = []

    def see(images: list[Tensor]) -> list[dict[str, Tensor]]:
        seen.append(images[0].shape)
        return [{**sure, "labels": torch.tensor([2, 1])}]

    detector.forward = see  # type: ignore[assignment]
    file = tmp_path / "boxes.json"
    label(detector, tmp_path, 32, file)
    assert seen == [(3, 32, 32)]
    # Scaled back by 80 / 32 and 40 / 32, as x, y, width, height.
    (box,) = json.loads(file.read_text())["annotations"]
    assert box == {"image_id": 0, "bbox": [20.0, 20.0, 40.0, 20.0], "category_id": 2}
    assert boxed_images(tmp_path, annotations=file).boxes == (((20.0, 20.0, 60.0, 40.0, 2, 0),),)
