"""Pixel accuracy and mean intersection over union (mIoU), from counts that add up over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from purifier._errors import InputError


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of each class, (K,) int64 each; ignored pixels count nowhere.

    Attributes:
        hits: Pixels of this class that are predicted as it.
        predicted: Pixels that are predicted as this class.
        labelled: Pixels of this class.
    """

    hits: Tensor
    predicted: Tensor
    labelled: Tensor

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.hits + other.hits, self.predicted + other.predicted, self.labelled + other.labelled)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right."""
        return float(self.hits.sum()) / max(1, int(self.labelled.sum()))

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that are labelled anywhere of hits / (predicted + labelled - hits)."""
        present = self.labelled > 0
        union = (self.predicted + self.labelled - self.hits)[present]
        return float((self.hits[present] / union).mean()) if len(union) else 0.0


def count_pixels(predictions: Tensor, masks: Tensor, classes: int, *, ignore_index: int = 255) -> list[PixelCounts]:
    """Counts the pixels of each image.

    Args:
        predictions: (N, H, W) predicted class numbers.
        masks: (N, H, W) true class numbers, `ignore_index` for pixels that do not count.
        classes: Number of classes (K).
        ignore_index: Value of pixels that do not count.

    Raises:
        InputError: Where the shapes differ, or a mask has a value outside 0..K-1 that is not ignored.

    Example:
        >>> import torch
        >>> (counts,) = count_pixels(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 2)
        >>> counts.pixel_accuracy, counts.mean_iou
        (0.5, 0.5)
    """
    if predictions.shape != masks.shape:
        raise InputError(
            f"expected predictions of the masks' shape {tuple(masks.shape)}, got {tuple(predictions.shape)}"
        )
    check_masks(masks, classes, ignore_index=ignore_index)
    counts = []
    for predicted, mask in zip(predictions, masks, strict=True):
        valid = mask != ignore_index
        predicted, mask = predicted[valid], mask[valid]
        counts.append(
            PixelCounts(*(torch.bincount(x, minlength=classes) for x in (mask[predicted == mask], predicted, mask)))
        )
    return counts


def check_masks(masks: Tensor, classes: int, *, ignore_index: int = 255) -> None:
    """Checks that every pixel is a class or ignored.

    Raises:
        InputError: Where one is not.
    """
    outside = masks[(masks != ignore_index) & ((masks < 0) | (masks >= classes))]
    if len(outside):
        raise InputError(
            f"expected mask values within 0..{classes - 1}, or {ignore_index} to ignore, got {int(outside.max())}; "
            "give the value of pixels without a class as the ignore index"
        )


def bootstrap(counts: Sequence[PixelCounts], *, samples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Returns 95 % intervals of pixel accuracy and mIoU over the choice of images.

    Percentile bootstrap (Efron 1979): images are drawn again with replacement, because the pixels of one image are
    far from independent.

    Args:
        counts: One an image.
        samples: Number of draws.
        seed: Of the draws.
    """
    if not counts:
        return {"pixel_accuracy": (0.0, 1.0), "mean_iou": (0.0, 1.0)}
    generator = torch.Generator().manual_seed(seed)
    weights = torch.multinomial(
        torch.ones(len(counts)).expand(samples, -1), len(counts), replacement=True, generator=generator
    )
    drawn = torch.zeros(samples, len(counts)).scatter_add_(1, weights, torch.ones(samples, len(counts))).double()
    hits, predicted, labelled = (
        drawn @ torch.stack([getattr(c, name).double() for c in counts]) for name in ("hits", "predicted", "labelled")
    )
    present = labelled > 0
    ratio = torch.where(present, hits / (predicted + labelled - hits).clamp_min(1), 0)
    measures = {
        "pixel_accuracy": hits.sum(1) / labelled.sum(1).clamp_min(1),
        "mean_iou": ratio.sum(1) / present.sum(1).clamp_min(1),
    }
    points = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return {name: (*map(float, values.quantile(points)),) for name, values in measures.items()}  # type: ignore[misc]
