"""mAP and mAP@0.5 by the definition of COCO, computed by torchmetrics."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from purifier._errors import InputError


def mean_average_precision(
    predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Returns {"map": mAP over IoU 0.50:0.95, "map_50": mAP at IoU 0.5}, both in [0, 1].

    Args:
        predictions: For each image boxes (M, 4) x1 y1 x2 y2, scores (M,) and labels (M,), as tensors or lists.
        targets: For each image boxes, labels and, optionally, iscrowd.

    Raises:
        InputError: If torchmetrics or pycocotools is missing, or no image has a box.
    """
    missing = [package for package in ("torchmetrics", "pycocotools") if find_spec(package) is None]
    if missing:
        raise InputError(
            f'expected the package {missing[0]} for mAP, got none; install it with pip install "torch-purifier[eval]"'
        )
    if not any(len(target["boxes"]) for target in targets):
        raise InputError(f"expected boxes in at least one of {len(targets)} images, got none; mAP needs boxes")
    with warnings.catch_warnings():
        # torchmetrics warns about over 100 boxes in an image, and about its own deprecations.
        warnings.simplefilter("ignore")
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox")
        metric.update(
            [_tensors(prediction, ("boxes", "scores", "labels")) for prediction in predictions],
            [_tensors(target, ("boxes", "labels", "iscrowd")) for target in targets],
        )
        found = metric.compute()
    return {name: float(found[name]) for name in ("map", "map_50")}


def _tensors(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Tensor]:
    kinds = {"boxes": torch.float32, "scores": torch.float32}
    tensors = {
        name: torch.as_tensor(record[name], dtype=kinds.get(name, torch.long)) for name in names if name in record
    }
    return {**tensors, "boxes": tensors["boxes"].reshape(-1, 4)}
