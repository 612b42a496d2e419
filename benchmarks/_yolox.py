"""The kit's YOLOX-Nano as a detector of images of any size, and the losses that attacks on it climb."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch
from _kit import kit, kit_module, model
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou

_SIDE, _GREY = 416, 114 / 255


class Detector(nn.Module):
    """Letterboxes images in [0, 1] of any sizes, detects, and gives boxes in the images' own pixels.

    Args:
        net: Takes (N, 3, 416, 416), returns (N, A, 85): cx, cy, w, h, objectness, class scores.
        decode: Turns that into {"boxes", "scores", "labels"}.
        categories: Category id of each class.
    """

    categories: Tensor

    def __init__(self, net: nn.Module, decode: Any, categories: list[int]) -> None:
        super().__init__()
        self.net, self.decode = net, decode
        self.register_buffer("categories", torch.tensor(categories))

    def forward(self, images: Iterable[Tensor]) -> list[dict[str, Tensor]]:
        """Detects; every result also carries "raw", every box before suppression, through which gradients flow."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Tensor) -> dict[str, Tensor]:
        scale = _SIDE / max(image.shape[1:])
        size = [round(side * scale) for side in image.shape[1:]]
        small = F.interpolate(image[None], size, mode="bilinear", antialias=False)
        raw = self.net(F.pad(small, (0, _SIDE - size[1], 0, _SIDE - size[0]), value=_GREY))
        found = self.decode(raw.detach())[0]
        boxes = torch.cat((box_convert(raw[0, :, :4], "cxcywh", "xyxy") / scale, raw[0, :, 4:]), 1)
        return {
            "boxes": found["boxes"] / scale,
            "scores": found["scores"],
            "labels": self.categories[found["labels"]],
            "raw": boxes,
        }


def yolox(device: str = "cpu") -> Detector:
    """The kit's detector, in eval mode."""
    truth = json.loads((kit() / "coco_val100" / "instances.json").read_text())
    categories = sorted(category["id"] for category in truth["categories"])
    return Detector(model("yolox_nano"), kit_module().yolox_detections, categories).eval().to(device)


def loss_of(detector: Detector, kind: str = "cls+loc") -> Any:
    """Returns a loss, over all the boxes that overlap an object by half: lost score ("cls"), lost overlap ("loc")."""
    place = {int(category): number for number, category in enumerate(detector.categories)}

    def loss(outputs: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]) -> Tensor:
        terms = []
        for found, target in zip(outputs, targets, strict=True):
            raw = found["raw"]
            overlap = box_iou(raw[:, :4], target["boxes"])
            wanted = torch.tensor([place[int(label)] for label in target["labels"]], device=raw.device)
            score = (raw[:, 4:5] * raw[:, 5:][:, wanted]).clamp_min(1e-8)
            # Which boxes count is decided where they are now, not differentiated.
            near = (overlap > 0.5).detach() | (overlap == overlap.amax(0, keepdim=True)).detach()
            lost = {"cls": -score.log(), "loc": 1 - overlap}
            total = torch.stack([lost[part] for part in kind.split("+")]).sum(0)
            terms.append((total * near).sum() / near.sum().clamp_min(1))
        return torch.stack(terms).sum()

    loss.__name__ = kind
    return loss
