"""The kit's YOLOX-Nano as a detector of images of any size, and the losses that attacks on it increase."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou

from benchmarks.kit import kit, kit_module, model

_GREY = 114 / 255
KINDS = ("cls", "loc", "cls+loc")


class Detector(nn.Module):
    """Detects objects in images in [0, 1] of any sizes, letterboxed; boxes are in the images' own pixels.

    Args:
        net: Takes (N, 3, side, side), returns (N, A, 85): cx, cy, w, h, objectness, class scores.
        decode: Takes that output, returns {"boxes", "scores", "labels"} for each image.
        categories: Category id of each class.
        side: Length that the longer side of an image is scaled to, in pixels.
    """

    categories: Tensor

    def __init__(self, net: nn.Module, decode: Any, categories: list[int], side: int = 416) -> None:
        super().__init__()
        self.net, self.decode, self.side = net, decode, side
        self.register_buffer("categories", torch.tensor(categories))

    def forward(self, images: Iterable[Tensor]) -> list[dict[str, Tensor]]:
        """Returns the detections; "raw" has all boxes before suppression, and gradients flow through it."""
        images = list(images)
        together = len({image.shape for image in images}) == 1
        batches = [torch.stack(images)] if together else [image[None] for image in images]
        return [found for batch in batches for found in self._detect(batch)]

    def _detect(self, images: Tensor) -> list[dict[str, Tensor]]:
        scale = self.side / max(images.shape[2:])
        size = [round(side * scale) for side in images.shape[2:]]
        small = F.interpolate(images, size, mode="bilinear", antialias=False)
        raw = self.net(F.pad(small, (0, self.side - size[1], 0, self.side - size[0]), value=_GREY))
        boxes = torch.cat((box_convert(raw[..., :4], "cxcywh", "xyxy") / scale, raw[..., 4:]), 2)
        return [
            {
                "boxes": found["boxes"] / scale,
                "scores": found["scores"],
                "labels": self.categories[found["labels"]],
                "raw": rows,
            }
            for found, rows in zip(self.decode(raw.detach()), boxes, strict=True)
        ]


def yolox(device: str = "cpu", side: int = 416) -> Detector:
    """The kit's detector, in eval mode."""
    truth = json.loads((kit() / "coco_val100" / "instances.json").read_text())
    categories = sorted(category["id"] for category in truth["categories"])
    return Detector(model("yolox_nano"), kit_module().yolox_detections, categories, side).eval().to(device)


def index_of(detector: Detector) -> Callable[[Tensor], Tensor]:
    """Returns a function from categories (M,) to the detector's class numbers."""
    place = {int(category): number for number, category in enumerate(detector.categories)}
    return lambda labels: torch.tensor([place[int(label)] for label in labels], dtype=torch.long, device=labels.device)


def loss_of(detector: Detector, kind: str = "cls+loc") -> Any:
    """Returns a loss over the boxes that overlap an object by half: lost score ("cls"), overlap ("loc"), or both."""
    index = index_of(detector)

    def loss(outputs: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]) -> Tensor:
        terms = []
        for found, target in zip(outputs, targets, strict=True):
            raw = found["raw"]
            overlap = box_iou(raw[:, :4], target["boxes"])
            score = (raw[:, 4:5] * raw[:, 5:][:, index(target["labels"])]).clamp_min(1e-8)
            # Which boxes count is not differentiated.
            near = (overlap > 0.5).detach() | (overlap == overlap.amax(0, keepdim=True)).detach()
            lost = {"cls": -score.log(), "loc": 1 - overlap}
            total = torch.stack([lost[part] for part in kind.split("+")]).sum(0)
            terms.append((total * near).sum() / near.sum().clamp_min(1))
        return torch.stack(terms).sum()

    loss.__name__ = kind
    return loss
