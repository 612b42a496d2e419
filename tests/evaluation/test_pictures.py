"""What reports draw into pictures: the classes of pixels, and boxes."""

from __future__ import annotations

import torch

from purifier.evaluation.pictures import with_boxes, with_classes

GREY = torch.full((3, 40, 60), 0.5)


def test_each_class_of_pixels_has_a_colour_of_its_own_and_class_0_has_none() -> None:
    classes = torch.zeros(40, 60, dtype=torch.long)
    classes[:, 20:40], classes[:, 40:] = 1, 2
    drawn = with_classes(GREY, classes)
    assert torch.equal(drawn[..., :20], GREY[..., :20])
    first, second = drawn[:, 0, 20], drawn[:, 0, 40]
    assert not torch.equal(first, second)
    assert torch.equal(drawn[..., 20:40], first[:, None, None].expand(3, 40, 20))


def boxes(*rows: list[float], scores: list[float]) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor(rows), "scores": torch.tensor(scores), "labels": torch.ones(len(rows)).long()}


def test_only_the_outlines_of_sure_boxes_are_drawn() -> None:
    found = boxes([10.0, 5.0, 30.0, 25.0], [40.0, 5.0, 50.0, 9.0], scores=[0.9, 0.4])
    changed = (with_boxes(GREY, found) != GREY).any(0)
    outline = torch.zeros(40, 60, dtype=torch.bool)
    outline[5:25, 10:30] = True
    outline[6:24, 11:29] = False
    assert torch.equal(changed, outline)


def test_boxes_that_are_outside_empty_or_not_finite_break_nothing() -> None:
    found = boxes(
        [-50.0, -9.0, 1e9, 70.0], [90.0, 90.0, 95.0, 95.0], [5.0, 5.0, 5.0, 5.0], [30.0, 9.0, 2.0, 3.0],
        [float("nan"), 0.0, 1.0, 1.0], scores=[1.0] * 5,
    )  # fmt: skip
    drawn = with_boxes(GREY, found)
    assert drawn.shape == GREY.shape and drawn.isfinite().all()
    assert torch.equal(with_boxes(GREY, boxes(scores=[]) | {"boxes": torch.zeros(0, 4)}), GREY)
