"""Losses on logits and labels, for classifiers (N, K) and dense outputs (N, K, H, W); higher is worse for the model.

Labels are integers (N,) or (N, H, W). In dense labels, -100 marks pixels to ignore, and so does 255 if the model has at
most 255 classes. The DLR losses are those of Croce & Hein, "Reliable Evaluation of Adversarial Robustness with an
Ensemble of Diverse Parameter-free Attacks", ICML 2020, https://arxiv.org/abs/2003.01690.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._errors import InputError

_IGNORED = -100
_VOID = 255


def cross_entropy(outputs: Any, targets: Any) -> Tensor:
    """Returns the cross entropy of each image, (N,); for dense outputs its mean over the valid pixels.

    Raises:
        InputError: If outputs are not logits, or targets not labels for them.
    """
    logits, labels = places(outputs, targets)
    return _mean(F.cross_entropy(logits, labels, reduction="none", ignore_index=_IGNORED), labels)


def dlr(outputs: Any, targets: Any) -> Tensor:
    """Returns the difference of logits ratio of each image, (N,), eq. 6. Shifted or scaled logits give the same value.

    Raises:
        InputError: As for `cross_entropy`, or if there are fewer than three classes.
    """
    logits, labels = places(outputs, targets)
    top = _top(logits, 3)
    return _mean(_gap(logits, labels) / (top[:, 0] - top[:, 2]).clamp_min(1e-12), labels)


def targeted_dlr(outputs: Any, targets: Any, goals: Tensor) -> Tensor:
    """Returns the targeted form of `dlr`, (N,), eq. 7.

    Args:
        outputs: Logits (N, K), K >= 4.
        targets: Labels (N,) to leave.
        goals: Labels (N,) to reach.
    """
    logits, labels = places(outputs, targets)
    top = _top(logits, 4)
    rise = _at(logits, goals.view_as(labels)) - _at(logits, labels)
    return _mean(rise / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp_min(1e-12), labels)


def margin(outputs: Any, targets: Any) -> Tensor:
    """Returns the largest other logit minus the label's, (N, P), P = 1 for classifiers and H * W for dense outputs.

    It is positive where the prediction is wrong, and NaN at places to ignore.

    Raises:
        InputError: As for `cross_entropy`.
    """
    logits, labels = places(outputs, targets)
    return _gap(logits, labels).masked_fill(labels == _IGNORED, torch.nan)


def mean_margin(outputs: Any, targets: Any) -> Tensor:
    """Returns the mean of `margin` over the valid places, (N,)."""
    return margin(outputs, targets).nanmean(1)


def fooled(margins: Tensor, share: float = 1.0) -> Tensor:
    """Returns which images (N,) are predicted wrongly at a share of the valid places.

    Args:
        margins: Margins (N, P) as returned by `margin`.
        share: Share of places, in (0, 1]. It has no effect on classifiers, which have one place.
    """
    counted = (~margins.isnan()).sum(1)
    return ((margins > 0).sum(1) >= share * counted) & (counted > 0)


def logits_in(outputs: Any) -> Any:
    """Returns the logits of a transformers model's output, at `.logits`; other outputs as they are."""
    return getattr(outputs, "logits", outputs)


def places(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Checks logits and labels, and brings those of classifiers and of dense outputs into one form.

    Returns:
        Logits (N, K, P), in single or double precision, and labels (N, P), -100 at places to ignore.

    Raises:
        InputError: If outputs are not logits (N, K) or (N, K, H, W), K >= 2, or have none as `.logits`, or targets are
            not labels for them.
    """
    outputs = logits_in(outputs)
    if not (isinstance(outputs, Tensor) and outputs.ndim in (2, 4) and outputs.shape[1] >= 2):
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(
            f"expected logits of shape (N, classes) or (N, classes, H, W) from the model, got {got}; for other tasks "
            "pass your own loss to the attack: loss=lambda outputs, targets: ..."
        )
    labels = _labels(outputs, targets)
    logits = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return logits.flatten(2) if logits.ndim == 4 else logits.unsqueeze(2), labels.flatten(1)


def _labels(outputs: Tensor, targets: Any) -> Tensor:
    """Returns checked labels (N, 1) or (N, H, W) on the device of the outputs."""
    shape = (len(outputs), *outputs.shape[2:])
    kind = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
    kind = f"{kind} without values" if isinstance(targets, Tensor) and targets.is_meta else kind
    numbers = isinstance(targets, Tensor) and not targets.is_floating_point() and not targets.is_complex()
    if not numbers or targets.dtype == torch.bool or targets.is_meta:
        raise InputError(
            f"expected integer labels of shape {shape}, got {kind}; for other targets pass your own loss to the "
            "attack: loss=lambda outputs, targets: ..."
        )
    if targets.shape != shape:
        raise InputError(
            f"expected labels of shape {shape} for outputs of shape {tuple(outputs.shape)}, got {tuple(targets.shape)}"
        )
    classes, labels = outputs.shape[1], targets.to(outputs.device, torch.long)
    if labels.ndim > 1:
        ignored = labels == _IGNORED
        if classes <= _VOID:
            ignored |= labels == _VOID
        labels = labels.masked_fill(ignored, _IGNORED)
    wrong = labels[((labels < 0) | (labels >= classes)) & ~((labels == _IGNORED) & (labels.ndim > 1))]
    if len(wrong):
        raise InputError(
            f"expected labels from 0 to {classes - 1}, one of the model's {classes} classes, got {int(wrong[0])}; "
            "check that labels and model belong together"
        )
    return labels.view(len(outputs), 1) if labels.ndim == 1 else labels


def _at(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (N, P) of labels (N, P); the logit of class 0 at places to ignore."""
    return logits.gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1)


def _gap(logits: Tensor, labels: Tensor) -> Tensor:
    others = logits.scatter(1, labels.clamp_min(0).unsqueeze(1), -torch.inf)
    return others.amax(1) - _at(logits, labels)


def _top(logits: Tensor, count: int) -> Tensor:
    """The largest logits (N, count, P), in descending order."""
    if logits.shape[1] < count:
        raise InputError(
            f"expected a model with at least {count} classes for this form of the DLR loss, got {logits.shape[1]}; "
            'use loss="ce"'
        )
    return logits.topk(count, 1).values


def _mean(losses: Tensor, labels: Tensor) -> Tensor:
    """Mean over the valid places (N, P); 0 for an image without any."""
    counted = labels != _IGNORED
    return torch.where(counted, losses, 0).sum(1) / counted.sum(1).clamp_min(1)
