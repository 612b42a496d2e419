"""Measures for models that answer with ranked labels, such as vision APIs.

Cha et al., "NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024,
supplement 4.2. The truth is what the model itself says of the clean image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from purifier._errors import InputError, OptionError
from purifier.evaluation.metrics.classification import interval


@dataclass(frozen=True, kw_only=True)
class RankedScores:
    """How far the labels of purified images are those of the clean ones, as counts.

    Attributes:
        k: How many labels of a list count.
        images: Number of images.
        labels: Number of labels of the clean images, at most k an image.
        shared: How many of these are among the k labels of the purified image, in any order.
        first: Number of images whose first label is the same.
        among: Number of images whose first clean label is among the k labels of the purified image.
    """

    k: int
    images: int
    labels: int
    shared: int
    first: int
    among: int

    @property
    def prediction_accuracy(self) -> float:
        """Share of the clean top k that the purified top k holds too."""
        return self.shared / self.labels if self.labels else 0.0

    @property
    def prediction_interval(self) -> tuple[float, float]:
        """95 % interval of the prediction accuracy.

        That of as many yes-or-no answers as there are images: an image's share lies in [0, 1], and so varies no more
        than such an answer of the same mean. The true interval may be narrower.
        """
        # Labels of one image go together, so images are counted; rounded outwards to whole ones.
        right = self.prediction_accuracy * self.images
        low, high = math.floor(right + 1e-9), math.ceil(right - 1e-9)
        return interval(low, self.images)[0], interval(high, self.images)[1]

    @property
    def top1_accuracy(self) -> float:
        """Share of images whose first label is the clean image's."""
        return self.first / self.images if self.images else 0.0

    @property
    def top1_interval(self) -> tuple[float, float]:
        """95 % interval of the top-1 accuracy."""
        return interval(self.first, self.images)

    @property
    def topk_accuracy(self) -> float:
        """Share of images whose first clean label is within the purified top k; for k = 5 the top-5 accuracy."""
        return self.among / self.images if self.images else 0.0

    @property
    def topk_interval(self) -> tuple[float, float]:
        """95 % interval of the top-k accuracy."""
        return interval(self.among, self.images)

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts, with each share and its interval beside them, ready for JSON."""
        return {
            "k": self.k,
            "images": self.images,
            "labels": self.labels,
            "shared": self.shared,
            "first": self.first,
            "among": self.among,
            "prediction_accuracy": {"share": self.prediction_accuracy, "interval": list(self.prediction_interval)},
            "top1_accuracy": {"share": self.top1_accuracy, "interval": list(self.top1_interval)},
            f"top{self.k}_accuracy": {"share": self.topk_accuracy, "interval": list(self.topk_interval)},
        }


def ranked_scores(clean: Sequence[Sequence[str]], purified: Sequence[Sequence[str]], *, k: int = 5) -> RankedScores:
    """Compares the labels of purified images with those of the clean ones.

    Args:
        clean: Labels of each clean image, the likeliest first; more than k are cut off, repeats dropped.
        purified: Labels of the same images after attack and purifying, likewise; a list may be empty.
        k: How many labels count; 5 in the paper.

    Raises:
        InputError: Where there are not as many lists, or a clean image has no label.
        OptionError: Where k is not positive.

    Example:
        >>> scores = ranked_scores([["cat", "pet", "fur"]], [["pet", "cat", "sofa"]], k=3)
        >>> round(scores.prediction_accuracy, 2), scores.top1_accuracy, scores.topk_accuracy
        (0.67, 0.0, 1.0)
    """
    if k < 1:
        raise OptionError(f"expected k of at least 1, got {k}")
    if len(clean) != len(purified):
        raise InputError(
            f"expected labels of the same images, got {len(clean)} clean and {len(purified)} purified lists"
        )
    truths, answers = ([_top(labels, k) for labels in lists] for lists in (clean, purified))
    if not all(truths):
        raise InputError(
            f"expected at least one label for each clean image, got none for image {truths.index([])}; leave out "
            "images that the client does not recognise"
        )
    pairs = list(zip(truths, answers, strict=True))
    return RankedScores(
        k=k,
        images=len(pairs),
        labels=sum(len(truth) for truth, _ in pairs),
        shared=sum(len(set(truth) & set(answer)) for truth, answer in pairs),
        first=sum(truth[:1] == answer[:1] for truth, answer in pairs),
        among=sum(truth[0] in answer for truth, answer in pairs),
    )


def _top(labels: Sequence[str], k: int) -> list[str]:
    if isinstance(labels, str):
        raise InputError(f"expected a list of labels for each image, got the text {labels!r}; put it into a list")
    return list(dict.fromkeys(labels))[:k]
