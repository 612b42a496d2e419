"""mAP by torchmetrics."""

from typing import Any

import pytest

from purifier import InputError
from purifier.evaluation.metrics.detection import mean_average_precision

BOX, OTHER = [10, 10, 50, 50], [60, 60, 90, 90]


def found(boxes: list[list[int]], scores: list[float], labels: list[int]) -> dict[str, Any]:
    return {"boxes": boxes, "scores": scores, "labels": labels}


def test_perfect_boxes_have_a_map_of_one_and_half_of_them_a_half() -> None:
    targets = [{"boxes": [BOX], "labels": [1], "iscrowd": [0]}, {"boxes": [OTHER], "labels": [2], "iscrowd": [0]}]
    right = [found([BOX], [0.9], [1]), found([OTHER], [0.8], [2])]
    assert mean_average_precision(right, targets) == {"map": 1.0, "map_50": 1.0}
    half = mean_average_precision([right[0], found([], [], [])], targets)
    assert half == {"map": 0.5, "map_50": 0.5}


def test_a_loose_box_counts_at_half_overlap_alone() -> None:
    targets = [{"boxes": [BOX], "labels": [1]}]
    loose = mean_average_precision([found([[10, 10, 50, 35]], [0.9], [1])], targets)  # IoU 0.625
    assert loose["map_50"] == 1 and loose["map"] == pytest.approx(0.3)


def test_boxes_in_a_crowd_are_no_mistakes() -> None:
    boxes = found([BOX, OTHER], [0.5, 0.9], [1, 1])
    crowd = {"boxes": [BOX, OTHER], "labels": [1, 1], "iscrowd": [0, 1]}
    assert mean_average_precision([boxes], [crowd])["map_50"] == 1
    assert mean_average_precision([boxes], [{"boxes": [BOX], "labels": [1]}])["map_50"] == pytest.approx(0.5)


def test_images_without_any_box_are_refused() -> None:
    with pytest.raises(InputError, match="expected boxes in at least one of 1 images, got none"):
        mean_average_precision([found([], [], [])], [{"boxes": [], "labels": []}])
