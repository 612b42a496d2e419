"""Pixel accuracy and mIoU against a second opinion."""

import pytest
import torch

from purifier import InputError
from purifier.evaluation.metrics.segmentation import PixelCounts, bootstrap, count_pixels


def total(counts: list[PixelCounts]) -> PixelCounts:
    one = counts[0]
    for other in counts[1:]:
        one = one + other
    return one


def test_measures_are_torchmetrics_with_absent_classes_left_out() -> None:
    from torchmetrics.classification import MulticlassConfusionMatrix

    torch.manual_seed(0)
    masks = torch.randint(4, (3, 8, 9))  # class 4 of 5 is nowhere
    masks[torch.rand(masks.shape) < 0.2] = 255
    predictions = torch.where(torch.rand(masks.shape) < 0.6, masks.clamp(max=4), torch.randint(5, masks.shape))
    counts = total(count_pixels(predictions, masks, 5))
    matrix = MulticlassConfusionMatrix(5, ignore_index=255)(predictions, masks).double()
    union = matrix.sum(0) + matrix.sum(1) - matrix.diag()
    assert counts.pixel_accuracy == pytest.approx(float(matrix.diag().sum() / matrix.sum()))
    assert counts.mean_iou == pytest.approx(float((matrix.diag() / union)[:4].mean()))


def test_the_ignore_index_is_the_users() -> None:
    masks = torch.tensor([[[0, 11, 1]]])
    counts = total(count_pixels(torch.tensor([[[0, 0, 0]]]), masks, 11, ignore_index=11))
    assert counts.labelled.sum() == 2 and counts.pixel_accuracy == 0.5


def test_an_image_of_ignored_pixels_alone_counts_nothing() -> None:
    (counts,) = count_pixels(torch.zeros(1, 2, 2, dtype=torch.long), torch.full((1, 2, 2), 255), 3)
    assert (counts.pixel_accuracy, counts.mean_iou) == (0, 0) and counts.predicted.sum() == 0


def test_a_pixel_that_is_predicted_as_no_class_is_wrong_for_its_own_and_costs_no_other() -> None:
    (counts,) = count_pixels(torch.tensor([[[0, -1, 1, 1]]]), torch.tensor([[[0, 0, 1, 1]]]), 2)
    assert (counts.pixel_accuracy, counts.mean_iou) == (0.75, 0.75)


def test_bootstrap_intervals_hold_the_figure_and_shrink_with_images() -> None:
    torch.manual_seed(0)

    def some(count: int) -> list[PixelCounts]:
        masks = torch.randint(3, (count, 6, 6))
        return count_pixels(torch.where(torch.rand(masks.shape) < 0.7, masks, 0), masks, 3)

    few, many = some(8), some(200)
    for counts in (few, many):
        found = bootstrap(counts)
        for name in ("pixel_accuracy", "mean_iou"):
            assert found[name][0] < getattr(total(counts), name) < found[name][1]
    widths = [high - low for low, high in (bootstrap(c)["mean_iou"] for c in (few, many))]
    assert widths[1] < widths[0] / 2
    assert bootstrap(few) == bootstrap(few)
    assert bootstrap([]) == {"pixel_accuracy": (0.0, 1.0), "mean_iou": (0.0, 1.0)}


def test_values_that_are_no_class_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected mask values within 0..2, or 255 to ignore, got 7"):
        count_pixels(torch.zeros(1, 1, 1, dtype=torch.long), torch.full((1, 1, 1), 7), 3)
    with pytest.raises(InputError, match=r"expected predictions of the masks' shape \(1, 2, 2\), got \(1, 1, 1\)"):
        count_pixels(torch.zeros(1, 1, 1), torch.zeros(1, 2, 2), 3)
    assert isinstance(PixelCounts(*torch.zeros(3, 2)).mean_iou, float)
