"""Outputs that show a model that is not what the evaluation takes it for."""

from __future__ import annotations

from math import comb

from torch import Tensor

from purifier._errors import PurifierError
from purifier.evaluation.checks.context import Scene, View
from purifier.evaluation.checks.finding import Check, Finding

SOFTMAX = Check(
    "softmax outputs",
    "the outputs are in [0, 1] and sum to 1 for every image",
    "Cross entropy of probabilities applies softmax twice, which flattens its gradient. Take the logits: drop the "
    "model's last softmax, or return the logarithm of its output.",
)
RANGE = Check(
    "wrong range",
    "clean images are classified no better than by chance, or all alike, or clearly better once they are scaled to "
    "0..255, to -1..1 or by ImageNet's mean and std",
    "The model is fed images in another range than it was made for, so all accuracies are meaningless. Give wrap() "
    "the mean and std that the model expects, or put the model's own scaling in front of it; check the labels' order.",
)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CHANCE, _SIGNIFICANT, _FEWEST = 1.5, 0.01, 4


def softmax_outputs(scene: Scene) -> Finding | None:
    """Raised where a classifier returns probabilities."""
    if not scene.classifies:
        return None
    outputs: Tensor = scene.outputs.float()
    if not is_softmax(outputs):
        return None
    off = float((outputs.sum(1) - 1).abs().max())
    return SOFTMAX.found(f"outputs from {outputs.min():.2g} to {outputs.max():.2g}, sums within {off:.1g} of 1")


def is_softmax(outputs: Tensor) -> bool:
    """Whether outputs (N, K) are probabilities."""
    sums = outputs.sum(1)
    return bool(outputs.min() >= 0 and outputs.max() <= 1 and (sums - 1).abs().max() <= 1e-2)


def wrong_range(scene: Scene) -> Finding | None:
    """Raised where the bare model does not classify clean images, or does so better in another range."""
    if not scene.classifies or len(scene.images) < _FEWEST:
        return None
    model = scene.bare or scene.view
    outputs = scene.call(model, scene.images)
    right = outputs.argmax(1) == scene.labels
    found, count, classes = int(right.sum()), len(right), outputs.shape[1]
    better = _better_range(scene, model, right)
    if better:
        return RANGE.found(f"{found} of {count} images right as they are, {better}")
    if found <= _CHANCE * count / classes:
        return RANGE.found(f"{found} of {count} clean images right, with {classes} classes")
    if len(outputs.argmax(1).unique()) == 1 and count - found >= _FEWEST:
        return RANGE.found(f"all {count} images get class {int(outputs.argmax(1)[0])}, {found} of them rightly")
    return None


def _better_range(scene: Scene, model: View, right: Tensor) -> str:
    """Names the range in which clearly more images are right, by an exact sign test; empty where there is none."""
    images = scene.images
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    ranges = {
        "0..255": images * 255,
        "-1..1": images * 2 - 1,
        f"the range of mean={_MEAN} and std={_STD}": (images - mean) / std,
    }
    for name, scaled in ranges.items():
        try:
            now = scene.right(scaled, model)
        except (PurifierError, ValueError):  # a model that checks its range has no other
            continue
        gained, lost = int((now & ~right).sum()), int((right & ~now).sum())
        if gained > lost and sign_test(gained, lost) < _SIGNIFICANT:
            return f"{int(now.sum())} when scaled to {name}"
    return ""


def sign_test(gained: int, lost: int) -> float:
    """Probability that a fair coin gives at least `gained` heads in gained + lost throws."""
    throws = gained + lost
    return float(sum(comb(throws, heads) for heads in range(gained, throws + 1)) / 2**throws)
