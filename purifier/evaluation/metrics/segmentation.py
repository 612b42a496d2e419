"""Pixel accuracy and mean intersection over union (mIoU), from counts that add up over images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from purifier._errors import InputError, PurifierWarning


@dataclass(frozen=True)
class PixelCounts:
    """Numbers of pixels by class, (K,) int64 each. Ignored pixels are in none of them.

    Attributes:
        hits: Pixels of the class that are predicted as the class.
        predicted: Pixels that are predicted as the class.
        labelled: Pixels of the class.
    """

    hits: Tensor
    predicted: Tensor
    labelled: Tensor

    def to_dict(self) -> dict[str, list[int]]:
        """Returns the counts as lists, ready for JSON."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Sequence[int]]) -> Self:
        """Reads counts from the output of `to_dict`."""
        return cls(**{name: torch.tensor(values) for name, values in record.items()})

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.hits + other.hits, self.predicted + other.predicted, self.labelled + other.labelled)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels whose prediction is correct."""
        return float(self.hits.sum()) / max(1, int(self.labelled.sum()))

    @property
    def mean_iou(self) -> float:
        """Mean of hits / (predicted + labelled - hits) over the classes that the masks contain."""
        present = self.labelled > 0
        union = (self.predicted + self.labelled - self.hits)[present]
        return float((self.hits[present] / union).mean()) if len(union) else 0.0


def count_pixels(predictions: Tensor, masks: Tensor, classes: int, *, ignore_index: int = 255) -> list[PixelCounts]:
    """Counts the pixels of each image.

    Args:
        predictions: (N, H, W) predicted class numbers; -1 if a pixel is predicted as no class.
        masks: (N, H, W) true class numbers, and `ignore_index` for pixels to ignore.
        classes: Number of classes (K).
        ignore_index: Mask value of the pixels to ignore.

    Raises:
        InputError: If the shapes differ, or a mask has a value outside 0..K-1 that is not `ignore_index`.

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
        counted = (mask[predicted == mask], predicted[predicted >= 0], mask)
        counts.append(PixelCounts(*(torch.bincount(values, minlength=classes) for values in counted)))
    return counts


def check_masks(masks: Tensor, classes: int, *, ignore_index: int = 255) -> None:
    """Checks that every mask value is a class number or `ignore_index`.

    Raises:
        InputError: If one is neither.
    """
    outside = masks[(masks != ignore_index) & ((masks < 0) | (masks >= classes))]
    if len(outside):
        raise InputError(
            f"expected mask values within 0..{classes - 1}, or {ignore_index} to ignore, got {int(outside.max())}; "
            "set ignore_index to the value of pixels without a class"
        )


def check_values(values: set[int], *, ignore_index: int = 255) -> None:
    """Checks that the masks of a whole data set tell classes apart.

    Args:
        values: All values of its masks.
        ignore_index: Mask value of the pixels to ignore.

    Raises:
        InputError: If no pixel has a class, or all pixels are of class 0 or ignored, as in masks of 0 and 255.

    Warns:
        PurifierWarning: If all pixels have one class.
    """
    classes = values - {ignore_index}
    if not classes:
        raise InputError(f"expected masks with classes, got only {ignore_index}, which is ignored; set ignore_index")
    if classes == {0} and ignore_index in values:
        raise InputError(
            f"expected masks with several classes, got only 0 and {ignore_index}, which is ignored, so that a model "
            f"that always says 0 would be perfect; if {ignore_index} marks objects, write masks of 0 and 1 "
            f"(mask // {max(1, ignore_index)}), or else choose images with other classes too"
        )
    if len(classes) == 1:
        warnings.warn(
            f"all pixels of the masks have class {next(iter(classes))}: a model that always says that would be perfect",
            PurifierWarning,
            stacklevel=2,
        )


def bootstrap(counts: Sequence[PixelCounts], *, samples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Returns 95 % intervals of pixel accuracy and mIoU over the choice of images, by percentile bootstrap.

    Whole images are drawn with replacement, because the pixels of one image are not independent. Source: Efron,
    "Bootstrap methods: another look at the jackknife", Annals of Statistics 1979,
    https://doi.org/10.1214/aos/1176344552.

    Args:
        counts: The counts of each image.
        samples: Number of draws.
        seed: Seed of the draws.
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
