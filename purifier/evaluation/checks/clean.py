"""The bare model is wrong on clean images, or its labels are not those of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from purifier.evaluation.checks.context import Context
from purifier.evaluation.checks.finding import Check, Finding
from purifier.evaluation.checks.outputs import sign_test
from purifier.evaluation.rows import CLEAN, TableRow

POOR = Check(
    "poor on clean images",
    "without an attack or a purifier, the model is wrong on more than half of the images or pixels, predicts one class "
    "for all of them, or, for a detector, has an mAP@0.5 below 10 %",
    "No purifier corrects that, and attacks on such a model mean little. Check that the labels are numbered as the "
    "model's classes, that the model works at this size of images, that its weights are loaded, and that it takes "
    "images in [0, 1] (`purifier doctor` looks for that).",
)
LABELS = Check(
    "labels of another numbering",
    "no label that the detector predicts is a category of the data, or its labels match the categories of the boxes "
    "that it finds clearly better if they are numbered otherwise",
    "Boxes count only with the right category, so every figure is near zero. Renumber the detector's labels: wrap it "
    "in a function that maps them to the category ids of the data.",
)
# A measure below this share is poor.
_LEAST = {"accuracy": 0.5, "pixel_accuracy": 0.5, "map_50": 0.1}
_SIGNIFICANT, _FEWEST, _OVERLAP = 0.01, 3, 0.5
# Shares up to this multiple of guessing are taken for guessing.
_CHANCE = 1.5
# The fewest images with which a share says anything.
FEWEST = 4


def poor_on_probes(context: Context) -> Finding | None:
    """Checks whether the bare model classifies clean images better than by chance, and not all as one class."""
    if not context.classifies or len(context.images) < FEWEST:
        return None
    outputs = context.call(context.bare or context.view, context.images)
    predictions = outputs.argmax(1)
    right, count = int((predictions == context.labels).sum()), len(predictions)
    if len(predictions.unique()) == 1 and count - right >= FEWEST:
        return POOR.found(f"class {int(predictions[0])} is predicted for all {count} images, and right for {right}")
    if right <= min(_CHANCE * count / outputs.shape[1], count / 2):
        return POOR.found(f"{right} of {count} images are right, with {outputs.shape[1]} classes")
    return None


def poor_rows(rows: Sequence[TableRow], undefended: str) -> Finding | None:
    """Checks whether the bare model's measure on all clean images is poor."""
    for row in rows:
        if row.attack == CLEAN and row.purifier == undefended and row.images >= FEWEST:
            for name, least in _LEAST.items():
                if name in row.clean_measures and row.clean_measures[name][0] < least:
                    share = row.clean_measures[name][0]
                    return POOR.found(f"{name.replace('_', ' ')} {100 * share:.1f} % on {row.images} clean images")
    return None


def foreign_labels(
    predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]], categories: Sequence[int]
) -> Finding | None:
    """Checks whether a detector numbers its labels as the data does.

    Args:
        predictions: For each clean image boxes (M, 4) x1 y1 x2 y2, scores (M,) and labels (M,).
        targets: For each image boxes and labels.
        categories: The ids of the data's categories.
    """
    seen = {int(label) for found in predictions for label in found["labels"]}
    known = {*categories, *(int(label) for target in targets for label in target["labels"])}
    if not seen or not known:
        return None
    pairs = [pair for found, target in zip(predictions, targets, strict=True) for pair in _matched(found, target)]
    better = _better_numbering(pairs, seen, sorted(known))
    if better:
        return LABELS.found(better)
    if not seen & known:
        return LABELS.found(f"labels {_span(seen)} are predicted, and the categories are {_span(known)}")
    return None


def _better_numbering(pairs: list[tuple[int, int]], seen: set[int], known: list[int]) -> str:
    """Names the numbering with which clearly more of the matched boxes have the right category; empty if none does."""
    numberings: dict[str, Callable[[int], int | None]] = {
        "if each label is raised by 1": lambda label: label + 1,
        "if each label is lowered by 1": lambda label: label - 1,
        "as places in the sorted list of category ids, from 0": lambda label: _at(known, label),
        "as places in the sorted list of category ids, from 1": lambda label: _at(known, label - 1),
    }
    right = sum(label == truth for label, truth in pairs)
    best, most = "", right
    for name, renumbered in numberings.items():
        now = [(renumbered(label) == truth, label == truth) for label, truth in pairs]
        gained, lost = sum(a and not b for a, b in now), sum(b and not a for a, b in now)
        clear = gained > lost and (sign_test(gained, lost) < _SIGNIFICANT or (right == 0 and gained >= _FEWEST))
        if clear and right + gained - lost > most:
            best, most = name, right + gained - lost
    if best:
        return f"of {len(pairs)} boxes that are found, {right} have the right category as they are, and {most} {best}"
    # Without enough boxes, the span of the labels still tells places from ids.
    if known != list(range(len(known))) and seen <= set(range(len(known))) and not seen <= set(known):
        places = f"places in the list of {len(known)} categories"
        return f"labels {_span(seen)} look like {places}, whose ids are {_span(known)}"
    return ""


def _at(known: Sequence[int], place: int) -> int | None:
    return known[place] if 0 <= place < len(known) else None


def _matched(found: Mapping[str, Any], target: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Returns (predicted label, true label) for each true box that a prediction overlaps, whatever its label."""
    from torchvision.ops import box_iou

    boxes, truth = (torch.as_tensor(side["boxes"], dtype=torch.float32).reshape(-1, 4) for side in (found, target))
    if not len(boxes) or not len(truth):
        return []
    best, places = box_iou(truth.cpu(), boxes.cpu()).max(1)
    labels = [int(label) for label in found["labels"]]
    return [
        (labels[place], int(label))
        for overlap, place, label in zip(best.tolist(), places.tolist(), target["labels"], strict=True)
        if overlap >= _OVERLAP
    ]


def _span(numbers: Sequence[int] | set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
