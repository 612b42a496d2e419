"""What differs between classification, segmentation and detection: outputs, targets and what is stored of an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._errors import InputError, OptionError, shown
from purifier._options import check_integer
from purifier.attacks import SSP, Attack, DetectionAttack, SegmentationAttack
from purifier.attacks.base import Loss
from purifier.attacks.segmentation import read_logits
from purifier.data.class_folders import few_folders
from purifier.data.images import read_mask
from purifier.data.sets import BoxedImages, ImageSet, LabelledImages, MaskedImages
from purifier.data.tables import MOST_CLASSES
from purifier.evaluation.metrics.segmentation import check_masks, check_values, count_pixels
from purifier.evaluation.pictures import with_boxes, with_classes
from purifier.evaluation.plan import Attacked
from purifier.smoothing.votes import predicted

_MOST_BOXES = 100
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Characters of a model's error that a message repeats.
_LONGEST = 300


class Task(ABC):
    """One kind of model: how its outputs become the record of an image."""

    name: ClassVar[str]
    data: ClassVar[type[ImageSet]]
    # The options of `evaluate` that mean something for this task.
    options: ClassVar[tuple[str, ...]]

    def adapt(self, attack: Attack) -> Attack:
        """Returns the attack in a form that takes this task's outputs and targets.

        Raises:
            OptionError: If it does not fit the task.
        """
        return attack

    def adapt_all(self, attacks: Mapping[str, Attack | Attacked]) -> dict[str, Attack | Attacked]:
        """Returns all attacks in that form; images that were attacked beforehand stay as they are."""
        return {name: given if isinstance(given, Attacked) else self.adapt(given) for name, given in attacks.items()}

    def attack_targets(self, targets: Any) -> Any:
        """Returns what an attack takes as targets."""
        return targets

    def truth(self, targets: Any, place: int) -> dict[str, Any]:
        """Returns the part of an image's target that its record states, by name."""
        return {}

    @abstractmethod
    def record(self, outputs: Any, targets: Any) -> list[Any]:
        """Returns each image's prediction in the form that records store, fit for JSON.

        Raises:
            InputError: If the outputs are not those of such a model.
        """

    def majority(self, found: list[list[Any]]) -> list[Any]:
        """Returns what `record` found in most of several calls, for each image.

        Raises:
            OptionError: If there are several and the task cannot vote.
        """
        if len(found) > 1:
            raise OptionError("expected votes=1, got more; only classifiers vote")
        return found[0]

    def worst(self, found: list[list[Any]], targets: Any) -> list[Any]:
        """Returns what `record` found in one of several submissions: the worst of them for each image.

        Raises:
            OptionError: If there are several and the task cannot compare them.
        """
        if len(found) > 1:
            raise OptionError("expected submissions=1, got more; only classifiers are judged by the worst of several")
        return found[0]

    def draw(self, model: Any, images: list[Tensor]) -> list[Tensor]:
        """Returns images (3, H, W) of one size with the model's predictions in them, if those can be drawn."""
        return images

    @abstractmethod
    def check(self, outputs: Any, data: Any) -> None:
        """Checks the targets of the whole data set against the model's outputs for its first image.

        Raises:
            InputError: If they do not fit.
        """

    def misfit(self, error: Exception, images: Any) -> InputError:
        """Returns the error for a model that raised `error` when it was called with images."""
        shape = tuple(images.shape) if isinstance(images, Tensor) else f"a list with one of {tuple(images[0].shape)}"
        return InputError(
            f"expected a model that takes images (N, 3, H, W) in [0, 1], got {_said(error)} from it for {shape}; check "
            "the size of the images (--size, or size=), the device and the dtype"
        )

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Returns the task's name and every option that results depend on."""


class Classification(Task):
    """Logits (N, K). Records store the predicted class number, or -1 if a logit is NaN."""

    name = "classification"
    data = LabelledImages
    options = ("mean", "std")

    def truth(self, targets: Any, place: int) -> dict[str, Any]:
        return {"label": int(targets[place])}

    def record(self, outputs: Any, targets: Any) -> list[Any]:
        shaped = isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] > 0
        if not shaped or outputs.dtype not in _FLOATS or outputs.is_meta or len(outputs) != len(targets):
            raise InputError(
                f"expected logits (N, classes) from a classifier, got {describe(outputs)}; return the logits alone, or "
                "give data of the model's task"
            )
        predictions: list[Any] = predicted(outputs).tolist()
        return predictions

    def majority(self, found: list[list[Any]]) -> list[Any]:
        # Of several classes with as many votes, the lowest number, as `smoothing.Majority` has it.
        return [max(sorted(set(column)), key=column.count) for column in zip(*found, strict=True)]

    def worst(self, found: list[list[Any]], targets: Any) -> list[Any]:
        labels = targets.tolist()
        columns = zip(*found, strict=True)
        # A wrong prediction, if there is one.
        return [
            next((one for one in column if one != label), label) for column, label in zip(columns, labels, strict=True)
        ]

    def check(self, outputs: Any, data: Any) -> None:
        classes = outputs.shape[1]
        if data.folders not in (None, classes):
            raise InputError(few_folders(data.folders, classes))
        for name, label in zip(data.names, data.labels, strict=True):
            if not 0 <= label < classes:
                raise InputError(
                    f"expected labels within 0..{classes - 1}, as the model has {classes} classes, got {label} for "
                    f"{name}; check the model, the class folders or the CSV file"
                )

    def settings(self) -> dict[str, Any]:
        return {"task": self.name}


class Segmentation(Task):
    """Logits (N, K, h, w), alone, as "out" (torchvision) or as .logits. Records store counts of pixels by class.

    A pixel whose largest logit is NaN or infinite is predicted as no class. Logits smaller than the masks are enlarged
    bilinearly.

    Args:
        ignore_index: Mask value of the pixels to ignore.
    """

    name = "segmentation"
    data = MaskedImages
    options = ("mean", "std", "ignore_index")

    def __init__(self, *, ignore_index: int = 255) -> None:
        self.ignore_index = check_integer("ignore_index", ignore_index, low=-MOST_CLASSES, high=MOST_CLASSES)

    def adapt(self, attack: Attack) -> Attack:
        if not attack.gradient:
            raise _unfit(attack, self)
        return attack if isinstance(attack, SSP) else SegmentationAttack(attack, ignore_index=self.ignore_index)

    def record(self, outputs: Any, targets: Any) -> list[Any]:
        logits = _dense(outputs, targets.shape[-2:])
        counts = count_pixels(predicted(logits), targets, logits.shape[1], ignore_index=self.ignore_index)
        return [count.to_dict() for count in counts]

    def draw(self, model: Any, images: list[Tensor]) -> list[Tensor]:
        logits = _dense(model(torch.stack(images)), images[0].shape[-2:])
        return [with_classes(image, classes) for image, classes in zip(images, predicted(logits), strict=True)]

    def check(self, outputs: Any, data: Any) -> None:
        classes, values = read_logits(outputs).shape[1], set[int]()
        for path in data.masks:
            mask = torch.from_numpy(read_mask(path)).long()
            check_masks(mask, classes, ignore_index=self.ignore_index)
            values.update(mask.unique().tolist())
        check_values(values, ignore_index=self.ignore_index)

    def settings(self) -> dict[str, Any]:
        return {"task": self.name, "ignore_index": self.ignore_index}


class Detection(Task):
    """Lists of {"boxes", "scores", "labels"}, as torchvision's. Records store the 100 best boxes of an image.

    Args:
        loss: The loss that attacks increase: "cls", "loc" or "cls+loc" of a torchvision detector, or a function of
            (outputs, targets) for others.
    """

    name = "detection"
    data = BoxedImages
    options = ("loss",)

    def __init__(self, *, loss: str | Loss = "cls+loc") -> None:
        if not callable(loss) and not isinstance(loss, str):
            raise OptionError(f"expected loss as 'cls', 'loc', 'cls+loc' or a function, got {shown(loss)}")
        self.loss = loss

    def adapt(self, attack: Attack) -> Attack:
        if isinstance(attack, SSP):
            return attack
        # Attacks without an exchangeable loss need logits, and a detector has no logits of an image.
        if not attack.gradient or not callable(getattr(attack, "loss", None)):
            raise _unfit(attack, self)
        return DetectionAttack(attack, loss=self.loss)  # type: ignore[arg-type]

    def attack_targets(self, targets: Any) -> Any:
        """Leaves out crowd regions, because they are not boxes of one object."""
        return [{key: target[key][target["iscrowd"] == 0] for key in ("boxes", "labels")} for target in targets]

    def record(self, outputs: Any, targets: Any) -> list[Any]:
        if not (isinstance(outputs, Sequence) and len(outputs) == len(targets) and all(map(_holds_boxes, outputs))):
            raise InputError(
                "expected a list of {'boxes', 'scores', 'labels'}, one for each image, with tensors (M, 4), (M,) and "
                f"(M,), from a detector in eval mode, got {describe(outputs)}"
            )
        return [_best_boxes(found) for found in outputs]

    def draw(self, model: Any, images: list[Tensor]) -> list[Tensor]:
        return [with_boxes(image, found) for image, found in zip(images, model(images), strict=True)]

    def check(self, outputs: Any, data: Any) -> None:
        """Checks nothing, because a detector does not state its categories."""

    def misfit(self, error: Exception, images: Any) -> InputError:
        return InputError(
            f"expected a detector that takes a list of images (3, H, W) of any sizes, got {_said(error)} from it; give "
            "one that takes a batch as a function, lambda images: model(torch.stack(list(images))), with images of one "
            "size"
        )

    def settings(self) -> dict[str, Any]:
        loss = self.loss if isinstance(self.loss, str) else getattr(self.loss, "__name__", type(self.loss).__name__)
        return {"task": self.name, "loss": loss}


def task_of(data: ImageSet, **options: Any) -> Task:
    """Returns the task that fits the type of the data.

    Args:
        data: The images and targets.
        **options: Options of `evaluate`; None means not given.

    Raises:
        InputError: If there is no task for such data.
        OptionError: If an option belongs to another task.
    """
    kinds: tuple[type[Task], ...] = (Classification, Segmentation, Detection)
    kind = next((kind for kind in kinds if isinstance(data, kind.data)), None)
    if kind is None:
        names = ", ".join(kind.data.__name__ for kind in kinds)
        raise InputError(f"expected data of one of the types {names}, got {type(data).__name__}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in kind.options:
            others = " and ".join(other.name for other in kinds if name in other.options)
            raise OptionError(f"expected {name} for {others} only, got it for {kind.name}; leave it out")
    return kind(**{name: value for name, value in given.items() if name not in ("mean", "std")})


def describe(outputs: Any) -> str:
    """Describes a model's outputs for an error message."""
    if isinstance(outputs, Tensor):
        kind = "" if outputs.dtype in _FLOATS else f" and {outputs.dtype}"
        return f"a tensor of shape {tuple(outputs.shape)}{kind}" + (" without values" if outputs.is_meta else "")
    if isinstance(outputs, dict):
        return f"a dict of {', '.join(map(str, outputs))}"
    if isinstance(outputs, list | tuple):
        return f"a {type(outputs).__name__} of {len(outputs)}" + (f", of {describe(outputs[0])}" if outputs else "")
    return type(outputs).__name__


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}"


def _dense(outputs: Any, size: Sequence[int]) -> Tensor:
    """Reads a segmenter's logits and enlarges them in the same way as the loss of attacks on segmenters."""
    logits = read_logits(outputs)
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def _holds_boxes(found: Any) -> bool:
    if not isinstance(found, dict) or not {"boxes", "scores", "labels"} <= found.keys():
        return False
    boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
    if not all(isinstance(values, Tensor) for values in (boxes, scores, labels)):
        return False
    return boxes.ndim == 2 and boxes.shape[1] == 4 and scores.shape == labels.shape == boxes.shape[:1]


def _best_boxes(found: dict[str, Tensor]) -> dict[str, Any]:
    best = found["scores"].argsort(descending=True, stable=True)[:_MOST_BOXES]
    # A thousandth of a pixel changes no IoU that matters, and keeps the lines of the records short.
    boxes, scores = found["boxes"][best].double(), found["scores"][best].double()
    return {
        "boxes": [[round(value, 3) for value in box] for box in boxes.tolist()],
        "scores": [round(score, 6) for score in scores.tolist()],
        "labels": found["labels"][best].tolist(),
    }


def _unfit(attack: Attack, task: Task) -> OptionError:
    return OptionError(
        f"expected an attack that fits {task.name}, got {attack.name}; use one that increases a loss, such as PGD or "
        "BIM"
    )
