"""What differs between classification, segmentation and detection: predictions, their record, and what is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._errors import InputError, OptionError
from purifier.attacks import Attack
from purifier.attacks.base import Loss
from purifier.data.class_folders import few_folders
from purifier.data.sets import BoxedImages, ImageSet, LabelledImages, MaskedImages
from purifier.evaluation.metrics.segmentation import PixelCounts, check_masks, count_pixels

_MOST_BOXES = 100


class Task(ABC):
    """One kind of model: how its outputs become the record of an image."""

    name: ClassVar[str]
    data: ClassVar[type[ImageSet]]

    def adapt(self, attack: Attack) -> Attack:
        """Returns the attack in a form that takes this task's outputs and targets.

        Raises:
            OptionError: Where it does not fit the task.
        """
        return attack

    def attack_targets(self, targets: Any) -> Any:
        """Returns what an attack takes as targets."""
        return targets

    def truth(self, targets: Any, place: int) -> dict[str, Any]:
        """Returns what is kept of a target beside the prediction, by name."""
        return {}

    @abstractmethod
    def record(self, outputs: Any, targets: Any) -> list[Any]:
        """Returns what is kept of each image's prediction, fit for JSON.

        Raises:
            InputError: Where the outputs are not those of such a model.
        """

    @abstractmethod
    def check(self, outputs: Any, data: Any) -> None:
        """Checks that this task's data and a model fit, on the outputs of the first images; more than `record` does.

        Raises:
            InputError: Where they do not.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Returns what results depend on."""


class Classification(Task):
    """Logits (N, K); kept is the class number, or -1 where an output is not a number."""

    name = "classification"
    data = LabelledImages

    def truth(self, targets: Any, place: int) -> dict[str, Any]:
        return {"label": int(targets[place])}

    def record(self, outputs: Any, targets: Any) -> list[Any]:
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(targets):
            raise InputError(
                f"expected logits (N, classes) from a classifier, got {describe(outputs)}; return the logits "
                "alone, or choose the task that fits"
            )
        predictions: list[Any] = torch.where(outputs.isnan().any(1), -1, outputs.argmax(1)).tolist()
        return predictions

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
    """Per-pixel logits (N, K, h, w), alone, as "out" (torchvision) or as .logits; kept are counts of pixels by class.

    Logits smaller than the masks are enlarged bilinearly.

    Args:
        ignore_index: Mask value of pixels that do not count.
    """

    name = "segmentation"
    data = MaskedImages

    def __init__(self, *, ignore_index: int = 255) -> None:
        self.ignore_index = ignore_index

    def adapt(self, attack: Attack) -> Attack:
        from purifier.attacks import SSP, SegmentationAttack

        if not attack.gradient:
            raise _unfit(attack, self)
        return attack if isinstance(attack, SSP) else SegmentationAttack(attack, ignore_index=self.ignore_index)

    def record(self, outputs: Any, targets: Any) -> list[Any]:
        logits = _dense(outputs, targets.shape[-2:])
        counts = count_pixels(logits.argmax(1), targets, logits.shape[1], ignore_index=self.ignore_index)
        return [{name: getattr(c, name).tolist() for name in ("hits", "predicted", "labelled")} for c in counts]

    def check(self, outputs: Any, data: Any) -> None:
        from purifier.data.images import read_mask

        for path in data.masks:
            check_masks(
                torch.from_numpy(read_mask(path)).long(), _dense(outputs).shape[1], ignore_index=self.ignore_index
            )

    def settings(self) -> dict[str, Any]:
        return {"task": self.name, "ignore_index": self.ignore_index}


class Detection(Task):
    """Lists of {"boxes", "scores", "labels"} as torchvision's; kept are each image's best 100 boxes.

    Args:
        loss: What attacks climb: "cls", "loc" or "cls+loc" of a torchvision detector, or a function of (outputs,
            targets) for others.
    """

    name = "detection"
    data = BoxedImages

    def __init__(self, *, loss: str | Loss = "cls+loc") -> None:
        self.loss = loss

    def adapt(self, attack: Attack) -> Attack:
        from purifier.attacks import SSP, DetectionAttack

        if isinstance(attack, SSP):
            return attack
        # The others look at logits, of which a detector has none for an image.
        if not attack.gradient or not callable(getattr(attack, "loss", None)):
            raise _unfit(attack, self)
        return DetectionAttack(attack, loss=self.loss)  # type: ignore[arg-type]

    def attack_targets(self, targets: Any) -> Any:
        """Leaves crowd regions out, which are no boxes of one object."""
        return [{key: target[key][target["iscrowd"] == 0] for key in ("boxes", "labels")} for target in targets]

    def record(self, outputs: Any, targets: Any) -> list[Any]:
        if not (
            isinstance(outputs, Sequence)
            and len(outputs) == len(targets)
            and all(isinstance(found, dict) and {"boxes", "scores", "labels"} <= found.keys() for found in outputs)
        ):
            raise InputError(
                "expected a list of {'boxes', 'scores', 'labels'}, one an image, from a detector in eval mode, got "
                f"{describe(outputs)}"
            )
        return [_best_boxes(found) for found in outputs]

    def check(self, outputs: Any, data: Any) -> None:
        """Nothing more: a detector does not say what categories it knows."""

    def settings(self) -> dict[str, Any]:
        loss = self.loss if isinstance(self.loss, str) else getattr(self.loss, "__name__", type(self.loss).__name__)
        return {"task": self.name, "loss": loss}


def pixel_counts(record: dict[str, list[int]]) -> PixelCounts:
    """Reads back what segmentation keeps of an image."""
    return PixelCounts(*(torch.tensor(record[name]) for name in ("hits", "predicted", "labelled")))


def describe(outputs: Any) -> str:
    """Says what a model gave."""
    if isinstance(outputs, Tensor):
        return f"a tensor of shape {tuple(outputs.shape)}"
    if isinstance(outputs, dict):
        return f"a dict of {', '.join(map(str, outputs))}"
    if isinstance(outputs, list | tuple):
        return f"a {type(outputs).__name__} of {len(outputs)}" + (f", of {describe(outputs[0])}" if outputs else "")
    return type(outputs).__name__


def _dense(outputs: Any, size: Sequence[int] | None = None) -> Tensor:
    """Reads a segmenter's logits, enlarged to `size` as the loss of attacks on segmenters enlarges them."""
    from purifier.attacks.segmentation import read_logits

    logits = read_logits(outputs)
    if size is None or tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def _best_boxes(found: dict[str, Tensor]) -> dict[str, Any]:
    best = found["scores"].argsort(descending=True, stable=True)[:_MOST_BOXES]
    # A thousandth of a pixel: short lines, and no change of any IoU that matters.
    boxes, scores = found["boxes"][best].double(), found["scores"][best].double()
    return {
        "boxes": [[round(value, 3) for value in box] for box in boxes.tolist()],
        "scores": [round(score, 6) for score in scores.tolist()],
        "labels": found["labels"][best].tolist(),
    }


def _unfit(attack: Attack, task: Task) -> OptionError:
    return OptionError(
        f"expected an attack that fits {task.name}, got {attack.name}; take one that climbs a loss, such as PGD or BIM"
    )
