"""Measures for models that return ranked labels, such as vision APIs.

The ground truth is the model's own answer for the clean image. Source: "NCIS: Neural Contextual Iterative Smoothing for
Purifying Adversarial Perturbations", WACV 2024, supplement 4.2, https://arxiv.org/abs/2106.11644.
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
    """Counts of labels that purified images share with the clean images.

    Attributes:
        k: Number of labels of a list that are compared.
        images: Number of images.
        labels: Number of labels of the clean images, at most k for each image.
        shared: Number of these labels that are among the k labels of the purified image, in any order.
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
        """Share of the clean top-k labels that are also in the purified top k."""
        return self.shared / self.labels if self.labels else 0.0

    @property
    def prediction_interval(self) -> tuple[float, float]:
        """95 % interval of the prediction accuracy, computed as if each image were one correct or wrong answer.

        An image's share lies in [0, 1], so it varies at most as much as such an answer with the same mean. The true
        interval may be narrower.
        """
        # Labels of one image are not independent, so images are counted, rounded outwards to whole images.
        right = self.prediction_accuracy * self.images
        low, high = math.floor(right + 1e-9), math.ceil(right - 1e-9)
        return interval(low, self.images)[0], interval(high, self.images)[1]

    @property
    def top1_accuracy(self) -> float:
        """Share of images whose first label is that of the clean image."""
        return self.first / self.images if self.images else 0.0

    @property
    def top1_interval(self) -> tuple[float, float]:
        """95 % interval of the top-1 accuracy."""
        return interval(self.first, self.images)

    @property
    def topk_accuracy(self) -> float:
        """Share of images whose first clean label is in the purified top k."""
        return self.among / self.images if self.images else 0.0

    @property
    def topk_interval(self) -> tuple[float, float]:
        """95 % interval of the top-k accuracy."""
        return interval(self.among, self.images)

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts, and each share with its interval, ready for JSON."""
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
    """Compares the labels of purified images with those of the clean images.

    Args:
        clean: Labels of each clean image, the most likely first. Repeats are dropped, then all but the first k.
        purified: Labels of the same images after attack and purification, likewise; a list may be empty.
        k: Number of labels to compare; 5 in the paper.

    Raises:
        InputError: If the numbers of lists differ, or a clean image has no label.
        OptionError: If k is not positive.

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
            "images without labels"
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
