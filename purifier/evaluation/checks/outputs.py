"""Outputs that show that the model or its input range is not what the evaluation assumes."""

from __future__ import annotations

from math import comb

from torch import Tensor

from purifier._errors import PurifierError
from purifier.evaluation.checks.context import Context, View
from purifier.evaluation.checks.finding import Check, Finding
from purifier.models.features import IMAGENET_MEAN, IMAGENET_STD

SOFTMAX = Check(
    "softmax outputs",
    "the outputs are in [0, 1] and sum to 1 for every image",
    "Cross entropy of probabilities applies softmax twice, which makes its gradient small. Use the logits: remove the "
    "model's last softmax, or return the logarithm of its output.",
)
RANGE = Check(
    "wrong range",
    "clean images are classified clearly better when they are scaled to 0..255, to -1..1 or by ImageNet's mean and std",
    "The model receives images in another range than it was trained on, so all accuracies are meaningless. Give wrap() "
    "the mean and std that the model expects, or scale the images inside the model.",
)
_SIGNIFICANT, _FEWEST = 0.01, 4


def softmax_outputs(context: Context) -> Finding | None:
    """Checks whether a classifier returns probabilities instead of logits."""
    if not context.classifies:
        return None
    outputs: Tensor = context.outputs.float()
    if not is_softmax(outputs):
        return None
    off = float((outputs.sum(1) - 1).abs().max())
    return SOFTMAX.found(f"outputs from {outputs.min():.2g} to {outputs.max():.2g}, sums within {off:.1g} of 1")


def is_softmax(outputs: Tensor) -> bool:
    """Returns True if outputs (N, K) are probabilities."""
    return bool(outputs.min() >= 0 and outputs.max() <= 1 and (outputs.sum(1) - 1).abs().max() <= 1e-2)


def wrong_range(context: Context) -> Finding | None:
    """Checks whether the bare model classifies clean images better in another range."""
    if not context.classifies or len(context.images) < _FEWEST:
        return None
    model = context.bare or context.view
    outputs = context.call(model, context.images)
    correct = outputs.argmax(1) == context.labels
    better = _better_range(context, model, correct)
    if not better:
        return None
    return RANGE.found(f"{int(correct.sum())} of {len(correct)} images correct as they are, {better}")


def _better_range(context: Context, model: View, correct: Tensor) -> str:
    """Names the range in which significantly more images are correct, by an exact sign test; empty if there is none."""
    images = context.images
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    ranges = {
        "0..255": images * 255,
        "-1..1": images * 2 - 1,
        f"the range of mean={IMAGENET_MEAN} and std={IMAGENET_STD}": (images - mean) / std,
    }
    for name, scaled in ranges.items():
        try:
            now = context.correct(scaled, model)
        except (PurifierError, ValueError):  # the model refuses images in that range
            continue
        gained, lost = int((now & ~correct).sum()), int((correct & ~now).sum())
        if gained > lost and sign_test(gained, lost) < _SIGNIFICANT:
            return f"{int(now.sum())} when scaled to {name}"
    return ""


def sign_test(gained: int, lost: int) -> float:
    """Probability of at least `gained` heads in gained + lost throws of a fair coin."""
    throws = gained + lost
    return float(sum(comb(throws, heads) for heads in range(gained, throws + 1)) / 2**throws)
