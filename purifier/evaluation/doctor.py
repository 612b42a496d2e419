"""doctor(): what is wrong with how a model is fed, found by feeding it otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._attaching import as_purified_model
from purifier._cards import clean_costs
from purifier._convention import Convention
from purifier._errors import InputError, PurifierError
from purifier._input import TOLERANCE, check_form, extremes
from purifier.attacks.threats import bare_model, whole_model
from purifier.data.sets import LabelledImages
from purifier.evaluation.checks.finding import Check, Finding
from purifier.evaluation.checks.outputs import SOFTMAX, is_softmax, sign_test
from purifier.methods import describe
from purifier.models.features import IMAGENET_MEAN, IMAGENET_STD
from purifier.models.layers import check_eval, in_eval
from purifier.smoothing.votes import predicted

# A change of input counts if so few fair coins would favour it as much: one of ten checks errs once in 100 models.
_SIGNIFICANT = 0.001
_BATCH = 20
# Share of clean accuracy that a purifier may cost whose card states no figure.
_MOST_COST = 0.05
# Share of the classes that must be told apart before the order of the classes is doubted.
_AGREE = 0.5

TRAIN_MODE = Check(
    "train mode",
    "a batch norm or dropout layer is in train mode",
    "Outputs are random or depend on the batch. Call model.eval().",
)
NOT_FINITE = Check(
    "outputs are not finite",
    "the largest output for an image is NaN or infinite",
    "Such an output is no prediction. Check the model's weights and the range of its images, and run it in float32 if "
    "it overflows in half precision. Then ask again.",
)
FED = {
    "missing normalisation": "The model was made for normalised images. Give wrap() or attach() those, with mean= and "
    "std=, or put the normalisation inside the model.",
    "double normalisation": "The images are normalised twice: before the model and inside it. Leave one out.",
    "0..255": "The model and its images differ by a factor of 255. Scale the images, or pass mean=0, std=1/255.",
    "BGR": "The model was made for the other order of the colour channels. Flip them, or pass channels='BGR'.",
    "image size": "The model does better on another image size. Resize the images as in its training.",
}
OFF_BY_ONE = Check(
    "labels off by one",
    "the predictions match the labels better if each label is moved by one",
    "The labels count from 1, or a background class was added or left out. Move them.",
)
UNKNOWN_LABELS = Check(
    "unknown labels",
    "there are labels for which the model has no output",
    "The model knows other classes than the data. Count classes from 0, or take the model that was trained on them.",
)
CLASS_ORDER = Check(
    "class order",
    "images of one class agree on another class",
    "The classes are numbered otherwise than the model's outputs. Sort the labels as in its training.",
)
COST = Check(
    "purifier changes clean images",
    "the purifier costs more accuracy on these clean images than its card states, or than "
    f"{100 * _MOST_COST:.0f} points if it states nothing",
    "Try another purifier, fewer iterations (purifier tune), or a gate in front of it: purifier.gated().",
)


def doctor(model: Any, images: LabelledImages | Tensor, labels: Tensor | None = None) -> list[Finding]:
    """Looks for what is wrong with how a classifier is fed.

    It compares the accuracy on the images as they are with the accuracy if they were fed or labelled otherwise:
    normalised, un-normalised, scaled by 255, with the channels reversed, resized, with the labels moved. The remedy
    that helps most is reported, if it helps on more images than chance allows (exact sign test, p < 0.001). One fault
    can hide another: mend it and ask again.

    Args:
        model: A classifier of images; also behind `purifier.wrap` or `attach`, whose purifier is examined too.
        images: A `LabelledImages` set, RGB in [0, 1]; or images as the model is fed them, (N, 3, H, W). Those of a
            defended model may also be RGB in [0, 1]. Use fifty or more; with fewer than ten, most checks stay silent.
        labels: Class numbers (N,) of a tensor of images. Without labels only the mode and the outputs are checked.

    Returns:
        What was found, each with what was measured and what to do; empty if nothing was. If outputs are not finite,
        nothing further is looked for.

    Raises:
        InputError: If the model does not return logits (N, K), or images or labels have another form.

    Example:
        >>> from purifier.evaluation import doctor
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(192, 3))
        >>> [finding.check for finding in doctor(model, torch.rand(8, 3, 8, 8))]
        ['train mode']
    """
    defended = as_purified_model(model)
    bare = model if defended is None else bare_model(defended)
    images, labels = _loaded(images, labels, None if defended is None else defended.convention)
    findings = list(_mode(bare))
    view = _View(bare)
    outputs = view.logits(images)
    if broken := list(_not_finite(outputs)):
        return [*findings, *broken]
    if is_softmax(outputs):
        findings.append(SOFTMAX.found(f"outputs from {outputs.min():.2g} to {outputs.max():.2g}, each row sums to 1"))
    if labels is None:
        return findings
    findings += _unknown(outputs, labels)
    fault = _most_likely(view, outputs, images, labels)
    findings += [fault] if fault else []
    if defended is not None:
        findings += _cost(view, _View(whole_model(defended)), images, labels, _stated_costs(defended.purifier))
    return findings


def _loaded(images: Any, labels: Any, convention: Convention | None) -> tuple[Tensor, Tensor | None]:
    """Returns images and labels as tensors; for a defended model, RGB images in [0, 1]."""
    if isinstance(images, LabelledImages):
        images, labels = images.load(range(len(images)))
        convention = None
    _check_data(images, labels)
    return images if convention is None else _as_unit(images, convention), labels


def _check_data(images: Any, labels: Any) -> None:
    if not isinstance(images, Tensor):
        raise InputError(
            f"expected images (N, 3, H, W) or a set of labelled images, got {type(images).__name__}; "
            "purifier.evaluation.labelled_images reads folders"
        )
    check_form(images, grey=True)
    if images.ndim != 4 or len(images) == 0:
        raise InputError(f"expected a batch of images (N, 3, H, W), got shape {tuple(images.shape)}")
    if labels is None:
        return
    got = f"{labels.dtype} of shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
    if not isinstance(labels, Tensor) or labels.shape != images.shape[:1] or labels.is_floating_point():
        raise InputError(f"expected a class number for each image, ({len(images)},), got {got}")


class _View:
    """A model in eval mode, called in batches without gradients; its mode is given back after each call."""

    def __init__(self, model: Any) -> None:
        if not callable(model):
            raise InputError(f"expected a model that maps images to logits, got {type(model).__name__}")
        self.model = model

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        with in_eval(self.model):
            outputs = [getattr(found, "logits", found) for found in map(self.model, images.split(_BATCH))]
        if not all(isinstance(one, Tensor) and one.ndim == 2 for one in outputs):
            raise InputError(f"expected logits (N, classes) from the model, got {type(outputs[0]).__name__}")
        return torch.cat(outputs).float().cpu()

    def right(self, images: Tensor, labels: Tensor) -> Tensor:
        outputs = self.logits(images)
        return predicted(outputs) == labels.cpu()


def _mode(model: Any) -> Iterator[Finding]:
    try:
        check_eval(model)
    except InputError as error:
        yield TRAIN_MODE.found(str(error).partition("got ")[2].partition(",")[0])


def _not_finite(outputs: Tensor, where: str = "") -> Iterator[Finding]:
    count = int((predicted(outputs) < 0).sum())
    if count:
        yield NOT_FINITE.found(f"NaN or infinity for {count} of {len(outputs)} images{where}")


def _unknown(outputs: Tensor, labels: Tensor) -> Iterator[Finding]:
    classes, unknown = outputs.shape[1], (labels < 0) | (labels >= outputs.shape[1])
    if bool(unknown.any()):
        yield UNKNOWN_LABELS.found(
            f"{int(unknown.sum())} of {len(labels)} labels are outside 0 to {classes - 1}: they go from "
            f"{int(labels.min())} to {int(labels.max())}"
        )


def _most_likely(view: _View, outputs: Tensor, images: Tensor, labels: Tensor) -> Finding | None:
    """The one fault whose remedy helps most; one fault makes others look likely too."""
    labels = labels.cpu()
    right = outputs.argmax(1) == labels
    best, most = None, 0
    for check, remedy, now in (*_otherwise_fed(view, images, labels), *_otherwise_labelled(outputs, labels)):
        gained, lost, count = int((now & ~right).sum()), int((right & ~now).sum()), int(now.sum())
        if sign_test(gained, lost) < _SIGNIFICANT and count > most:
            best, most = (
                check.found(f"{int(right.sum())} of {len(right)} images right as they are, {count} {remedy}"),
                count,
            )
    return best


def _otherwise_fed(view: _View, images: Tensor, labels: Tensor) -> Iterator[tuple[Check, str, Tensor]]:
    """Yields each fault of the input, its remedy, and which images (N,) are right with it."""
    for name, remedy, change in _changes(images):
        try:
            now = view.right(change(images), labels)
        except (PurifierError, ValueError, RuntimeError):  # a model that refuses such images
            continue
        yield Check(name, f"the model is clearly more accurate on images {remedy}", FED[name]), remedy, now


def _otherwise_labelled(outputs: Tensor, labels: Tensor) -> Iterator[tuple[Check, str, Tensor]]:
    predicted = outputs.argmax(1)
    for step in (-1, 1):
        yield OFF_BY_ONE, f"with {step:+d} added to their labels", predicted == labels + step
    majority = {int(label): int(predicted[labels == label].mode().values) for label in labels.unique()}
    # A model that gives one class to everything agrees too, and says nothing.
    if len(set(majority.values())) > _AGREE * len(majority):
        yield CLASS_ORDER, "agree with the other images of their class", _agreeing(predicted, labels)


def _changes(images: Tensor) -> list[tuple[str, str, Callable[[Tensor], Tensor]]]:
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    sizes = [side for side in (0.5, 2.0) if min(images.shape[-2:]) * side >= 16]
    return [
        ("missing normalisation", "normalised by ImageNet's mean and std", lambda x: (x - mean) / std),
        ("missing normalisation", "scaled to -1..1", lambda x: x * 2 - 1),
        ("double normalisation", "with ImageNet's normalisation undone", lambda x: x * std + mean),
        ("double normalisation", "scaled from -1..1 to 0..1", lambda x: (x + 1) / 2),
        ("0..255", "multiplied by 255", lambda x: x * 255),
        ("0..255", "divided by 255", lambda x: x / 255),
        ("BGR", "with their channels reversed", lambda x: x.flip(1)),
        *(("image size", f"resized by {side:g}", lambda x, side=side: _resized(x, side)) for side in sizes),
    ]


def _resized(images: Tensor, factor: float) -> Tensor:
    return F.interpolate(images, scale_factor=factor, mode="bilinear", antialias=factor < 1)


def _agreeing(predicted: Tensor, labels: Tensor) -> Tensor:
    """Which images (N,) are predicted as most of the other images of their class are."""
    agree = torch.zeros(len(labels), dtype=torch.bool)
    for number, label in enumerate(labels):
        others = predicted[(labels == label) & (torch.arange(len(labels)) != number)]
        agree[number] = len(others) > 0 and bool(others.mode().values == predicted[number])
    return agree


def _cost(bare: _View, whole: _View, images: Tensor, labels: Tensor, stated: dict[str, float]) -> Iterator[Finding]:
    outputs = whole.logits(images)
    if broken := list(_not_finite(outputs, " behind the purifier")):
        yield from broken
        return
    before, after = bare.right(images, labels), outputs.argmax(1) == labels.cpu()
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    # Losses that the card states are no evidence.
    most = max(0.0, *stated.values()) / 100 if stated else _MOST_COST
    unexplained = lost - math.floor(most * len(labels))
    if unexplained > gained and sign_test(unexplained, gained) < _SIGNIFICANT:
        points = ", ".join(f"{cost:.1f} points on {classifier}" for classifier, cost in stated.items())
        yield COST.found(
            f"{int(before.sum())} of {len(labels)} images right without it, {int(after.sum())} with it"
            + (f"; its card states a cost of {points}" if points else "")
        )


def _stated_costs(purifier: Any) -> dict[str, float]:
    """What a purifier costs in points by classifier, as its card says; empty if it says nothing about these options."""
    card, described = getattr(purifier, "card", None), getattr(purifier, "_card_of", None)
    if card is None or described is None:
        return {}
    options, now = dict(described["options"]), describe(purifier.method)
    if now["method"] != described["method"] or {**options, "iterations": 0} != {**now["options"], "iterations": 0}:
        return {}
    return clean_costs(card, purifier.name, now["options"].get("iterations"))


def _as_unit(images: Tensor, convention: Convention) -> Tensor:
    """Turns images that a defended model is fed into RGB ones in [0, 1]."""
    if convention.normalisation is None:
        return convention.reordered(images)
    low, high = extremes(images)
    return images if low >= -TOLERANCE and high <= 1 + TOLERANCE else convention.to_unit(images)
