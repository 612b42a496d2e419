"""Detection: a feature vector a box, cut out of the backbone's features."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purifier._errors import InputError
from purifier.attacks import PGD, DetectionAttack, DetectionLoss
from purifier.attacks.detection import detector_parts
from purifier.training._data import read_rgb, to_tensor
from purifier.training.gad._config import GADTraining
from purifier.training.gad.tasks._base import Observed, Task
from purifier.training.gad.tasks._files import folder_of, resized
from purifier.training.gad.tasks._layers import last_layer

# Places a side that a box is averaged over.
_PLACES = 3
# A prediction counts with this score, and a box is found by one that overlaps it by this much.
_SCORE, _OVERLAP = 0.5, 0.5


class Detection(Task):
    """Images and boxes in a COCO file; a torchvision detector, whose loss mode gives the losses.

    Of a backbone with several maps, the first and finest is used. The detector runs in single precision.

    Raises:
        InputError: Where the model is no torchvision detector.
        OptionError: Where the layer that is named is not there.
    """

    downsamples, size = 4, 256
    eps, alpha, attack_steps = 8 / 255, 2 / 255, 4
    scores = "F1 of boxes (score and overlap at least 0.5)"

    def __init__(self, model: nn.Module, config: GADTraining) -> None:
        super().__init__(model, config)
        self._parts = detector_parts(model)
        detector: Any = self._parts[0]
        self._transform: nn.Module = detector.transform
        self._backbone = last_layer(model, nn.Module, config.layer) if config.layer else detector.backbone
        self._loss = DetectionLoss("cls+loc")
        inner = PGD(eps=self.eps, alpha=self.alpha, steps=self.attack_steps)
        self._attacks = DetectionAttack(inner, loss="cls"), DetectionAttack(inner, loss="loc")

    def __getstate__(self) -> dict[str, Any]:
        without = {"_parts", "_transform", "_backbone"}
        return {name: value for name, value in super().__getstate__().items() if name not in without}

    def items(self) -> list[tuple[Path, list[list[float]]]]:
        """Returns each image that has boxes, with rows x1 y1 x2 y2 category, in pixels; crowds are left out."""
        root = folder_of(self.config.data, "data")
        boxes = _read_boxes(self.config.annotations)
        items = [(root / name, rows) for name, rows in boxes.items() if rows]
        missing = [path for path, _ in items if not path.is_file()]
        if missing or not items:
            raise InputError(
                f"expected images with boxes below {root}, as {self.config.annotations} names them, got "
                + (f"none called {missing[0].name}" if missing else "none")
            )
        return items

    def load(
        self, item: tuple[Path, list[list[float]]], random: np.random.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Reads an image, squashed to a square and flipped at random, and its boxes with it."""
        pixels = read_rgb(item[0])
        height, width = pixels.shape[:2]
        rows = torch.tensor(item[1], dtype=torch.float64)
        boxes = rows[:, :4] * torch.tensor([self.size / width, self.size / height] * 2, dtype=torch.float64)
        pixels = resized(pixels, self.size, self.size)
        if random is not None and random.random() < 0.5:
            pixels = pixels[:, ::-1]
            boxes = torch.stack((self.size - boxes[:, 2], boxes[:, 1], self.size - boxes[:, 0], boxes[:, 3]), 1)
        return to_tensor(pixels), {"boxes": boxes.float(), "labels": rows[:, 4].long()}

    def collate(self, targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        return targets

    def attack(self, images: Tensor, targets: list[dict[str, Tensor]], step: int) -> Tensor:
        """PGD on the classification loss at even steps and on the localisation loss at odd ones."""
        with _single_precision(images):
            return self._attacks[step % 2](self.model, images, targets)

    def observe(self, images: Tensor, targets: list[dict[str, Tensor]]) -> Observed:
        from torchvision.ops import roi_align

        caught: dict[str, Any] = {}
        hooks = [
            self._transform.register_forward_hook(lambda _, __, outputs: caught.update(transformed=outputs)),
            self._backbone.register_forward_hook(lambda _, __, outputs: caught.update(features=outputs)),
        ]
        try:
            with _single_precision(images), self._loss_mode():
                loss = self._loss(self.model(list(images.float()), targets), None)
                features = _first(caught["features"])
                transformed, moved = caught["transformed"]
                scale = features.shape[-1] / transformed.tensors.shape[-1]
                boxes = [target["boxes"] for target in moved]
                vectors = roi_align(features, boxes, _PLACES, scale, 2, aligned=True).mean((2, 3))
        finally:
            for hook in hooks:
                hook.remove()
        return Observed(loss, vectors, torch.cat([target["labels"] for target in targets]))

    def score(self, images: Tensor, targets: list[dict[str, Tensor]]) -> float:
        found, said, there = 0, 0, 0
        for predicted, target in zip(self.model(list(images)), targets, strict=True):
            sure = predicted["scores"] >= _SCORE
            boxes, labels = predicted["boxes"][sure], predicted["labels"][sure]
            found += _matches(boxes, labels, target["boxes"], target["labels"])
            said, there = said + len(boxes), there + len(target["boxes"])
        return 2 * found / max(1, said + there)

    @contextmanager
    def _loss_mode(self) -> Iterator[None]:
        """The detector's own flags alone, so that batch norm and dropout stay in eval mode."""
        for part in self._parts:
            part.training = True
        try:
            yield
        finally:
            for part in self._parts:
                part.training = False


def _single_precision(images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, enabled=False)


def _first(features: Any) -> Tensor:
    """The first map of a backbone that gives several."""
    if isinstance(features, Mapping):
        features = list(features.values())
    first = features[0] if isinstance(features, list | tuple) else features
    if not isinstance(first, Tensor) or first.ndim != 4:
        raise InputError(
            f"expected feature maps (N, C, h, w) from the backbone, got {type(first).__name__}; name another module "
            "with layer=..."
        )
    return first


def _matches(boxes: Tensor, labels: Tensor, truth: Tensor, classes: Tensor) -> int:
    """Number of true boxes that predictions find, best first, each at most one."""
    from torchvision.ops import box_iou

    overlaps = box_iou(boxes, truth).masked_fill(labels[:, None] != classes[None], 0.0)
    found = 0
    for number in range(len(boxes)):
        best = int(overlaps[number].argmax())
        if overlaps[number, best] >= _OVERLAP:
            overlaps[:, best] = 0
            found += 1
    return found


def _read_boxes(annotations: str) -> dict[str, list[list[float]]]:
    """Reads a COCO file: rows x1 y1 x2 y2 category of each image's boxes by its file name."""
    try:
        truth = json.loads(Path(annotations).read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in truth["images"]}
        boxes: dict[str, list[list[float]]] = {name: [] for name in names.values()}
        for entry in truth["annotations"]:
            x, y, width, height = entry["bbox"]
            # Boxes without an area are marks, and detectors refuse them.
            if width > 0 and height > 0 and not entry.get("iscrowd", 0):
                boxes[names[entry["image_id"]]].append([x, y, x + width, y + height, entry["category_id"]])
    except OSError as error:
        raise InputError(
            f"expected annotations to be a COCO JSON file, got {annotations!r}, which cannot be read: {error}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"expected COCO instances with images and annotations in {annotations}, got something else: {error!r}"
        ) from error
    return boxes
