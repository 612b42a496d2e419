"""The task that GAD is trained with in front of a detector with losses of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from _yolox import Detector, loss_of
from _yolox_task import YoloxTask
from torch import Tensor, nn
from torch.nn import functional as F

from purifier.training.gad import GADRecipe, GADTraining
from tests.builders import unchanged
from tests.training.gad.builders import TINY, boxed_pictures

CATEGORIES = [1, 2]


class TinyYolox(nn.Module):
    """Two classes and one box a place, at stride 32."""

    def __init__(self) -> None:
        super().__init__()
        self.d3 = nn.Conv2d(3, 6, 8, 8)
        self.head = nn.Conv2d(6, 7, 4, 4)

    def forward(self, images: Tensor) -> Tensor:
        raw = self.head(F.silu(self.d3(images))).flatten(2).transpose(1, 2)
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
    made = GADRecipe(GADTraining(**{**small, **files, "task": "_yolox_task:YoloxTask"}), detector)
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
    made = GADRecipe(GADTraining(**{**TINY, **files, "size": 64, "task": "_yolox_task:YoloxTask"}), detector)
    # Two plain halves of a picture: a box in either has the features of a picture that is plain all over.
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., 32:] = 1
    boxes = torch.tensor([[4.0, 4, 28, 60], [36.0, 4, 60, 60]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2])}]
    found = made.task.observe(picture, targets)
    with torch.no_grad():
        plain = [detector.net.d3(torch.full((1, 3, 416, 416), value))[0, :, 20, 20] for value in (0.0, 1.0)]
    torch.testing.assert_close(found.vectors.detach(), torch.stack(plain), atol=1e-4, rtol=1e-4)
    assert found.labels.tolist() == [1, 2]
