"""Labels the kit's photographs with the boxes of YOLOX-Nano, for the training of GAD in front of it.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.yolox_boxes runs/boxes.json

The photographs have no boxes; those that the detector itself finds with a score of at least 0.5 take their place. While
training, the detector sees the photographs at 160 pixels for 240, about as much smaller as it sees COCO's images, so
that perturbations look to the purifier as they will there. `detector` is that model for `purifier train gad`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torchvision.ops import box_convert
from tqdm import tqdm

from benchmarks.accuracy.yolox import Detector, yolox
from benchmarks.kit import kit
from purifier._files import write_text
from purifier.data.crops import resized
from purifier.data.images import read_pixels, to_tensor

# Sides of the samples, and of what the detector sees of them, in pixels. COCO's 640 become 416.
SAMPLE, SIDE = 240, 160


def detector() -> Detector:
    """The detector as the training uses it."""
    return yolox(side=SIDE)


@torch.no_grad()
def label(detector: Detector, photos: Path, size: int, file: Path) -> None:
    """Writes the boxes that the detector finds in photographs of `size` pixels, as COCO JSON."""
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, path in enumerate(tqdm(sorted(photos.glob("*.jpg")), desc="boxes", unit="image")):
        pixels = read_pixels(path)
        (found,) = detector([to_tensor(resized(pixels, size, size))])
        images.append({"id": number, "file_name": path.name})
        sure = found["scores"] >= 0.5
        found_boxes = found["boxes"][sure] * torch.tensor([pixels.shape[1] / size, pixels.shape[0] / size] * 2)
        pairs = zip(box_convert(found_boxes, "xyxy", "xywh"), found["labels"][sure].tolist(), strict=True)
        boxes += [{"image_id": number, "bbox": box.tolist(), "category_id": kind} for box, kind in pairs]
    kinds = {box["category_id"] for box in boxes}
    categories = [{"id": kind, "name": str(kind)} for kind in sorted(kinds)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"images": images, "annotations": boxes, "categories": categories}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    label(detector(), kit() / "photos", SAMPLE, parser.parse_args().file)


if __name__ == "__main__":
    main()
